"""What a network is trained to do: named loss terms from logits and a batch (see compress.fit)."""

from __future__ import annotations

import torch
from torch import nn

from compress import registry
from compress.losses.labels import balanced_weights
from compress.material import Batch
from compress.recipe import Recipe


class LabelTask:
    """Hard labels alone. class_counts: (classes,) training windows of each, for class weights."""

    def __init__(self, recipe: Recipe, class_counts: torch.Tensor | None = None) -> None:
        weights = class_weights(recipe, class_counts)
        self.loss = label_loss(recipe.label_loss, weights)
        self.smoothing = recipe.label_smoothing

    def __call__(self, logits: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": self.loss(logits, smooth(batch.targets, self.smoothing))}


class DistillTask:
    """Hard labels and a teacher's logits for the same augmented view.

    loss = label_loss_weight * label loss + distill_loss_weight * distillation loss

    teacher_logits: (views, windows, classes), one view of every window of the material.
    class_counts: (classes,) training windows of each class, for class weights.
    """

    def __init__(
        self,
        recipe: Recipe,
        distill_loss: nn.Module,
        label_loss_weight: float,
        distill_loss_weight: float,
        teacher_logits: torch.Tensor,
        class_counts: torch.Tensor | None = None,
    ) -> None:
        self.label_task = LabelTask(recipe, class_counts)
        self.distill_loss = distill_loss
        self.label_loss_weight = label_loss_weight
        self.distill_loss_weight = distill_loss_weight
        self.teacher_logits = teacher_logits
        self._view = -1
        self._of_view = torch.empty(0)

    def prepare(self, view: int, device: torch.device) -> None:
        """Have the logits of a view on the device, always at the same place of its memory."""
        there = self._of_view.device == device and len(self._of_view) > 0
        if there and view == self._view:
            return
        if there and device.type != "cpu":
            self._of_view.copy_(self.teacher_logits[view])
        else:
            self._of_view = self.teacher_logits[view].to(device)
        self._view = view

    def __call__(self, logits: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        self.prepare(batch.view, logits.device)
        teacher = self._of_view[batch.positions]
        label_loss = self.label_task(logits, batch)["loss"]
        distill_loss = self.distill_loss(logits, teacher)
        loss = self.label_loss_weight * label_loss + self.distill_loss_weight * distill_loss
        return {"loss": loss, "label_loss": label_loss, "distill_loss": distill_loss}


def label_loss(name: str, weights: torch.Tensor | None = None) -> nn.Module:
    return registry.lookup(registry.LABEL_LOSSES, "loss", name).load()(weights=weights)


def class_weights(recipe: Recipe, counts: torch.Tensor | None) -> torch.Tensor | None:
    """(classes,) weights of the recipe, None for none; raises InputError for another number."""
    asked = recipe.class_weighting()
    if asked == "none":
        return None
    if counts is None:
        raise ValueError("class weights need the training windows of each class")
    if asked == "balanced":
        return balanced_weights(counts)
    recipe.check_classes(len(counts))
    return torch.tensor(asked)


def smooth(targets: torch.Tensor, share: float) -> torch.Tensor:
    """Spread ``share`` of each label evenly over the classes; rows without a label stay 0."""
    if not share:
        return targets
    return targets * (1 - share) + targets.sum(1, keepdim=True) * share / targets.shape[1]
