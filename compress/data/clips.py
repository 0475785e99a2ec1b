"""Labelled (or unlabelled) sound files to a SpectrogramSet: planning, reading in workers, notes.

One file is one clip. A clip gives windows every 0.62 s, or every two thirds of a window where that
is shorter, the last one aligned to its end. A clip shorter than one window is padded with zeros to
one. Windows much quieter than the loudest of their clip can be left out: they hold what lies
between the sounds, under the clip's label. Files of more than an hour are read in pieces of at most
an hour, one piece at a time per process; windows do not cross the border of two pieces, and each
piece has its own loudest window.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from compress.data.audio import (
    AudioError,
    cut_or_pad,
    pad_to_window,
    read_blocks,
    read_info,
    stream_mel_power,
    stream_windows,
)
from compress.data.files import FoundFile, counted, some
from compress.data.sets import Shard, SpectrogramSet, build_cached, encode_db
from compress.errors import InputError
from compress.frontend import FrontEnd, power_to_db

READER_VERSION = 2
"""Part of every cache key: raise it when the same files would give other windows."""

_FILES_PER_JOB = 32
_MOST_JOBS = 2_000
_BYTES_PER_JOB = 64 * 2**20
_PIECE_SECONDS = 3_600.0
_MAYBE_LONG_BYTES = 3 * 2**20  # an hour of the thinnest mp3; smaller files are not probed
_HIGHEST_DB = 32767 / 256

_SKIPPED, _PADDED, _QUIET = "skipped: ", "padded: ", "quiet: "


@dataclass(frozen=True)
class Clip:
    """A sound file of a data set. ``start`` and ``stop`` are samples of the file, 0 = all of it."""

    file: FoundFile
    label: int
    recording: int
    clip: int
    fold: int = 0
    start: int = 0
    stop: int = 0


def build_from_clips(
    *,
    name: str,
    root: Path,
    clips: Sequence[Clip],
    class_names: Sequence[str],
    frontend: FrontEnd,
    layout: str,
    seconds: float | None = None,
    strict: bool,
    cache: Path | None,
    workers: int,
    notes: Sequence[str] = (),
    drop_quiet_db: float | None = None,
) -> SpectrogramSet:
    """Read clips into a cached set; ``seconds`` cuts or pads every clip to one length.

    drop_quiet_db: windows whose mean power lies more than so many dB below that of their clip's
    loudest window are left out.

    The cache key holds the folder, names, sizes and modification times of all files, not their
    content: hashing 100 GB at every start would take longer than training. Raises InputError for
    an unusable file with ``strict``; otherwise unusable files are named in the notes. Raises it
    also for a class of which no file is usable: the network would have an output for it.
    """
    key = {
        "reader": layout,
        "version": READER_VERSION,
        "root": str(root.resolve()),
        "files": [clip.file.identity for clip in clips],
        "columns": [(clip.label, clip.recording, clip.clip, clip.fold) for clip in clips],
        "classes": list(class_names),
        "frontend": frontend.to_dict(),
        "seconds": seconds,
        **({} if drop_quiet_db is None else {"drop_quiet_db": drop_quiet_db}),
    }
    jobs = plan(root, clips)
    with_folds = any(clip.fold for clip in clips)
    make = partial(
        read_clips,
        root=root,
        frontend=frontend,
        seconds=seconds,
        strict=strict,
        with_folds=with_folds,
        drop_quiet_db=drop_quiet_db,
    )
    data = build_cached(
        name=name,
        key=key,
        jobs=jobs,
        make=make,
        class_names=class_names,
        frontend=frontend,
        cache=cache,
        workers=workers,
        label=f"reading {name}",
        notes=notes,
        units_per_job=max(1, round(len(clips) / max(1, len(jobs)))),
        drop_quiet_db=drop_quiet_db,
    )
    _check_classes(root, clips, data)
    return finished(data, notes, strict)


def _check_classes(root: Path, clips: Sequence[Clip], data: SpectrogramSet) -> None:
    unheard = {clip.label for clip in clips}.difference(data.labels.tolist())
    for label in sorted(unheard):
        starts = tuple(f"{_SKIPPED}{clip.file.name}: " for clip in clips if clip.label == label)
        faults = [n.removeprefix(_SKIPPED) for n in data.notes if n.startswith(starts)]
        raise InputError(
            f"{root}: no file of class {data.class_names[label]!r} is usable ({some(faults)}); add "
            "recordings of it, or take the class out (its folder, or its rows of the table)"
        )


def finished(data: SpectrogramSet, notes: Sequence[str], strict: bool) -> SpectrogramSet:
    """The set with today's ``notes`` of its reader, and those of single files summarised.

    With ``strict``, no file may be skipped: a set in the cache may have been built without, so its
    notes are looked at too.
    """
    skipped = [note for note in data.notes if note.startswith(_SKIPPED)]
    if strict and skipped:
        raise InputError(_refusal(skipped[0].removeprefix(_SKIPPED)))
    return replace(data, notes=(*notes, *summarise(data.notes)))


def plan(root: Path, clips: Sequence[Clip]) -> list[tuple[Clip, ...]]:
    """Batches of clips of bounded count and bytes; long files in pieces."""
    most_files = max(_FILES_PER_JOB, math.ceil(len(clips) / _MOST_JOBS))
    jobs: list[tuple[Clip, ...]] = []
    batch: list[Clip] = []
    batch_bytes = 0
    for clip in clips:
        pieces = _pieces(root, clip)
        if batch and (
            len(batch) >= most_files
            or batch_bytes + clip.file.size > _BYTES_PER_JOB
            or len(pieces) > 1
        ):
            jobs.append(tuple(batch))
            batch, batch_bytes = [], 0
        if len(pieces) > 1:
            jobs += [(piece,) for piece in pieces]
        else:
            batch.append(clip)
            batch_bytes += clip.file.size
    if batch:
        jobs.append(tuple(batch))
    return jobs


def _pieces(root: Path, clip: Clip) -> list[Clip]:
    if clip.file.size < _MAYBE_LONG_BYTES:
        return [clip]
    try:
        info = read_info(root / clip.file.name)
    except AudioError:
        return [clip]  # read_clips names the fault
    count = math.ceil(info.seconds / _PIECE_SECONDS)
    if count <= 1:
        return [clip]
    edges = [round(i * info.samples / count) for i in range(count + 1)]
    return [
        replace(clip, start=start, stop=stop)
        for start, stop in zip(edges[:-1], edges[1:], strict=True)
    ]


def read_clips(
    clips: Sequence[Clip],
    *,
    root: Path,
    frontend: FrontEnd,
    seconds: float | None,
    strict: bool,
    with_folds: bool,
    drop_quiet_db: float | None = None,
) -> Shard:
    """Windows of some clips, as a Shard; raises InputError for an unusable file with ``strict``."""
    parts: list[np.ndarray] = []
    owners: list[Clip] = []
    notes: list[str] = []
    with _one_thread():
        for clip in clips:
            try:
                codes, padded, quiet = _windows(clip, root, frontend, seconds, drop_quiet_db)
            except AudioError as error:
                if strict:
                    raise InputError(_refusal(f"{root / clip.file.name}: {error}")) from None
                notes.append(f"{_SKIPPED}{clip.file.name}: {error}")
                continue
            if padded:
                notes.append(f"{_PADDED}{clip.file.name}")
            if quiet:
                notes.append(f"{_QUIET}{quiet}")
            parts.append(codes)
            owners += [clip] * len(codes)
    shape = (0, frontend.mels, frontend.frames)
    return {
        "codes": np.concatenate(parts) if parts else np.zeros(shape, dtype=np.int16),
        "labels": [clip.label for clip in owners],
        "recording_ids": [clip.recording for clip in owners],
        "clip_ids": [clip.clip for clip in owners],
        "folds": [clip.fold for clip in owners] if with_folds else None,
        "notes": notes,
    }


def _windows(
    clip: Clip, root: Path, frontend: FrontEnd, seconds: float | None, drop_quiet_db: float | None
) -> tuple[np.ndarray, bool, int]:
    """Codes (n, mels, frames) int16 of one clip, whether it was padded to one window, and how many
    windows were left out for being quiet."""
    path = root / clip.file.name
    lengths: list[int] = []
    blocks = _measured(
        read_blocks(path, frontend.sample_rate_hz, clip.start, clip.stop or None), lengths
    )
    if seconds is not None:
        blocks = cut_or_pad(blocks, round(seconds * frontend.sample_rate_hz))
    pieces = stream_mel_power(pad_to_window(blocks, frontend), frontend)
    codes, powers = [], []
    for _, power in stream_windows(pieces, frontend):
        decibels = power_to_db(power, frontend)  # (n, mels, frames)
        if decibels.max() > _HIGHEST_DB:
            raise AudioError(f"is louder than {_HIGHEST_DB:.0f} dB; samples must lie in -1..1")
        codes.append(encode_db(decibels))
        powers.append(power.mean(axis=(1, 2)))
    heard = loud_enough(np.concatenate(powers), drop_quiet_db)
    padded = seconds is None and sum(lengths) < frontend.clip_samples
    return np.concatenate(codes)[heard], padded, int((~heard).sum())


def loud_enough(powers: np.ndarray, drop_quiet_db: float | None) -> np.ndarray:
    """Which windows of a clip are kept, (n,) bool: those within ``drop_quiet_db`` of the loudest.

    powers: (n,) mean mel power of each. None keeps all; the loudest always stays.
    """
    if drop_quiet_db is None:
        return np.ones(len(powers), dtype=bool)
    return powers >= powers.max() * 10 ** (-drop_quiet_db / 10)


def _measured(blocks: Iterator[np.ndarray], lengths: list[int]) -> Iterator[np.ndarray]:
    for block in blocks:
        lengths.append(len(block))
        yield block


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order whatever the number of workers, so that the content hash is the same."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def summarise(notes: Sequence[str]) -> tuple[str, ...]:
    """One sentence per kind of the notes of single files, with a count and the first names."""
    skipped = sorted({n.removeprefix(_SKIPPED) for n in notes if n.startswith(_SKIPPED)})
    padded = sorted({n.removeprefix(_PADDED) for n in notes if n.startswith(_PADDED)})
    quiet = sum(int(n.removeprefix(_QUIET)) for n in notes if n.startswith(_QUIET))
    told = []
    if skipped:
        told.append(f"{counted(len(skipped), 'file')} skipped: {some(skipped)}")
    if padded:
        told.append(
            f"{counted(len(padded), 'clip')} shorter than one window, "
            f"padded with zeros: {some(padded)}"
        )
    if quiet:
        told.append(
            f"{counted(quiet, 'window')} left out, much quieter than the loudest of their clip"
        )
    return tuple(told)


def _refusal(what: str) -> str:
    return f"{what}; repair or remove it, or leave out --strict to skip such files"


def number_names(names: Sequence[str]) -> list[int]:
    """Integers for names, 0.. in sorted order, the same for equal names."""
    numbers = {name: i for i, name in enumerate(sorted(set(names)))}
    return [numbers[name] for name in names]
