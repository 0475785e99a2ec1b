"""What an artefact has to keep, read from budgets.toml: a warn and a fail level of each figure.

    [fail]                      over it, the gate ends with 1
    params = 500_000
    accuracy = 0.80             the least, where the figure's row says so

    [warn]                      over it, the gate says so and ends with 0
    params = 480_000

    [fail.cortex-m4]            on this processor, in the place of the one for all of them
    instructions = 16_000_000

``[limits]``, the older form, is read as ``[fail]``. FIGURES is the table of what can be limited.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.chip.targets import TARGETS
from compress.config import nearest, read_toml
from compress.errors import InputError

DEFAULT_FILE = Path("budgets.toml")
LEVELS = ("warn", "fail")
_OLD_TABLE = "limits"
_LARGEST = 10**18  # far beyond any file or count; a float holds what is under it


@dataclass(frozen=True)
class Figure:
    """One figure that can be limited.

    measure: ``package.module:function``, called with a compress.subjects.Subject, gives a Value.
    least: the limit is the least allowed instead of the greatest. share: a number from 0 to 1,
    shown in per cent. whole: counted, not measured.
    """

    unit: str
    sentence: str
    measure: str
    least: bool = False
    share: bool = False
    whole: bool = True

    def load(self) -> Callable[..., Any]:
        module, _, function = self.measure.partition(":")
        return getattr(importlib.import_module(module), function)

    def breaks(self, value: float, limit: float) -> bool:
        """Whether the value is beyond the limit; one that is not a number keeps none."""
        return not (value >= limit if self.least else value <= limit)

    def show(self, value: float) -> str:
        """1,234 or 0.93 or 88.2 %."""
        if self.share:
            return f"{100 * value:.2f} %"
        return f"{value:,.0f}" if self.whole else f"{value:.3g}"


# A module that measures more adds its rows here: names are unique, order is that of the output.
FIGURES: dict[str, Figure] = {
    "params": Figure(
        "weights",
        "weights in the file, each counted once whatever its type",
        "compress.subjects:params",
    ),
    "macs": Figure(
        "multiply-accumulates",
        "of convolutions and linear layers, for one window",
        "compress.subjects:macs",
    ),
    "file_bytes": Figure(
        "bytes", "the file with its external data", "compress.subjects:file_bytes"
    ),
    "peak_activation_bytes": Figure(
        "bytes",
        "activations alive at once, in the order of execution, for one window",
        "compress.subjects:peak_activation_bytes",
    ),
    "flash_bytes": Figure(
        "bytes",
        "of an int8 file: all numbers stored in it (weights, biases, scales, zero points, "
        "codebooks, shapes), each tensor once, in its stored type; of C code on a processor: the "
        "linked image",
        "compress.subjects:flash_bytes",
    ),
    "ram_bytes": Figure(
        "bytes",
        "of C code on a processor: variables, arena and measured stack of the linked image",
        "compress.chip.figures:of_no_processor",
    ),
    "instructions": Figure(
        "instructions",
        "of C code on a processor, for one window, counted in the emulator",
        "compress.chip.figures:of_no_processor",
    ),
    "chip_accuracy": Figure(
        "",
        "test accuracy of the C code",
        "compress.chip.figures:of_no_processor",
        least=True,
        share=True,
        whole=False,
    ),
    "latency_ratio": Figure(
        "",
        "time of one window over that of the file that it was made of, measured in turns",
        "compress.subjects:latency_ratio",
        whole=False,
    ),
    "accuracy": Figure(
        "",
        "lower end of the 95 % interval of the test accuracy",
        "compress.subjects:accuracy",
        least=True,
        share=True,
        whole=False,
    ),
    "accuracy_drop": Figure(
        "",
        "test accuracy of the same artefact in --base less that of this one",
        "compress.subjects:accuracy_drop",
        share=True,
        whole=False,
    ),
}


@dataclass(frozen=True)
class Budgets:
    """figure -> level, each in the order of FIGURES. ``source`` says where from.

    targets: processor -> level ("warn", "fail") -> figure -> what holds there instead.
    """

    fail: Mapping[str, float] = field(default_factory=lambda: {"params": 500_000})
    warn: Mapping[str, float] = field(default_factory=dict)
    source: str = "built-in default"
    targets: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @property
    def limits(self) -> Mapping[str, float]:
        """The levels that fail: what a report calls the budget."""
        return self.fail

    @property
    def figures(self) -> list[str]:
        """Everything that has a level."""
        return [name for name in FIGURES if name in self.fail or name in self.warn]

    def on(self, target: str) -> Budgets:
        """The levels that hold on one processor."""
        own = self.targets.get(target, {})
        fail, warn = (
            _ordered({**common, **own.get(level, {})})
            for level, common in (("fail", self.fail), ("warn", self.warn))
        )
        return Budgets(fail, warn, self.source)

    def level(self, figure: str, value: float) -> str:
        """'fail', 'warn' or 'ok'."""
        for level, limits in (("fail", self.fail), ("warn", self.warn)):
            if figure in limits and FIGURES[figure].breaks(value, limits[figure]):
                return level
        return "ok"


OF_PROCESSOR = ("flash_bytes", "ram_bytes", "instructions")
"""Figures that C code has on each processor that it was emulated on."""


def load(path: Path | None = None) -> Budgets:
    """Limits from ``path``, else from ./budgets.toml, else the default of 500,000 params.

    Raises InputError that names every fault of the file at once.
    """
    if path is None:
        if not DEFAULT_FILE.is_file():
            return Budgets()
        path = DEFAULT_FILE
    table = read_toml(path)
    faults = []
    levels: dict[str, dict[str, float]] = {level: {} for level in LEVELS}
    targets: dict[str, dict[str, dict[str, float]]] = {}
    for name, limits in table.items():
        if name not in (*LEVELS, _OLD_TABLE):
            faults.append(f"unknown table {name!r}{nearest(name, [*LEVELS, _OLD_TABLE])}")
        elif not isinstance(limits, dict):
            faults.append(f"{name} is not a table; write [{name}]")
        else:
            level = "fail" if name == _OLD_TABLE else name
            own = {target: limits.pop(target) for target in TARGETS if target in limits}
            for target, figures in own.items():
                if isinstance(figures, dict):
                    faults += _faults(f"{name}.{target}", figures)
                    faults += [
                        f"[{name}.{target}] {figure} is no figure of a processor, so it would "
                        f"never be compared; write it under [{name}]"
                        for figure in figures
                        if figure in FIGURES and figure not in OF_PROCESSOR
                    ]
                    targets.setdefault(target, {})[level] = figures
                else:
                    faults.append(f"{name}.{target} is not a table; write [{name}.{target}]")
            wrong = _faults(name, limits)
            faults += wrong
            if not wrong:
                levels[level] |= limits
    if _OLD_TABLE in table and "fail" in table:
        faults.append(f"[{_OLD_TABLE}] and [fail] mean the same; give one")
    if not faults and not any(levels.values()) and not targets:
        faults.append("no limits; give at least params under [fail]")
    found = Budgets(_ordered(levels["fail"]), _ordered(levels["warn"]), str(path), targets)
    for place, held in (("", found), *((f"{t}: ", found.on(t)) for t in targets if not faults)):
        for name, warn in held.warn.items():
            fail = held.fail.get(name)
            if fail is not None and FIGURES[name].breaks(warn, fail):
                faults.append(
                    f"{place}{name}: warns at {warn:,} only where it fails already, at {fail:,}"
                )
    if faults:
        raise InputError(f"{path}: " + "; ".join(faults))
    return found


def _ordered(limits: Mapping[str, float]) -> dict[str, float]:
    return {name: limits[name] for name in FIGURES if name in limits}


def _faults(table: str, limits: Mapping[str, Any]) -> list[str]:
    return [fault for name, value in limits.items() if (fault := _fault(table, name, value))]


def _fault(table: str, name: str, value: Any) -> str | None:
    if name not in FIGURES:
        return f"unknown limit {name!r}{nearest(name, FIGURES)} (known: {', '.join(FIGURES)})"
    figure = FIGURES[name]
    where = f"[{table}] {name}"
    if isinstance(value, bool) or not isinstance(value, int if figure.whole else (int, float)):
        return f"{where}: {value!r} is not a {'whole ' if figure.whole else ''}number"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where}: {value} is not a number"
    if value > _LARGEST:
        return f"{where}: over {_LARGEST:,}, which nothing reaches; give a smaller number"
    if value < 0:
        return f"{where}: {value} is negative"
    if figure.share and value > 1:
        return f"{where}: {value} is over 1; it is a share, 0.9 for 90 %"
    return None
