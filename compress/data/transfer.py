"""Unlabelled material for distillation: any folder of audio, a sound file, or a .npy array.

All windows get label -1; each file (each row of an array) is one clip and one recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from compress.data.audio import SUFFIXES, is_audio
from compress.data.clips import READER_VERSION, Clip, finished, plan, read_clips
from compress.data.files import FoundFile, counted, find_file, list_audio, some
from compress.data.npy_pair import (
    NPY_READER_VERSION,
    SPECTROGRAMS,
    TEST,
    array_identity,
    encode_rows,
    linear_notes,
    load_spectrograms,
)
from compress.data.sets import Shard, SpectrogramSet, build_cached
from compress.errors import InputError
from compress.frontend import FrontEnd

_ROWS_PER_JOB = 2_048

_Job = tuple[Path, tuple[Clip, ...]] | tuple[Path, int, int, int]
"""Sound files of one root, or rows start..stop of an array whose first row is clip ``first``."""


def open_transfer(
    paths: Sequence[Path],
    frontend: FrontEnd | None,
    cache: Path | None = None,
    workers: int = 0,
    strict: bool = False,
    shape: tuple[int, int] | None = None,
) -> SpectrogramSet:
    """Everything below ``paths`` as one unlabelled set (labels -1, no class names).

    A path is a folder of audio (any depth), one sound file, a .npy array of spectrograms
    (N, mels, frames), or a folder with test.npy or training.npy, whose spectrograms are then
    used. ``shape`` is (mels, frames) of the labelled set, by default those of ``frontend``.
    Without a front end (a set that came as spectrograms) only arrays can be used. Raises
    InputError for a path without material, and for spectrograms of another shape.
    """
    if shape is None:
        if frontend is None:
            raise ValueError("open_transfer needs a front end or a shape")
        shape = (frontend.mels, frontend.frames)
    jobs: list[_Job] = []
    identities: list[object] = []
    notes: list[str] = []
    clips = 0
    for path in paths:
        arrays = _arrays(path)
        if arrays:
            for array in arrays:
                rows = load_spectrograms(array)
                if rows.shape[1:] != shape:
                    raise InputError(
                        f"{array}: has spectrograms of {rows.shape[1]} x {rows.shape[2]}; "
                        f"the data set has {shape[0]} x {shape[1]}"
                    )
                jobs += [
                    (array, at, min(at + _ROWS_PER_JOB, len(rows)), clips)
                    for at in range(0, len(rows), _ROWS_PER_JOB)
                ]
                identities.append(array_identity(array))
                notes += linear_notes(array, rows)
                clips += len(rows)
            continue
        root, files = _sounds(path, strict, notes)
        if frontend is None:
            raise InputError(
                f"{path}: the labelled set came as spectrograms, so the front end that sound would "
                "need is unknown; give --transfer a .npy array made the same way"
            )
        listed = [Clip(file, -1, clips + i, clips + i) for i, file in enumerate(files)]
        jobs += [(root, batch) for batch in plan(root, listed)]
        identities.append([str(root.resolve()), [file.identity for file in files]])
        clips += len(files)
    name = "transfer " + ", ".join(path.name or str(path) for path in paths)
    data = build_cached(
        name=name,
        key={
            "reader": "transfer",
            "version": [READER_VERSION, NPY_READER_VERSION],
            "sources": identities,
            "frontend": frontend.to_dict() if frontend else None,
        },
        jobs=jobs,
        make=partial(_make, frontend=frontend, strict=strict),
        class_names=(),
        frontend=frontend,
        cache=cache,
        workers=workers,
        label="reading transfer data",
        notes=notes,
        units_per_job=max(1, round(clips / max(1, len(jobs)))),
    )
    return finished(data, notes, strict)


def _arrays(path: Path) -> list[Path]:
    """Arrays of spectrograms that ``path`` stands for, or none where it stands for audio."""
    if path.suffix.lower() == ".npy":
        return [path]
    for name in (TEST, SPECTROGRAMS):
        if (path / name).is_file():
            return [path / name]
    return []


def _sounds(path: Path, strict: bool, notes: list[str]) -> tuple[Path, Sequence[FoundFile]]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give unlabelled audio to --transfer")
    if path.is_file():
        found = find_file(path.parent, path.name)
        if found is None or not is_audio(path):
            raise InputError(f"{path}: not a sound file by its name ({', '.join(SUFFIXES)})")
        return path.parent, [found]
    listing = list_audio(path)
    if not listing.audio:
        raise InputError(f"{path}: no audio below this folder ({', '.join(SUFFIXES)})")
    for names, why in (
        (listing.other, "skipped, not sound files by their names"),
        (listing.outside, "skipped, links that lead out of the folder or to folders"),
    ):
        if names:
            notes.append(f"{counted(len(names), 'file')} {why}: {some(names)}")
    return path, listing.audio


def _make(job: _Job, *, frontend: FrontEnd | None, strict: bool) -> Shard:
    if len(job) == 2:
        root, clips = job
        assert frontend is not None
        return read_clips(
            clips, root=root, frontend=frontend, seconds=None, strict=strict, with_folds=False
        )
    path, start, stop, first = job
    clip_ids = np.arange(first + start, first + stop)
    return {
        "codes": encode_rows(path, start, stop),
        "labels": np.full(stop - start, -1),
        "recording_ids": clip_ids,
        "clip_ids": clip_ids,
    }
