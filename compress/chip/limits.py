"""Limits of budgets.toml on what an export takes on a chip.

    [chip]                        every target
    flash_bytes = 81_920
    accuracy = 0.9                the least allowed: of the C code on the test split
    [chip.cortex-m4]              on this target, in the place of the one for every target
    instructions = 16_000_000
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compress.chip.targets import TARGETS
from compress.config import nearest

TABLE = "chip"
UNITS = {"flash_bytes": "bytes", "ram_bytes": "bytes", "instructions": "instructions"}
ACCURACY = "accuracy"


@dataclass(frozen=True)
class ChipLimits:
    """Greatest allowed figures, for every target and for single ones; least allowed accuracy."""

    everywhere: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    least_accuracy: float | None = None

    def __bool__(self) -> bool:
        return bool(self.everywhere or self.targets or self.least_accuracy is not None)

    def of(self, target: str) -> dict[str, int]:
        """Figure -> limit on one target."""
        found = {**self.everywhere, **self.targets.get(target, {})}
        return {figure: found[figure] for figure in UNITS if figure in found}


def take(budgets: dict[str, Any]) -> tuple[ChipLimits, list[str]]:
    """Take the table [chip] out of what budgets.toml holds: (limits, faults)."""
    table = budgets.pop(TABLE, {})
    if not isinstance(table, dict):
        return ChipLimits(), [f"{TABLE} is not a table; write [{TABLE}]"]
    faults: list[str] = []
    targets = {name: value for name, value in table.items() if isinstance(value, dict)}
    for name, limits in targets.items():
        if name not in TARGETS:
            faults.append(f"unknown target {name!r} in [{TABLE}]{nearest(name, TARGETS)} "
                          f"(known: {', '.join(TARGETS)})")  # fmt: skip
        faults += _faults(f"{TABLE}.{name}", limits)
    everywhere = {name: value for name, value in table.items() if name not in targets}
    accuracy = everywhere.pop(ACCURACY, None)
    if accuracy is not None and (type(accuracy) not in (int, float) or not 0 <= accuracy <= 1):
        faults.append(f"{TABLE}: {ACCURACY} {accuracy!r} is not a share from 0 to 1")
    faults += _faults(TABLE, everywhere)
    return ChipLimits(everywhere, targets, accuracy), faults


def _faults(place: str, limits: Mapping[str, Any]) -> list[str]:
    known = (*UNITS, ACCURACY) if place == TABLE else tuple(UNITS)
    faults = []
    for name, value in limits.items():
        if name not in UNITS:
            faults.append(f"{place}: unknown limit {name!r}{nearest(name, known)} "
                          f"(known: {', '.join(known)})")  # fmt: skip
        elif type(value) is not int:
            faults.append(f"{place}: {name} {value!r} is not a whole number")
        elif value < 0:
            faults.append(f"{place}: {name} {value} is negative")
    return faults
