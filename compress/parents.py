"""What a pass starts from: a finished run that did not change, or a float ONNX file, and its data.

The data of a run is found again by the hash of its content, and its split is read from split.json:
a pass never draws another one. An ONNX file from elsewhere has neither, so both are made for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress import runs
from compress.config import DataOptions
from compress.data.sets import SpectrogramSet, find_recorded, is_synthetic
from compress.data.splits import Split
from compress.errors import InputError
from compress.runs import Run


@dataclass(frozen=True)
class Parent:
    """The float model of a pass. ``run`` is None for an ONNX file that was not made here."""

    file: Path
    run: Run | None
    data: SpectrogramSet
    split: Split

    @property
    def name(self) -> str:
        return self.run.name if self.run else self.file.stem

    @property
    def seed(self) -> int:
        return int(self.run.manifest.get("seed") or 0) if self.run else 0

    def reference(self) -> dict[str, Any]:
        """What a manifest records of it."""
        digest = runs.sha256_file(self.file)
        if self.run is None:
            return {"folder": None, "file": str(self.file), "name": self.name, "sha256": digest}
        return self.run.reference() | {"sha256": digest}


def open_parent(path: Path, options: DataOptions) -> Parent:
    """A run folder or an .onnx file with its data; raises InputError for what does not fit."""
    if path.is_file():
        return _open_file(path, options)
    run = runs.open_run(path)
    run.check_unchanged()
    if run.manifest["stage"] == "quantize":
        of = (run.manifest.get("parent") or {}).get("folder")
        raise InputError(f"{path}: is an int8 run already{f'; it was made of {of}' if of else ''}")
    data = recorded_data(run, options)
    split = Split.from_json(runs.read_json(run.file(runs.SPLIT)))
    if max(int(side.max()) for side in (split.train, split.validation, split.test)) >= len(data):
        raise InputError(f"{path}/{runs.SPLIT}: names windows that the data set does not have")
    return Parent(run.file(runs.ONNX), run, data, split)


def recorded_data(run: Run, options: DataOptions) -> SpectrogramSet:
    """The data that a run was made on: ``--data`` where given, else by its hash from the cache.

    It is heard as the run heard it, as far as the options do not say otherwise.
    """
    recorded = run.manifest["data"]
    wanted = str(recorded.get("content_hash"))
    if options.data is None:
        data = find_recorded(recorded, options.cache)
        if data is None:
            raise lost_data(run, "--data")
        return data
    data = _read(_as_recorded(run, options))[0]
    if data.content_hash != wanted:
        if is_synthetic(data.name) and data.name == recorded.get("name"):
            raise InputError(
                f"{run.folder}: was made on {data.name!r} with content {wanted[:12]}, and with "
                f"these options today's synthesiser makes {data.content_hash[:12]}; if the options "
                "are the run's, only --cache with the folder that still holds the old set, or "
                "training again, helps"
            )
        raise InputError(
            f"{run.folder}: was made on {recorded.get('name')!r} with content {wanted[:12]}; "
            f"--data gives {data.name!r} with content {data.content_hash[:12]}, which is other "
            "data; leave out --data, or give the options that the run was made with"
        )
    return data


def _as_recorded(run: Run, options: DataOptions) -> DataOptions:
    """The options with the run's front end and pauses where they say nothing of these."""
    if options.frontend is None and options.reference is None and run.frontend is not None:
        options = replace(options, frontend=str(run.folder))
    within = run.manifest["data"].get("drop_quiet_db")
    if options.drop_quiet is None and isinstance(within, int | float):
        options = replace(options, drop_quiet=float(within))
    return options


def lost_data(run: Run, remedy: str) -> InputError:
    """The error for a run whose data is not in the cache any more; remedy: what reads it again."""
    name = str(run.manifest["data"].get("name"))
    lost = f"{run.folder}: its data {name!r} is not in the cache any more; "
    if is_synthetic(name):
        return InputError(
            f"{lost}give --cache with the folder that still holds it, or make it again with "
            f"{remedy} {name} and the options of the run, as far as the synthesiser is still that "
            "of then; else train again"
        )
    return InputError(
        f"{lost}say where it lies with {remedy} (and the options that the run was made with)"
    )


def _read(options: DataOptions) -> tuple[SpectrogramSet, Split]:
    from compress.session import read_data

    return read_data(options)


def _open_file(path: Path, options: DataOptions) -> Parent:
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: give a run folder or an .onnx file")
    if options.data is None:
        raise InputError(
            f"{path}: an .onnx file does not say what it was trained on; calibration needs --data"
        )
    data, split = _read(options)
    _check_ends(path, data)
    return Parent(path, None, data, split)


def _check_ends(path: Path, data: SpectrogramSet) -> None:
    """The file must take this data's windows and give this data's classes."""
    from compress.evaluate import onnx_session

    session = onnx_session(path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted = [1, data.mels, data.frames]
    shape = inputs[0].shape
    fits = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(shape) == 4
    if not fits or any(
        isinstance(n, int) and n != w for n, w in zip(shape[1:], wanted, strict=True)
    ):
        kinds = ", ".join(f"{i.shape} {i.type}" for i in inputs)
        raise InputError(
            f"{path}: takes {kinds}; the data has windows of [batch, {wanted[0]}, {wanted[1]}, "
            f"{wanted[2]}] float dB"
        )
    classes = outputs[0].shape[-1] if len(outputs) == 1 and outputs[0].shape else None
    if len(outputs) != 1 or isinstance(classes, int) and classes != len(data.class_names):
        raise InputError(
            f"{path}: gives {', '.join(str(o.shape) for o in outputs)}, the data has "
            f"{len(data.class_names)} classes ({', '.join(data.class_names)})"
        )
