"""The AudioBots report's own layout: training.npy and training_labels.npy in one folder.

training.npy            (N, mels, frames) floating point, dB
training_labels.npy     (N,) or (N, 1), class numbers
training_recordings.npy optional, (N,): equal numbers = one recording
classes.json or class_names.txt   optional: names, one per class (default: the report's five)
test.npy                optional, unlabelled: reported, and usable with --transfer

The arrays are memory-mapped, so the set may be larger than RAM.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from compress.data.five import REPORT_CLASSES
from compress.data.sets import Shard, SpectrogramSet, build_cached, encode_db
from compress.errors import InputError
from compress.frontend import FLOOR_DB, FrontEnd
from compress.runs import digest

SPECTROGRAMS, LABELS, TEST = "training.npy", "training_labels.npy", "test.npy"
RECORDINGS = "training_recordings.npy"
CLASSES_JSON, CLASSES_TEXT = "classes.json", "class_names.txt"

NPY_READER_VERSION = 1
LOWEST_DB, HIGHEST_DB = -128.0, 32767 / 256

_ROWS_PER_JOB = 2_048

_LOOKED_AT = 100
_TINY, _NEXT_TO_NOTHING = 1e-2, 1e-5
_LEVEL_DB = 0.5
_LINEAR_SHARE = 0.25
"""Share of tiny values from which spectrograms look linear. Of ESC-10 and of synthetic scenes it is
0.72 or more in power, 0.38 in amplitude, at most 0.02 in dB above any floor, scaled to 0..1 too."""


def is_npy_pair(root: Path) -> bool:
    return (root / SPECTROGRAMS).is_file() or (root / LABELS).is_file()


def read_npy_pair(
    root: Path,
    *,
    name: str,
    frontend: FrontEnd | None = None,
    cache: Path | None = None,
    workers: int = 0,
) -> SpectrogramSet:
    """The set in ``root``; ``frontend``: what made its spectrograms, as far as is known.

    Raises InputError with one line for each fault of the arrays.
    """
    for needed in (SPECTROGRAMS, LABELS):
        if not (root / needed).is_file():
            raise InputError(
                f"{root / needed}: no such file; this layout needs "
                f"{SPECTROGRAMS} and {LABELS} in one folder"
            )
    spectrograms = load_spectrograms(root / SPECTROGRAMS)
    if frontend is None:
        check_not_transposed(root / SPECTROGRAMS, spectrograms)
    else:
        _check_size(root / SPECTROGRAMS, spectrograms, frontend)
    class_names = read_class_names(root)
    labels = _column(root / LABELS, len(spectrograms), "labels")
    _check_labels(root / LABELS, labels, class_names)
    recordings = np.arange(len(spectrograms), dtype=np.int64)
    if (root / RECORDINGS).is_file():
        recordings = _column(root / RECORDINGS, len(spectrograms), "recordings")
    notes = linear_notes(root / SPECTROGRAMS, spectrograms)
    if frontend is not None:
        notes += stated_notes(root / SPECTROGRAMS, spectrograms, frontend)
    if (root / TEST).is_file():
        test = load_spectrograms(root / TEST)
        notes.append(
            f"{TEST} holds {len(test):,} spectrograms without labels; they take no part in "
            f"training or test (use them with --transfer {TEST})"
        )
    absent = [c for c, n in zip(class_names, np.bincount(labels), strict=False) if n == 0]
    absent += class_names[labels.max() + 1 :]
    if absent:
        notes.append(f"no clip of class {', '.join(absent)}")
    rows = len(spectrograms)
    jobs = [
        (at, labels[at : at + _ROWS_PER_JOB], recordings[at : at + _ROWS_PER_JOB])
        for at in range(0, rows, _ROWS_PER_JOB)
    ]
    return build_cached(
        name=name,
        key={
            "reader": "npy pair",
            "version": NPY_READER_VERSION,
            "spectrograms": array_identity(root / SPECTROGRAMS),
            "labels": digest(labels.tolist()),
            "recordings": digest(recordings.tolist()),
            "classes": list(class_names),
            "notes": notes,
            **({} if frontend is None else {"frontend": frontend.to_dict()}),
        },
        jobs=jobs,
        make=partial(_rows, path=root / SPECTROGRAMS),
        class_names=class_names,
        frontend=frontend,
        cache=cache,
        workers=workers,
        label=f"reading {name}",
        notes=notes,
        units_per_job=min(_ROWS_PER_JOB, rows),
    )


def array_identity(path: Path) -> tuple[str, int, int]:
    """Path, size and modification time: what a cache key holds of an array too large to hash."""
    found = path.stat()
    return (str(path.resolve()), found.st_size, found.st_mtime_ns)


def load_array(path: Path) -> np.ndarray:
    """A .npy array, memory-mapped; raises InputError for anything else, pickles included."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # numpy reads the header as Python and passes on all that fails
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise InputError(
                f"{path}: holds pickled Python objects, which are never loaded because they can "
                "run code; save a plain numeric array with numpy.save"
            ) from None
        raise InputError(f"{path}: not a whole .npy file ({_brief(error)})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: holds an archive of arrays; save one array with numpy.save")
    if array.dtype.hasobject:
        raise InputError(f"{path}: holds Python objects; save a plain numeric array")
    return array


def load_spectrograms(path: Path) -> np.ndarray:
    """Memory-mapped spectrograms (N, mels, frames); raises InputError for wrong shape or type."""
    array = load_array(path)
    if array.ndim != 3:
        raise InputError(
            f"{path}: has shape {array.shape}; spectrograms must be (N, mels, frames), "
            "for example (52890, 32, 96)"
        )
    if array.dtype.kind != "f":
        raise InputError(
            f"{path}: has type {array.dtype}; spectrograms must be floating point, in dB"
        )
    if 0 in array.shape:
        raise InputError(f"{path}: has shape {array.shape}; it holds no spectrogram")
    return array


def check_not_transposed(path: Path, spectrograms: np.ndarray) -> None:
    """Refuse the size of the usual windows with bands and frames exchanged; InputError."""
    usual = FrontEnd()
    if spectrograms.shape[1:] == (usual.frames, usual.mels):
        raise InputError(
            f"{path}: has shape {spectrograms.shape}, which is (N, frames, mels); spectrograms "
            "must be (N, mels, frames): save array.transpose(0, 2, 1), or where it is mels = "
            f"{usual.frames} and frames = {usual.mels}, say so with --frontend FILE"
        )


def _some_of(spectrograms: np.ndarray) -> np.ndarray:
    """At most 100 windows from all over a mapped array."""
    rows = np.linspace(0, len(spectrograms) - 1, min(_LOOKED_AT, len(spectrograms))).astype(int)
    return np.asarray(spectrograms[rows])


def linear_notes(path: Path, spectrograms: np.ndarray) -> list[str]:
    """A warning where spectrograms (N, mels, frames) look linear instead of dB, else nothing.

    Linear values are never negative, and many are tiny beside the largest of their window. Looks at
    100 windows from all over the array.
    """
    sample = _some_of(spectrograms)
    loudest = sample.max(axis=(1, 2), keepdims=True)
    if not np.isfinite(loudest).all() or sample.min() < 0:
        return []
    there = sample > _NEXT_TO_NOTHING * loudest  # zeros are silence in either form
    tiny = there & (sample < _TINY * loudest)
    if tiny.sum() <= _LINEAR_SHARE * there.sum():
        return []
    return [
        f"{path.name} looks like linear power or amplitude, not dB: save 10 * log10(power) or "
        "20 * log10(amplitude) instead"
    ]


def _check_size(path: Path, spectrograms: np.ndarray, frontend: FrontEnd) -> None:
    size = (frontend.mels, frontend.frames)
    if spectrograms.shape[1:] != size:
        raise InputError(
            f"{path}: has shape {spectrograms.shape}; the front end that is said to have made "
            f"them makes {size[0]} bands x {size[1]} frames; say with --frontend FILE what did"
        )


def stated_notes(path: Path, spectrograms: np.ndarray, frontend: FrontEnd) -> list[str]:
    """A warning where spectrograms (N, mels, frames) cannot have come from ``frontend``.

    Looks at 100 windows from all over the array: none lies under the floor, and where 0 dB is the
    loudest bin of a window, most have theirs there.
    """
    sample = _some_of(spectrograms).astype(np.float64)
    loudest = sample.max(axis=(1, 2))
    if not np.isfinite(loudest).all() or not np.isfinite(sample.min()):
        return []
    faults = []
    if sample.min() < FLOOR_DB - _LEVEL_DB:
        faults.append(f"values down to {sample.min():.1f} dB, where the floor is {FLOOR_DB:g}")
    if frontend.reference == "clip" and abs(float(np.median(loudest))) > _LEVEL_DB:
        faults.append(
            f"a loudest value of {np.median(loudest):.1f} dB in the median window, which is 0 with "
            "--reference clip"
        )
    if not faults:
        return []
    return [
        f"{path.name} has {' and '.join(faults)}: the stated front end did not make these windows, "
        "and sound put through it will not look like them"
    ]


def read_class_names(root: Path) -> tuple[str, ...]:
    """Names from classes.json or class_names.txt, else the report's five."""
    if (root / CLASSES_JSON).is_file():
        path = root / CLASSES_JSON
        try:
            names = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    elif (root / CLASSES_TEXT).is_file():
        path = root / CLASSES_TEXT
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as text ({error})") from None
        names = [name for name in names if name]
    else:
        return REPORT_CLASSES
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) and name.strip() for name in names)
        or len(set(names)) != len(names)
        or len(names) < 2
    ):
        raise InputError(f"{path}: must list at least two different class names, in label order")
    return tuple(names)


def _column(path: Path, length: int, what: str) -> np.ndarray:
    """A column of whole numbers (length,) int64."""
    values = load_array(path)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{path}: has shape {values.shape}; {what} must be (N,), one per clip")
    if len(values) != length:
        raise InputError(
            f"{path}: has {len(values):,} {what} for {length:,} spectrograms; "
            "the two files do not belong together"
        )
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values % 1 == 0).all():
        return values.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise InputError(f"{path}: has type {values.dtype}; {what} must be whole numbers")
    return values.astype(np.int64)


def _check_labels(path: Path, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(outside):
        first = int(outside[0])
        raise InputError(
            f"{path}: label {labels[first]} at index {first} is outside the classes "
            f"0..{len(class_names) - 1} ({len(outside):,} such labels); "
            f"name the classes in {CLASSES_JSON} if there are more"
        )
    found = np.unique(labels)
    if len(found) == 1:
        raise InputError(
            f"{path}: every clip is of class {class_names[found[0]]!r}; at least two are needed"
        )


def _rows(job: tuple[int, np.ndarray, np.ndarray], *, path: Path) -> Shard:
    """Rows from a first one on, with their labels and recordings."""
    start, labels, recordings = job
    stop = start + len(labels)
    return {
        "codes": encode_rows(path, start, stop),
        "labels": labels,
        "recording_ids": recordings,
        "clip_ids": np.arange(start, stop),
    }


def encode_rows(path: Path, start: int, stop: int) -> np.ndarray:
    """Codes of rows start..stop; raises InputError for NaN, infinite or out-of-range values."""
    block = np.asarray(load_spectrograms(path)[start:stop], dtype=np.float64)
    lowest, highest = block.min(axis=(1, 2)), block.max(axis=(1, 2))  # NaN propagates
    broken = np.flatnonzero(~np.isfinite(lowest) | ~np.isfinite(highest))
    if len(broken):
        raise InputError(
            f"{path}: spectrogram {start + broken[0]} holds NaN or infinite values; remove it"
        )
    outside = np.flatnonzero((lowest < LOWEST_DB) | (highest > HIGHEST_DB))
    if len(outside):
        first = int(outside[0])
        raise InputError(
            f"{path}: spectrogram {start + first} has values from {lowest[first]:.4g} to "
            f"{highest[first]:.4g}; values must be dB in {LOWEST_DB:.0f}..{-LOWEST_DB:.0f}, "
            "as 10 * log10(power)"
        )
    return encode_db(block)


def _brief(error: BaseException) -> str:
    return str(error).split("\n")[0][:120] or type(error).__name__
