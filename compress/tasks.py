"""What a network is trained to do: named loss terms from logits and a batch (see compress.fit)."""

from __future__ import annotations

import torch
from torch import nn

from compress import registry
from compress.material import Batch
from compress.recipe import Recipe


class LabelTask:
    """Hard labels alone."""

    def __init__(self, recipe: Recipe) -> None:
        self.loss = label_loss(recipe.label_loss)
        self.smoothing = recipe.label_smoothing

    def __call__(self, logits: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": self.loss(logits, smooth(batch.targets, self.smoothing))}


class DistillTask:
    """Hard labels and a teacher's logits for the same augmented view.

    loss = label_loss_weight * label loss + distill_loss_weight * distillation loss

    teacher_logits: (views, windows, classes), one view of every window of the material.
    """

    def __init__(
        self,
        recipe: Recipe,
        distill_loss: nn.Module,
        label_loss_weight: float,
        distill_loss_weight: float,
        teacher_logits: torch.Tensor,
    ) -> None:
        self.label_task = LabelTask(recipe)
        self.distill_loss = distill_loss
        self.label_loss_weight = label_loss_weight
        self.distill_loss_weight = distill_loss_weight
        self.teacher_logits = teacher_logits

    def __call__(self, logits: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        teacher = self.teacher_logits[batch.view, batch.positions].to(logits.device)
        label_loss = self.label_task(logits, batch)["loss"]
        distill_loss = self.distill_loss(logits, teacher)
        loss = self.label_loss_weight * label_loss + self.distill_loss_weight * distill_loss
        return {"loss": loss, "label_loss": label_loss, "distill_loss": distill_loss}


def label_loss(name: str) -> nn.Module:
    return registry.lookup(registry.LABEL_LOSSES, "loss", name).load()()


def smooth(targets: torch.Tensor, share: float) -> torch.Tensor:
    """Spread ``share`` of each label evenly over the classes; rows without a label stay 0."""
    if not share:
        return targets
    return targets * (1 - share) + targets.sum(1, keepdim=True) * share / targets.shape[1]
