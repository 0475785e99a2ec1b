"""FSD50K's layout (Fonseca et al., arXiv 2010.00475), mapped to the report's five classes.

    FSD50K.ground_truth/dev.csv, eval.csv   fname, labels, mids (AudioSet ids)
    FSD50K.dev_audio/, FSD50K.eval_audio/   FNAME.wav
    FSD50K.metadata/*_clips_info_FSD50K.json  optional: the uploader of each clip

A clip may have several labels. It is kept where its most specific labels all mean one class; clips
of two classes, or with an ambiguous label, are left out and counted. ``eval`` is fold 1, the
official test set; ``dev`` is fold 2. Where the metadata are there, all clips of one uploader are
one recording, because uploaders tend to cut many clips from one source; else each clip is its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.clips import Clip, build_from_clips, number_names
from compress.data.files import counted, find_file, read_table, some
from compress.data.five import REPORT_CLASSES, classes_of_nodes
from compress.errors import InputError
from compress.frontend import FrontEnd
from compress.runs import read_json

TRUTH = "FSD50K.ground_truth"
SIDES = {"eval": 1, "dev": 2}


@dataclass(frozen=True)
class _Labelled:
    name: str  # of the file, without folder and ending
    side: str
    label: int


def is_fsd50k(root: Path) -> bool:
    return any((root / TRUTH / f"{side}.csv").is_file() for side in SIDES)


def read_fsd50k(
    root: Path,
    *,
    name: str,
    frontend: FrontEnd,
    five: bool = True,
    strict: bool = False,
    cache: Path | None = None,
    workers: int = 0,
    build: Callable[..., Any] = build_from_clips,
) -> Any:
    """The set in ``root``, with the five classes whatever ``five`` says: its own labels are
    several per clip."""
    notes: list[str] = []
    labelled: list[_Labelled] = []
    left_out: Counter[str] = Counter()
    for side in SIDES:
        table = root / TRUTH / f"{side}.csv"
        if not table.is_file():
            raise InputError(
                f"{table}: no such file; FSD50K's layout needs dev.csv and eval.csv there"
            )
        for row in read_table(table, ("fname", "mids"), once="fname"):
            found = classes_of_nodes(filter(None, row["mids"].split(",")))
            if len(found) == 1 and None not in found:
                label = REPORT_CLASSES.index(next(iter(found)))
                labelled.append(_Labelled(row["fname"], side, label))
            elif None in found or not found:
                left_out["an ambiguous label or none that is known"] += 1
            else:
                left_out["labels of more than one class"] += 1
    notes += [f"{counted(n, 'clip')} left out, with {why}" for why, n in sorted(left_out.items())]
    uploaders = _uploaders(root)
    if uploaders:
        notes.append("clips of one uploader count as one recording")
    clips: list[Clip] = []
    lost: list[str] = []
    sources = number_names(
        [uploaders.get((c.side, c.name), f"clip {c.side} {c.name}") for c in labelled]
    )
    for i, (clip, source) in enumerate(zip(labelled, sources, strict=True)):
        file = f"FSD50K.{clip.side}_audio/{clip.name}.wav"
        found_file = find_file(root, file)
        if found_file is None:
            lost.append(file)
        else:
            clips.append(Clip(found_file, clip.label, source, i, SIDES[clip.side]))
    if lost and (strict or not clips):
        raise InputError(
            f"{root}: {len(lost):,} of {len(labelled):,} listed clips are not there ({some(lost)})"
        )
    if lost:
        notes.append(f"{counted(len(lost), 'file')} skipped, listed but not there: {some(lost)}")
    present = {clip.label for clip in clips}
    if len(present) < 2:
        raise InputError(f"{root}: only one class is there; at least two are needed")
    absent = [c for i, c in enumerate(REPORT_CLASSES) if i not in present]
    if absent:
        notes.append(f"no clip of class {', '.join(absent)}")
    return build(
        name=name,
        root=root,
        clips=clips,
        class_names=REPORT_CLASSES,
        frontend=frontend,
        layout="fsd50k",
        strict=strict,
        cache=cache,
        workers=workers,
        notes=notes,
    )


def _uploaders(root: Path) -> dict[tuple[str, str], str]:
    """(side, clip name) -> uploader, from the metadata where they are there."""
    found: dict[tuple[str, str], str] = {}
    for side in SIDES:
        path = root / "FSD50K.metadata" / f"{side}_clips_info_FSD50K.json"
        if path.is_file():
            table: dict[str, Any] = read_json(path)
            for name, info in table.items():
                if isinstance(info, dict) and isinstance(info.get("uploader"), str):
                    found[side, name] = f"uploader {info['uploader']}"
    return found
