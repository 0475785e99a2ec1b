"""Students trained on labels, or on labels and teachers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress import registry, starting
from compress.data.sets import SpectrogramSet
from compress.material import Material
from compress.recipe import Recipe
from compress.runs import Run
from compress.session import Session, Training, train_run
from compress.tasks import DistillTask, LabelTask
from compress.teaching import check_teacher, view_logits


@dataclass(frozen=True)
class Distillation:
    """How a student listens to its teachers: the weights are named after what they multiply."""

    teachers: Sequence[Run]
    method: str = "kd"
    temperature: float = 2.0
    label_loss_weight: float = 0.1
    distill_loss_weight: float = 0.9
    transfer: Sequence[SpectrogramSet] = field(default_factory=tuple)
    cache: Path | None = None


def new_student(
    session: Session,
    name: str,
    weights: Path | None = None,
    activation: str | None = None,
    dropout: float | None = None,
) -> tuple[nn.Module, Run | None]:
    """A student for the session's classes and window size, and the run that it continues, if any.

    name: a registered student, ``timm/NAME``, or the file of one (see
    :func:`registry.student_named`). weights: a run folder; for a student of the registry a
    Lightning checkpoint of the original project, for one of timm a file of its weights.
    """
    name, shape = registry.student_named(name)
    torch.manual_seed(session.seed)
    classes = len(session.data.class_names)
    own: dict[str, Any] = {"activation": activation, "dropout": dropout}
    asked = shape | {key: value for key, value in own.items() if value is not None}
    if weights is not None and weights.is_dir():
        return starting.continued(session, name, weights, asked)
    if weights is not None and not name.startswith(registry.TIMM_PREFIX):
        return starting.original_student(name, weights, classes, asked), None
    if weights is not None:
        asked["weights"] = weights
    size = {"classes": classes, "mels": session.data.mels, "frames": session.data.frames}
    model = registry.build_student(name, **(asked | size))
    return model, None


def twin_run(
    session: Session,
    name: str,
    recipe: Recipe,
    *,
    kind: str = "twin",
    weights: Path | None = None,
    activation: str | None = None,
    dropout: float | None = None,
    out: Path | None = None,
    force: bool = False,
) -> Run:
    """A student trained on labels alone. activation, dropout: instead of the recipe's."""
    activation = recipe.activation if activation is None else activation
    dropout = recipe.dropout if dropout is None else dropout
    model, parent = new_student(session, name, weights, activation, dropout)
    training = Training(
        stage="train",
        family="student",
        name=registry.student_named(name)[0],
        model=model,
        recipe=recipe,
        make_task=lambda material: LabelTask(recipe, material.class_counts),
        settings={"weights": starting.file_hash(weights)},
        parent=parent,
        out=out,
        force=force,
        kind=kind,
    )
    return train_run(session, training)


def distill_task(
    session: Session, distillation: Distillation, recipe: Recipe, material: Material
) -> DistillTask:
    """Labels and the teachers' logits for every view of the material."""
    row = registry.lookup(registry.DISTILL_LOSSES, "distillation loss", distillation.method)
    logits = view_logits(
        session,
        distillation.teachers,
        material,
        recipe,
        [extra.content_hash for extra in distillation.transfer],
        distillation.cache,
    )
    return DistillTask(
        recipe,
        row.load()(distillation.temperature),
        distillation.label_loss_weight,
        distillation.distill_loss_weight,
        logits,
        material.class_counts,
    )


def distilled_run(
    session: Session,
    name: str,
    recipe: Recipe,
    distillation: Distillation,
    *,
    weights: Path | None = None,
    activation: str | None = None,
    dropout: float | None = None,
    out: Path | None = None,
    force: bool = False,
) -> Run:
    """A student trained on labels and on its teachers' logits. See :func:`twin_run`."""
    for teacher in distillation.teachers:
        check_teacher(session, teacher)
    activation = recipe.activation if activation is None else activation
    dropout = recipe.dropout if dropout is None else dropout
    model, parent = new_student(session, name, weights, activation, dropout)
    training = Training(
        stage="distill",
        family="student",
        name=registry.student_named(name)[0],
        model=model,
        recipe=recipe,
        make_task=lambda material: distill_task(session, distillation, recipe, material),
        settings={
            "method": distillation.method,
            "temperature": distillation.temperature,
            "label_loss_weight": distillation.label_loss_weight,
            "distill_loss_weight": distillation.distill_loss_weight,
            "weights": starting.file_hash(weights),
        },
        teachers=distillation.teachers,
        parent=parent,
        transfer=distillation.transfer,
        out=out,
        force=force,
        kind="distilled",
    )
    return train_run(session, training)
