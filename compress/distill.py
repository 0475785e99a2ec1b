"""Train a student under a teacher, export it, and measure the file that ships.

A teacher given by name is trained first, or taken from an earlier run with the same data and
settings. Without arguments: dsc500 under resnet10t on the built-in synthetic scenes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compress import cli
from compress.config import DistillConfig, map_size
from compress.errors import InputError

if TYPE_CHECKING:
    from compress.data.sets import SpectrogramSet
    from compress.recipe import Recipe
    from compress.runs import Run
    from compress.session import Session


def run(config: DistillConfig) -> int:
    recipe, teacher_recipe = _check(config)

    from compress import evaluate
    from compress.metrics import paired_difference
    from compress.session import DECISIONS, open_session
    from compress.student_runs import Distillation, distilled_run, twin_run
    from compress.summary import describe_difference, table

    session = open_session(config, config, config.normalise)
    rows: list[tuple[str, Run]] = []
    twin = None
    if config.without_teacher or config.compare:
        out = config.out if config.without_teacher else None
        twin = twin_run(
            session, config.student, recipe, weights=config.weights, out=out, force=config.force
        )
    student = None
    if not config.without_teacher:
        teachers = [_teacher(session, name, config, teacher_recipe) for name in config.teacher]
        rows += [("teacher", teacher) for teacher in teachers]
        student = distilled_run(
            session,
            config.student,
            recipe,
            Distillation(
                teachers,
                config.method,
                config.temperature,
                config.label_loss_weight,
                config.distill_loss_weight,
                _transfer(session, config),
                config.cache,
            ),
            weights=config.weights,
            out=config.out,
            force=config.force,
        )
        rows.append(("student", student))
    if twin:
        rows.append(("twin", twin))
    session.say()
    session.say(table(rows))
    if student and twin:
        a, b = (evaluate.load_decisions(r.file(DECISIONS)) for r in (student, twin))
        session.say(describe_difference("student", "twin", paired_difference(a, b)))
    last = student or twin
    assert last is not None
    found = last.metrics()["agreement"]
    session.say(
        f"Measured on {last.folder}/model.onnx in onnxruntime; it decides as the network in torch "
        f"on {100 * found['top1']:.2f} % of {found['windows']:,} test windows "
        f"(largest difference of a logit {found['largest_logit_difference']:.1e})."
    )
    session.say(f"The student lies in {last.folder}. Next: python -m compress.report")
    return 0


def _check(config: DistillConfig) -> tuple[Recipe, Recipe]:
    """Names, recipes and contradictions, before any data is read."""
    from compress import recipe as recipes
    from compress import registry

    if config.without_teacher and config.compare:
        raise InputError("--without-teacher and --compare exclude each other; give one")
    registry.lookup(registry.DISTILL_LOSSES, "distillation loss", config.method)
    recipe = recipes.chosen(config.recipe, config.student, config)
    map_size(config.teacher_map)
    teacher_recipe = recipes.load(config.teacher_recipe, epochs=config.teacher_epochs)
    registry.lookup(registry.LABEL_LOSSES, "loss", recipe.label_loss)
    registry.check_student(config.student)
    if not config.without_teacher:
        for name in config.teacher:
            if not _is_folder(name):
                registry.check_teacher(name)
    return recipe, teacher_recipe


def _is_folder(name: str) -> bool:
    return "/" in name or Path(name).is_dir()


def _teacher(session: Session, name: str, config: DistillConfig, recipe: Recipe) -> Run:
    from compress import runs
    from compress.teaching import teacher_run

    if _is_folder(name):
        teacher = runs.open_run(Path(name))
        if not teacher.complete:
            raise InputError(f"{name}: this run is not finished; run its command again first")
        return teacher
    return teacher_run(session, name, recipe, config.teacher_map, config.pretrained)


def _transfer(session: Session, config: DistillConfig) -> list[SpectrogramSet]:
    """Unlabelled sets, through the same front end as the data."""
    from compress.data import open_transfer

    if not config.transfer:
        return []
    extra = open_transfer(
        config.transfer,
        frontend=session.data.frontend,
        cache=config.cache,
        workers=config.workers,
        strict=config.strict,
        shape=(session.data.mels, session.data.frames),
    )
    session.say(f"transfer  {extra.name}: {len(extra):,} unlabelled windows")
    for note in extra.notes:
        session.say(f"note      {note}")
    return [extra]


if __name__ == "__main__":
    raise SystemExit(cli.main(DistillConfig, run, __doc__))
