"""Prune and train in turn. Every state lies in the run folder, so that a killed run goes on.

parent -> take out -> train -> take out -> train -> ... -> take out -> train long -> network
          pruned-1.pt  trained-1.pt                        pruned-N.pt  trained-N.pt
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from compress import fit, runs
from compress.errors import InputError
from compress.material import Material
from compress.pruning import sparsity
from compress.pruning.latency import macs_for_ratio, measured_ratio
from compress.pruning.planning import MACS, PARAMS
from compress.pruning.structure import UNITS, Measure, Subject, least, prune_to, restore
from compress.recipe import Recipe
from compress.session import Session, Training

LATENCY, SPARSITY = "latency_ratio", "sparsity"
_GOAL = "goal.json"
_TAYLOR_WINDOWS = 1024
_LATENCY_ATTEMPTS = 6
_LATENCY_STEP = 0.93


@dataclass(frozen=True)
class Pruning:
    """What is asked for. kind: params, macs, latency_ratio or sparsity, and its value."""

    kind: str
    value: float
    importance: str = "magnitude"
    round_to: int = 8
    steps: int = 4
    step_epochs: int = 3
    sparsity_scope: str = "global"

    def measure(self, seed: int, step: int) -> Measure:
        return Measure(self.importance, self.round_to, seed * 1009 + step)


def check_target(subject: Subject, pruning: Pruning) -> list[str]:
    """Refuse a target that is met already or cannot be met; returns what will be left alone."""
    if pruning.kind == SPARSITY:
        now = sparsity.sparsity_of(subject.model)
        if now >= pruning.value:
            raise InputError(
                f"--sparsity {pruning.value:g}: {now:.2f} of the weights are zero already"
            )
        return []
    if pruning.kind == LATENCY:
        return least(subject, MACS, pruning.round_to)[1]
    unit, flag = UNITS[pruning.kind], f"--{pruning.kind}"
    now = subject.count(pruning.kind)
    if now <= pruning.value:
        raise InputError(
            f"{flag} {pruning.value:,.0f}: {subject.name} has {unit.format(now)} already; "
            "give a smaller target"
        )
    floor, unsupported = least(subject, pruning.kind, pruning.round_to)
    if floor > pruning.value:
        left = f"; left alone: {'; '.join(unsupported[:3])}" if unsupported else ""
        raise InputError(
            f"{flag} {pruning.value:,.0f}: cannot be reached; the nearest is {unit.format(floor)}, "
            f"with every width at its least for --round-to {pruning.round_to}{left}"
        )
    return unsupported


@dataclass(frozen=True)
class Stepwise:
    """The procedure of a pruned run (see compress.session.Training)."""

    pruning: Pruning
    base: Path  # the parent's file

    def __call__(
        self, session: Session, training: Training, material: Material, folder: Path
    ) -> tuple[nn.Module, fit.Progress]:
        states = folder / runs.STEPS
        data, pruning = session.data, self.pruning
        task = training.make_task(material)
        subject = Subject(training.family, training.name, training.model, data.mels, data.frames)
        goal = session.lead(lambda: self._goal(session, subject, states / _GOAL))
        whole = fit.Progress()
        for step in range(1, pruning.steps + 1):
            file = states / f"pruned-{step}.pt"
            before = subject

            def prune(before: Subject = before, step: int = step, file: Path = file) -> None:
                if not file.is_file():
                    smaller = self._prune(session, before, goal, step, training, material, task)
                    with runs.atomic_path(file) as path:
                        smaller.save(path)

            session.lead(prune)
            subject = restore(file, subject.family, subject.name, data.mels, data.frames)
            if pruning.kind == SPARSITY:
                sparsity.keep_zeros(subject.model)
            last = step == pruning.steps
            recipe = training.recipe if last else _short(training.recipe, pruning.step_epochs)
            progress = fit.train_network(
                subject.model,
                task,
                material,
                (data, session.split.validation, session.normalisation),
                recipe,
                session.seed * 1009 + step,
                states / f"trained-{step}.pt",
                session.fabric,
                f"{training.kind} {training.name} {step}/{pruning.steps}",
                session.after_epoch,
                graphs=pruning.kind != SPARSITY,  # its hooks move masks
            )
            _append(whole, progress, step)
            subject.model.cpu().eval()
            session.say(
                f"step {step}/{pruning.steps}  {self._standing(subject)}, validation "
                f"{100 * _best_accuracy(progress):.1f} % after "
                f"{len(progress.history)} epochs"
            )
        return subject.model, whole

    def _goal(self, session: Session, subject: Subject, file: Path) -> tuple[str, float]:
        """What the steps count towards; of a latency the MACs, measured once and written down."""
        pruning = self.pruning
        if pruning.kind != LATENCY:
            return pruning.kind, pruning.value
        if not file.is_file():
            session.say("measuring how few MACs the wanted latency takes")
            how = pruning.measure(session.seed, 0)
            macs = macs_for_ratio(subject, session.normalisation, self.base, pruning.value, how)
            runs.write_json(file, {"macs": macs})
        return MACS, float(runs.read_json(file)["macs"])

    def _prune(
        self,
        session: Session,
        subject: Subject,
        goal: tuple[str, float],
        step: int,
        training: Training,
        material: Material,
        task: fit.Task,
    ) -> Subject:
        kind, value = goal
        pruning = self.pruning
        if kind == SPARSITY:
            start = sparsity.sparsity_of(training.model)
            share = sparsity.scheduled(value, start, step, pruning.steps)
            sparse = dataclasses.replace(subject, model=copy.deepcopy(subject.model))
            sparsity.set_zeros(sparse.model, share, pruning.sparsity_scope)
            return sparse
        whole = dataclasses.replace(subject, model=training.model).count(kind)
        target = (
            value if step == pruning.steps else whole * (value / whole) ** (step / pruning.steps)
        )
        if subject.count(kind) <= target:
            return subject
        how = pruning.measure(session.seed, step)
        feed = _feed(session, material, task, training.recipe)
        smaller = prune_to(subject, kind, target, how, feed)
        if pruning.kind == LATENCY and step == pruning.steps:
            smaller = self._fast_enough(session, subject, smaller, target, how, feed)
        return smaller

    def _fast_enough(
        self,
        session: Session,
        subject: Subject,
        smaller: Subject,
        macs: float,
        how: Measure,
        feed: Callable[..., None],
    ) -> Subject:
        """Other widths than the probed ones may take longer for the same MACs: measure again."""
        floor, _ = least(subject, MACS, how.round_to)
        for _ in range(_LATENCY_ATTEMPTS):
            ratio = measured_ratio(smaller, session.normalisation, self.base)
            if ratio <= self.pruning.value or macs <= floor:
                break
            macs = max(macs * _LATENCY_STEP, floor)
            smaller = prune_to(subject, MACS, macs, how, feed)
        return smaller

    def _standing(self, subject: Subject) -> str:
        if self.pruning.kind == SPARSITY:
            return f"{100 * sparsity.sparsity_of(subject.model):.1f} % of the weights are zero"
        params, macs = subject.count(PARAMS), subject.count(MACS)
        return f"{params:,} parameters, {macs / 1e6:.2f} M MACs"


def _short(recipe: Recipe, epochs: int) -> Recipe:
    """Its first epochs, without an early stop; with as many views as the whole recipe has, since
    a teacher answers for those."""
    views = recipe.views or recipe.epochs
    return dataclasses.replace(recipe, epochs=epochs, patience=epochs, views=views)


def _feed(session: Session, material: Material, task: fit.Task, recipe: Recipe) -> Any:
    """Backward passes over some training batches, in eval mode: what ships is what is judged."""

    def feed(model: nn.Module, after: Callable[[], None]) -> None:
        device = session.fabric.device
        model.to(device).eval()
        size = recipe.batch_size_at(0)
        count = max(1, _TAYLOR_WINDOWS // size)
        batches = material.batches(0, session.seed, size, recipe.view_of(0))
        for _, batch in zip(range(count), batches, strict=False):
            model.zero_grad(set_to_none=True)
            task(model(batch.x).float(), batch)["loss"].backward()
            after()
        model.cpu()

    return feed


def _append(whole: fit.Progress, part: fit.Progress, step: int) -> None:
    """Epochs are numbered through all steps; the best one is that of the last step."""
    earlier, seconds = len(whole.history), whole.seconds
    for row in part.history:
        whole.history.append(
            row
            | {
                "epoch": earlier + row["epoch"],
                "seconds": round(seconds + row["seconds"], 3),
                "step": step,
            }
        )
    whole.epoch = len(whole.history)
    whole.best_epoch = earlier + part.best_epoch
    whole.best_loss = part.best_loss
    whole.seconds = seconds + part.seconds


def _best_accuracy(progress: fit.Progress) -> float:
    best = progress.best_epoch
    return progress.history[best]["validation_accuracy"] if best >= 0 else math.nan
