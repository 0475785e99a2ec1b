"""Augmentation of spectrograms, drawn per window, vectorised over the batch, on the device.

Every random number is a hash of (seed, view, window, which), so that a view of a window is the
same whichever batch, process or epoch asks for it. That is what lets a teacher's logits for a view
be computed once and stored.

    dB (B, mels, frames) -> crop -> background -> one of two mixings, in power -> gain
    -> standardise -> style -> stretch and shift -> noise -> masks

What needs other windows is given them by :class:`compress.material.Material`: ``Rows`` say which
windows of the batch and which others.
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
    "crop_yes", "crop_by", "background_yes", "background_partner", "background_level",
    "between_yes", "between_partner", "between_ratio", "gain_yes", "gain_by",
    "style_yes", "style_partner", "style_share", "time_mask_yes", "time_mask_width", "time_mask_at",
    "frequency_mask_yes", "frequency_mask_width", "frequency_mask_at",
)  # fmt: skip
"""The order is part of every view: new ones go to the end."""

_DB = 0.1 * 2.302585092994046  # ln(10) / 10: dB -> natural logarithm of power
_QUANTILES = 4096
_SMALLEST_DEVIATION = 1e-3


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
class Rows:
    """Some windows of a batch and what each meets: ``rows`` (n,), ``partners`` (n,) numbers of
    other windows, ``values`` (n,): a share, a ratio or a level."""

    rows: torch.Tensor
    partners: torch.Tensor
    values: torch.Tensor


class Augmenter:
    """Augments batches of one set of windows.

    settings: probabilities and ranges. count: windows to draw partners from. labels: (count,)
    class of each, -1 where unknown; between-class mixing needs them.
    """

    def __init__(
        self,
        settings: Augmentation,
        seed: int,
        count: int,
        device: torch.device | str = "cpu",
        labels: torch.Tensor | None = None,
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.count = count
        generator = torch.Generator().manual_seed(20_231_015)
        self._noise = torch.randn(_NOISE_VALUES, generator=generator).to(device)
        self._others = None
        if settings.between_class_probability and labels is not None:
            self._others = OtherClasses(labels.to(device))
        self._shares = None
        if settings.style_probability:
            self._shares = beta_quantiles(settings.style_alpha).to(device)

    def draw(self, view: int, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        return uniforms(self.seed, view, windows)

    def crop(self, draws: dict[str, torch.Tensor], step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows that begin later than they do, and by how many frames, 1 to ``step`` - 1."""
        rows = _chosen(draws["crop_yes"], self.settings.time_crop_probability)
        return rows, 1 + (draws["crop_by"][rows] * (step - 1)).long()

    def background(self, draws: dict[str, torch.Tensor]) -> Rows | None:
        """Windows that get another behind them, and how many dB that one is lower."""
        s = self.settings
        rows = _chosen(draws["background_yes"], s.background_probability)
        if not len(rows):
            return None
        below = s.background_least + (s.background_most - s.background_least) * (
            draws["background_level"][rows]
        )
        return Rows(rows, self._any(draws["background_partner"][rows]), below)

    def mix(self, draws: dict[str, torch.Tensor]) -> Rows | None:
        """What mixup does to a batch with these draws: shares of the first window, or None."""
        rows = _chosen(draws["mix_yes"], self.settings.mixup_probability)
        if not len(rows):
            return None
        least = self.settings.mixup_least
        shares = least + (1 - least) * draws["mix_share"][rows]
        return Rows(rows, self._any(draws["mix_partner"][rows]), shares)

    def mix_between(
        self, draws: dict[str, torch.Tensor], windows: torch.Tensor
    ) -> Rows | None:
        """Windows mixed with one of another class, and the ratio of the first; or None.

        A window that mixup takes is not mixed again.
        """
        s = self.settings
        if self._others is None or not self._others.several:
            return None
        taken = draws["mix_yes"] < s.mixup_probability
        yes = (draws["between_yes"] < s.between_class_probability) & ~taken
        rows = torch.nonzero(yes)[:, 0]
        if not len(rows):
            return None
        partners = self._others.pick(windows[rows], draws["between_partner"][rows])
        return Rows(rows, partners, draws["between_ratio"][rows])

    def gain(self, decibels: torch.Tensor, draws: dict[str, torch.Tensor]) -> None:
        """Louder or quieter, in place: (B, mels, frames) dB."""
        s = self.settings
        rows = _chosen(draws["gain_yes"], s.gain_probability)
        if len(rows):
            by = (2 * draws["gain_by"][rows] - 1) * s.gain_most
            decibels[rows] = change_gain(decibels[rows], by)

    def style(self, draws: dict[str, torch.Tensor]) -> Rows | None:
        """Windows that get some of another's band statistics, and the share of their own."""
        rows = _chosen(draws["style_yes"], self.settings.style_probability)
        if not len(rows) or self._shares is None:
            return None
        shares = self._shares[(draws["style_share"][rows] * _QUANTILES).long()]
        return Rows(rows, self._any(draws["style_partner"][rows]), shares)

    def _any(self, uniform: torch.Tensor) -> torch.Tensor:
        return (uniform.double() * self.count).long()

    def standardised(
        self, x: torch.Tensor, draws: dict[str, torch.Tensor], floor: torch.Tensor
    ) -> torch.Tensor:
        """Shift, stretch, noise and masks on standardised windows (B, mels, frames), in place.

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
        for name, most, axis in (
            ("time_mask", s.time_mask_most, 2),
            ("frequency_mask", s.frequency_mask_most, 1),
        ):
            rows = _chosen(draws[f"{name}_yes"], getattr(s, f"{name}_probability"))
            if len(rows):
                width, at = draws[f"{name}_width"][rows], draws[f"{name}_at"][rows]
                x[rows] = mask(x[rows], width * (most * x.shape[axis] + 1), at, axis)
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


def _chosen(uniform: torch.Tensor, probability: float) -> torch.Tensor:
    """Rows of a batch that a change of this probability takes."""
    return torch.nonzero(uniform < probability)[:, 0]


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
    """Mix two windows as their sounds would mix: powers add.

    a_db, b_db: (B, mels, frames) dB; shares: (B,) of the first. Powers are added, not amplitudes,
    because the phases of two sources are unrelated. The result keeps the floor and, where both
    windows had their loudest bin at 0 dB, has it there again.
    """
    mixed = _sum(a_db, b_db, shares, 1 - shares)
    loudest_of_two = torch.maximum(a_db.amax((1, 2)), b_db.amax((1, 2)))
    correction = loudest_of_two - mixed.amax((1, 2))
    return (mixed + correction[:, None, None]).clamp_(min=FLOOR_DB)


def mix_ratio(a_db: torch.Tensor, b_db: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
    """Between-class mixing (Tokozume et al. 2018, arXiv 1711.10282) on spectrograms.

    a_db, b_db: (B, mels, frames) dB; ratios r: (B,) of the first, which is also its share of the
    label. The paper's amplitude p = 1 / (1 + 10^((G_a - G_b) / 20) (1 - r) / r) makes r what is
    heard, whatever the levels G are; here G is the window's mean power, and p^2 weighs powers.
    """
    gap = (_level(a_db) - _level(b_db)) / 20
    r = ratios.clamp(1e-6, 1 - 1e-6)
    p = 1 / (1 + torch.pow(10.0, gap) * (1 - r) / r)
    share = p.square() / (p.square() + (1 - p).square())
    return mix_power(a_db, b_db, share)


def add_background(a_db: torch.Tensor, b_db: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """The first window with the second ``below`` (B,) dB lower behind it, by mean power.

    The first window's own loudest bin stays where it was.
    """
    factor = torch.exp((_level(a_db) - below - _level(b_db)) * _DB)
    mixed = _sum(a_db, b_db, torch.ones_like(factor), factor)
    correction = a_db.amax((1, 2)) - mixed.amax((1, 2))
    return (mixed + correction[:, None, None]).clamp_(min=FLOOR_DB)


def _sum(
    a_db: torch.Tensor, b_db: torch.Tensor, of_a: torch.Tensor, of_b: torch.Tensor
) -> torch.Tensor:
    power = of_a[:, None, None] * torch.exp(a_db * _DB)
    power += of_b[:, None, None] * torch.exp(b_db * _DB)
    return power.log_().div_(_DB)


def _level(decibels: torch.Tensor) -> torch.Tensor:
    """Mean power of each window in dB, (B,)."""
    return torch.log(torch.exp(decibels * _DB).mean((1, 2))) / _DB


def change_gain(decibels: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """(B, mels, frames) dB louder by (B,) dB, kept within the floor and 0 dB; silence stays."""
    changed = (decibels + by[:, None, None]).clamp_(FLOOR_DB, 0.0)
    return torch.where(decibels <= FLOOR_DB, decibels, changed)


def later_window(
    a_db: torch.Tensor,
    b_db: torch.Tensor,
    by: torch.Tensor,
    step: int,
    to_loudest: bool,
    tolerance_db: float = 0.05,
) -> torch.Tensor:
    """The window that starts ``by`` (B,) frames after the first, 0 to ``step``.

    a_db, b_db: (B, mels, frames); the second is the same sound ``step`` frames later. Their common
    frames differ by one level where each has its own reference; the second is moved to the first's.
    Windows whose common frames differ by more than that (another step) stay as they are.
    to_loudest: set the loudest bin where the first had its own, as a reference per window does.
    """
    frames = a_db.shape[2]
    common_a, common_b = a_db[:, :, step:], b_db[:, :, : frames - step]
    audible = (common_a > FLOOR_DB) & (common_b > FLOOR_DB)
    count = audible.sum((1, 2)).clamp(min=1)
    gap = ((common_a - common_b) * audible).sum((1, 2)) / count
    worst = ((common_a - common_b - gap[:, None, None]).abs() * audible).amax((1, 2))
    moved = (b_db + gap[:, None, None]).clamp(min=FLOOR_DB)
    both = torch.cat([a_db, moved[:, :, frames - step :]], dim=2)  # (B, mels, frames + step)
    at = by[:, None] + torch.arange(frames, device=a_db.device)
    later = both.gather(2, at[:, None, :].expand(a_db.shape))
    if to_loudest:
        later = later + (a_db.amax((1, 2)) - later.amax((1, 2)))[:, None, None]
        later = later.clamp_(min=FLOOR_DB)
    fits = (worst <= tolerance_db) & audible.any(2).any(1)
    return torch.where(fits[:, None, None], later, a_db)


def mix_style(x: torch.Tensor, other: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Freq-MixStyle: each band's mean and deviation over time, partly those of another window.

    (Schmid et al. 2022, arXiv 2206.12513, after MixStyle, arXiv 2104.02008.)
    x, other: (B, mels, frames) standardised; shares: (B,) of the window's own statistics.
    """
    shares = shares[:, None, None]
    deviation, mean = torch.std_mean(x, 2, correction=0, keepdim=True)
    their_deviation, their_mean = torch.std_mean(other, 2, correction=0, keepdim=True)
    to_deviation = torch.lerp(their_deviation, deviation, shares)
    to_mean = torch.lerp(their_mean, mean, shares)
    return (x - mean) * (to_deviation / deviation.clamp(min=_SMALLEST_DEVIATION)) + to_mean


def mask(x: torch.Tensor, widths: torch.Tensor, at: torch.Tensor, axis: int) -> torch.Tensor:
    """One mask per window over whole frames (axis 2) or bands (axis 1), filled with 0, the mean.

    (SpecAugment: Park et al. 2019, arXiv 1904.08779.) x: (B, mels, frames) standardised; widths:
    (B,), rounded down; at: (B,) in [0, 1), where between the first and the last place it lies.
    """
    size = x.shape[axis]
    widths = widths.floor().clamp(max=size)
    first = (at * (size - widths + 1)).floor()
    place = torch.arange(size, device=x.device)
    hidden = (place >= first[:, None]) & (place < (first + widths)[:, None])  # (B, size)
    shape = hidden[:, None, :] if axis == 2 else hidden[:, :, None]
    return x.masked_fill(shape, 0.0)


def beta_quantiles(alpha: float) -> torch.Tensor:
    """Quantiles of Beta(alpha, alpha) in the middles of equal shares: a draw by table."""
    import numpy as np
    from scipy.special import betaincinv

    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return torch.from_numpy(betaincinv(alpha, alpha, at).astype(np.float32))


class OtherClasses:
    """Draws, for a window, one of another class; unknown labels (-1) are a class of their own."""

    def __init__(self, labels: torch.Tensor) -> None:
        self._order = torch.argsort(labels, stable=True)
        _, which, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        ends = counts.cumsum(0)
        self._first, self._size = (ends - counts)[which], counts[which]
        self.several = len(counts) > 1

    def pick(self, windows: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """(n,) windows and numbers in [0, 1) -> (n,) windows of other classes."""
        first, size = self._first[windows], self._size[windows]
        place = (uniform.double() * (len(self._order) - size)).long()
        return self._order[torch.where(place >= first, place + size, place)]
