"""Which files of a folder belong to a data set, and what identifies them without reading them."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.audio import is_audio
from compress.errors import InputError

_LARGEST_CSV_BYTES = 512 * 2**20


@dataclass(frozen=True)
class FoundFile:
    """A regular file below a root; ``name`` is its path relative to it, with forward slashes."""

    name: str
    size: int
    modified_ns: int

    @property
    def identity(self) -> tuple[str, int, int]:
        """What a cache key holds of a file that is too large to be hashed at every start."""
        return (self.name, self.size, self.modified_ns)


@dataclass(frozen=True)
class Listing:
    """Audio files below a root, sorted by name, and what was left aside."""

    audio: tuple[FoundFile, ...]
    other: tuple[str, ...]
    outside: tuple[str, ...]


def list_audio(root: Path, below: str = "") -> Listing:
    """Audio files below ``root / below``, recursively.

    Names that begin with a dot are passed over. Links to folders are not followed; a link to a
    file counts only where the file lies inside ``root``, so that a data set cannot reach out of
    its folder.
    """
    real_root = root.resolve()
    audio: list[FoundFile] = []
    other: list[str] = []
    outside: list[str] = []
    for folder, folders, names in os.walk(root / below):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        outside += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in folders
            if os.path.islink(os.path.join(folder, name))
        ]
        for name in sorted(names):
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            if name.startswith(".") or name in ("Thumbs.db", "desktop.ini"):
                continue
            if not is_audio(path):
                other.append(relative)
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(real_root):
                outside.append(relative)
                continue
            try:
                found = path.stat()
            except OSError:
                other.append(relative)
                continue
            if stat.S_ISREG(found.st_mode):
                audio.append(FoundFile(relative, found.st_size, found.st_mtime_ns))
            else:
                other.append(relative)
    audio.sort(key=lambda file: file.name)
    return Listing(tuple(audio), tuple(other), tuple(outside))


def find_file(root: Path, name: str) -> FoundFile | None:
    """One regular file inside ``root``, or None; a name that leads out of it is none."""
    path = root / name
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode) or not path.resolve().is_relative_to(root.resolve()):
        return None
    return FoundFile(name, found.st_size, found.st_mtime_ns)


def read_table(
    path: Path, columns: Sequence[str], once: str | None = None
) -> list[dict[str, str]]:
    """Rows of a CSV file that has at least ``columns``; raises InputError with one clear line.

    once: the column that may not say the same in two rows.
    """
    try:
        if path.stat().st_size > _LARGEST_CSV_BYTES:
            raise InputError(f"{path}: too large to be the table of a data set")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in columns if name not in (reader.fieldnames or ())]
            if lacking:
                raise InputError(
                    f"{path}: has no column {', '.join(lacking)}; "
                    f"it needs the columns {', '.join(columns)}"
                )
            rows: list[dict[str, str]] = []
            said: set[str] = set()
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise InputError(f"{path}: line {reader.line_num} has too few columns")
                rows.append({name: row[name].strip() for name in columns})
                if once is not None:
                    if rows[-1][once] in said:
                        raise InputError(
                            f"{path}: lists {rows[-1][once]} twice; leave one row out"
                        )
                    said.add(rows[-1][once])
            return rows
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names of many: 'a, b, c and 7 more'."""
    names = list(names)
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, thing: str) -> str:
    """'1 file', '2 files'."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
