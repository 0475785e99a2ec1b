"""Teachers: trained once for a data set and its settings, asked once for each augmented view."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress import checkpoint, cli, registry, runs, starting
from compress.config import map_size
from compress.data.sets import SpectrogramSet, default_cache, is_synthetic
from compress.errors import InputError
from compress.fit import uses_bfloat16
from compress.material import Material, Normalisation
from compress.memory_format import in_memory_format
from compress.recipe import Recipe
from compress.runs import Run
from compress.session import Session, Training, check_heard_no_test, train_run
from compress.tasks import LabelTask

Predict = Callable[[torch.Tensor], torch.Tensor]
"""Windows standardised by the session's normalisation -> logits."""

_BATCH = 128
_DEVICE_BATCH = 4096
TRANSFER_SEED = 1_000_000
"""Added to --data-seed it is the seed of synthetic transfer scenes: of no data set, by its size."""


def teacher_run(
    session: Session,
    name: str,
    recipe: Recipe,
    smallest_map: str,
    pretrained: bool = False,
    out: Path | None = None,
    force: bool = False,
    weights: Path | None = None,
) -> Run:
    """A teacher trained on the session's data, or the finished run of just that.

    name: a classifier of timm, or a student of the registry; ``NAME:SEED`` trains with that seed
    instead of the session's, so that an ensemble may hold one network several times.
    weights: what it starts from, the run folder of the same network or a file of timm's weights.
    """
    name, seed = registry.teacher_and_seed(name)
    if seed is not None:
        session = dataclasses.replace(session, seed=seed)
    torch.manual_seed(session.seed)
    sizes = {
        "classes": len(session.data.class_names),
        "mels": session.data.mels,
        "frames": session.data.frames,
    }
    own = {"activation": recipe.activation, "dropout": recipe.dropout}
    own = {key: value for key, value in own.items() if value is not None}
    is_student = name in registry.STUDENTS
    parent = None
    if is_student and pretrained:
        raise InputError(f"--pretrained: timm has no weights of {name}; leave it out")
    if own and not is_student:
        raise InputError(
            "recipe of the teacher: activation and dropout are a student's; leave them out"
        )
    if weights is not None and (weights.is_dir() or is_student):
        model, parent = starting.continued(session, name, weights, own)
    elif is_student:
        model = registry.build_student(name, **sizes, **own)
    else:
        model = registry.build_teacher(
            name,
            **sizes,
            smallest_map=map_size(smallest_map),
            pretrained=pretrained,
            weights=weights,
        )
    training = Training(
        stage="teach",
        family="student" if is_student else "teacher",
        name=name,
        model=model,
        recipe=recipe,
        make_task=lambda material: LabelTask(recipe, material.class_counts),
        settings={
            "pretrained": pretrained,
            **({"weights": hashed} if (hashed := starting.file_hash(weights)) else {}),
        },
        parent=parent,
        out=out,
        force=force,
        kind="teacher",
    )
    return train_run(session, training)


def chosen_teacher(
    session: Session,
    name: str,
    recipes: Mapping[str, Recipe],
    smallest_map: str,
    pretrained: bool = False,
) -> Run:
    """The run of a folder, or of a teacher by name, which is trained first where it must be.

    recipes: of every teacher that is given by name (compress.recipe.of_teachers).
    """
    if runs.is_folder(name):
        teacher = runs.open_run(Path(name))
        teacher.check_complete()
        return teacher
    return teacher_run(session, name, recipes[name], smallest_map, pretrained)


def transfer_sets(session: Session, options: Any) -> list[SpectrogramSet]:
    """Unlabelled sets of ``--transfer``, through the same front end as the data."""
    from compress.data import open_data, open_transfer

    synthetic = [path for path in options.transfer if is_synthetic(str(path))]
    found = []
    for spec in synthetic:
        if session.data.frontend is None:
            raise InputError(
                f"--transfer {spec}: the labelled set came as spectrograms, so the front end that "
                "sound would need is unknown; say with --frontend how it was made, "
                "or give a .npy array made the same way"
            )
        found.append(
            open_data(
                str(spec),
                frontend=session.data.frontend,
                seed=TRANSFER_SEED + options.data_seed,
                cache=options.cache,
                workers=options.workers,
            )
        )
    paths = [path for path in options.transfer if path not in synthetic]
    if paths:
        found.append(
            open_transfer(
                paths,
                frontend=session.data.frontend,
                cache=options.cache,
                workers=options.workers,
                strict=options.strict,
                shape=(session.data.mels, session.data.frames),
            )
        )
        _check_no_test_among(found[-1], session)
    for extra in found:
        session.say(f"transfer  {extra.name}: {len(extra):,} unlabelled windows")
        for note in extra.notes:
            session.say(f"note      {note}")
    return found


def _check_no_test_among(transfer: SpectrogramSet, session: Session) -> None:
    """Refuse unlabelled sound that holds windows of the session's test, to the bit."""
    from compress.duplicates import sounding_digests

    tested = sounding_digests(session.data, session.split.test)
    given = sounding_digests(transfer, np.arange(len(transfer)))
    heard = int(np.isin(given, tested[tested != 0]).sum())
    if heard:
        raise InputError(
            f"--transfer {transfer.name}: {heard:,} of its windows are the test of "
            f"{session.data.name}, which must not be heard; leave those sounds out"
        )


def check_teacher(session: Session, teacher: Run) -> None:
    """Refuse a teacher of other classes, of another front end, or one that heard the test clips."""
    ours, theirs = session.data, teacher.manifest["data"]
    if tuple(theirs["class_names"]) != ours.class_names:
        raise InputError(
            f"{teacher.folder}: teaches the classes {', '.join(theirs['class_names'])}; "
            f"the data set has {', '.join(ours.class_names)}"
        )
    if (theirs.get("mels"), theirs.get("frames")) != (ours.mels, ours.frames):
        raise InputError(f"{teacher.folder}: was trained on windows of another size")
    if teacher.frontend and ours.frontend and teacher.frontend != ours.frontend:
        heard, given = teacher.frontend.to_dict(), ours.frontend.to_dict()
        apart = [f"{name} {heard[name]}, here {given[name]}"
                 for name in given if heard[name] != given[name]]  # fmt: skip
        raise InputError(
            f"{teacher.folder}: heard sound through another front end ({', '.join(apart)}); "
            f"prepare the data in the same way (--frontend {teacher.folder}) or train a teacher "
            "on it"
        )
    check_heard_no_test(session, teacher)


def view_logits(
    session: Session,
    teachers: Sequence[Run],
    material: Material,
    recipe: Recipe,
    transfer: Sequence[str],
    cache: Path | None,
) -> torch.Tensor:
    """Mean logits of the teachers for every view of every window: (views, windows, classes).

    Raw logits are stored per teacher and view, under a key of everything that decides them, so
    that temperature and loss stay free and the next student asks no teacher again. Teachers
    compute in the recipe's precision, as the student does.
    """
    views = recipe.views or recipe.epochs
    bfloat16 = uses_bfloat16(recipe.precision, session.fabric.device)
    normalise = session.normalisation.kind
    folders = []
    for teacher in teachers:
        key = runs.digest(
            {
                "teacher": teacher.model_hash(),
                "data": session.data.content_hash,
                "split": session.split.digest(),
                "transfer": list(transfer),
                "augmentation": vars(recipe.augmentation),
                **({} if normalise == "band" else {"normalise": normalise}),
                **({"precision": "bfloat16"} if bfloat16 else {}),
                **({"train_on_validation": True} if recipe.train_on_validation else {}),
                "seed": session.seed,
            }
        )
        folders.append((cache or default_cache()) / "teacher-logits" / key[:24])
    stored = dict(zip(folders, teachers, strict=True))
    session.lead(functools.partial(_store, session, stored, material, views, bfloat16))
    total = torch.zeros(views, len(material), material.classes)
    for folder in folders:
        for view in range(views):
            total[view] += torch.from_numpy(np.load(_file(folder, view), allow_pickle=False))
    return total / len(folders)


def _file(folder: Path, view: int) -> Path:
    return folder / f"view-{view:04d}.npy"


def _store(
    session: Session,
    teachers: Mapping[Path, Run],
    material: Material,
    views: int,
    bfloat16: bool,
) -> None:
    """Logits of the views that a teacher's folder lacks; a view is computed once for all."""
    from filelock import FileLock

    with contextlib.ExitStack() as stack:
        for folder in sorted(teachers):  # in one order everywhere, or two would wait for ever
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder.with_suffix(".lock")))
            runs.forget_temporaries(folder)
        lacking = {
            view: [folder for folder in teachers if not _file(folder, view).is_file()]
            for view in range(views)
        }
        count = sum(map(len, lacking.values())) * len(material)
        if not count:
            return
        asked = {folder for folders in lacking.values() for folder in folders}
        predict = {
            folder: _in_our_units(*checkpoint.load(teachers[folder]), session) for folder in asked
        }
        names = ", ".join(dict.fromkeys(teachers[folder].name for folder in teachers))
        with cli.progress(count, f"logits of {names}", "window") as bar:
            for view, folders in lacking.items():
                if folders:
                    listened = [predict[folder] for folder in folders]
                    found = _logits(session, listened, material, view, bfloat16, bar.update)
                    for folder, logits in zip(folders, found, strict=True):
                        with runs.atomic_path(_file(folder, view)) as path, path.open("wb") as file:
                            np.save(file, logits)


def _logits(
    session: Session,
    teachers: Sequence[Predict],
    material: Material,
    view: int,
    bfloat16: bool,
    after: Callable[[int], Any],
) -> list[np.ndarray]:
    """Of each teacher (windows, classes) for one view."""
    device = session.fabric.device.type
    size = _BATCH if device == "cpu" else _DEVICE_BATCH
    found: list[list[np.ndarray]] = [[] for _ in teachers]
    for start in range(0, len(material), size):
        end = min(start + size, len(material))
        x, _ = material.view(torch.arange(start, end), view)
        for predict, logits in zip(teachers, found, strict=True):
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                logits.append(predict(x).float().cpu().numpy())
            after(end - start)
    return [np.concatenate(logits) for logits in found]


def _in_our_units(model: torch.nn.Module, theirs: Normalisation, session: Session) -> Predict:
    """The teacher as a function of windows standardised by the session's normalisation."""
    device = session.fabric.device
    ours = session.normalisation
    if ours.silence is not None or theirs.silence is not None:
        return _through_decibels(model.to(device).eval(), ours, theirs)
    gain = torch.from_numpy(ours.deviation / theirs.deviation)[None, None, :, None].to(device)
    offset = torch.from_numpy((ours.mean - theirs.mean) / theirs.deviation)
    offset = offset[None, None, :, None].to(device)
    model = in_memory_format(model.to(device), torch.channels_last).eval()

    @torch.inference_mode()
    def predict(x: torch.Tensor) -> torch.Tensor:
        return model(x * gain + offset)

    return predict


def _through_decibels(
    model: torch.nn.Module, ours: Normalisation, theirs: Normalisation
) -> Predict:
    """Likewise, where one of the two is no straight line."""

    @torch.inference_mode()
    def predict(x: torch.Tensor) -> torch.Tensor:
        return model(theirs.apply(ours.invert(x)))

    return predict
