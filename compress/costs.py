"""What wrong decisions cost: a matrix from TOML, the expected cost, the decision that lessens it.

    cost[actual, decided] >= 0, 0 where both are the same
    expected cost of decided d = sum over classes c of P(c) cost[c, d]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.config import nearest, read_toml
from compress.errors import InputError
from compress.runs import sha256_file

if TYPE_CHECKING:
    import numpy as np

SHIPPED = Path(__file__).parent / "costs.toml"
HERE = Path("costs.toml")
_ANY = "any"


@dataclass(frozen=True)
class Costs:
    """Costs by name of the class, as a file gave them: ``rows[actual][decided]``, ``any`` else."""

    rows: Mapping[str, Mapping[str, float]]
    source: Path

    def matrix(self, class_names: Sequence[str]) -> np.ndarray:
        """(classes, classes), rows actual; raises InputError where a class or a cost is missing."""
        import numpy as np

        missing = [name for name in class_names if name not in self.rows]
        if missing:
            hints = "".join(nearest(name, self.rows) for name in missing[:1])
            raise InputError(
                f"{self.source}: has no costs for {', '.join(map(repr, missing))}{hints}; the "
                f"classes are {', '.join(class_names)}"
            )
        named = {*self.rows, *(decided for row in self.rows.values() for decided in row)} - {_ANY}
        unknown = sorted(named - set(class_names))
        if unknown:
            raise InputError(
                f"{self.source}: {unknown[0]!r} is no class{nearest(unknown[0], class_names)} "
                f"(classes: {', '.join(class_names)})"
            )
        found = np.zeros((len(class_names), len(class_names)))
        for i, actual in enumerate(class_names):
            row = self.rows[actual]
            for j, decided in enumerate(class_names):
                if i == j:
                    continue
                cost = row.get(decided, row.get(_ANY))
                if cost is None:
                    raise InputError(
                        f"{self.source}: no cost for {actual!r} decided as {decided!r}; give it, "
                        f'or {_ANY} = COST for the whole row'
                    )
                found[i, j] = cost
        return found

    def fits(self, class_names: Sequence[str]) -> bool:
        return set(self.rows) == set(class_names)

    def describe(self) -> dict[str, str]:
        return {"file": str(self.source), "sha256": sha256_file(self.source)}


def load(path: Path | None = None) -> Costs:
    """Costs of a file; without one costs.toml here, else the shipped ones. Raises InputError."""
    if path is None:
        path = HERE if HERE.is_file() else SHIPPED
    elif str(path) == "default":
        path = SHIPPED
    table = read_toml(path)
    given = table.pop("costs", None)
    if not isinstance(given, dict) or not given:
        raise InputError(f"{path}: has no table [costs] with a row per class")
    faults = [f"unknown table {name!r}" for name in table]
    rows: dict[str, Mapping[str, float]] = {}
    for actual, row in given.items():
        values = row if isinstance(row, dict) else {_ANY: row}
        rows[actual] = {}
        for decided, cost in values.items():
            if isinstance(cost, bool) or not isinstance(cost, (int, float)):
                faults.append(f"{actual!r}, {decided!r}: {cost!r} is not a number")
            elif not (math.isfinite(cost) and cost >= 0):
                faults.append(f"{actual!r}, {decided!r}: {cost} is not a finite cost of at least 0")
            elif decided == actual and cost != 0:
                faults.append(f"{actual!r}: the right decision costs {cost}, not 0")
            else:
                rows[actual] = {**rows[actual], decided: float(cost)}
    if faults:
        raise InputError(f"{path}: " + "; ".join(faults))
    return Costs(rows, path)


def decide(probabilities: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The decision of least expected cost, (n,); of equal ones the most probable.

    probabilities (n, classes), matrix (classes, classes). With one cost for every error this is
    the most probable class. It is only as good as the probabilities are calibrated.
    """
    expected = probabilities @ matrix  # (n, classes)
    least = expected.min(axis=1, keepdims=True)
    tied = expected <= least + 1e-12 * matrix.max(initial=1.0)
    return (probabilities - 2.0 * ~tied).argmax(axis=1)


def mean_cost(labels: np.ndarray, decided: np.ndarray, matrix: np.ndarray) -> float:
    """Mean cost per clip of decisions (n,) on clips of these labels (n,)."""
    return float(matrix[labels, decided].mean())


def of_decisions(decisions: Any, matrix: np.ndarray) -> tuple[float, float]:
    """Mean cost of (the most probable class, the decision of least expected cost).

    decisions: :class:`compress.metrics.Decisions`.
    """
    labels, probabilities = decisions.labels, decisions.probabilities
    return (
        mean_cost(labels, probabilities.argmax(axis=1), matrix),
        mean_cost(labels, decide(probabilities, matrix), matrix),
    )
