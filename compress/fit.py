"""The one training loop. It never learns which loss it runs: a task returns every term by name.

Fabric (the lightest part of Lightning) moves the network, the gradients and the processes; one
process and several run the same lines. Everything random is a function of (seed, epoch), so a run
that was killed continues from its last checkpoint to the same weights.
"""

from __future__ import annotations

import copy
import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from compress import cli
from compress.data.sets import SpectrogramSet
from compress.errors import InputError
from compress.material import Batch, Material, Normalisation, plain_batches
from compress.memory_format import in_memory_format
from compress.recipe import Recipe
from compress.runs import atomic_path
from compress.steps import GraphedSteps, PlainSteps, rates_on_device, set_rate

_SECONDS_BETWEEN_CHECKPOINTS = 15.0

Task = Callable[[torch.Tensor, Batch], dict[str, torch.Tensor]]
"""logits (B, classes) and batch -> named terms; ``loss`` is the one that is minimised."""

AfterEpoch = Callable[[Mapping[str, float]], Any]
"""Gets the row of curves.csv of every epoch, those before a continuation too. Whatever it raises
ends the training."""


@dataclass
class Progress:
    """Where a training stands: what a checkpoint holds besides the tensors."""

    epoch: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def kept(self, recipe: Recipe) -> dict[str, float]:
        """The row of the epoch whose weights the recipe keeps."""
        return self.history[-1 if recipe.keeps_last else self.best_epoch]


def train_network(
    model: nn.Module,
    task: Task,
    material: Material,
    validation: tuple[SpectrogramSet, np.ndarray, Normalisation],
    recipe: Recipe,
    seed: int,
    checkpoint: Path,
    fabric: Any,
    label: str,
    after_epoch: AfterEpoch = lambda row: None,
    graphs: bool = True,
) -> Progress:
    """Train ``model`` in place and leave in it the weights that the recipe keeps.

    Those are of the epoch with the lowest validation loss or of the last one, and where the recipe
    averages weights, their mean. Continues from ``checkpoint`` where that exists. graphs: on a CUDA
    device record the steps (see compress.steps), for a network that computes nothing in Python
    that changes from step to step. Raises InputError where a loss is not finite.
    """
    model = in_memory_format(model, torch.channels_last)
    optimiser = make_optimiser(model, recipe)
    wrapped, optimiser = fabric.setup(model, optimiser)
    on_cuda = fabric.device.type == "cuda"
    if on_cuda:
        rates_on_device(optimiser, fabric.device)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=recipe.plateau_factor, patience=recipe.plateau_patience
    )
    progress = Progress()
    average = weight_average(model, recipe.weight_average)
    judged = average.module if average else model
    best = _weights(judged)
    if checkpoint.is_file():
        progress, best = _restore(checkpoint, model, average, optimiser, plateau, fabric.device)
        for row in progress.history:
            after_epoch(row)
    saved = time.monotonic()
    ranks, rank = fabric.world_size, fabric.global_rank
    bfloat16 = uses_bfloat16(recipe.precision, fabric.device)
    kind = GraphedSteps if on_cuda and graphs and ranks == 1 else PlainSteps
    steps = kind(wrapped, optimiser, task, fabric, bfloat16, average, recipe.weight_average)
    sizes = [recipe.batch_size_at(epoch) for epoch in range(recipe.epochs)]
    total = sum(material.steps(size, ranks) for size in sizes)
    with cli.progress(total, label, "step") as bar:
        bar.update(sum(material.steps(size, ranks) for size in sizes[: progress.epoch]))
        while progress.epoch < recipe.epochs and not _stalled(progress, recipe):
            epoch = progress.epoch
            started = time.monotonic()
            torch.manual_seed(seed * 1_000_003 + epoch * 1_009 + rank)
            count = material.steps(sizes[epoch], ranks)
            batches = material.batches(
                epoch, seed, sizes[epoch], recipe.view_of(epoch), rank, ranks
            )
            rates = (
                [cosine_rate(recipe, epoch + step / count) for step in range(count)]
                if recipe.schedule == "cosine"
                else None
            )
            means = train_epoch(steps, batches, rates, bar.update)
            _check_finite("training", means["loss"], label, epoch)
            rate = float(optimiser.param_groups[0]["lr"])
            # Batch norms have seen other windows in each process. One judges for all, or they would
            # stop, and lower their rates, at different epochs.
            measured = fabric.broadcast(evaluate_network(judged, *validation) if rank == 0 else {})
            _check_finite("validation", measured["loss"], label, epoch)
            if recipe.schedule == "plateau":
                plateau.step(measured["loss"])
            progress.seconds += time.monotonic() - started
            progress.history.append(
                {
                    "epoch": epoch + 1,
                    **{_curve_name(name): value for name, value in means.items()},
                    "validation_loss": measured["loss"],
                    "validation_accuracy": measured["accuracy"],
                    "learning_rate": rate,
                    "batch_size": sizes[epoch],
                    "seconds": round(progress.seconds, 3),
                }
            )
            better = measured["loss"] < progress.best_loss
            if better:
                progress.best_loss, progress.best_epoch = measured["loss"], epoch
            if better or recipe.keeps_last:
                best = _weights(judged)
            progress.epoch += 1
            bar.set_postfix_str(
                f"epoch {progress.epoch}, validation {100 * measured['accuracy']:.1f} %"
            )
            if time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                if fabric.is_global_zero:
                    _save(checkpoint, progress, best, model, average, optimiser, plateau)
                saved = time.monotonic()
            after_epoch(progress.history[-1])
    model.load_state_dict(best)
    if fabric.is_global_zero:
        _save(checkpoint, progress, best, model, average, optimiser, plateau)
    return progress


def _check_finite(which: str, loss: float, label: str, epoch: int) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"{label}: the {which} loss is {loss} in epoch {epoch + 1}; use a lower "
            "--learning-rate"
        )


def weight_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """The running mean of a network's weights and batch-norm statistics; None for decay 0.

    mean <- d mean + (1 - d) weights, where d = min(decay, (1 + n) / (10 + n)) after n steps, so
    that the first weights are forgotten soon in a short training too (as TensorFlow's
    ExponentialMovingAverage does with num_updates).
    """
    if not decay:
        return None

    def mix(mean: Sequence[torch.Tensor], now: Sequence[torch.Tensor], steps: Any) -> None:
        n = int(steps)
        share = 1 - min(decay, (1 + n) / (10 + n))
        if mean[0].is_floating_point():
            torch._foreach_lerp_(list(mean), list(now), share)
        else:  # the number of batches that a batch norm has seen
            torch._foreach_copy_(list(mean), list(now))

    device = next(model.parameters()).device  # where its count of steps shall lie too
    return AveragedModel(model, device=device, multi_avg_fn=mix, use_buffers=True)


def train_epoch(
    steps: PlainSteps,
    batches: Iterable[Batch],
    rates: Sequence[float] | None = None,
    after_step: Callable[[], Any] = lambda: None,
) -> dict[str, float]:
    """One pass over ``batches``; returns the mean of each term over all windows and processes.

    rates: the learning rate of each step, or None to keep the optimiser's.
    """
    steps.model.train()
    sums: dict[str, torch.Tensor] = {}
    count = 0
    with steps.running():
        for step, batch in enumerate(batches):
            if rates is not None:
                set_rate(steps.optimiser, rates[step])
            for name, value in steps(batch).items():
                sums[name] = sums.get(name, 0.0) + value * len(batch.x)
            count += len(batch.x)
            after_step()
        return {name: float(steps.fabric.all_reduce(sum_ / count)) for name, sum_ in sums.items()}


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16; "auto" asks whether the device multiplies in it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam or AdamW; biases and batch-norm parameters are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate, fused=True)


def cosine_rate(recipe: Recipe, epoch: float) -> float:
    """Learning rate after ``epoch`` epochs: a linear rise, then a half cosine to 0."""
    at = epoch / recipe.epochs
    if at < recipe.warmup_share:
        return recipe.learning_rate * max(at, 1e-3) / recipe.warmup_share
    fall = (at - recipe.warmup_share) / (1 - recipe.warmup_share)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * fall))


def evaluate_network(
    model: nn.Module, data: SpectrogramSet, windows: np.ndarray, normalisation: Normalisation
) -> dict[str, float]:
    """Mean cross-entropy and accuracy per window, without augmentation."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    loss = correct = 0.0
    with torch.inference_mode():
        for x, labels in plain_batches(data, windows, normalisation):
            logits = model(x.to(device)).float()
            labels = labels.to(device)
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            correct += (logits.argmax(1) == labels).sum().item()
    model.train(training)
    return {"loss": loss / len(windows), "accuracy": correct / len(windows)}


def write_curves(path: Path, history: list[dict[str, float]]) -> None:
    """One row per epoch as CSV."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]) if history else ["epoch"])
        writer.writeheader()
        writer.writerows(history)


def _curve_name(term: str) -> str:
    return f"train_{term}"


def _stalled(progress: Progress, recipe: Recipe) -> bool:
    if recipe.train_on_validation:
        return False
    return progress.epoch - 1 - progress.best_epoch >= recipe.patience


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _save(
    path: Path,
    progress: Progress,
    best: Mapping[str, torch.Tensor],
    model: nn.Module,
    average: nn.Module | None,
    optimiser: Any,
    plateau: Any,
) -> None:
    state = {
        "progress": vars(copy.copy(progress)),
        "best": dict(best),
        "model": _weights(model),
        "optimiser": optimiser.state_dict(),
        "plateau": plateau.state_dict(),
        **({"average": _weights(average)} if average else {}),
    }
    content = io.BytesIO()
    torch.save(state, content)  # straight to a full disk it would end in an error of its own kind
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _restore(
    path: Path,
    model: nn.Module,
    average: nn.Module | None,
    optimiser: Any,
    plateau: Any,
    device: torch.device,
) -> tuple[Progress, dict[str, torch.Tensor]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        progress = Progress(**state["progress"])
        model.load_state_dict(state["model"])
        if average:
            average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        if device.type == "cuda":
            rates_on_device(optimiser, device)
        plateau.load_state_dict(state["plateau"])
        return progress, dict(state["best"])
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: the checkpoint cannot be read ({reason}); delete it to train from the start"
        ) from None
