"""Train a student under a teacher, export it, and measure the file that ships.

A teacher given by name is trained first, or taken from an earlier run with the same data and
settings. Without arguments: dsc500 under resnet10t on the built-in synthetic scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress import cli
from compress.config import DistillConfig, map_size
from compress.errors import Faults

if TYPE_CHECKING:
    from compress.data.sets import SpectrogramSet
    from compress.recipe import Recipe
    from compress.runs import Run
    from compress.session import Session


def run(config: DistillConfig) -> int:
    recipe, teacher_recipes = check_options(config)

    from compress import evaluate
    from compress.metrics import paired_difference
    from compress.session import DECISIONS, open_session
    from compress.student_runs import Distillation, distilled_run, twin_run
    from compress.summary import describe_difference, report_command, table
    from compress.teaching import chosen_teacher, transfer_sets

    session = open_session(config, config, config.normalise)
    recipe.check_classes(len(session.data.class_names))  # before a teacher is trained
    rows: list[tuple[str, Run]] = []
    twin = None
    transfer = transfer_sets(session, config) if not config.without_teacher else []
    if config.without_teacher or config.compare:
        out = config.out if config.without_teacher else None
        twin = twin_run(
            session,
            config.student,
            as_long_as_with(transfer, session, recipe),
            weights=config.weights,
            out=out,
            force=config.force,
        )
    student = None
    if not config.without_teacher:
        teachers = [
            chosen_teacher(session, name, teacher_recipes, config.teacher_map, config.pretrained)
            for name in config.teacher
        ]
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
                transfer,
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
    after = report_command(last.folder, config.runs)
    session.say(f"The student lies in {last.folder}. Next: {after}")
    return 0


def as_long_as_with(
    transfer: Sequence[SpectrogramSet], session: Session, recipe: Recipe
) -> Recipe:
    """The twin's recipe: its epochs lack the transfer material, so there are more of them."""
    from compress.session import labelled_windows

    if not transfer:
        return recipe
    labelled = len(labelled_windows(session, recipe))
    return recipe.stretched((labelled + sum(map(len, transfer))) / labelled)


def check_options(config: DistillConfig) -> tuple[Recipe, dict[str, Recipe]]:
    """Names, recipes and contradictions, before any data is read."""
    from compress import recipe as recipes
    from compress import registry
    from compress.runs import is_folder

    faults = Faults()
    faults.add(
        config.without_teacher and config.compare,
        "--without-teacher and --compare exclude each other; give one",
    )
    faults.of(registry.lookup, registry.DISTILL_LOSSES, "distillation loss", config.method)
    faults.of(registry.check_student, config.student)
    recipe = faults.of(recipes.chosen, config.recipe, config.student, config)
    if recipe is not None:
        faults.of(registry.lookup, registry.LABEL_LOSSES, "loss", recipe.label_loss)
    faults.of(map_size, config.teacher_map)
    if not config.without_teacher:
        for name in config.teacher:
            if not is_folder(name):
                faults.of(registry.check_teacher, name)
    teacher_recipes = faults.of(
        recipes.of_teachers, config.teacher_recipe, config.teacher, config.teacher_epochs
    )
    faults.check()
    assert recipe is not None and teacher_recipes is not None  # else there was a fault
    return recipe, teacher_recipes


if __name__ == "__main__":
    raise SystemExit(cli.main(DistillConfig, run, __doc__))
