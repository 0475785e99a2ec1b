"""The run folder of an export: its manifest, its name, and whose folder it may be written into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress import runs
from compress.config import ExportConfig
from compress.data.sets import SpectrogramSet
from compress.data.splits import Split
from compress.errors import InputError
from compress.runs import Run, RunWriter
from compress.session import data_name


def export_writer(
    parent: Run,
    form: str,
    data: SpectrogramSet,
    split: Split,
    settings: Mapping[str, Any],
    config: ExportConfig,
    kind: str | None = None,
) -> RunWriter:
    """The writer of an export of ``parent`` in the format ``form``.

    settings: what decides the result besides parent, data and split. kind: stands in the folder's
    name (the format by default). Raises InputError where the folder holds something else.
    """
    sha256 = runs.sha256_file(parent.file(runs.ONNX))
    decided = {
        "stage": "export",
        "format": form,
        "parent": sha256,
        "data": data.content_hash,
        "split": split.digest(),
        **settings,
    }
    key = runs.digest(decided)
    seed = int(parent.manifest.get("seed") or 0)
    manifest = {
        "name": parent.name,
        "stage": "export",
        "format": form,
        "model": parent.manifest["model"],
        "key": key,
        "settings": decided,
        "seed": seed,
        "fold": split.fold,
        "device": "cpu",
        "processes": 1,
        "data": data.describe(),
        "parent": parent.reference() | {"sha256": sha256},
        "teachers": [],
    }
    parts = [runs.slug(parent.name), kind or form, data_name(data, split), f"s{seed}", key[:6]]
    folder = config.out or config.runs / "-".join(parts)
    _refuse_foreign(folder, config.force)
    return RunWriter(folder, manifest)


def refuse_export(parent: Run) -> None:
    """Raise InputError where the run that is to be exported is an export itself."""
    if parent.manifest["stage"] == "export":
        of = (parent.manifest.get("parent") or {}).get("folder")
        raise InputError(f"{parent.folder}: is an export already; it was made of {of}")


def _refuse_foreign(folder: Path, force: bool) -> None:
    """A path that holds something which no command here wrote is left alone without --force."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give another folder with --out")
    if force or not folder.is_dir() or (folder / runs.MANIFEST).is_file():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
    if others:
        raise InputError(
            f"{folder}: holds {others[0]!r} and is no run folder; choose another with --out, or "
            "write over it with --force"
        )
