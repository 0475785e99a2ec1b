"""What a sweep searches: values of a recipe, each as a range or as choices, from TOML.

    [learning_rate]           [label_loss]
    low = 5e-5                choices = ["cross_entropy", "focal"]
    high = 1e-2
    log = true
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from compress.config import build, nearest, read_toml
from compress.errors import InputError
from compress.recipe import Recipe

FOLDER = Path(__file__).parent / "spaces"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, uniform or (``log``) uniform in their logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Choices:
    """One of some texts or numbers."""

    values: tuple[str | float | int, ...]


Space = Mapping[str, Range | Choices]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> dict[str, Range | Choices]:
    """A space by name or path; raises InputError with all faults at once."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"unknown search space {name!r}{nearest(name, names())} (known: {', '.join(names())}; "
            "or a path to a .toml file)"
        )
    known = [spec.name for spec in fields(Recipe)]
    space: dict[str, Range | Choices] = {}
    faults: list[str] = []
    for key, table in read_toml(path).items():
        if key not in known:
            faults.append(f"{key}: not a value of a recipe{nearest(key, known)}")
            continue
        found = _part(key, table)
        if isinstance(found, str):
            faults.append(f"{key}: {found}")
        else:
            space[key] = found
    if not space and not faults:
        faults.append("nothing to search; give at least one table such as [learning_rate]")
    if faults:
        raise InputError(f"search space {path.name}: {'; '.join(faults)}")
    return space


def _part(key: str, table: Any) -> Range | Choices | str:
    """A range or choices, or the half sentence that says why it is neither."""
    if not isinstance(table, dict):
        return f"write [{key}] with low and high, or with choices"
    unknown = set(table) - {"low", "high", "log", "choices"}
    if unknown:
        return f"unknown key {', '.join(sorted(unknown))} (known: low, high, log; or choices)"
    if "choices" in table:
        if set(table) != {"choices"}:
            return "choices and a range exclude each other"
        values = table["choices"]
        if not isinstance(values, list) or not values:
            return "choices must be a list of at least one"
        if len(set(map(str, values))) != len(values):
            return "a choice is there twice"
        return _checked(key, Choices(tuple(values)), values)
    low, high, log = table.get("low"), table.get("high"), table.get("log", False)
    numbers = [v for v in (low, high) if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or not isinstance(log, bool):
        return "a range needs the numbers low and high, and log = true or false"
    low, high = numbers
    if low > high:
        return f"low {low} is over high {high}"
    if log and low <= 0:
        return f"log needs a low above 0, not {low}"
    whole = isinstance(low, int) and isinstance(high, int)
    return _checked(key, Range(low, high, log, whole), [low, high])


def _checked(key: str, part: Range | Choices, values: list[Any]) -> Range | Choices | str:
    for value in values:
        try:
            build(Recipe, {key: value}, source="")
        except InputError as error:
            return str(error).removeprefix(": ").removeprefix(f"{key.replace('_', '-')}: ")
    return part
