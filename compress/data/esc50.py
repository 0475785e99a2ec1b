"""ESC-50's layout (K. J. Piczak, ACM MM 2015): meta/esc50.csv and audio/, five official folds.

Clips are cut or padded with zeros to 5.0 s, which gives six windows each. Files that come from one
Freesound source (column ``src_file``) are one recording. ESC-10 is the same layout with ten
classes, and its classes are then the ten.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress.data.clips import Clip, build_from_clips, number_names
from compress.data.files import counted, find_file, read_table, some
from compress.data.five import REPORT_CLASSES, class_of_esc50
from compress.errors import InputError
from compress.frontend import FrontEnd

TABLE, AUDIO = "meta/esc50.csv", "audio"
CLIP_SECONDS = 5.0
_MOST_FOLDS = 1_000

_COLUMNS = ("filename", "fold", "target", "category", "src_file")


def is_esc50(root: Path) -> bool:
    return (root / TABLE).is_file()


def read_esc50(
    root: Path,
    *,
    name: str,
    frontend: FrontEnd,
    five: bool = False,
    strict: bool = False,
    cache: Path | None = None,
    workers: int = 0,
    build: Callable[..., Any] = build_from_clips,
) -> Any:
    """The set in ``root``: its own classes in the order of ``target``, or the report's five."""
    table = root / TABLE
    rows = read_table(table, _COLUMNS, once="filename")
    if not rows:
        raise InputError(f"{table}: lists no clip")
    targets: dict[int, str] = {}
    folds: list[int] = []
    for row in rows:
        target, fold = _number(table, row, "target"), _number(table, row, "fold")
        if targets.setdefault(target, row["category"]) != row["category"]:
            raise InputError(
                f"{table}: target {target} is both {targets[target]!r} and {row['category']!r}"
            )
        if not 1 <= fold <= _MOST_FOLDS:
            raise InputError(
                f"{table}: {row['filename']} is in fold {row['fold'][:20]}; folds count from 1 to "
                f"at most {_MOST_FOLDS}"
            )
        folds.append(fold)
    notes: list[str] = []
    if five:
        class_names, of_category = _five(table, targets, rows, notes)
    else:
        class_names = tuple(targets[target] for target in sorted(targets))
        if len(set(class_names)) != len(class_names):
            raise InputError(f"{table}: one category has several targets")
        of_category = {category: i for i, category in enumerate(class_names)}
    if len(set(of_category.values())) < 2:
        raise InputError(f"{table}: only one class is there; at least two are needed")
    clips: list[Clip] = []
    lost: list[str] = []
    sources = number_names([row["src_file"] for row in rows])
    for i, (row, fold, source) in enumerate(zip(rows, folds, sources, strict=True)):
        if row["category"] not in of_category:
            continue
        found = find_file(root, f"{AUDIO}/{row['filename']}")
        if found is None:
            lost.append(row["filename"])
            continue
        clips.append(Clip(found, of_category[row["category"]], source, i, fold))
    if lost and (strict or not clips):
        raise InputError(
            f"{root}/{AUDIO}: {len(lost)} of the {len(rows)} files that {TABLE} lists are not "
            f"there ({some(lost)})"
        )
    unheard = set(of_category.values()) - {clip.label for clip in clips}
    if unheard:
        raise InputError(
            f"{root}/{AUDIO}: no file of class {class_names[min(unheard)]!r} is there "
            f"({some(lost)}); add them, or take the rows of the class out of {TABLE}"
        )
    if lost:
        notes.append(f"{counted(len(lost), 'file')} skipped, listed but not there: {some(lost)}")
    return build(
        name=name,
        root=root,
        clips=clips,
        class_names=class_names,
        frontend=frontend,
        layout="esc50",
        seconds=CLIP_SECONDS,
        strict=strict,
        cache=cache,
        workers=workers,
        notes=notes,
    )


def _number(table: Path, row: dict[str, str], column: str) -> int:
    try:
        return int(row[column])
    except ValueError:
        raise InputError(
            f"{table}: {row['filename']} has {column} {row[column]!r}, not a whole number"
        ) from None


def _five(
    table: Path, targets: dict[int, str], rows: list[dict[str, str]], notes: list[str]
) -> tuple[tuple[str, ...], dict[str, int]]:
    of_category: dict[str, int] = {}
    left_out: list[str] = []
    for category in targets.values():
        target = class_of_esc50(category)
        if target is None:
            left_out.append(category)
        else:
            of_category[category] = REPORT_CLASSES.index(target)
    if left_out:
        clips = sum(row["category"] in left_out for row in rows)
        notes.append(
            f"{counted(clips, 'clip')} left out, of categories that are ambiguous or unknown among "
            f"the five classes: {some(sorted(left_out), 8)}"
        )
    absent = [c for i, c in enumerate(REPORT_CLASSES) if i not in of_category.values()]
    if absent:
        notes.append(f"no clip of class {', '.join(absent)}")
    return REPORT_CLASSES, of_category
