"""A folder of class folders of audio: the folder's name is the class.

    PATH/music/a.wav, PATH/music/live/b.mp3, PATH/alarm/c.flac, ...

Files count at any depth below their class folder. One file is one clip and one recording, unless
``PATH/recordings.csv`` (columns ``file,recording``; file relative to PATH) says which files were
cut from one recording: those then never lie on two sides of a split.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress.data.audio import SUFFIXES
from compress.data.clips import Clip, build_from_clips, number_names
from compress.data.files import FoundFile, counted, list_audio, read_table, some
from compress.data.five import REPORT_CLASSES, class_of_name
from compress.errors import InputError
from compress.frontend import FrontEnd

RECORDINGS = "recordings.csv"


def class_folders(root: Path) -> list[str]:
    """Names of the folders in ``root`` that may be classes, sorted."""
    return sorted(
        entry.name
        for entry in root.iterdir()
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith((".", "__"))
    )


def read_audio_folder(
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
    """The set in ``root``; ``five`` maps class names to the report's five where they are known."""
    notes: list[str] = []
    by_class: dict[str, list[FoundFile]] = {}
    foreign: list[str] = []
    outside: list[str] = []
    for folder in class_folders(root):
        listing = list_audio(root, folder)
        foreign += listing.other
        outside += listing.outside
        if listing.audio:
            by_class[folder] = list(listing.audio)
        else:
            notes.append(f"folder {folder} holds no audio and is no class")
    loose = [entry.name for entry in root.iterdir() if entry.suffix.lower() in SUFFIXES]
    if not by_class:
        raise InputError(
            f"{root}: no folder in it holds audio ({', '.join(SUFFIXES)}); "
            "put the files of each class into a folder of the class's name"
        )
    if foreign and strict:
        raise InputError(
            f"{root}/{foreign[0]}: not a sound file by its name; "
            "remove it, or leave out --strict to skip such files"
        )
    for names, why in (
        (foreign, "skipped, not sound files by their names"),
        (outside, "skipped, links that lead out of the folder or to folders"),
        (sorted(loose), "skipped, not in a class folder"),
    ):
        if names:
            notes.append(f"{counted(len(names), 'file')} {why}: {some(names)}")
    if five:
        by_class, class_names = _to_five(root, by_class, notes)
    else:
        class_names = tuple(sorted(by_class))
    if len(by_class) < 2:
        raise InputError(
            f"{root}: only one class is there ({next(iter(by_class), 'none')}); "
            "at least two class folders with audio are needed"
        )
    files = [(file, label) for label, c in enumerate(class_names) for file in by_class.get(c, ())]
    sources = _recordings(root, [file for file, _ in files], notes)
    clips = [
        Clip(file=file, label=label, recording=recording, clip=i)
        for i, ((file, label), recording) in enumerate(
            zip(files, number_names(sources), strict=True)
        )
    ]
    return build(
        name=name,
        root=root,
        clips=clips,
        class_names=class_names,
        frontend=frontend,
        layout="audio folder",
        strict=strict,
        cache=cache,
        workers=workers,
        notes=notes,
    )


def _to_five(
    root: Path, by_class: dict[str, list[FoundFile]], notes: list[str]
) -> tuple[dict[str, list[FoundFile]], tuple[str, ...]]:
    mapped: dict[str, list[FoundFile]] = {}
    left_out: list[str] = []
    for folder, files in by_class.items():
        target = class_of_name(folder)
        if target is None:
            left_out.append(f"{folder} ({counted(len(files), 'clip')})")
        else:
            mapped.setdefault(target, []).extend(files)
    if not mapped:
        raise InputError(
            f"{root}: no class folder has a name that maps to one of {', '.join(REPORT_CLASSES)}; "
            "rename the folders, or use --classes own"
        )
    if left_out:
        notes.append(
            f"{counted(len(left_out), 'folder')} left out, ambiguous or unknown among the five "
            f"classes: {some(left_out, 8)}"
        )
    return mapped, REPORT_CLASSES


def _recordings(root: Path, files: list[FoundFile], notes: list[str]) -> list[str]:
    """The recording of each file, by name: from recordings.csv, else the file itself."""
    path = root / RECORDINGS
    if not path.is_file():
        return [file.name for file in files]
    # A prefix keeps a recording named like an unlisted file apart from it.
    listed: dict[str, str] = {}
    for row in read_table(path, _COLUMNS):
        recording = f"r:{row['recording']}"
        if listed.setdefault(row["file"], recording) != recording:
            raise InputError(f"{path}: gives {row['file']} two recordings; leave one row out")
    known = {file.name for file in files}
    unknown = [name for name in listed if name not in known]
    if listed and len(unknown) == len(listed):
        raise InputError(
            f"{path}: none of the files that it lists is there, {unknown[0]} for one; write them "
            f"as {files[0].name}"
        )
    left_out = sorted(known - listed.keys())
    for names, words in (
        (unknown, "lists {} not there"),
        (left_out, "leaves out {}, each a recording of its own"),
    ):
        if names:
            counts = counted(len(names), "file")
            notes.append(f"{RECORDINGS} {words.format(counts)}: {some(names)}")
    return [listed.get(file.name, f"f:{file.name}") for file in files]


_COLUMNS = ("file", "recording")
