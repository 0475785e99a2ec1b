"""The run folder: what every pass writes and the next one reads.

    runs/NAME/manifest.json        what was run, from what, and the hash of every artefact
              split.json           the clips of each side of the split, as lists
              model.json           name and arguments that rebuild the network
              weights.safetensors  learnable weights, running statistics, normalisation
              model.onnx           the artefact that ships
              metrics.json         everything measured on model.onnx, with its hash
              curves.csv, curves.png
              checkpoint.pt        only while training; the same command continues from it
              steps/               likewise, of a pass that trains several times

Files are written to a temporary name and renamed, so that a killed process leaves whole files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import InputError

if TYPE_CHECKING:
    from compress.frontend import FrontEnd

SCHEMA = 1
MANIFEST = "manifest.json"
METRICS = "metrics.json"
MODEL = "model.json"
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
SPLIT = "split.json"
CURVES = "curves.csv"
DECISIONS = "test_decisions.npz"
CHECKPOINT = "checkpoint.pt"
STEPS = "steps"

_TEMPORARY = ".tmp"
_LARGEST_JSON_BYTES = 512 * 2**20


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def forget_temporaries(folder: Path) -> None:
    """Remove what :func:`atomic_path` left where a process was killed; call it under a lock."""
    for left in folder.glob(f".*{_TEMPORARY}"):
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises InputError with one clear line."""
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, not a JSON object")
    return value


def read_json_list(path: Path) -> list[Any]:
    """A JSON list from a file; raises InputError with one clear line."""
    value = read_json_value(path)
    if not isinstance(value, list):
        raise InputError(f"{path}: holds a {type(value).__name__}, not a JSON list")
    return value


def read_json_value(path: Path) -> Any:
    """Any JSON from a file; raises InputError with one clear line."""
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            raise InputError(f"{path}: too large to be a file of this workbench")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON-able value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def slug(text: str) -> str:
    """A name that is safe as one part of a path."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:80] or "run"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the figures."""
    from importlib import metadata  # slow to import, and --help needs none

    found = {"python": platform.python_version()}
    for package in ("torch", "timm", "numpy", "onnx", "onnxruntime", "lightning-fabric",
                    "ai-edge-litert", "ethos-u-vela"):  # fmt: skip
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def model_file(stage: str) -> str:
    """The file of a run of this stage whose hash children record of it."""
    return ONNX if stage in ("quantize", "ensemble") else WEIGHTS


@dataclass(frozen=True)
class Run:
    """An existing run folder. ``manifest`` is its content as read."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def complete(self) -> bool:
        return self.manifest.get("status") == "complete"

    @property
    def key(self) -> str:
        return str(self.manifest.get("key", ""))

    @property
    def name(self) -> str:
        return str(self.manifest.get("name", self.folder.name))

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.manifest["data"]["class_names"])

    @property
    def frontend(self) -> FrontEnd | None:
        """How sound became the run's windows; None where its data came as spectrograms."""
        from compress.frontend import FrontEnd

        recorded = self.manifest["data"].get("frontend")
        if not isinstance(recorded, dict):
            return None
        try:
            return FrontEnd.from_dict(recorded)
        except TypeError as error:
            raise InputError(
                f"{self.folder / MANIFEST}: front end is damaged ({error})"
            ) from None

    def file(self, name: str) -> Path:
        """A file that the run must have; raises InputError where it is missing."""
        path = self.folder / name
        if not path.is_file():
            if self.manifest["stage"] == "quantize" and name in (MODEL, WEIGHTS):
                raise InputError(
                    f"{self.folder}: holds an int8 file, whose weights cannot be trained further; "
                    "give the run that it was made of"
                )
            if self.manifest["stage"] == "export" and name in (MODEL, WEIGHTS, ONNX):
                of = (self.manifest.get("parent") or {}).get("folder")
                raise InputError(
                    f"{self.folder}: holds an export, which no other command goes on from; give "
                    f"the run that it was made of{f', {of}' if of else ''}"
                )
            if self.manifest["stage"] == "baseline" and name in (MODEL, WEIGHTS, ONNX):
                raise InputError(
                    f"{self.folder}: holds a baseline, which has no network to go on with; give "
                    "the run of a student"
                )
            raise InputError(
                f"{self.folder}: this run folder has no {name}; "
                f"run the command that made it again to finish it"
            )
        return path

    def metrics(self) -> dict[str, Any]:
        return read_json(self.file(METRICS))

    def model_hash(self) -> str:
        """The hash that children record of this parent: its weights' bytes, or its int8 file's.

        Of an ensemble it is its file's too: the same weights give other logits by another mean.
        """
        return sha256_file(self.file(model_file(self.manifest["stage"])))

    def check_complete(self) -> None:
        """Raise InputError where the run is under way, was interrupted, or failed."""
        if self.complete:
            return
        if self.manifest.get("status") == "failed":
            raise InputError(f"{self.folder}: this run failed ({self.manifest.get('fault')})")
        raise InputError(f"{self.folder}: this run is not finished; run its command again first")

    def reference(self) -> dict[str, str]:
        """What a manifest records of a parent or a teacher."""
        return {
            "folder": str(self.folder),
            "name": self.name,
            "weights_sha256": self.model_hash(),
        }

    def check_unchanged(self) -> None:
        """Raise InputError where the run is unfinished or its files are not those it recorded."""
        self.check_complete()
        lost = missing(self.folder, self.manifest)
        if lost:
            raise InputError(
                f"{self.folder}: {', '.join(lost)} changed since this run was finished, so its "
                "figures do not hold; run the command that made it again"
            )


def open_run(folder: Path) -> Run:
    """Read a run folder; raises InputError where it is none, or is unfinished."""
    if not folder.exists():
        raise InputError(f"{folder}: no such run folder")
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"{folder}: not a run folder (no {MANIFEST}); give a folder that "
            "compress.distill, compress.train or compress.teach wrote"
        )
    manifest = read_json(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise InputError(
            f"{folder}/{MANIFEST}: schema {manifest.get('schema')!r}, this version reads {SCHEMA}"
        )
    for key, kind in (("stage", str), ("status", str), ("data", dict), ("model", str)):
        if not isinstance(manifest.get(key), kind):
            raise InputError(f"{folder}/{MANIFEST}: has no valid {key!r}; the file is damaged")
    if not isinstance(manifest.get("artefacts", {}), dict):
        raise InputError(f"{folder}/{MANIFEST}: has no valid 'artefacts'; the file is damaged")
    names = manifest["data"].get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{folder}/{MANIFEST}: has no valid class names; the file is damaged")
    return Run(folder, manifest)


def is_folder(name: str) -> bool:
    """Whether the name of a teacher means a run folder and not a network of timm."""
    return "/" in name or Path(name).is_dir()


def find_runs(root: Path) -> list[Path]:
    """Folders below ``root`` that hold a manifest, sorted."""
    return sorted(path.parent for path in root.rglob(MANIFEST)) if root.is_dir() else []


@contextlib.contextmanager
def held(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder, which is made, against other processes.

    doing: what one that holds it does, for the line of the InputError that is then raised.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder}: another process {doing}; wait for it, or choose another with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


class RunWriter:
    """A run folder being written. One process at a time holds its lock.

    States that ``begin`` finds: complete with the same key (nothing to do), unfinished with the
    same key (continue), another key (refuse, or start again with ``force``). A run that failed, as
    a training does whose loss is not finite, says so with its line and counts as unfinished.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], writes: bool = True) -> None:
        self.folder = folder
        self.manifest = dict(manifest)
        self.writes = writes
        self._started = time.time()
        self._lock: Any = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[RunWriter]:
        """Hold the folder against other processes; raises InputError where one holds it."""
        if not self.writes:
            yield self
            return
        with held(self.folder, "is writing to this run folder"):
            try:
                yield self
            except InputError as error:
                if self.manifest.get("status") == "running":
                    self._fail(str(error))
                raise

    def begin(self, force: bool = False) -> bool:
        """Write the first manifest. True where the run is complete already."""
        path = self.folder / MANIFEST
        if path.is_file() and not force:
            found = read_json(path)
            if found.get("key") != self.manifest["key"]:
                raise InputError(
                    f"{self.folder}: holds another run ({difference(found, self.manifest)}); "
                    "choose another folder with --out, or start again with --force"
                )
            if found.get("status") == "complete" and not missing(self.folder, found):
                self.manifest = found
                if self.writes:  # it may have been killed between its last two steps
                    self._forget_progress()
                return True
        if not path.is_file() and self.writes:
            self._refuse_strangers()
        if force and self.writes:
            (self.folder / METRICS).unlink(missing_ok=True)
            self._forget_progress()
        self.manifest |= {
            "schema": SCHEMA,
            "status": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        }
        self._save()
        return False

    def _refuse_strangers(self) -> None:
        """A run writes into a folder of its own, not among the files of somebody."""
        held = self.folder.iterdir() if self.folder.is_dir() else ()
        strangers = sorted(found.name for found in held if not found.name.startswith("."))
        if strangers:
            raise InputError(
                f"{self.folder}: holds {strangers[0]}, which is of no run; choose a new or an "
                "empty folder with --out"
            )

    def finish(self, artefacts: list[str], **more: Any) -> None:
        """Record the hash of every artefact and mark the run complete.

        Raises InputError where the folder was removed while the command ran.
        """
        lost = [name for name in artefacts if not (self.folder / name).is_file()]
        if lost:
            raise InputError(
                f"{self.folder}: {', '.join(lost)} was removed while the command ran; "
                "run the same command again"
            )
        hashes = {name: sha256_file(self.folder / name) for name in artefacts}
        self.manifest |= {"status": "complete", "artefacts": hashes, **more}
        self._save()
        if self.writes:
            self._forget_progress()

    def _fail(self, fault: str) -> None:
        if (self.folder / MANIFEST).is_file():  # not where the folder was removed
            self.manifest |= {"status": "failed", "fault": fault}
            self._save()

    def _forget_progress(self) -> None:
        forget_temporaries(self.folder)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        shutil.rmtree(self.folder / STEPS, ignore_errors=True)

    def _save(self) -> None:
        if self.writes:
            write_json(self.folder / MANIFEST, self.manifest)


def missing(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Artefacts that the manifest names and the folder lacks or holds with another content."""
    lost = []
    for name, expected in manifest.get("artefacts", {}).items():
        path = folder / name
        if not inside(folder, name) or not path.is_file() or sha256_file(path) != expected:
            lost.append(name)
    return lost


def behind(run: Run) -> tuple[list[Run], list[Path]]:
    """The runs that a run learnt from, through all generations, and the folders that are missing.

    Those are its teachers, its parent and, of an ensemble, its members.
    """
    found, missing = {run.folder: run}, []
    waiting = [run]
    while waiting:
        manifest = waiting.pop().manifest
        listed = [*(manifest.get("teachers") or []), *(manifest.get("members") or [])]
        for entry in [*listed, *([manifest["parent"]] if manifest.get("parent") else [])]:
            folder = Path(entry.get("folder") or "")
            if "folder" not in entry or folder in found or folder in missing:
                continue
            if not (folder / MANIFEST).is_file():
                missing.append(folder)
                continue
            found[folder] = open_run(folder)
            waiting.append(found[folder])
    return [other for other in found.values() if other is not run], missing


def inside(folder: Path, name: str) -> bool:
    """Whether ``name``, read from a file, stays in ``folder``: no path out of it, nor a link."""
    try:
        return bool(name) and (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):
        return False


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first few settings in which two manifests differ, in words."""
    parts: list[str] = []
    if found.get("model") != wanted.get("model"):
        parts.append(f"model {found.get('model')!r}, not {wanted.get('model')!r}")
    ours, theirs = (_flat(manifest.get("settings")) for manifest in (wanted, found))
    for name, value in ours.items():
        if name != "model" and theirs.get(name) != value:
            parts.append(f"{name} {_brief(theirs.get(name))}, not {_brief(value)}")
    return "; ".join(parts[:3]) or "other settings or data"


def _flat(settings: Any) -> dict[str, Any]:
    """Settings by name, those of a recipe too, each as a manifest holds it."""
    settings = json.loads(json.dumps(settings, default=str))
    if not isinstance(settings, dict):
        return {}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = value if isinstance(value, dict) else {}
        found |= {f"{name} {key}": of_key for key, of_key in inner.items()} or {name: value}
    return found


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:20]}..."
