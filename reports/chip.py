"""What networks take on a chip: one record per export and emulated processor.

``chip.json`` is a list of :class:`ChipRecord`, each an object with exactly these keys. Instructions
and bytes are measured; what stands under ``estimates`` is not, and every table says so.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MISSING = "–"
HEAD = (
    "network",
    "data",
    "processor",
    "instructions",
    "per MAC",
    "flash",
    "RAM",
    "accuracy",
    "equal",
    "est. cycles",
    "est. time",
    "est. energy",
    "within budget",
)
NUMERIC = frozenset({3, 4, 5, 6, 7, 8, 9, 10, 11})
LAYER_HEAD = ("layer", "MACs", "instructions", "per MAC", "share")
LAYER_NUMERIC = frozenset({1, 2, 3, 4})
DEFINITIONS = (
    "Instructions: executed by scene_classify for one window, counted in QEMU; the most of the "
    "windows that were run. Per MAC: over the multiply-accumulates of the layers.",
    "Flash: the linked image with start-up code, weights and constants of the network, code. RAM: "
    "arena and other variables, and the stack as measured; no interrupts, no window of sound.",
    "Equal: test windows whose output codes in the emulator are those of the numpy "
    "reference, bit for bit. Accuracy: of the C code on the test split.",
    "From sound: front end, network and smoothing of one decision, counted likewise; flash and RAM "
    "are those of front end and stream alone, which come to the network's.",
    "Estimated cycles, time and energy are NOT measured: an emulator knows no cycles.",
)


@dataclass(frozen=True)
class ChipRecord:
    """One export on one processor. Sizes in bytes, instructions for one window."""

    name: str  # the network
    target: str
    data: str | None = None
    run: str = ""  # run folder of the export
    instructions: int | None = None  # the most of the windows
    instructions_least: int | None = None
    vector_instructions: int | None = None  # MVE, among them
    macs: int | None = None
    instructions_per_mac: float | None = None
    flash_bytes: int | None = None
    weights_bytes: int | None = None  # constants of the network, in flash
    code_bytes: int | None = None  # code of the network, in flash
    startup_bytes: int | None = None  # vectors and start-up code, in flash
    ram_bytes: int | None = None
    arena_bytes: int | None = None  # variables of the network, in RAM
    stack_bytes: int | None = None  # measured, in RAM
    windows: int | None = None  # emulated
    windows_equal: int | None = None  # of them, those with the codes of the reference
    accuracy: float | None = None  # of the C code on the test split, 0..1
    within_budget: bool | None = None  # None: no limit concerns it
    image_sha256: str | None = None
    layers: Sequence[Mapping[str, Any]] = ()  # name, macs, instructions, vector_instructions
    estimates: Sequence[Mapping[str, Any]] = ()  # NOT measured: cycles, milliseconds, microjoules
    over: Mapping[str, float] = field(default_factory=dict)  # figure -> excess over its limit
    sound: Mapping[str, Any] | None = None  # front end, network and smoothing, per decision


def to_json(records: Iterable[ChipRecord]) -> str:
    """The text of chip.json."""
    listed = [dataclasses.asdict(record) for record in records]
    return json.dumps(listed, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def comma_separated(records: Iterable[ChipRecord], escape: Any) -> str:
    """chip.csv: figures of the processor as columns; estimates are named as such."""
    keys = [
        spec.name
        for spec in dataclasses.fields(ChipRecord)
        if spec.name not in ("layers", "estimates", "over", "sound")
    ]
    estimated = ("at_least", "cycles", "clock_mhz", "milliseconds", "microjoules", "cycles_source",
                 "part")  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*keys, *(f"estimated_{key}" for key in estimated)])
    for record in records:
        guess = record.estimates[0] if record.estimates else {}
        values = [getattr(record, key) for key in keys] + [guess.get(key) for key in estimated]
        writer.writerow([escape(value) for value in values])
    return out.getvalue()


def cells(record: ChipRecord) -> tuple[str, ...]:
    """The row of a record under HEAD."""
    guess = record.estimates[0] if record.estimates else {}
    least = "≥ " if guess.get("at_least") else ""
    over = ", ".join(
        f"{100 * amount:.1f} points under the least accuracy"
        if figure == "chip_accuracy"
        else f"{figure.replace('_', ' ')} {amount:,} over"
        for figure, amount in record.over.items()
    )
    return (
        record.name,
        record.data or MISSING,
        record.target,
        _count(record.instructions),
        _number(record.instructions_per_mac, ".2f"),
        _kib(record.flash_bytes),
        _kib(record.ram_bytes),
        MISSING if record.accuracy is None else f"{100 * record.accuracy:.1f} %",
        MISSING if record.windows is None else f"{record.windows_equal} of {record.windows}",
        f"{least}{guess['cycles'] / 1e6:.2f} M" if guess else MISSING,
        least + f"{guess['milliseconds']:.3g} ms at {guess['clock_mhz']:g} MHz"
        if guess else MISSING,
        MISSING if guess.get("microjoules") is None else f"{least}{guess['microjoules']:,.0f} µJ",
        MISSING if record.within_budget is None else "yes" if record.within_budget
        else f"no: {over}",
    )  # fmt: skip


def rows(records: Iterable[ChipRecord]) -> list[tuple[str, ...]]:
    """Rows under HEAD; what was counted from sound stands below its network."""
    found = []
    for record in records:
        found.append(cells(record))
        if record.sound is not None:
            found.append(_sound_cells(record, record.sound))
    return found


def _sound_cells(record: ChipRecord, sound: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{record.name}, from sound",
        record.data or MISSING,
        record.target,
        _count(sound["instructions"]),
        MISSING,
        _kib(sound["flash_bytes"]),
        _kib(sound["ram_bytes"]),
        MISSING,
        f"{sound['decisions']} of {sound['decisions']}",
        *(MISSING,) * 4,
    )


def sources(records: Iterable[ChipRecord]) -> list[str]:
    """What the estimates are made from, and those for other cores that run the same image."""
    networks: dict[tuple[str, ...], list[str]] = {}
    for record in records:
        for guess in record.estimates:
            power = guess["microwatts_per_mhz"]
            at = f"{guess['clock_mhz']:g} MHz" + (f", {power:g} µW/MHz" if power else "")
            found = networks.setdefault(
                (guess["core"], at, guess["part"], guess["cycles_source"]), []
            )
            least = "at least " if guess.get("at_least") else ""
            found.append(f"{record.name} {least}{guess['milliseconds']:.3g} ms")
    return [
        f"Estimate for {core}: {', '.join(dict.fromkeys(found))}, at {at} ({part}); cycles from "
        f"{cycles_source}."
        for (core, at, part, cycles_source), found in networks.items()
    ]


def layer_rows(record: ChipRecord) -> list[tuple[str, str, str, str, str]]:
    """(layer, MACs, instructions, per MAC, share) of one record."""
    whole = sum(layer["instructions"] for layer in record.layers) or 1
    return [
        (
            str(layer["name"]),
            _count(layer["macs"]),
            _count(layer["instructions"]),
            f"{layer['instructions'] / layer['macs']:.2f}" if layer["macs"] else MISSING,
            f"{100 * layer['instructions'] / whole:.1f} %",
        )
        for layer in record.layers
    ]




def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return MISSING if value is None else format(value, form) + unit


def _kib(value: int | None) -> str:
    return MISSING if value is None else f"{value / 1024:.1f} KiB"
