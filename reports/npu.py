"""What networks take on an Arm Ethos-U: one record per .tflite export and accelerator.

``npu.json`` is a list of :class:`NpuRecord`, each an object with exactly these keys. Bytes are
those of the network that Vela compiled; cycles and rate are estimates of its performance model.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reports.records import plain

MISSING = "–"
HEAD = (
    "network",
    "data",
    "accelerator",
    "SRAM",
    "flash",
    "est. cycles",
    "est. inferences/s",
    "clock",
    "on the CPU",
)
NUMERIC = frozenset({3, 4, 5, 6, 7})
TITLE = "On an NPU"
DEFINITIONS = (
    "SRAM and flash: of the network as Vela compiled it for the accelerator. Weights lie in "
    "external flash, activations in SRAM that is shared with the CPU.",
    "Estimated cycles and inferences per second come from Vela's performance model for the stated "
    "clock and memory; they are NOT measured.",
    "On the CPU: operators that the accelerator cannot compute. Their time is not in the cycles.",
)


@dataclass(frozen=True)
class NpuRecord:
    """One .tflite export on one accelerator."""

    name: str  # the network
    accelerator: str  # ethos-u55-128 ...
    data: str | None = None
    run: str = ""  # run folder of the export
    sha256: str | None = None  # of the .tflite file
    sram_bytes: int | None = None
    flash_bytes: int | None = None
    cycles: int | None = None  # estimated, one window
    inferences_per_second: float | None = None  # estimated
    clock_hz: int | None = None
    system: str | None = None  # clock and memory that Vela assumed, by its name for them
    optimise: str | None = None  # performance, or size (of SRAM)
    operators: int | None = None  # of the .tflite file
    cpu_operators: Sequence[str] = ()  # what the accelerator leaves to the CPU
    all_on_cpu: bool = False
    vela: str | None = None  # version


def to_json(records: Iterable[NpuRecord]) -> str:
    """The text of npu.json."""
    listed = [dataclasses.asdict(record) for record in records]
    return json.dumps(listed, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def comma_separated(records: Iterable[NpuRecord], escape: Callable[[Any], Any]) -> str:
    """npu.csv: the keys of npu.json as columns."""
    keys = [spec.name for spec in dataclasses.fields(NpuRecord)]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(keys)
    for record in records:
        values = dataclasses.asdict(record) | {"cpu_operators": "; ".join(record.cpu_operators)}
        writer.writerow([escape(values[key]) for key in keys])
    return out.getvalue()


def cells(record: NpuRecord) -> tuple[str, ...]:
    """The row of a record under HEAD; nothing is said of an NPU that computes nothing."""
    idle = record.all_on_cpu
    size = f" ({record.optimise})" if record.optimise not in (None, "performance") else ""
    return (
        plain(record.name),
        plain(record.data or MISSING),
        plain(record.accelerator) + size,
        MISSING if idle else _kib(record.sram_bytes),
        MISSING if idle else _kib(record.flash_bytes),
        MISSING if idle or record.cycles is None else f"{record.cycles:,}",
        MISSING
        if idle or record.inferences_per_second is None
        else f"{record.inferences_per_second:,.0f}",
        MISSING if record.clock_hz is None else f"{record.clock_hz / 1e6:g} MHz",
        on_cpu(record),
    )


def on_cpu(record: NpuRecord) -> str:
    """'none', or what falls back, loudly where that is everything."""
    if record.all_on_cpu:
        return "EVERYTHING"
    if not record.cpu_operators:
        return "none"
    first, more = plain(record.cpu_operators[0]), len(record.cpu_operators) - 1
    return f"{len(record.cpu_operators)}: {first}" + (f" and {more} more" if more else "")


def warnings_of(records: Iterable[NpuRecord]) -> list[str]:
    """A sentence for every export of which something falls back to the CPU."""
    return [
        plain(f"{record.run}: {on_cpu(record)} on the CPU, not on {record.accelerator}")
        for record in records
        if record.cpu_operators
    ]


def sources(records: Iterable[NpuRecord]) -> list[str]:
    """What the estimates were made with, each once."""
    return sorted(
        {
            plain(f"{r.accelerator}: Vela {r.vela}, system {r.system}, optimised for {r.optimise}.")
            for r in records
        }
    )


def _kib(value: int | None) -> str:
    return MISSING if value is None else f"{value / 1024:.1f} KiB"
