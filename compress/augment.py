"""Augmentation of spectrograms, drawn per window, vectorised over the batch, on the device.

Every random number is a hash of (seed, view, window, which), so that a view of a window is the
same whichever batch, process or epoch asks for it. That is what lets a teacher's logits for a view
be computed once and stored.

    dB (B, mels, frames) -> mixup in power -> standardise -> stretch and shift -> noise
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.frontend import FLOOR_DB
from compress.recipe import Augmentation

_NOISE_VALUES = 2**20
_MASK = (1 << 64) - 1

_DRAWS = (
    "mix_yes", "mix_partner", "mix_share", "stretch_yes", "stretch_rate", "time_yes", "time_by",
    "frequency_yes", "frequency_by", "noise_yes", "noise_amplitude", "noise_offset",
)  # fmt: skip


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift of int64 (torch shifts arithmetically)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix64(x: torch.Tensor) -> torch.Tensor:
    """Finaliser of SplitMix64 (Steele et al. 2014) on int64 tensors, wrapping."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def uniforms(seed: int, view: int, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Numbers in [0, 1) for each window, by what they decide: name -> (B,) float32."""
    stream = _splitmix64(torch.tensor([_signed(seed * 0x632BE59BD9B4E019 + view)]))
    keys = _splitmix64(stream.to(windows.device) ^ windows)  # (B,)
    which = torch.arange(len(_DRAWS), device=windows.device)
    bits = _splitmix64(keys[:, None] + which * _signed(0xD1342543DE82EF95))  # (B, draws)
    values = _shift_right(bits, 40).to(torch.float32) / 2**24
    return dict(zip(_DRAWS, values.unbind(1), strict=True))


@dataclass
class Mix:
    """Which windows of a batch are mixed: rows, their partners (window numbers) and shares."""

    rows: torch.Tensor
    partners: torch.Tensor
    shares: torch.Tensor


class Augmenter:
    """Augments batches of one set of windows.

    settings: probabilities and ranges. count: windows to draw mixing partners from.
    """

    def __init__(
        self, settings: Augmentation, seed: int, count: int, device: torch.device | str = "cpu"
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.count = count
        generator = torch.Generator().manual_seed(20_231_015)
        self._noise = torch.randn(_NOISE_VALUES, generator=generator).to(device)

    def draw(self, view: int, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        return uniforms(self.seed, view, windows)

    def mix(self, draws: dict[str, torch.Tensor]) -> Mix | None:
        """What mixup does to a batch with these draws, or None."""
        if not self.settings.mixup_probability:
            return None
        rows = torch.nonzero(draws["mix_yes"] < self.settings.mixup_probability)[:, 0]
        if not len(rows):
            return None
        partners = (draws["mix_partner"][rows].double() * self.count).long()
        least = self.settings.mixup_least
        return Mix(rows, partners, least + (1 - least) * draws["mix_share"][rows])

    def standardised(
        self, x: torch.Tensor, draws: dict[str, torch.Tensor], floor: torch.Tensor
    ) -> torch.Tensor:
        """Shift, stretch and noise on standardised windows (B, mels, frames), which is changed.

        floor: (mels,) standardised value of the -80 dB floor, which fills emptied bands.
        """
        s = self.settings
        self._time(x, draws)
        rows = torch.nonzero(draws["frequency_yes"] < s.frequency_shift_probability)[:, 0]
        if len(rows):
            x[rows] = shift_bands(x[rows], _bands(draws["frequency_by"][rows], s, x), floor)
        rows = torch.nonzero(draws["noise_yes"] < s.noise_probability)[:, 0]
        if len(rows):
            size = x.shape[1] * x.shape[2]
            starts = (draws["noise_offset"][rows] * (_NOISE_VALUES - size)).long()
            noise = self._noise.unfold(0, size, 1)[starts].view(-1, *x.shape[1:])
            amplitude = s.noise_least + (s.noise_most - s.noise_least) * draws["noise_amplitude"]
            x[rows] += noise * amplitude[rows, None, None]
        return x

    def _time(self, x: torch.Tensor, draws: dict[str, torch.Tensor]) -> None:
        s = self.settings
        stretch = draws["stretch_yes"] < s.time_stretch_probability
        shift = draws["time_yes"] < s.time_shift_probability
        rows = torch.nonzero(stretch | shift)[:, 0]
        if not len(rows):
            return
        frames = x.shape[2]
        slow, fast = s.time_stretch_least, s.time_stretch_most
        rates = torch.where(stretch, slow + (fast - slow) * draws["stretch_rate"], 1.0)[rows]
        most = s.time_shift_most * frames
        shifts = torch.where(shift, torch.round((2 * draws["time_by"] - 1) * most), 0.0)[rows]
        x[rows] = stretch_and_roll(x[rows], rates, shifts)


def _bands(uniform: torch.Tensor, s: Augmentation, x: torch.Tensor) -> torch.Tensor:
    most = s.frequency_shift_most * x.shape[1]
    return torch.round((2 * uniform - 1) * most).long()


def stretch_and_roll(x: torch.Tensor, rates: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Play each window at its rate about its middle, then roll it; time wraps around.

    x: (B, mels, frames); rates, shifts: (B,), shifts in frames. Rate 1 and shift k equal torch.roll
    by k. Values between frames are interpolated linearly, so the range is kept.
    """
    batch, mels, frames = x.shape
    middle = (frames - 1) / 2
    at = torch.arange(frames, device=x.device) - shifts[:, None]
    at = torch.remainder(at, frames)
    at = torch.remainder((at - middle) * rates[:, None] + middle, frames)  # (B, frames)
    left = at.floor()
    weight = (at - left)[:, None, :]
    first = left.long().clamp_(max=frames - 1)
    second = torch.where(first + 1 == frames, 0, first + 1)
    shape = (batch, mels, frames)
    a = x.gather(2, first[:, None, :].expand(shape))
    b = x.gather(2, second[:, None, :].expand(shape))
    return torch.lerp(a, b, weight)


def shift_bands(x: torch.Tensor, by: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Move each window up (by > 0) or down in mel bands; emptied bands hold ``floor``.

    x: (B, mels, frames); by: (B,) int64; floor: (mels,).
    """
    mels = x.shape[1]
    source = torch.arange(mels, device=x.device) - by[:, None]  # (B, mels)
    inside = (source >= 0) & (source < mels)
    moved = x.gather(1, source.clamp(0, mels - 1)[:, :, None].expand(x.shape))
    return torch.where(inside[:, :, None], moved, floor[None, :, None])


def mix_power(a_db: torch.Tensor, b_db: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Mix two windows as their sounds would mix: powers add (between-class mixing, 1711.10282).

    a_db, b_db: (B, mels, frames) dB; shares: (B,) of the first. Powers are added, not amplitudes,
    because the phases of two sources are unrelated. The result keeps the floor and, where both
    windows had their loudest bin at 0 dB, has it there again.
    """
    scale = 0.1 * 2.302585092994046  # ln(10) / 10
    shares = shares[:, None, None]
    power = shares * torch.exp(a_db * scale) + (1 - shares) * torch.exp(b_db * scale)
    mixed = torch.log(power) / scale
    loudest_of_two = torch.maximum(a_db.amax((1, 2)), b_db.amax((1, 2)))
    correction = loudest_of_two - mixed.amax((1, 2))
    return (mixed + correction[:, None, None]).clamp_(min=FLOOR_DB)
