"""Recognises what a data set is and opens it: the one way in for every pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compress.config import DataOptions
from compress.data.audio import SUFFIXES
from compress.data.audio_folder import class_folders, read_audio_folder
from compress.data.clips import build_from_clips
from compress.data.esc50 import is_esc50, read_esc50
from compress.data.files import list_audio
from compress.data.five import REPORT_CLASSES
from compress.data.fsd50k import is_fsd50k, read_fsd50k
from compress.data.npy_pair import is_npy_pair, read_npy_pair
from compress.data.sets import Shard, SpectrogramSet, build_cached, encode_db, is_synthetic
from compress.errors import InputError
from compress.frontend import FrontEnd
from compress.frontend_file import chosen_front_end
from compress.runs import digest, sha256_file

DEFAULT_SCENES = 6_000
_MOST_SCENES = 20_000_000
_SCENES_PER_JOB = 128

SCENES = "scenes"
BY_SOURCE = "sources"


@dataclass(frozen=True)
class Layout:
    """A kind of folder; a reader of another kind is one more row of LAYOUTS.

    name: short, as ``python -m compress.data`` prints it. what: what lies there, in words.
    recognises: whether a folder is one. read: the reader, called with the folder and, by keyword,
    name, frontend, five, strict, cache and workers; gives a SpectrogramSet or raises InputError.
    sound: whether sound files lie behind the windows; such a reader passes what it found to
    ``build``, compress.data.clips.build_from_clips unless the caller wants just the clips. Another
    reader is told, as ``stated``, whether its windows were made by ``frontend``.
    """

    name: str
    what: str
    recognises: Callable[[Path], bool]
    read: Callable[..., Any]
    sound: bool = True


def _read_npy_pair(
    root: Path,
    *,
    name: str,
    frontend: FrontEnd,
    five: bool,
    cache: Path | None,
    workers: int,
    stated: bool,
    **of_sound: Any,
) -> SpectrogramSet:
    known = frontend if stated else None
    data = read_npy_pair(root, name=name, frontend=known, cache=cache, workers=workers)
    if five and set(data.class_names) != set(REPORT_CLASSES):
        raise InputError(
            f"{root}: has classes of its own ({', '.join(data.class_names)}) and no names "
            "to map; use --classes own"
        )
    return data


def _has_class_folders(root: Path) -> bool:
    return any(list_audio(root, folder).audio for folder in class_folders(root))


# The first that recognises a folder reads it.
LAYOUTS = (
    Layout(
        "npy pair",
        "training.npy with training_labels.npy",
        is_npy_pair,
        _read_npy_pair,
        sound=False,
    ),
    Layout("ESC-50", "ESC-50's meta/esc50.csv with audio/", is_esc50, read_esc50),
    Layout("FSD50K", "FSD50K's FSD50K.ground_truth/", is_fsd50k, read_fsd50k),
    Layout(
        "class folders", "one folder of audio per class", _has_class_folders, read_audio_folder
    ),
)
_KNOWN = ", ".join(layout.what for layout in LAYOUTS[:-1]) + f", or {LAYOUTS[-1].what}"


def open_data(
    spec: str,
    *,
    frontend: FrontEnd,
    seed: int = 0,
    classes: str = "own",
    strict: bool = False,
    cache: Path | None = None,
    workers: int = 0,
    drop_quiet_db: float | None = None,
    stated: bool = False,
) -> SpectrogramSet:
    """The data set of ``spec``: ``scenes``, ``scenes:N`` or a folder in one of the layouts.

    ``seed`` is that of the synthetic scenes. ``classes="five"`` maps class names to the report's
    five; ``"sources"`` tells synthetic scenes apart by the source in front
    (compress.data.scene_sources). ``drop_quiet_db`` leaves out windows so much quieter than the
    loudest of their clip; where every clip is one window, that is none. ``stated``: the user says
    that windows that came as spectrograms were made by ``frontend``, too. The first call prepares
    the set in ``cache``; later ones open it. Raises InputError with one line for whatever is wrong
    with it.
    """
    layout = find_layout(spec)
    if layout == SCENES:
        by_source = classes == BY_SOURCE
        return _open_scenes(_scene_count(spec), seed, frontend, cache, workers, by_source)
    if classes == BY_SOURCE:
        raise InputError(
            f"{spec}: --classes {BY_SOURCE} is for the synthetic scenes, whose sources are known; "
            "use --classes own"
        )
    root = Path(spec).expanduser()
    (found,) = (known for known in LAYOUTS if known.name == layout)
    if found.sound and drop_quiet_db is not None:
        special: dict[str, Any] = {"build": partial(build_from_clips, drop_quiet_db=drop_quiet_db)}
    else:
        special = {} if found.sound else {"stated": stated}
    return found.read(
        root,
        name=root.resolve().name,
        frontend=frontend,
        five=classes == "five",
        strict=strict,
        cache=cache,
        workers=workers,
        **special,
    )


def open_chosen(options: DataOptions) -> SpectrogramSet:
    """The data set of a command's options; raises InputError also where none is given."""
    if options.data is None:
        raise InputError("--data must be given: 'scenes', 'scenes:N' or the folder of a data set")
    frontend, stated = chosen_front_end(options)
    return open_data(
        options.data,
        frontend=frontend,
        stated=stated,
        seed=options.data_seed,
        classes=options.classes,
        strict=options.strict,
        cache=options.cache,
        workers=options.workers,
        drop_quiet_db=options.drop_quiet,
    )


def find_layout(spec: str) -> str:
    """The name of the layout that ``spec`` has; raises InputError where it is none."""
    if is_synthetic(spec):
        _scene_count(spec)
        return SCENES
    root = Path(spec).expanduser()
    if not root.exists():
        raise InputError(
            f"{spec}: no such folder; give 'scenes', 'scenes:N' or a folder with {_KNOWN}"
        )
    if not root.is_dir():
        raise InputError(f"{spec}: is a file; give the folder of a data set ({_KNOWN})")
    try:
        empty = not any(root.iterdir())
    except PermissionError:
        raise InputError(f"{spec}: permission denied") from None
    if empty:
        raise InputError(f"{spec}: the folder is empty; it should hold {_KNOWN}")
    for layout in LAYOUTS:
        if layout.recognises(root):
            return layout.name
    if any(entry.suffix.lower() in SUFFIXES for entry in root.iterdir()):
        raise InputError(
            f"{spec}: sound files without class folders; put the files of each class into a "
            "folder of the class's name (unlabelled audio goes to --transfer)"
        )
    raise InputError(f"{spec}: no known layout; it should hold {_KNOWN}")


def is_sound(spec: str) -> bool:
    """Whether sound lies behind the windows of ``spec``, so that a front end makes them."""
    layout = find_layout(spec)
    return layout == SCENES or any(known.sound for known in LAYOUTS if known.name == layout)


def _scene_count(spec: str) -> int:
    if spec == "scenes":
        return DEFAULT_SCENES
    given = spec.removeprefix("scenes:")
    if not re.fullmatch(r"[0-9]{1,12}", given) or not 1 <= int(given) <= _MOST_SCENES:
        raise InputError(
            f"{spec}: {given!r} is no number of clips; give scenes:N with N from 1 to "
            f"{_MOST_SCENES:,}, for example scenes:{DEFAULT_SCENES}"
        )
    return int(given)


def _open_scenes(
    count: int,
    seed: int,
    frontend: FrontEnd,
    cache: Path | None,
    workers: int,
    by_source: bool,
) -> SpectrogramSet:
    from compress.data.scene_sources import SOURCE_NAMES
    from compress.data.scenes import CLASS_NAMES

    jobs = [
        (start, min(start + _SCENES_PER_JOB, count)) for start in range(0, count, _SCENES_PER_JOB)
    ]
    return build_cached(
        name=f"scenes:{count}" + (" by source" if by_source else ""),
        key={
            "reader": "scenes",
            "code": _scene_code(),
            "count": count,
            "seed": seed,
            "frontend": frontend.to_dict(),
            **({"sources": list(SOURCE_NAMES)} if by_source else {}),
        },
        jobs=jobs,
        make=partial(_scene_shard, seed=seed, frontend=frontend, by_source=by_source),
        class_names=SOURCE_NAMES if by_source else CLASS_NAMES,
        frontend=frontend,
        synthetic=True,
        scene_seed=seed,
        cache=cache,
        workers=workers,
        label="making synthetic scenes",
        units_per_job=min(_SCENES_PER_JOB, count),
    )


def _scene_code() -> str:
    """Digest of the synthesiser's source, so that a changed one never finds an old set."""
    here = Path(__file__).parent
    sources = [here / "scenes.py", *sorted((here / "synthesis").glob("*.py"))]
    sources.append(here.parent / "frontend.py")
    return digest([sha256_file(path) for path in sources])


def _scene_shard(
    job: tuple[int, int], *, seed: int, frontend: FrontEnd, by_source: bool = False
) -> Shard:
    from compress.data.scenes import scene_block

    start, stop = job
    block: dict[str, Any] = scene_block(seed, start, stop, frontend)
    labels = _source_labels(block, seed, frontend) if by_source else block["labels"]
    return {
        "codes": encode_db(block["db"]),
        "labels": labels,
        "recording_ids": block["recording_ids"],
        "clip_ids": np.arange(start, stop),
    }


def _source_labels(block: dict[str, Any], seed: int, frontend: FrontEnd) -> np.ndarray:
    from compress.data.scene_sources import source_label
    from compress.data.scenes import foreground_of

    recordings, first, which = np.unique(
        block["recording_ids"], return_index=True, return_inverse=True
    )
    labels = [
        source_label(int(label), foreground_of(seed, int(recording), frontend))
        for recording, label in zip(recordings, block["labels"][first], strict=True)
    ]
    return np.array(labels)[which]
