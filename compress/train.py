"""Train a student on labels alone, by a recipe: the report's by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress import cli
from compress.config import TrainConfig
from compress.errors import Faults

if TYPE_CHECKING:
    from compress.recipe import Recipe


def run(config: TrainConfig) -> int:
    recipe = check_options(config)

    from compress.session import open_session
    from compress.student_runs import twin_run
    from compress.summary import report_command, table

    session = open_session(config, config, config.normalise)
    student = twin_run(
        session,
        config.student,
        recipe,
        kind="trained",
        weights=config.weights,
        activation=config.activation,
        dropout=config.dropout,
        out=config.out,
        force=config.force,
    )
    session.say(table([("student", student)]))
    session.say(
        f"The student lies in {student.folder}; {student.folder}/model.onnx ships. "
        f"Next: {report_command(student.folder, config.runs)}"
    )
    return 0


def check_options(config: TrainConfig) -> Recipe:
    """Names and recipe, before any data is read."""
    from compress import recipe as recipes
    from compress import registry

    faults = Faults()
    faults.of(registry.check_student, config.student)
    recipe = faults.of(recipes.chosen, config.recipe, config.student, config)
    if recipe is not None:
        faults.of(registry.lookup, registry.LABEL_LOSSES, "loss", recipe.label_loss)
    faults.check()
    assert recipe is not None  # else there was a fault
    return recipe


if __name__ == "__main__":
    raise SystemExit(cli.main(TrainConfig, run, __doc__))
