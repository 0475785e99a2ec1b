"""One training from data to a finished run folder: what teach, train and distill share.

open_session      data -> split -> normalisation -> processes
train_run         network + task + recipe -> run folder: weights, ONNX, metrics, curves
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from compress import (
    checkpoint,
    cli,
    evaluate,
    fit,
    measure,
    metrics,
    onnx_export,
    registry,
    runs,
    tracking,
)
from compress.config import ContinuingOptions, DataOptions, RunOptions
from compress.data import open_chosen
from compress.data.files import counted
from compress.data.sets import SpectrogramSet
from compress.data.splits import Split, make_split
from compress.errors import InputError
from compress.material import Material, Normalisation, measure_normalisation, plain_batches
from compress.recipe import Recipe
from compress.runs import Run, RunWriter

DECISIONS = runs.DECISIONS
Value = TypeVar("Value")


@dataclass
class Session:
    """Data, split and processes of one command.

    after_epoch: gets the row of curves.csv after every epoch; loggers: names of those besides.
    """

    data: SpectrogramSet
    split: Split
    normalisation: Normalisation
    fabric: Any
    seed: int
    runs: Path
    loggers: Sequence[str] = ("csv",)
    after_epoch: fit.AfterEpoch = lambda row: None
    started: float = field(default_factory=time.monotonic)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return bool(self.fabric.is_global_zero)

    def say(self, message: str = "") -> None:
        if self.leads:
            cli.say(message)

    def lead(self, action: Callable[[], Value]) -> Value:
        """Do something in the leading process alone; all get its value, or its refusal."""
        if self.fabric.world_size == 1:
            return action()
        answer: tuple[str, Any] = ("", None)
        if self.leads:
            try:
                answer = ("done", action())
            except InputError as error:
                answer = ("refused", str(error))
        kind, value = self.fabric.broadcast(answer)
        if kind == "refused":
            raise InputError(value)
        return value

    def data_name(self) -> str:
        return data_name(self.data, self.split)


def check_heard_no_test(session: Session, run: Run) -> None:
    """Refuse a run, as teacher or as start, that was trained on this session's test clips, or that
    learnt from one that was; say where it was trained on those of validation."""
    _check_heard_no_test(session, run)
    recipe, heard = run.manifest.get("settings", {}).get("recipe"), run.manifest["data"]
    same = heard.get("content_hash") == session.data.content_hash
    if (
        isinstance(recipe, dict)
        and recipe.get("train_on_validation")
        and (same or session.data.is_otherwise_heard(heard))
    ):
        session.say(
            f"note      {run.folder}: was trained on the validation clips too, so that they judge "
            "what learns from it too kindly"
        )
    for other in runs.behind(run)[0]:
        try:
            _check_heard_no_test(session, other)
        except InputError as error:
            raise InputError(f"{run.folder}: learnt from {error}") from None


def _check_heard_no_test(session: Session, run: Run) -> None:
    ours, theirs = session.data, run.manifest["data"]
    if theirs.get("content_hash") == ours.content_hash:
        if run.manifest.get("settings", {}).get("split") != session.split.digest():
            raise InputError(
                f"{run.folder}: was trained on another split of this data, so it may have seen "
                "test clips; train it with the same --fold and --data-seed"
            )
    elif ours.shares_scenes(theirs):
        raise InputError(
            f"{run.folder}: was trained on {theirs.get('name')} of the same seed, which shares "
            f"clips with {ours.name}, those of the test too; train it with another --data-seed"
        )
    elif ours.is_otherwise_heard(theirs) and _split_words(run) != session.split.description:
        raise InputError(
            f"{run.folder}: was trained on another split of {ours.name}, so it may have heard test "
            "clips; train it with the same --fold and --data-seed"
        )


def _split_words(run: Run) -> object:
    """How a run's split was drawn: of the same clips, the same words mean the same sides."""
    return runs.read_json(run.file(runs.SPLIT)).get("description")


def data_name(data: SpectrogramSet, split: Split) -> str:
    """The data set and its fold, as a part of a run folder's name."""
    fold = f"-fold{split.fold}" if split.fold is not None else ""
    fold += f"of{split.folds}" if split.folds is not None else ""
    return runs.slug(Path(data.name).name.removesuffix(" (synthetic)")) + fold


def read_data(options: DataOptions) -> tuple[SpectrogramSet, Split]:
    """The data set and its split; raises InputError for everything that is wrong with either."""
    data = open_chosen(options)
    split = make_split(
        data, options.data_seed, options.fold, options.folds, options.validation_fold
    )
    return data, split


def open_session(
    data_options: DataOptions, run_options: RunOptions, normalise: str = "band"
) -> Session:
    """Read the data, then start the processes that train together.

    normalise: how the network's input is made of dB, see :class:`Normalisation`.
    """
    tracking.check(run_options.logger)
    data, split = read_data(data_options)
    fabric = start_processes(run_options)
    normalisation = measure_normalisation(data, split.train, kind=normalise)
    session = Session(
        data,
        split,
        normalisation,
        fabric,
        run_options.seed,
        run_options.runs,
        run_options.logger,
    )
    synthetic = " (synthetic)" if data.synthetic and "synthetic" not in data.name else ""
    session.say(
        f"data      {data.name}{synthetic}: {len(data):,} windows, "
        f"{len(data.class_names)} classes; {len(split.train):,} train, "
        f"{len(split.validation):,} validation, {len(split.test):,} test; {split.description}"
    )
    for note in data.notes:
        session.say(f"note      {note}")
    return session


def usable_cores() -> int:
    """Cores that this process may use, which a queue or a container may have made fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


def start_processes(options: ContinuingOptions) -> Any:
    """Fabric on the chosen device; raises InputError where the device is not there."""
    from lightning_fabric import Fabric

    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device was found; use --device cpu")
    if options.device == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: no Apple GPU was found; use --device cpu")
    many = options.devices * options.nodes > 1
    on_cpu = options.device == "cpu" or not torch.cuda.is_available()
    sharing = options.devices if on_cpu else 1
    torch.set_num_threads(options.threads or max(1, usable_cores() // sharing))
    torch.backends.cudnn.deterministic = True
    if not on_cpu:  # products as convolutions there: 32 bits by way of the tensor cores' 19
        torch.set_float32_matmul_precision("high")
    fabric = Fabric(
        accelerator=options.device,
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if many else "auto",
    )
    fabric.launch()
    return fabric


@dataclass(frozen=True)
class Training:
    """What ``train_run`` trains.

    stage: teach, train, distill or prune. settings: everything beyond recipe, data and seed that
    decides the result, JSON-able. make_task: called with the material once it is there.
    procedure: trains in another way than once from ``model`` (see :func:`train_once`), and gives
    the network that is shipped. compare: what metrics.json gets besides, from the run folder with
    its model.onnx. notes: what the manifest has to say to a reader.
    """

    stage: str
    family: str
    name: str
    model: nn.Module
    recipe: Recipe
    make_task: Callable[[Material], fit.Task]
    settings: Mapping[str, Any] = field(default_factory=dict)
    teachers: Sequence[Run] = ()
    parent: Run | None = None
    transfer: Sequence[SpectrogramSet] = ()
    out: Path | None = None
    force: bool = False
    kind: str = "trained"
    procedure: Procedure | None = None
    compare: Callable[[Path], Mapping[str, Any]] | None = None
    notes: Sequence[str] = ()


Procedure = Callable[["Session", Training, Material, Path], tuple[nn.Module, fit.Progress]]
"""Session, what to train, its material and the run folder -> network and how it went."""


def train_once(
    session: Session, training: Training, material: Material, folder: Path
) -> tuple[nn.Module, fit.Progress]:
    """One training of ``training.model`` by its recipe."""
    progress = fit.train_network(
        training.model,
        training.make_task(material),
        material,
        (session.data, session.split.validation, session.normalisation),
        training.recipe,
        session.seed,
        folder / runs.CHECKPOINT,
        session.fabric,
        f"{training.kind} {training.name}",
        session.after_epoch,
    )
    return training.model, progress


def train_run(session: Session, training: Training) -> Run:
    """Train, export, measure; returns the finished run. A finished run is returned as it is."""
    training.recipe.check_classes(len(session.data.class_names))
    settings = _settings(session, training)
    key = runs.digest(settings)
    folder = training.out or session.runs / "-".join(
        [
            runs.slug(training.name),
            training.kind,
            session.data_name(),
            f"s{session.seed}",
            key[:6],
        ]
    )
    manifest = {
        "name": training.name,
        "stage": training.stage,
        "model": training.name,
        "key": key,
        "settings": settings,
        "seed": session.seed,
        "fold": session.split.fold,
        "folds": session.split.folds,
        "device": _device_name(session.fabric.device),
        "processes": session.fabric.world_size,
        "data": session.data.describe(),
        "normalise": session.normalisation.kind,
        "parent": training.parent.reference() if training.parent else None,
        "teachers": [teacher.reference() for teacher in training.teachers],
        **({"notes": list(training.notes)} if training.notes else {}),
    }
    writer = RunWriter(folder, manifest, writes=session.leads)
    with _held(session, writer):
        if session.lead(lambda: writer.begin(training.force)):
            session.say(f"{training.kind:<9} {training.name}: finished before, {folder}")
            return runs.open_run(folder)
        session.lead(lambda: _save_split(session, folder))
        material = build_material(session, training.recipe, training.transfer)
        started = time.monotonic()
        procedure = training.procedure or train_once
        with tracking.opened(session.loggers if session.leads else (), folder, manifest) as logs:
            watched = dataclasses.replace(session, after_epoch=logs.both(session.after_epoch))
            model, progress = procedure(watched, training, material, folder)
            del material
            trained = dataclasses.replace(training, model=model)
            session.lead(lambda: _finish(session, trained, writer, progress, started))
            logs.finish(folder)
    run = runs.open_run(folder)
    if session.leads:
        found = run.metrics()["splits"]["validation"]["accuracy"]
        judged = "validation, trained on," if training.recipe.train_on_validation else "validation"
        session.say(
            f"{training.kind:<9} {training.name}: {counted(len(progress.history), 'epoch')} in "
            f"{cli.duration(progress.seconds)}, {judged} {100 * found:.1f} %"
        )
    return run


def labelled_windows(session: Session, recipe: Recipe) -> np.ndarray:
    """The windows whose labels a network hears, ascending: those of training, and where the recipe
    says so those of validation."""
    train, validation = session.split.train, session.split.validation
    return np.union1d(train, validation) if recipe.train_on_validation else train


def build_material(
    session: Session, recipe: Recipe, transfer: Sequence[SpectrogramSet] = ()
) -> Material:
    """The training windows of the session, and any unlabelled sets behind them."""
    parts = [(session.data, labelled_windows(session, recipe))]
    for extra in transfer:
        if (extra.mels, extra.frames) != (session.data.mels, session.data.frames):
            raise InputError(
                f"{extra.name}: windows of {extra.mels} x {extra.frames}, the data set has "
                f"{session.data.mels} x {session.data.frames}"
            )
        parts.append((extra, np.arange(len(extra))))
    material = Material(
        parts,
        len(session.data.class_names),
        session.normalisation,
        recipe.augmentation,
        session.seed,
        session.fabric.device,
    )
    if recipe.time_crop_probability and not material.croppable:
        session.say("note      time_crop does nothing: no clip of this set has a second window")
    return material


def _settings(session: Session, training: Training) -> dict[str, Any]:
    normalise = session.normalisation.kind
    judging = session.split.validation_fold
    return {
        "stage": training.stage,
        "model": training.name,
        **({} if normalise == "band" else {"normalise": normalise}),
        "arguments": registry.arguments_of(training.model),
        "data": session.data.content_hash,
        "split": session.split.digest(),
        **({} if judging is None else {"validation_fold": judging}),
        "seed": session.seed,
        "processes": session.fabric.world_size,
        "recipe": training.recipe.to_settings(),
        "teachers": [teacher.model_hash() for teacher in training.teachers],
        "parent": training.parent.model_hash() if training.parent else None,
        "transfer": [extra.content_hash for extra in training.transfer],
        **training.settings,
    }


@contextlib.contextmanager
def _held(session: Session, writer: RunWriter) -> Iterator[None]:
    """The leading process holds the run folder; all are refused where another command does."""
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            stack.enter_context(writer.locked())

        session.lead(hold)
        yield


def _save_split(session: Session, folder: Path) -> None:
    runs.write_json(folder / runs.SPLIT, session.split.to_json())


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _finish(
    session: Session,
    training: Training,
    writer: RunWriter,
    progress: fit.Progress,
    started: float,
) -> None:
    folder = writer.folder
    model = training.model.cpu().eval()
    checkpoint.save(folder, training.family, training.name, model, session.normalisation)
    fit.write_curves(folder / runs.CURVES, progress.history)
    draw_curves(folder)
    onnx_export.to_onnx(
        model,
        session.normalisation,
        session.data.mels,
        session.data.frames,
        folder / runs.ONNX,
    )
    measured, decisions = measure_file(
        folder / runs.ONNX, session.data, session.split, model, session.normalisation
    )
    evaluate.save_decisions(folder / DECISIONS, decisions)
    measured |= {
        "epochs": len(progress.history),
        "windows_per_epoch": len(labelled_windows(session, training.recipe))
        + sum(map(len, training.transfer)),
        "best_epoch": progress.best_epoch + 1,
        "seconds": round(progress.seconds, 3),
    }
    if training.compare:
        measured |= training.compare(folder)
    runs.write_json(folder / runs.METRICS, measured)
    writer.finish(
        [runs.MODEL, runs.WEIGHTS, runs.ONNX, runs.SPLIT, runs.CURVES, runs.METRICS, DECISIONS],
        seconds=round(time.monotonic() - started, 3),
    )


def measure_file(
    path: Path,
    data: SpectrogramSet,
    split: Split,
    model: nn.Module,
    normalisation: Normalisation,
) -> tuple[dict[str, Any], metrics.Decisions]:
    """Everything in metrics.json, measured on the file; and its decisions on the test split."""
    measured = evaluate.measure_onnx(path, data, split)
    with torch.inference_mode():
        batches = plain_batches(data, split.test, normalisation)
        in_torch = np.concatenate([model(x).numpy() for x, _ in batches])
    figures = measured.figures | {
        "params": measure.count_params(model),
        "agreement": evaluate.agreement(measured.logits["test"], in_torch),
    }
    return figures, measured.decisions["test"]


def draw_curves(folder: Path) -> None:
    """curves.png from curves.csv."""
    from reports.figures import save_training_curves

    with runs.atomic_path(folder / "curves.png") as path:
        save_training_curves(folder / runs.CURVES, path)
