"""What quantising each layer costs, and which layers therefore stay in float.

Each layer is measured twice on validation windows: alone in int8 while all others are float, and
alone in float while all others are int8. Cost is the mean divergence KL(float || quantised) of the
probabilities: unlike agreement and loss it moves before any decision does, and is never negative.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli, evaluate
from compress.config import nearest
from compress.data.sets import SpectrogramSet
from compress.errors import InputError
from compress.int8 import static
from compress.int8.prepare import Prepared
from compress.int8.static import StaticQuantiser
from compress.metrics import softmax
from compress.summary import aligned

MOST_WINDOWS = 1000


@dataclass(frozen=True)
class Effect:
    """A partly quantised model against the float one. agreement: share of equal decisions;
    loss_increase, divergence: nats per window."""

    agreement: float
    loss_increase: float
    divergence: float


@dataclass(frozen=True)
class LayerCost:
    """``alone``: only this layer in int8. ``spared``: only this layer in float."""

    name: str
    operator: str
    params: int
    alone: Effect
    spared: Effect

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> LayerCost:
        """Inverse of ``dataclasses.asdict``."""
        effects = {key: Effect(**value[key]) for key in ("alone", "spared")}
        return cls(**{**value, **effects})


def measure_costs(
    quantiser: StaticQuantiser,
    data: SpectrogramSet,
    windows: np.ndarray,
    float_logits: np.ndarray,
) -> list[LayerCost]:
    """The cost of every layer on (at most 1000 of) ``windows``, costliest first.

    float_logits: of the float file on just these windows.
    """
    if len(windows) > MOST_WINDOWS:
        chosen = np.linspace(0, len(windows) - 1, MOST_WINDOWS).astype(int)
        windows, float_logits = windows[chosen], float_logits[chosen]
    names = [layer.name for layer in quantiser.prepared.layers]

    def effect(keep_float: Sequence[str]) -> Effect:
        logits = logits_of_model(quantiser.quantise(keep_float), data, windows)
        return compare(logits, float_logits, data.labels[windows])

    costs = []
    with cli.progress(2 * len(names), "cost of each layer", "model") as bar:
        for layer in quantiser.prepared.layers:
            alone = effect([name for name in names if name != layer.name])
            bar.update()
            spared = effect([layer.name])
            bar.update()
            costs.append(LayerCost(layer.name, layer.operator, layer.params, alone, spared))
    return sorted(costs, key=lambda cost: cost.alone.divergence, reverse=True)


def logits_of_model(model: Any, data: SpectrogramSet, windows: np.ndarray) -> np.ndarray:
    """Logits of a model in memory, by onnxruntime."""
    with tempfile.TemporaryDirectory(prefix="int8-") as folder:
        path = Path(folder) / "model.onnx"
        static.save(model, path)
        return evaluate.logits_of(evaluate.onnx_predictor(path), data, windows)


def compare(logits: np.ndarray, float_logits: np.ndarray, labels: np.ndarray) -> Effect:
    """(n, classes) logits of both and (n,) labels."""
    p, q = (np.maximum(softmax(x), 1e-12) for x in (float_logits, logits))
    rows = np.arange(len(labels))
    return Effect(
        agreement=float((p.argmax(1) == q.argmax(1)).mean()),
        loss_increase=float((np.log(p[rows, labels]) - np.log(q[rows, labels])).mean()),
        divergence=float((p * (np.log(p) - np.log(q))).sum(1).mean()),
    )


def wanted_number(keep_float: Sequence[str]) -> int | None:
    """N of ``--keep-float N``; None where layers are named."""
    return int(keep_float[0]) if len(keep_float) == 1 and keep_float[0].isdigit() else None


def named_layers(prepared: Prepared, keep_float: Sequence[str]) -> tuple[str, ...]:
    """Layers by their own name or that of an operator in them; raises InputError."""
    asked = [name.strip() for entry in keep_float for name in entry.split(",") if name.strip()]
    homes = {node: layer.name for layer in prepared.layers for node in layer.nodes}
    homes |= {layer.name: layer.name for layer in prepared.layers}
    for name in asked:
        if name not in homes:
            listed = ", ".join(layer.name for layer in prepared.layers)
            raise InputError(
                f"--keep-float: no layer {name!r}{nearest(name, homes)} (layers: {listed})"
            )
    return tuple(dict.fromkeys(homes[name] for name in asked))


def table(costs: Sequence[LayerCost]) -> str:
    """One line per layer, costliest first."""
    head = ("layer", "", "params", "alone in int8: agreement", "loss", "divergence",
            "alone in float: agreement", "loss", "divergence")  # fmt: skip
    lines = [head]
    for cost in costs:
        lines.append((cost.name, cost.operator, f"{cost.params:,}", *_cells(cost.alone),
                      *_cells(cost.spared)))  # fmt: skip
    return aligned(lines, right=range(2, len(head)))


def _cells(effect: Effect) -> tuple[str, str, str]:
    return (
        f"{100 * effect.agreement:.2f} %",
        f"{effect.loss_increase:+.5f}",
        f"{effect.divergence:.6f}",
    )
