"""How a pass goes on with a finished run: its processes, its teachers, how it listens to them.

run folder -> session on the same data, split and normalisation
           -> teachers that it was distilled from, unchanged since, and their weights in the loss
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress import checkpoint, cli, fit, runs, tracking
from compress.config import ContinuingOptions
from compress.data.sets import SpectrogramSet, find_set
from compress.errors import InputError
from compress.material import Material
from compress.parents import Parent
from compress.recipe import Recipe
from compress.runs import Run
from compress.session import Session, start_processes
from compress.student_runs import Distillation, distill_task
from compress.tasks import LabelTask


def open_session_of(parent: Parent, run: Run, options: ContinuingOptions, seed: int) -> Session:
    """Start the processes on the run's own data and split, with its network's normalisation."""
    tracking.check(options.logger)
    _, normalisation = checkpoint.load(run)
    fabric = start_processes(options)
    return Session(
        parent.data, parent.split, normalisation, fabric, seed, options.runs, options.logger
    )


def teachers_of(run: Run, given: Sequence[Path], without: bool) -> tuple[Run, ...]:
    """The given teachers, else those that the run was distilled from, unchanged since.

    Raises InputError where one is missing, unfinished or has other weights than it had.
    """
    if without:
        return ()
    if given:
        return tuple(_unchanged(runs.open_run(folder)) for folder in given)
    found = []
    for entry in run.manifest.get("teachers") or []:
        folder = Path(entry["folder"])
        if not (folder / runs.MANIFEST).is_file():
            raise InputError(
                f"{run.folder}: its teacher {entry.get('name')!r} is missing ({folder}); say where "
                "it lies with --teacher, or fine-tune on labels alone with --without-teacher"
            )
        teacher = _unchanged(runs.open_run(folder))
        if teacher.model_hash() != entry.get("weights_sha256"):
            raise InputError(
                f"{run.folder}: its teacher {folder} changed since (other weights); give one with "
                "--teacher, or fine-tune on labels alone with --without-teacher"
            )
        found.append(teacher)
    return tuple(found)


def _unchanged(run: Run) -> Run:
    run.check_unchanged()
    return run


def transfer_of(run: Run, cache: Path | None) -> list[SpectrogramSet]:
    """The unlabelled sets that the run was trained with, as far as the cache still has them."""
    hashes = run.manifest.get("settings", {}).get("transfer") or []
    found = [find_set(wanted, cache) for wanted in hashes]
    lost = sum(one is None for one in found)
    if lost:
        cli.say(f"note      {lost} unlabelled sets of the run are not in the cache: left out")
    return [one for one in found if one is not None]


def distillation_of(
    run: Run, teachers: Sequence[Run], transfer: Sequence[SpectrogramSet], cache: Path | None
) -> Distillation | None:
    """The run's own loss and weights under these teachers; None where there are none."""
    if not teachers:
        return None
    usual = Distillation(teachers)
    recorded = run.manifest.get("settings", {})
    names = ("method", "temperature", "label_loss_weight", "distill_loss_weight")
    values = {name: recorded.get(name, getattr(usual, name)) for name in names}
    return Distillation(teachers, **values, transfer=transfer, cache=cache)


def losses_of(distillation: Distillation | None) -> dict[str, str | float]:
    """What the settings of a run record of it, under the names that distill uses."""
    if distillation is None:
        return {}
    return {
        "method": distillation.method,
        "temperature": distillation.temperature,
        "label_loss_weight": distillation.label_loss_weight,
        "distill_loss_weight": distillation.distill_loss_weight,
    }


def task_of(
    session: Session, distillation: Distillation | None, recipe: Recipe, material: Material
) -> fit.Task:
    """Labels and teachers, or labels alone."""
    if distillation is None:
        return LabelTask(recipe, material.class_counts)
    return distill_task(session, distillation, recipe, material)
