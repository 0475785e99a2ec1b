"""Limits that an artefact has to keep, read from budgets.toml."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.chip import limits as chip_limits
from compress.config import nearest, read_toml
from compress.errors import InputError

DEFAULT_FILE = Path("budgets.toml")
UNITS = {
    "params": "weights",
    "macs": "multiply-accumulates",
    "file_bytes": "bytes",
    "peak_activation_bytes": "bytes",
}


@dataclass(frozen=True)
class Budgets:
    """Greatest allowed figure of each kind; None: not limited. ``source`` says where from."""

    params: int | None = 500_000
    macs: int | None = None
    file_bytes: int | None = None
    peak_activation_bytes: int | None = None
    source: str = "built-in default"
    chip: chip_limits.ChipLimits = field(default_factory=chip_limits.ChipLimits)

    @property
    def limits(self) -> dict[str, int]:
        """Figure -> limit, of the figures that are limited."""
        values = {figure: getattr(self, figure) for figure in UNITS}
        return {figure: limit for figure, limit in values.items() if limit is not None}


def load(path: Path | None = None) -> Budgets:
    """Limits from ``path``, else from ./budgets.toml, else the default of 500,000 params.

    Raises InputError that names every fault of the file at once.
    """
    if path is None:
        if not DEFAULT_FILE.is_file():
            return Budgets()
        path = DEFAULT_FILE
    table = read_toml(path)
    chip, chip_faults = chip_limits.take(table)
    faults = chip_faults + [
        f"unknown table {name!r}{nearest(name, ['limits'])}" for name in table if name != "limits"
    ]
    limits = table.get("limits", {})
    if not isinstance(limits, dict):
        raise InputError(f"{path}: limits is not a table; write [limits]")
    if "limits" not in table:
        faults.append("no [limits]")
    faults += [fault for name, value in limits.items() if (fault := _fault(name, value))]
    if not limits and not faults:
        faults.append("[limits] is empty; give at least params")
    if faults:
        raise InputError(f"{path}: " + "; ".join(faults))
    known = {spec.name: limits.get(spec.name) for spec in dataclasses.fields(Budgets)}
    return Budgets(**(known | {"source": str(path), "chip": chip}))


def _fault(name: str, value: Any) -> str | None:
    if name not in UNITS:
        return f"unknown limit {name!r}{nearest(name, UNITS)} (known: {', '.join(UNITS)})"
    if type(value) is not int:
        return f"{name}: {value!r} is not a whole number"
    if value < 0:
        return f"{name}: {value} is negative"
    return None
