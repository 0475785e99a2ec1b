"""Train a student on every fold; tabulate accuracy, loss, recall and confusion over the folds.

As in the report: 10 % of the recordings are the test, held out once; the rest is dealt into
--folds folds, each of which is the validation set once (9:1). A data set with official folds
(ESC-50) is tested on each of them instead. Each fold is an ordinary run folder.

    --jobs 2                                    folds in two processes here
    --engine dask --scheduler tcp://HOST:8786   on the workers of a cluster that is up
    --fold-index K, then --collect              as array jobs of SLURM or LSF (examples/)

A fold that was lost is run again, one that another process still trains is waited for; the same
command continues.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from compress import cli
from compress.config import CrossvalConfig, data_options
from compress.errors import InputError

if TYPE_CHECKING:
    from compress.data.sets import SpectrogramSet
    from compress.recipe import Recipe
    from compress.runs import Run

OPTIONS = "crossval.toml"
SUMMARY = "crossval.json"
_NOT_OF_THE_RESULT = (
    "out", "runs", "force", "logger", "jobs", "engine", "scheduler", "attempts", "fold_index",
    "collect", "cache", "workers", "device", "threads", "devices", "nodes", "frontend",
)  # fmt: skip
"""A front end is told by the content of the data, whatever its file is called."""


def run(config: CrossvalConfig) -> int:
    _check(config)
    from compress import chosen_student, runs, tracking
    from compress import recipe as recipes
    from compress.data import open_chosen

    recipe, teacher_recipes = chosen_student.check(config)
    tracking.check(config.logger)
    data = open_chosen(config)
    recipe.check_classes(len(data.class_names))
    if config.validation_fold is not None:
        raise InputError(
            "--validation-fold: every official fold is the test once here, and so cannot judge as "
            "well; leave it out, or train the other folds with compress.train --fold"
            if data.folds is not None
            else f"--validation-fold: {data.name} has no official folds; leave it out"
        )
    if data.folds is None:
        recipes.check_judges(recipe, "compress.crossval, of folds that it deals itself,")
    folds = folds_of(data, config)
    asked = _asked(config, data, recipe, teacher_recipes)
    folder = config.out or config.runs / _name(config, data, asked)
    if config.fold_index is not None:
        return _one_fold(config, data, folds, folder, recipe, teacher_recipes, asked)
    if config.collect:
        _check_all_there(folds, folder)
    with runs.held(folder, "trains these folds"):
        if not config.collect:
            _train(config, data, folds, folder, asked)
        return _gather(config, folds, folder, asked)


def _check(config: CrossvalConfig) -> None:
    from compress import fold_jobs

    if config.fold_index is not None and config.collect:
        raise InputError("--fold-index and --collect exclude each other; give one")
    if config.engine != "local" and not config.scheduler:
        raise InputError(
            f"--engine {config.engine}: say with --scheduler where the cluster is, for example "
            f"{'tcp://HOST:8786' if config.engine == 'dask' else 'HOST:6379'}"
        )
    if config.engine == "local" and config.scheduler:
        raise InputError("--scheduler: needs --engine dask or --engine ray")
    fold_jobs.check_engine(config.engine)


def folds_of(data: SpectrogramSet, config: CrossvalConfig) -> list[int]:
    """Numbers of the folds: the official ones, else 1 to --folds."""
    import numpy as np

    if data.folds is None:
        return list(range(1, config.folds + 1))
    return [int(fold) for fold in np.unique(data.folds)]


def _asked(
    config: CrossvalConfig,
    data: SpectrogramSet,
    recipe: Recipe,
    teacher_recipes: Mapping[str, Recipe],
) -> str:
    """Digest of all that the folds depend on, with what lies behind names of files and folders."""
    from compress import chosen_student, runs

    options = {
        spec.name: getattr(config, spec.name)
        for spec in dataclasses.fields(config)
        if spec.metadata and spec.name not in _NOT_OF_THE_RESULT
    }
    options["reference"] = options["reference"] or "clip"  # once the default, as digests know it
    behind = {"recipe": recipe.to_settings(), **chosen_student.identity(config, teacher_recipes)}
    return runs.digest([options, behind, data.content_hash])


def _name(config: CrossvalConfig, data: SpectrogramSet, asked: str) -> str:
    from compress import runs

    name = runs.slug(Path(data.name).name.removesuffix(" (synthetic)"))
    return f"{runs.slug(config.student)}-crossval-{name}-s{config.seed}-{asked[:6]}"


def _one_fold(
    config: CrossvalConfig,
    data: SpectrogramSet,
    folds: list[int],
    folder: Path,
    recipe: Recipe,
    teacher_recipes: dict[str, Recipe],
    asked: str,
) -> int:
    """The run of one fold, and a record of it in the folder of the cross-validation."""
    from compress import fold_jobs, runs
    from compress.chosen_student import train_student
    from compress.session import open_session

    fold = config.fold_index
    if fold not in folds:
        raise InputError(f"--fold-index {fold}: the folds are {folds[0]} to {folds[-1]}")
    folds_dealt = None if data.folds is not None else config.folds
    chosen = data_options(config, fold=fold, folds=folds_dealt)
    session = open_session(chosen, config, config.normalise)
    run = train_student(session, config, recipe, teacher_recipes)
    found = run.metrics()["splits"]["test"]
    where = os.path.relpath(run.folder, folder)
    record = {"fold": fold, "run": where, "key": run.key, "asked": asked}
    file = fold_jobs.record_file(folder, fold)
    # One that is there stays: a --collect at the same time clears what looks like a killed write.
    if session.leads and not (file.is_file() and runs.read_json(file) == record):
        runs.write_json(file, record)
    session.say(
        f"test {100 * found['accuracy']:.1f} %, loss {found['loss']:.3f}; {run.folder}"
    )
    return 0


def _train(
    config: CrossvalConfig, data: SpectrogramSet, folds: list[int], folder: Path, asked: str
) -> None:
    """All folds that are not there yet, by the engine. Call it with the folder held."""
    from compress import fold_jobs, runs, toml_text
    from compress.session import usable_cores

    values = toml_text.changed(config) | {"out": folder, "jobs": None}
    for name in ("engine", "scheduler", "attempts"):
        values.pop(name, None)
    if config.engine == "local" and not config.threads:
        values["threads"] = max(1, usable_cores() // config.jobs)
    options = folder / OPTIONS
    runs.write_text(options, toml_text.dumps(values))
    if config.force:
        for fold in folds:
            fold_jobs.record_file(folder, fold).unlink(missing_ok=True)
    todo = [fold for fold in folds if not _finished(folder, fold, asked)]
    kind = "official folds, each the test once" if data.folds is not None else "folds"
    cli.say(
        f"crossval  {config.student} on {data.name}: {len(folds)} {kind}"
        + (f"; {len(folds) - len(todo)} finished before" if len(todo) < len(folds) else "")
    )
    fold_jobs.run_folds(
        folder.absolute(),
        options.absolute(),
        todo,
        jobs=config.jobs,
        engine=config.engine,
        scheduler=config.scheduler,
        attempts=config.attempts,
    )
    for fold in folds:  # a command that was killed just after a fold ended left its mark
        fold_jobs.started_file(folder, fold).unlink(missing_ok=True)


def _finished(folder: Path, fold: int, asked: str) -> bool:
    from compress import fold_jobs

    if not fold_jobs.record_file(folder, fold).is_file():
        return False
    try:
        _run_of(folder, fold, asked)
        return True
    except InputError:
        return False


def _run_of(folder: Path, fold: int, asked: str) -> Run:
    """The finished run of a fold, unchanged since and of these options; raises InputError."""
    from compress import fold_jobs, runs

    record = runs.read_json(fold_jobs.record_file(folder, fold))
    if record.get("asked") != asked:
        raise InputError(
            f"{folder}: fold {fold} was trained with other options, or a file that they name has "
            "changed since; train it again"
        )
    run = runs.open_run(Path(os.path.normpath(folder / str(record.get("run")))))
    run.check_unchanged()
    if run.key != record.get("key") or run.manifest.get("fold") != fold:
        raise InputError(f"{run.folder}: holds another run than fold {fold} of {folder}")
    return run


def _check_all_there(folds: list[int], folder: Path) -> None:
    """Raise InputError with the folds that have no record."""
    from compress import fold_jobs

    lacking = [f for f in folds if not fold_jobs.record_file(folder, f).is_file()]
    if lacking:
        raise InputError(
            f"{folder}: fold {', '.join(map(str, lacking))} of {len(folds)} is not there yet; "
            "train it with --fold-index, or all without --collect"
        )


def _gather(config: CrossvalConfig, folds: list[int], folder: Path, asked: str) -> int:
    """The summary of all folds. Call it with the folder held."""
    from compress import fold_jobs, fold_summary, runs
    from compress.summary import report_command
    from reports import crossval as shown

    _check_all_there(folds, folder)
    for place in (folder, fold_jobs.record_file(folder, folds[0]).parent):
        runs.forget_temporaries(place)
    summary = fold_summary.summarise({fold: _run_of(folder, fold, asked) for fold in folds}, folder)
    runs.write_json(folder / SUMMARY, summary)
    runs.write_text(folder / "crossval.md", shown.markdown(summary))
    with runs.atomic_path(folder / "crossval.png") as path:
        shown.save_figure(summary, path)
    cli.say()
    cli.say(shown.text(summary))
    cli.say(
        f"The summary lies in {folder} ({SUMMARY}, crossval.md, crossval.png). "
        f"Next: {report_command(config.runs, config.runs)}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.main(CrossvalConfig, run, __doc__))
