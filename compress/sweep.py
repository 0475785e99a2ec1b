"""Search the values of a recipe for a student: loss, activation, learning rate, dropout.

The figure that counts is the least validation loss (cross-entropy) of a trial; the test split is
not looked at. Trials that are worse than the median at the same epoch are stopped. The same command
continues, and may run in several processes or machines on one --out. The best trial becomes a
recipe, STUDY/best.toml, for compress.train and compress.distill.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import SweepConfig
from compress.errors import InputError
from compress.next_command import next_command

if TYPE_CHECKING:
    from compress.data.sets import SpectrogramSet
    from compress.recipe import Recipe
    from compress.search_space import Choices, Range
    from compress.session import Session
    from compress.study import Study

BEST = "best.toml"
RESULT = "sweep.json"


def run(config: SweepConfig) -> int:
    from compress import chosen_student, search_space, study
    from compress import recipe as recipes

    study.check_installed()
    recipe, teacher_recipes = chosen_student.check(config)
    recipes.check_judges(recipe, "compress.sweep")
    space = search_space.load(config.space)
    if config.devices * config.nodes > 1:
        raise InputError("--devices, --nodes: a trial runs in one process; start several commands")

    from compress import runs
    from compress.session import open_session
    from compress.teaching import transfer_sets

    session = open_session(config, config, config.normalise)
    recipe.check_classes(len(session.data.class_names))
    space, left_out = usable(config.student, space, session)
    if left_out:
        cli.say(f"note      {config.student} takes no {', '.join(left_out)}: not searched")
    transfer = transfer_sets(session, config) if config.teacher else []
    identity = _identity(config, session, recipe, space, teacher_recipes, transfer)
    key = runs.digest(identity)[:6]
    name = f"{runs.slug(config.student)}-sweep-{session.data_name()}-s{config.seed}-{key}"
    folder = config.out or config.runs / name
    study.claim(folder, identity)
    warmup = None if config.keep_hopeless else config.warmup_epochs
    trials = study.Study(folder, space, config.sampler, config.seed, warmup)
    before = len(trials.finished())
    cli.say(
        f"sweep     {config.student}: {config.trials} trials, {config.sampler}"
        + (f"; {before} finished before" if before else "")
    )
    if before < config.trials:
        distillation = chosen_student.distillation_of(
            session, config, teacher_recipes, transfer
        )
        with cli.progress(config.trials, "trials", "trial") as bar:
            bar.update(before)
            objective = _objective(config, session, recipe, distillation, bar, trials.numbers)
            trials.run(config.trials, objective)
    return _finish(config, folder, trials, recipe)


def usable(
    student: str, space: dict[str, Range | Choices], session: Session
) -> tuple[dict[str, Range | Choices], list[str]]:
    """The part of the space that the student's builder takes, and the names that it does not."""
    from compress.search_space import Range
    from compress.student_runs import new_student

    left_out: list[str] = []
    for key in ("activation", "dropout"):
        if key in space:
            part = space[key]
            asked: dict[str, Any] = {key: part.low if isinstance(part, Range) else part.values[0]}
            try:
                new_student(session, student, **asked)
            except InputError:
                left_out.append(key)
    kept = {key: part for key, part in space.items() if key not in left_out}
    if not kept:
        raise InputError(f"{student}: takes nothing of this search space; give another --space")
    return kept, left_out


def _identity(
    config: SweepConfig,
    session: Session,
    recipe: Recipe,
    space: dict[str, Any],
    teacher_recipes: Mapping[str, Recipe],
    transfer: Sequence[SpectrogramSet],
) -> dict[str, Any]:
    """What makes two studies one: all but the sampler, the number of trials and the machine."""
    import json

    from compress import chosen_student

    teaching = ["method", "temperature", "label_loss_weight", "distill_loss_weight", "transfer"]
    found = {
        "student": config.student,
        "data": session.data_name(),
        "content": session.data.content_hash,
        "split": session.split.digest(),
        "seed": config.seed,
        **({} if config.normalise == "band" else {"normalise": config.normalise}),
        "recipe": {k: v for k, v in recipe.to_settings().items() if k not in space},
        "space": {key: dataclasses.asdict(part) for key, part in space.items()},
        "teachers": list(config.teacher),
        "teaching": [getattr(config, key) for key in teaching] if config.teacher else [],
        **chosen_student.identity(config, teacher_recipes),
    }
    if transfer:
        found["transfer_content"] = [sounds.content_hash for sounds in transfer]
    return json.loads(json.dumps(found, default=str))


def _objective(
    config: SweepConfig,
    session: Session,
    recipe: Recipe,
    distillation: Any,
    bar: Any,
    numbers: Callable[[], dict[int, int]],
) -> Any:
    """The validation loss of a student trained with the trial's values: of the weights it keeps."""
    import tempfile

    import optuna

    from compress import fit, runs
    from compress.continuing import task_of
    from compress.session import build_material
    from compress.student_runs import new_student

    def objective(trial: Any) -> float:
        asked = dataclasses.replace(recipe, **trial.params)
        transfer = distillation.transfer if distillation else ()
        material = build_material(session, asked, transfer)
        model, _ = new_student(
            session, config.student, activation=asked.activation, dropout=asked.dropout
        )
        reported: list[float] = []
        kept: dict[str, float] = {}
        number = numbers()[trial.number]

        def after_epoch(row: Mapping[str, float]) -> None:
            reported.append(row["validation_loss"])
            trial.report(row["validation_loss"], len(reported))
            loss = row["validation_loss"]
            if asked.keeps_last or not kept or loss < kept["validation_loss"]:
                kept.update(row)
                trial.set_user_attr("validation_accuracy", row["validation_accuracy"])
                trial.set_user_attr("best_epoch", len(reported))
            trial.set_user_attr("seconds", row["seconds"])
            if trial.should_prune():
                raise optuna.TrialPruned

        stopped = False
        with tempfile.TemporaryDirectory() as scratch:
            try:
                fit.train_network(
                    model,
                    task_of(session, distillation, asked, material),
                    material,
                    (session.data, session.split.validation, session.normalisation),
                    asked,
                    session.seed,
                    Path(scratch) / runs.CHECKPOINT,
                    session.fabric,
                    f"trial {number}",
                    after_epoch,
                )
            except optuna.TrialPruned:
                stopped = True
                raise
            finally:
                if reported:
                    how = "stopped" if stopped else f"{len(reported)} epochs"
                    values = ", ".join(f"{k} {_shown(v)}" for k, v in trial.params.items())
                    loss = kept["validation_loss"]
                    cli.say(f"trial {number:<3} loss {loss:.4f}  {how}; {values}")
                    bar.update()
        return kept["validation_loss"]

    return objective


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _finish(config: SweepConfig, folder: Path, trials: Study, recipe: Recipe) -> int:
    from compress import runs, study
    from reports import sweep as shown

    rows = study.rows_of(trials)
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        fault = next((row["fault"] for row in rows if row["fault"]), "all were stopped")
        raise InputError(f"{folder}: no trial ended ({fault}); change --space or the recipe")
    best = min(complete, key=lambda row: (row["validation_loss"], row["number"]))
    identity = runs.read_json(folder / "study.json")
    result = {
        "student": config.student,
        "data": identity["data"],
        "seed": config.seed,
        "best": best,
        "importances": trials.importances(),
        "space": identity["space"],
        "trials": rows,
    }
    with study.held(folder):  # the processes of a study come to their ends together
        runs.forget_temporaries(folder)
        runs.write_json(folder / RESULT, result)
        runs.write_text(folder / BEST, best_recipe(recipe, best, result))
        drawings = (("parallel", shown.save_parallel), ("importance", shown.save_importance))
        for name, draw in drawings:
            for ending in ("png", "svg"):
                with runs.atomic_path(folder / f"{name}.{ending}") as path:
                    draw(result, path, ending)
        pictures = [(folder / f"{name}.svg").read_text() for name, _ in drawings]
        runs.write_text(folder / "sweep.html", shown.page(result, pictures))
    lost = sum("lost" in t.user_attrs for t in trials.trials())
    stopped = sum(row["state"] == "pruned" for row in rows)
    cli.say()
    cli.say(
        f"{len(rows)} trials: {len(complete)} ended, {stopped} stopped as hopeless, "
        f"{len(rows) - len(complete) - stopped} refused; {lost} were lost and repeated"
    )
    cli.say(
        f"best      trial {best['number']}: validation loss {best['validation_loss']:.4f}, "
        f"accuracy {100 * best['validation_accuracy']:.1f} %; "
        + ", ".join(f"{key} {_shown(value)}" for key, value in best["values"].items())
    )
    cli.say(
        f"The study lies in {folder} (sweep.html, {RESULT}). Next: {following(config, folder)}"
    )
    return 0


def following(config: SweepConfig, folder: Path) -> str:
    """The command that trains a student as the best trial was: same data, teachers and seed."""
    from compress.config import DistillConfig, TrainConfig

    chosen: dict[str, Any] = {"student": config.student, "recipe": folder / BEST}
    if config.teacher:
        return next_command("distill", DistillConfig, config, **chosen, teacher=config.teacher)
    return next_command("train", TrainConfig, config, **chosen)


def best_recipe(recipe: Recipe, best: dict[str, Any], result: dict[str, Any]) -> str:
    """The text of best.toml: the recipe of the trials with the best one's values."""
    from compress import toml_text
    from compress.recipe import unused_by

    values = toml_text.changed(dataclasses.replace(recipe, **best["values"]))
    schedule = values.get("schedule", recipe.schedule)
    values = {key: value for key, value in values.items() if key not in unused_by(schedule)}
    head = (
        f"# Trial {best['number']} of {len(result['trials'])}: {result['student']} on "
        f"{result['data']}, validation loss {best['validation_loss']:.4f}.\n"
    )
    return head + toml_text.dumps(values)


if __name__ == "__main__":
    raise SystemExit(cli.main(SweepConfig, run, __doc__))
