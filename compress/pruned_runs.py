"""A finished run as a pruned run, and what pruning was worth, measured on both files.

parent -> take out and train in turn -> run folder of an ordinary student
       -> metrics.json "pruning": counts, bytes and interleaved latency before and after, by layer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from compress import evaluate, measure, runs
from compress.artefacts import onnx_file
from compress.continuing import losses_of, task_of
from compress.layer_times import LayerTime, layer_times
from compress.parents import Parent
from compress.pruning import sparsity
from compress.pruning.steps import SPARSITY, Pruning, Stepwise
from compress.recipe import Recipe
from compress.runs import Run
from compress.session import Session, Training, train_run
from compress.student_runs import Distillation

_SAME = 0.95  # a count or time of more than this share of the old one has not fallen


def pruned_run(
    session: Session,
    parent: Parent,
    run: Run,
    family: str,
    model: nn.Module,
    pruning: Pruning,
    distillation: Distillation | None,
    recipe: Recipe,
    unsupported: Sequence[str] = (),
    out: Path | None = None,
    force: bool = False,
) -> Run:
    """The pruned run of ``run``; a finished one of the same settings is returned as it is."""
    notes = [f"left alone by pruning: {reason}" for reason in unsupported]
    if pruning.kind == SPARSITY:
        notes.append(sparsity.NOTE)
    training = Training(
        stage="prune",
        family=family,
        name=run.name,
        model=model,
        recipe=recipe,
        make_task=lambda material: task_of(session, distillation, recipe, material),
        settings={"pruning": asdict(pruning), **losses_of(distillation)},
        teachers=distillation.teachers if distillation else (),
        parent=run,
        transfer=distillation.transfer if distillation else (),
        out=out,
        force=force,
        kind="pruned",
        procedure=Stepwise(pruning, parent.file),
        compare=lambda folder: {
            "pruning": compare(parent, model, folder / runs.ONNX) | {"notes": notes}
        },
        notes=notes,
    )
    return train_run(session, training)


def compare(parent: Parent, model: nn.Module, file: Path) -> dict[str, Any]:
    """Before and after, read off and measured on the parent's file and on ``file``."""
    data = parent.data
    before = onnx_file.read(parent.file)
    latency = evaluate.latency_ratio(file, parent.file, data.mels, data.frames)
    layers = compare_layers(
        layer_times(parent.file, data.mels, data.frames),
        layer_times(file, data.mels, data.frames),
    )
    return {
        "before": {
            "sha256": before.sha256,
            "params": measure.count_params(model),
            "file_params": before.file_params,
            "macs": before.macs,
            "file_bytes": before.file_bytes,
        },
        "latency": latency,
        "layers": layers,
    }


def compare_layers(before: list[LayerTime], after: list[LayerTime]) -> list[dict[str, Any]]:
    """One row per layer that both files have, by name."""
    later = {layer.name: layer for layer in after}
    return [
        {
            "name": old.name,
            "params": [old.params, later[old.name].params],
            "macs": [old.macs, later[old.name].macs],
            "microseconds": [old.microseconds, later[old.name].microseconds],
        }
        for old in before
        if old.name in later
    ]


def slow_layers(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Layers whose MACs fell while their time did not, longest first."""
    found = []
    for layer in layers:
        old, new = layer["microseconds"]
        if old is None or new is None or layer["macs"][1] >= _SAME * layer["macs"][0]:
            continue
        if new > _SAME * old:
            found.append(layer)
    return sorted(found, key=lambda layer: -layer["microseconds"][1])


def latency_stands(macs_before: int, macs_after: int, ratio: float) -> bool:
    """Whether MACs fell and the time did not."""
    return macs_after < _SAME * macs_before and ratio > _SAME
