"""Windows that are the same, or nearly, wherever they lie: the same bytes, or within a distance.

distance = root mean square of the differences in dB, over the bins in which either is audible

    all windows -> mean over blocks of 4 bands x 8 frames -> sorted along the main direction
                -> pairs close there -> pairs close in blocks -> distance of whole spectrograms

Both steps before the last one can only lessen a distance, so no pair within the threshold is
missed; they leave so few pairs that 50,000 windows take seconds, not hours.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress import cli
from compress.data.sets import CODES_PER_DB, SpectrogramSet
from compress.frontend import FLOOR_DB
from compress.runs import atomic_path, forget_temporaries

NEAR_DB = 1.0
"""Stated distance. A copy with noise 20 dB below it lies at 0.4 dB; two windows of one steady
noise, which sound alike and are no copies, at 2.8 dB."""
QUIET_SHARE = 0.05
"""Windows with fewer audible bins than this are all alike: they are counted, not compared."""
AUDIBLE_DB = FLOOR_DB + 1.0

_BLOCK_BANDS, _BLOCK_FRAMES = 4, 8
_WINDOWS_AT_ONCE = 2_048
_PAIRS_AT_ONCE = 4_096
_MOST_KEPT = 100_000

DIGESTS = "window_digests.npy"
"""In the folder of a prepared set, (N,) uint64: among 20 million windows two that differ have one
hash once in a hundred thousand sets."""


@dataclass(frozen=True)
class Duplicates:
    """Pairs of window numbers (n, 2), the lower first.

    quiet: windows that were left out for silence. exact: groups of windows with the same content.
    near, distances: pairs within the threshold that are not the same, (n, 2) and (n,) dB;
    found: how many there are, of which at most 100,000 are kept.
    """

    threshold_db: float
    quiet: np.ndarray
    exact: tuple[np.ndarray, ...]
    near: np.ndarray
    distances: np.ndarray
    found: int

    def exact_pairs(self) -> np.ndarray:
        """Each window of a group with the group's first, (n, 2)."""
        pairs = [(group[0], other) for group in self.exact for other in group[1:]]
        return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)


def find_duplicates(data: SpectrogramSet, threshold_db: float = NEAR_DB) -> Duplicates:
    """Exact and near duplicates among the windows of a set; deterministic."""
    reduced, audible, digests = _summarise(data)
    quiet = audible < QUIET_SHARE
    groups: dict[int, list[int]] = {}
    for window in np.flatnonzero(~quiet):
        groups.setdefault(digests[window], []).append(int(window))
    exact = tuple(np.asarray(group) for group in groups.values() if len(group) > 1)
    firsts = np.asarray([group[0] for group in groups.values()], dtype=np.int64)
    near, distances = _near(data, reduced, firsts, threshold_db)
    order = np.lexsort((near[:, 1], near[:, 0], distances))[:_MOST_KEPT]
    return Duplicates(
        threshold_db, np.flatnonzero(quiet), exact, near[order], distances[order], len(near)
    )


def _summarise(data: SpectrogramSet) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(means over blocks (N, blocks) dB, audible share (N,), hash of each window's codes)."""
    bands = np.arange(0, data.mels, _BLOCK_BANDS)
    frames = np.arange(0, data.frames, _BLOCK_FRAMES)
    sizes = np.outer(
        np.diff(np.append(bands, data.mels)), np.diff(np.append(frames, data.frames))
    )
    reduced = np.empty((len(data), sizes.size), dtype=np.float32)
    audible = np.empty(len(data), dtype=np.float32)
    digests: list[int] = []
    with cli.progress(len(data), "reading windows", "window") as bar:
        for at in range(0, len(data), _WINDOWS_AT_ONCE):
            codes = data.read(slice(at, at + _WINDOWS_AT_ONCE))
            rows = slice(at, at + len(codes))
            sums = np.add.reduceat(codes.astype(np.float32), bands, axis=1)
            sums = np.add.reduceat(sums, frames, axis=2) / (sizes * CODES_PER_DB)
            # A block counts by its size, so that distances of blocks bound those of windows.
            weighted = sums * np.sqrt(sizes / (data.mels * data.frames))
            reduced[rows] = weighted.reshape(len(codes), -1)
            audible[rows] = (codes > AUDIBLE_DB * CODES_PER_DB).mean(axis=(1, 2))
            digests += [_digest(window) for window in codes]
            bar.update(len(codes))
    return reduced, audible, digests


def _digest(codes: np.ndarray) -> int:
    """64 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(codes.tobytes(), digest_size=8).digest(), "little") or 1


def sounding_digests(data: SpectrogramSet, windows: np.ndarray) -> np.ndarray:
    """Hash of the codes of each of some windows, (n,) uint64; 0 where all are one, as in silence.

    Those of a prepared set are computed once and kept beside it: every start splits its data, and
    to read and hash a million windows takes longer than all else before training.
    """
    folder = data.folder
    if folder is None:
        return _sounding_digests(data, windows)
    kept = _kept_digests(folder / DIGESTS, len(data))
    if kept is None:
        kept = _sounding_digests(data, np.arange(len(data)))
        _keep_digests(folder, kept)
    return kept[windows]


def _keep_digests(folder: Path, digests: np.ndarray) -> None:
    """Write them, unless the cache cannot be written: that is slower, no more.

    What a killed process left of its own is removed. Nothing else is written among the files of a
    set, and another process that is writing the same numbers now loses no more than its file.
    """
    with contextlib.suppress(OSError):
        forget_temporaries(folder)
        with atomic_path(folder / DIGESTS) as path, path.open("wb") as file:
            np.save(file, digests)


def _kept_digests(path: Path, count: int) -> np.ndarray | None:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(found, np.ndarray) and found.shape == (count,) and found.dtype == np.uint64
    return found if fits else None


def _sounding_digests(data: SpectrogramSet, windows: np.ndarray) -> np.ndarray:
    found = np.zeros(len(windows), dtype=np.uint64)
    with cli.progress(len(windows), "hashing windows", "window") as bar:
        for at in range(0, len(windows), _WINDOWS_AT_ONCE):
            block = data.read(windows[at : at + _WINDOWS_AT_ONCE])
            for row in np.flatnonzero(block.min(axis=(1, 2)) < block.max(axis=(1, 2))):
                found[at + row] = _digest(block[row])
            bar.update(len(block))
    return found


def _near(
    data: SpectrogramSet, reduced: np.ndarray, windows: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs (n, 2), distances (n,)) among ``windows``."""
    pairs, distances = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0)]
    waiting: list[np.ndarray] = []
    held = 0
    for found in _candidates(reduced[windows], threshold):
        waiting.append(windows[found])
        held += len(found)
        if held >= _PAIRS_AT_ONCE:
            _measure(data, np.concatenate(waiting), threshold, pairs, distances)
            waiting, held = [], 0
    if held:
        _measure(data, np.concatenate(waiting), threshold, pairs, distances)
    return np.concatenate(pairs), np.concatenate(distances)


def _candidates(points: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Pairs of rows of ``points`` (N, d) within the threshold, as (n, 2) arrays."""
    if len(points) < 2:
        return
    centred = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    along = centred @ vectors[:, -1]
    order = np.argsort(along, kind="stable")
    centred, along = centred[order], along[order]
    squares = np.einsum("nd,nd->n", centred, centred)
    margin = threshold * (1 + 1e-4) + 1e-3  # for float32
    with cli.progress(len(points), "comparing windows", "window") as bar:
        for at in range(0, len(points), _WINDOWS_AT_ONCE):
            end = min(at + _WINDOWS_AT_ONCE, len(points))
            last = int(np.searchsorted(along, along[end - 1] + margin, side="right"))
            for start in range(at, last, _WINDOWS_AT_ONCE):
                stop = min(start + _WINDOWS_AT_ONCE, last)
                products = centred[at:end] @ centred[start:stop].T
                apart = squares[at:end, None] + squares[start:stop] - 2 * products
                first, second = np.nonzero(apart <= margin**2)
                first, second = first + at, second + start
                later = second > first
                if later.any():
                    found = np.stack([order[first[later]], order[second[later]]], axis=1)
                    yield np.sort(found, axis=1)
            bar.update(end - at)


def _measure(
    data: SpectrogramSet,
    candidates: np.ndarray,
    threshold: float,
    pairs: list[np.ndarray],
    distances: list[np.ndarray],
) -> None:
    for at in range(0, len(candidates), _PAIRS_AT_ONCE):
        chosen = np.sort(candidates[at : at + _PAIRS_AT_ONCE], axis=1)
        found = distance_db(data.decibels(chosen[:, 0]), data.decibels(chosen[:, 1]))
        close = found <= threshold
        pairs.append(chosen[close])
        distances.append(found[close])


def distance_db(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square difference over the bins in which either is audible, (n,) dB.

    a, b: (n, mels, frames) dB. Two silent windows are 0 dB apart.
    """
    heard = (a > AUDIBLE_DB) | (b > AUDIBLE_DB)
    apart = np.where(heard, a - b, 0.0).astype(np.float64)
    count = np.maximum(heard.sum(axis=(1, 2)), 1)
    return np.sqrt(np.einsum("nmf,nmf->n", apart, apart) / count)
