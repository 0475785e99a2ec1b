"""What a network is trained on: windows of one or more sets, standardised, augmented, in batches.

Windows are prepared in chunks of some thousand and cut into batches, so that small batches cost
no more per window than large ones. Codes stay on disk, or on the device where they fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compress.augment import (
    Augmenter,
    Rows,
    add_background,
    later_window,
    mix_power,
    mix_ratio,
    mix_style,
)
from compress.data.audio import window_step
from compress.data.sets import CODES_PER_DB, SpectrogramSet
from compress.frontend import FLOOR_DB
from compress.recipe import Augmentation

CHUNK = 1024
_DEVICE_CHUNK = 8192
KNEE_DB = FLOOR_DB + 1.0
"""Lower values are silence: a spectrogram's floor, and what rounding or noise makes of it."""
SILENCE_DEVIATIONS = -3.0
"""Where silence lies in every band: so many deviations of sound from its mean, or, where the
quietest sound is lower, LEAST_STEP_DEVIATIONS below that."""
LEAST_STEP_DEVIATIONS = 0.25
_DEVICE_SHARE = 0.5


@dataclass(frozen=True)
class Normalisation:
    """From dB to the network's units, band by band; every array is (mels,).

    ``silence`` None (``band``): (dB - mean) / deviation over all training values. Otherwise
    (``mixture``) silence and sound are two components: mean and deviation are those of sound alone,
    values from KNEE_DB up, and silence lies at a place of its own, ``silence``, with a straight
    step from there (-80 dB) to the quietest sound (KNEE_DB). The map rises everywhere.
    """

    mean: np.ndarray
    deviation: np.ndarray
    silence: np.ndarray | None = None

    @property
    def kind(self) -> str:
        return "band" if self.silence is None else "mixture"

    @property
    def step_slope(self) -> np.ndarray | None:
        """Standardised units per dB between silence and sound, (mels,); None without a step."""
        if self.silence is None:
            return None
        quietest = (KNEE_DB - self.mean) / self.deviation
        return ((quietest - self.silence) / (KNEE_DB - FLOOR_DB)).astype(np.float32)

    def apply(self, decibels: torch.Tensor) -> torch.Tensor:
        """dB (..., mels, frames) -> standardised."""
        mean, deviation = self._columns(decibels)
        slope = self.step_slope
        if slope is None:
            return (decibels - mean) / deviation
        sound, quiet = decibels.clamp(min=KNEE_DB), decibels.clamp(FLOOR_DB, KNEE_DB)
        return (sound - mean) / deviation + (quiet - KNEE_DB) * _column(slope, decibels)

    def invert(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised (..., mels, frames) -> dB; the lowest line goes on below -80 dB."""
        mean, deviation = self._columns(x)
        decibels = x * deviation + mean
        slope = self.step_slope
        if slope is None:
            return decibels
        quietest = (KNEE_DB - mean) / deviation
        return torch.where(x < quietest, KNEE_DB + (x - quietest) / _column(slope, x), decibels)

    def _columns(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _column(self.mean, like), _column(self.deviation, like)

    def to_dict(self) -> dict[str, Any]:
        found = {"mean_db": self.mean.tolist(), "deviation_db": self.deviation.tolist()}
        if self.silence is None:
            return {"kind": self.kind, **found}
        return {"kind": self.kind, **found, "silence": self.silence.tolist(), "knee_db": KNEE_DB}


def _column(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values)[:, None].to(like.device)  # (mels, 1)


def measure_normalisation(
    data: SpectrogramSet, windows: np.ndarray, block: int = 4096, kind: str = "band"
) -> Normalisation:
    """Per band over all frames of ``windows``, in blocks and float64; a constant band gets 1 dB.

    kind: ``band`` or ``mixture``, as in :class:`Normalisation`.
    """
    knee = KNEE_DB * CODES_PER_DB if kind == "mixture" else -np.inf
    count = np.zeros(data.mels)
    total = np.zeros(data.mels)
    squares = np.zeros(data.mels)
    for start in range(0, len(windows), block):
        values = np.sort(windows[start : start + block])
        codes = data.read(values).astype(np.float64)
        if kind == "mixture":
            sounds = codes >= knee
            count += sounds.sum((0, 2))
            codes *= sounds
        else:
            count += codes.shape[0] * codes.shape[2]
        total += codes.sum((0, 2))
        squares += np.einsum("nmf,nmf->m", codes, codes)
    count = np.maximum(count, 1)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    deviation = np.sqrt(variance) / CODES_PER_DB
    deviation[deviation < 1e-3] = 1.0
    mean = (mean / CODES_PER_DB).astype(np.float32)
    deviation = deviation.astype(np.float32)
    if kind == "band":
        return Normalisation(mean, deviation)
    quietest = (KNEE_DB - mean) / deviation
    silence = np.minimum(SILENCE_DEVIATIONS, quietest - LEAST_STEP_DEVIATIONS)
    return Normalisation(mean, deviation, silence.astype(np.float32))


@dataclass
class Batch:
    """x: (B, 1, mels, frames) standardised; targets: (B, classes), rows of 0 where unlabelled;
    positions: (B,) int64 of the windows in the material; view: which augmented view."""

    x: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    view: int


class Material:
    """Training windows by position 0..len-1 over one labelled set and any unlabelled ones.

    parts: (set, window numbers) in order; labels of the sets after the first are ignored.
    """

    def __init__(
        self,
        parts: list[tuple[SpectrogramSet, np.ndarray]],
        classes: int,
        normalisation: Normalisation,
        augmentation: Augmentation,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.classes = classes
        self._sets = [data for data, _ in parts]
        self._windows = np.concatenate([windows for _, windows in parts])
        self._owner = np.repeat(np.arange(len(parts)), [len(windows) for _, windows in parts])
        labels = [
            data.labels[windows] if part == 0 else np.full(len(windows), -1)
            for part, (data, windows) in enumerate(parts)
        ]
        every_label = np.concatenate(labels)
        self._targets = _one_hot(every_label, classes).to(self.device)
        self._normalisation = normalisation
        mean = torch.from_numpy(normalisation.mean).to(self.device)
        deviation = torch.from_numpy(normalisation.deviation).to(self.device)
        self._gain = (1.0 / deviation)[None, :, None]
        self._offset = (-mean / deviation)[None, :, None]
        floor = torch.full((self._sets[0].mels, 1), FLOOR_DB, device=self.device)
        self._floor = normalisation.apply(floor)[:, 0]
        self.augmenter = Augmenter(
            augmentation, seed, len(self), self.device, torch.from_numpy(every_label)
        )
        self._step, self._to_loudest = _window_step(self._sets[0])
        self._following = None
        if augmentation.time_crop_probability and self._step:
            self._following = self._next_of_clip().to(self.device)
        self._resident = self._move_codes() if self.device.type != "cpu" else None

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def class_counts(self) -> torch.Tensor:
        """Labelled windows of each class, (classes,)."""
        return self._targets.sum(0).cpu()

    def _move_codes(self) -> torch.Tensor | None:
        """All codes on the device, where they take at most half of its free memory."""
        needed = len(self) * self._sets[0].mels * self._sets[0].frames * 2
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if needed > free * _DEVICE_SHARE:
                return None
        return torch.from_numpy(self._read(np.arange(len(self)))).to(self.device)

    def _read(self, positions: np.ndarray) -> np.ndarray:
        if len(self._sets) == 1:
            return self._sets[0].read(self._windows[positions])
        owners = self._owner[positions]
        first = self._sets[0]
        codes = np.empty((len(positions), first.mels, first.frames), dtype=np.int16)
        for number, data in enumerate(self._sets):
            rows = owners == number
            codes[rows] = data.read(self._windows[positions[rows]])
        return codes

    def _decibels(self, positions: torch.Tensor) -> torch.Tensor:
        if self._resident is not None:
            codes = self._resident[positions]
        else:
            codes = torch.from_numpy(self._read(positions.cpu().numpy())).to(self.device)
        return codes.to(torch.float32).mul_(1.0 / CODES_PER_DB)

    def view(self, positions: torch.Tensor, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """An augmented view of some windows: x (B, 1, mels, frames) and targets (B, classes)."""
        positions = positions.to(self.device)
        draws = self.augmenter.draw(view, positions)
        x = self._decibels(positions)
        targets = self._targets[positions]
        self._crop(x, positions, draws)
        behind = self.augmenter.background(draws)
        if behind is not None:
            partners = self._decibels(behind.partners)
            x[behind.rows] = add_background(x[behind.rows], partners, behind.values)
        for mix, mixed in (
            (self.augmenter.mix(draws), mix_power),
            (self.augmenter.mix_between(draws, positions), mix_ratio),
        ):
            if mix is not None:
                x[mix.rows] = mixed(x[mix.rows], self._decibels(mix.partners), mix.values)
                targets[mix.rows] = self._mixed(targets[mix.rows], mix)
        self.augmenter.gain(x, draws)
        x = self._standardise(x)
        style = self.augmenter.style(draws)
        if style is not None:
            partners = self._standardise(self._decibels(style.partners))
            x[style.rows] = mix_style(x[style.rows], partners, style.values)
        x = self.augmenter.standardised(x, draws, self._floor)
        return x[:, None], targets

    @property
    def croppable(self) -> int:
        """Windows that ``time_crop`` can begin later: those with a next one in their clip."""
        return 0 if self._following is None else int((self._following >= 0).sum())

    def _next_of_clip(self) -> torch.Tensor:
        """(len,) position of the next window of the same clip, -1 where there is none."""
        following = np.full(len(self), -1)
        for number, data in enumerate(self._sets):
            places = np.flatnonzero(self._owner == number)
            windows = self._windows[places]
            if _window_step(data)[0] != self._step or not len(windows):
                continue
            order = np.argsort(windows)
            first, second = order[:-1], order[1:]
            clips = data.clip_ids[windows]
            pairs = (windows[second] == windows[first] + 1) & (clips[second] == clips[first])
            following[places[first[pairs]]] = places[second[pairs]]
        return torch.from_numpy(following)

    def _crop(
        self, x: torch.Tensor, positions: torch.Tensor, draws: dict[str, torch.Tensor]
    ) -> None:
        """Windows that begin somewhere between two of their clip, in place."""
        if self._following is None:
            return
        rows, by = self.augmenter.crop(draws, self._step)
        following = self._following[positions[rows]]
        rows, by, following = (v[following >= 0] for v in (rows, by, following))
        if len(rows):
            later = self._decibels(following)
            x[rows] = later_window(x[rows], later, by, self._step, self._to_loudest)

    def _standardise(self, decibels: torch.Tensor) -> torch.Tensor:
        """Standardised windows; ``decibels`` (B, mels, frames) may be changed."""
        if self._normalisation.silence is not None:
            return self._normalisation.apply(decibels)
        return decibels.mul_(self._gain).add_(self._offset)

    def _mixed(self, targets: torch.Tensor, mix: Rows) -> torch.Tensor:
        """Mixed label distributions; a mixture with an unlabelled window is unlabelled."""
        other = self._targets[mix.partners]
        known = ((targets.sum(1) > 0) & (other.sum(1) > 0)).float()[:, None]
        shares = mix.values[:, None]
        return (shares * targets + (1 - shares) * other) * known

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """All positions in the order of an epoch, a function of seed and epoch alone."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(len(self), generator=generator)

    def batches(
        self, epoch: int, seed: int, batch_size: int, view: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """Batches of an epoch. Each of ``ranks`` processes gets an equal share of every batch.

        A last batch of fewer than two windows per process is left out: batch norm needs two.
        """
        order = self.order(seed, epoch)
        share = max(1, batch_size // ranks)
        per_chunk = max(1, (CHUNK if self.device.type == "cpu" else _DEVICE_CHUNK) // share)
        step = share * ranks
        starts = self._starts(step, ranks)
        for first in range(0, len(starts), per_chunk):
            pieces = []
            for start in starts[first : first + per_chunk]:
                whole = order[start : start + step]
                size = len(whole) // ranks
                pieces.append(whole[rank * size : (rank + 1) * size])
            positions = torch.cat(pieces).to(self.device)
            x, targets = self.view(positions, view)
            at = 0
            for piece in pieces:
                end = at + len(piece)
                yield Batch(x[at:end], targets[at:end], positions[at:end], view)
                at = end

    def steps(self, batch_size: int, ranks: int = 1) -> int:
        """Batches that ``batches`` gives."""
        return len(self._starts(max(1, batch_size // ranks) * ranks, ranks))

    def _starts(self, step: int, ranks: int) -> range:
        starts = range(0, len(self), step)
        left = len(self) - starts[-1]
        return starts[:-1] if len(starts) > 1 and left < min(step, 2 * ranks) else starts


def plain_batches(
    data: SpectrogramSet, windows: np.ndarray, normalisation: Normalisation, size: int = 256
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Standardised windows without augmentation, in order: x (B, 1, mels, frames), labels (B,)."""
    for start in range(0, len(windows), size):
        chosen = windows[start : start + size]
        x = torch.from_numpy(data.decibels(chosen))[:, None]
        yield normalisation.apply(x), torch.from_numpy(data.labels[chosen])


def _window_step(data: SpectrogramSet) -> tuple[int, bool]:
    """Frames from one window of a clip to the next (0: unknown or no overlap), and whether each
    window's 0 dB is its own loudest bin."""
    if data.frontend is None:
        return 0, False
    step = window_step(data.frontend)
    return (step if step < data.frames else 0), data.frontend.reference == "clip"


def _one_hot(labels: np.ndarray, classes: int) -> torch.Tensor:
    targets = torch.zeros(len(labels), classes)
    rows = np.flatnonzero(labels >= 0)
    targets[torch.from_numpy(rows), torch.from_numpy(labels[rows]).long()] = 1.0
    return targets
