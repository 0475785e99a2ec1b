"""The one form of every data set: spectrograms on disk, memory-mapped, with what belongs to them.

    reader -> jobs -> shards (in worker processes, each written whole) -> one folder in the cache
              spectrograms.npy (N, mels, frames) int16, labels.npy, recording_ids.npy, ...

Values are kept as Q8.8 fixed point: dB = code / 256. The rounding error is at most 1/512 dB
(0.002 dB) and the range -128 to +128 dB. Building continues where it was interrupted, shard by
shard; two processes that want the same set wait for one another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli
from compress.errors import InputError
from compress.frontend import FrontEnd
from compress.runs import atomic_path, digest, forget_temporaries, read_json, write_json

CODES_PER_DB = 256
ROUNDING_ERROR_DB = 0.5 / CODES_PER_DB
FORMAT = 1
_MOST_MAPPED_BYTES = 512 * 2**20
PARTIAL = ".partial"  # ending of the folder of a set that is being built

Shard = dict[str, Any]
"""What one job gives: ``codes`` (n, mels, frames) int16, ``labels``, ``recording_ids``,
``clip_ids`` and optionally ``folds`` (n,) int64, and optionally ``notes``, a list of sentences."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_COLUMNS = ("labels", "recording_ids", "clip_ids", "folds")


@dataclass(frozen=True)
class SpectrogramSet:
    """Spectrograms with labels, in the form that every pass reads.

    A *window* is one spectrogram. A *clip* is one labelled unit, of one or more windows, and the
    unit of every decision. A *recording* is the source that clips were cut from.

    codes: (N, mels, frames) int16, memory-mapped; dB = code / 256.
    labels: (N,) int64, -1 where unlabelled.
    recording_ids, clip_ids: (N,) int64.
    folds: (N,) int64 official folds 1..K, or None.
    frontend: settings that made the spectrograms, or None where they came as spectrograms.
    scene_seed: of synthetic scenes; a longer set of the same seed begins with the same clips.
    """

    name: str
    codes: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    recording_ids: np.ndarray
    clip_ids: np.ndarray
    folds: np.ndarray | None
    frontend: FrontEnd | None
    synthetic: bool
    content_hash: str
    notes: tuple[str, ...] = ()
    scene_seed: int | None = None
    drop_quiet_db: float | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def mels(self) -> int:
        return int(self.codes.shape[1])

    @property
    def frames(self) -> int:
        return int(self.codes.shape[2])

    @property
    def mapped(self) -> np.memmap | None:
        """The spectrograms where they are mapped, all of one file."""
        codes = self.codes
        if isinstance(codes, np.memmap):
            whole = isinstance(codes.base, mmap.mmap)
            if whole and codes.filename:
                return codes
        return None

    @property
    def folder(self) -> Path | None:
        """Where a prepared set lies; None for one in memory, or a part of another."""
        mapped = self.mapped
        if mapped is None:
            return None
        folder = Path(str(mapped.filename)).parent
        return folder if (folder / "set.json").is_file() else None

    def read(self, windows: np.ndarray | slice) -> np.ndarray:
        """Codes of some windows, copied, (n, mels, frames) int16; the others take no memory."""
        mapped = self.mapped
        if mapped is not None and mapped.nbytes > _MOST_MAPPED_BYTES:
            path = Path(str(mapped.filename))
            return _read_file(mapped, path, np.arange(len(self))[windows])
        return np.array(self.codes[windows])

    def decibels(self, indices: np.ndarray) -> np.ndarray:
        """Spectrograms of some windows, (n, mels, frames) float32 dB."""
        return decode_db(self.read(indices))

    def shares_scenes(self, recorded: Mapping[str, Any]) -> bool:
        """Whether a manifest records another length of these synthetic scenes: both begin alike."""
        return (
            self.scene_seed is not None
            and recorded.get("scene_seed") == self.scene_seed
            and recorded.get("content_hash") != self.content_hash
        )

    def is_otherwise_heard(self, recorded: Mapping[str, Any]) -> bool:
        """Whether a manifest records these clips through another front end or with other windows,
        as far as names tell."""
        ours = self.describe()
        return all(ours[name] == recorded.get(name) for name in ("name", "class_names")) and any(
            ours.get(name) != recorded.get(name) for name in ("frontend", "drop_quiet_db")
        )

    def describe(self) -> dict[str, Any]:
        """What a manifest records of the set."""
        return {
            "name": self.name,
            "content_hash": self.content_hash,
            "class_names": list(self.class_names),
            "synthetic": self.synthetic,
            "windows": len(self),
            "mels": self.mels,
            "frames": self.frames,
            "frontend": self.frontend.to_dict() if self.frontend else None,
            "notes": list(self.notes),
            **({} if self.scene_seed is None else {"scene_seed": self.scene_seed}),
            **({} if self.drop_quiet_db is None else {"drop_quiet_db": self.drop_quiet_db}),
        }


def encode_db(decibels: np.ndarray) -> np.ndarray:
    """dB (float) -> Q8.8 codes (int16); values outside -128..+128 dB are clipped."""
    codes = np.rint(np.asarray(decibels) * CODES_PER_DB)
    return np.clip(codes, -32768, 32767).astype(np.int16)


def decode_db(codes: np.ndarray) -> np.ndarray:
    """Q8.8 codes -> dB float32."""
    return codes.astype(np.float32) / CODES_PER_DB


def _read_file(codes: np.memmap, path: Path, windows: np.ndarray) -> np.ndarray:
    """Some windows of a mapped array, read from its file ``path``.

    Read through the mapping, a process would hold every page that it ever touched, and its
    neighbours: all of the set after one epoch. This is as fast.
    """
    found = np.empty((len(windows), *codes.shape[1:]), dtype=codes.dtype)
    bytes_each = codes[0].nbytes
    with path.open("rb", buffering=0) as file:
        for row, window in zip(found, windows.tolist(), strict=True):
            file.seek(codes.offset + window * bytes_each)
            if file.readinto(row) != bytes_each:
                raise InputError(f"{path}: ends too soon; delete its folder to prepare it again")
    return found


def default_cache() -> Path:
    """$COMPRESS_CACHE, else compress-workbench in the user's cache folder."""
    chosen = os.environ.get("COMPRESS_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "compress-workbench"


def is_synthetic(name: str) -> bool:
    """Whether ``--data`` of this name means the built-in scenes."""
    return name == "scenes" or name.startswith("scenes:")


def find_set(wanted_hash: str, cache: Path | None = None) -> SpectrogramSet | None:
    """The prepared set of just that content, where the cache has it."""
    for path in sorted(((cache or default_cache()) / "sets").glob("*/set.json")):
        if path.parent.suffix == PARTIAL:
            continue  # about to be renamed by the process that builds it
        try:
            if read_json(path).get("content_hash") == wanted_hash:
                return open_set(path.parent)
        except (InputError, KeyError):
            continue  # a damaged set is not the one that is looked for
    return None


def find_recorded(
    recorded: Mapping[str, Any], cache: Path | None = None
) -> SpectrogramSet | None:
    """The prepared set that a manifest's ``data`` records, where the cache has it.

    It has the name recorded there: another folder of the same content may have been prepared too.
    """
    found = find_set(str(recorded.get("content_hash")), cache)
    name = recorded.get("name")
    return found if found is None or not isinstance(name, str) else replace(found, name=name)


def build_cached(
    *,
    name: str,
    key: Mapping[str, Any],
    jobs: Sequence[Any],
    make: Callable[[Any], Shard],
    class_names: Sequence[str],
    frontend: FrontEnd | None,
    synthetic: bool = False,
    scene_seed: int | None = None,
    cache: Path | None = None,
    workers: int = 0,
    label: str = "data",
    notes: Sequence[str] = (),
    units_per_job: int = 1,
    drop_quiet_db: float | None = None,
) -> SpectrogramSet:
    """Open the set of ``key`` in the cache, or build it first.

    ``make(job)`` gives a Shard; it runs in worker processes, so it must be a module-level function
    (or a functools.partial of one) and may import torch inside. ``key`` must hold everything that
    decides the content. Raises InputError where the jobs give no window at all.
    """
    from filelock import FileLock

    root = (cache or default_cache()) / "sets"
    identity = digest({"format": FORMAT, **key})[:24]
    folder = root / identity
    if not (folder / "set.json").is_file():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{identity}.lock"):
            if not (folder / "set.json").is_file():
                partial = root / f"{identity}{PARTIAL}"
                if partial.is_dir():
                    forget_temporaries(partial)
                _make_shards(partial, jobs, make, workers, label, units_per_job)
                described = {
                    "name": name,
                    "class_names": list(class_names),
                    "frontend": frontend.to_dict() if frontend else None,
                    "synthetic": synthetic,
                    "notes": list(notes),
                    **({} if scene_seed is None else {"scene_seed": scene_seed}),
                    **({} if drop_quiet_db is None else {"drop_quiet_db": drop_quiet_db}),
                }
                _merge(partial, len(jobs), described, name)
                if folder.exists():
                    shutil.rmtree(folder)
                os.replace(partial, folder)
    return open_set(folder)


def _make_shards(
    partial: Path,
    jobs: Sequence[Any],
    make: Callable[[Any], Shard],
    workers: int,
    label: str,
    units_per_job: int,
) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    if (partial / "set.json").is_file():
        return
    todo = [i for i in range(len(jobs)) if not (partial / f"shard-{i:06d}.npz").is_file()]
    workers = workers or os.cpu_count() or 1
    with cli.progress(len(jobs) * units_per_job, label, "clip") as bar:
        bar.update((len(jobs) - len(todo)) * units_per_job)
        if workers == 1 or len(todo) <= 1:
            for index in todo:
                _write_shard(partial, index, make, jobs[index])
                bar.update(units_per_job)
            return
        from concurrent.futures import ProcessPoolExecutor, as_completed

        context = multiprocessing.get_context("spawn")
        with (
            _one_thread_each(),
            ProcessPoolExecutor(
                min(workers, len(todo)), mp_context=context, initializer=_watch_parent
            ) as pool,
        ):
            running = [pool.submit(_write_shard, partial, i, make, jobs[i]) for i in todo]
            try:
                for future in as_completed(running):
                    future.result()
                    bar.update(units_per_job)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile compute on one thread: libraries read this when they load."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _watch_parent() -> None:
    """A worker whose parent was killed would wait for its next job for ever: end it instead."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_shard(partial: Path, index: int, make: Callable[[Any], Shard], job: Any) -> None:
    shard = make(job)
    arrays: dict[str, Any] = {"codes": np.ascontiguousarray(shard["codes"], dtype=np.int16)}
    for column in _COLUMNS:
        if shard.get(column) is not None:
            arrays[column] = np.asarray(shard[column], dtype=np.int64)
    arrays["notes"] = np.frombuffer(json.dumps(shard.get("notes", [])).encode(), dtype=np.uint8)
    with atomic_path(partial / f"shard-{index:06d}.npz") as path, path.open("wb") as file:
        np.savez(file, **arrays)


def _merge(partial: Path, count: int, described: dict[str, Any], name: str) -> None:
    """Join the shards, in order, into one folder. They are deleted only after set.json is there."""
    paths = [partial / f"shard-{i:06d}.npz" for i in range(count)]
    if not (partial / "set.json").is_file():
        notes = _join(partial, paths, name)
        described["notes"] = [*described["notes"], *notes]
        described["format"] = FORMAT
        described["content_hash"] = content_hash(partial, described)
        write_json(partial / "set.json", described)
    for path in paths:
        path.unlink(missing_ok=True)


def _join(partial: Path, paths: Sequence[Path], name: str) -> list[str]:
    """Write the columns from the shards and return the notes of all shards."""
    columns: dict[str, list[np.ndarray]] = {column: [] for column in _COLUMNS}
    notes: list[str] = []
    shapes = []
    for path in paths:
        with np.load(path, allow_pickle=False) as shard:
            for column in _COLUMNS:
                if column in shard:
                    columns[column].append(shard[column])
            notes += json.loads(shard["notes"].tobytes().decode())
            shapes.append(shard["codes"].shape)
    total = sum(shape[0] for shape in shapes)
    if total == 0:
        shutil.rmtree(partial)
        why = f" ({'; '.join(notes[:3])})" if notes else ""
        raise InputError(f"{name}: not one usable clip was found{why}")
    mels, frames = next(shape[1:] for shape in shapes if shape[0])
    # Written, not mapped: a full disk is an error of write(), but would kill a mapping process.
    with atomic_path(partial / "spectrograms.npy") as path, path.open("wb") as file:
        header = {"descr": "<i2", "fortran_order": False, "shape": (total, mels, frames)}
        np.lib.format.write_array_header_1_0(file, header)
        for shard_path in paths:
            with np.load(shard_path, allow_pickle=False) as shard:
                file.write(np.ascontiguousarray(shard["codes"], dtype="<i2").data)
    for column, parts in columns.items():
        if parts:
            with atomic_path(partial / f"{column}.npy") as path, path.open("wb") as file:
                np.save(file, np.concatenate(parts))
    return notes


def content_hash(folder: Path, described: Mapping[str, Any]) -> str:
    """SHA-256 over spectrograms, labels, recordings, folds, class names and front end."""
    hasher = hashlib.sha256()
    hasher.update(digest([described["class_names"], described["frontend"]]).encode())
    for column in ("spectrograms", *_COLUMNS):
        path = folder / f"{column}.npy"
        if path.is_file():
            hasher.update(column.encode())
            with path.open("rb") as file:
                hasher.update(hashlib.file_digest(file, "sha256").digest())
    return hasher.hexdigest()


def check_content(data: SpectrogramSet) -> str:
    """The content hash of an opened set, computed again from the files in the cache."""
    folder = Path(str(data.codes.filename)).parent  # type: ignore[attr-defined]
    return content_hash(folder, read_json(folder / "set.json"))


def open_set(folder: Path) -> SpectrogramSet:
    """Open a built set; the spectrograms stay on disk until they are indexed."""
    described = read_json(folder / "set.json")
    try:
        codes = np.load(folder / "spectrograms.npy", mmap_mode="r", allow_pickle=False)
        columns = {
            column: np.load(folder / f"{column}.npy", allow_pickle=False)
            for column in _COLUMNS
            if (folder / f"{column}.npy").is_file()
        }
    except (OSError, ValueError, EOFError) as error:  # EOFError: an empty file
        raise InputError(
            f"{folder}: prepared data is damaged ({error}); delete this folder to prepare it again"
        ) from None
    frontend = described["frontend"]
    return SpectrogramSet(
        name=described["name"],
        codes=codes,
        labels=columns["labels"],
        class_names=tuple(described["class_names"]),
        recording_ids=columns["recording_ids"],
        clip_ids=columns["clip_ids"],
        folds=columns.get("folds"),
        frontend=FrontEnd.from_dict(frontend) if frontend else None,
        synthetic=bool(described["synthetic"]),
        content_hash=described["content_hash"],
        notes=tuple(described["notes"]),
        scene_seed=described.get("scene_seed"),
        drop_quiet_db=described.get("drop_quiet_db"),
    )
