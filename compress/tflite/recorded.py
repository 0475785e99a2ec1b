"""What exports recorded of NPUs, read back for the report as far as it still holds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from compress import runs
from compress.errors import InputError
from reports.npu import NpuRecord

_KINDS = {
    "sram_bytes": int, "flash_bytes": int, "cycles": int, "inferences_per_second": (int, float),
    "clock_hz": int, "operators": int, "accelerator": str, "system": str, "optimise": str,
    "vela": str, "all_on_cpu": bool, "cpu_operators": list,
}  # fmt: skip


def npu_records(root: Path) -> tuple[list[NpuRecord], list[str]]:
    """(a record per .tflite export below ``root`` and accelerator, why figures were left out)."""
    records: list[NpuRecord] = []
    notes: list[str] = []
    for folder in runs.find_runs(root):
        try:
            opened = runs.open_run(folder)
            if opened.complete and opened.manifest.get("format") == "tflite":
                records += _of(opened)
        except InputError as error:
            notes.append(f"{folder}: figures of NPUs are left out ({error})")
    return sorted(records, key=lambda r: (r.data or "", r.name, r.accelerator, r.run)), notes


def _of(run: runs.Run) -> list[NpuRecord]:
    metrics = run.metrics()
    found = metrics.get("vela")
    if not found:
        return []
    artifact = metrics.get("artifact")
    if not isinstance(artifact, str) or Path(artifact).name != artifact:
        raise InputError("metrics.json names no file of this run folder")
    if runs.sha256_file(run.file(artifact)) != metrics.get("sha256"):
        raise InputError(f"{artifact} changed since Vela compiled it")
    data = str(run.manifest["data"].get("name", ""))
    fold = run.manifest.get("fold")
    known = {spec.name for spec in dataclasses.fields(NpuRecord)}
    records = []
    for values in found if isinstance(found, list) else [None]:
        if not isinstance(values, dict) or any(
            not _is_valid(values.get(key), kind) for key, kind in _KINDS.items()
        ):
            raise InputError("metrics.json is damaged under 'vela'")
        measured: dict[str, Any] = {
            key: tuple(map(str, value)) if key == "cpu_operators" else value
            for key, value in values.items()
            if key in known
        }
        records.append(
            NpuRecord(
                name=run.name,
                data=data + (f", fold {fold}" if fold is not None else ""),
                run=str(run.folder),
                sha256=metrics["sha256"],
                **measured,
            )
        )
    return records


def _is_valid(value: Any, kind: Any) -> bool:
    if not isinstance(value, kind):
        return False
    return not isinstance(value, (int, float)) or (math.isfinite(value) and value >= 0)
