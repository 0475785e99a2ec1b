"""Train a teacher: a timm classifier, adapted to small spectrograms, or a student of the registry.

The run folder that it writes can be given to compress.distill as --teacher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress import cli, registry
from compress.config import DistillConfig, TeachConfig, map_size
from compress.errors import Faults
from compress.next_command import next_command

if TYPE_CHECKING:
    from compress.recipe import Recipe


def run(config: TeachConfig) -> int:
    recipe = check_options(config)

    from compress.session import open_session
    from compress.summary import table
    from compress.teaching import teacher_run

    session = open_session(config, config, config.normalise)
    teacher = teacher_run(
        session,
        config.teacher,
        recipe,
        config.teacher_map,
        config.pretrained,
        config.out,
        config.force,
        config.weights,
    )
    session.say(table([("teacher", teacher)]))
    following = next_command(
        "distill", DistillConfig, config, student="dsc500", teacher=teacher.folder
    )
    session.say(f"The teacher lies in {teacher.folder}. Next: {following}")
    return 0


def check_options(config: TeachConfig) -> Recipe:
    """Names and recipe, before any data is read."""
    from compress import recipe as recipes

    faults = Faults()
    faults.of(registry.check_teacher, config.teacher)
    name, _ = registry.teacher_and_seed(config.teacher)
    recipe = faults.of(recipes.chosen, config.recipe, name, config)
    faults.add(
        config.pretrained and config.weights,
        "--pretrained and --weights exclude each other; give one",
    )
    faults.of(map_size, config.teacher_map)
    faults.check()
    assert recipe is not None  # else there was a fault
    return recipe


if __name__ == "__main__":
    raise SystemExit(cli.main(TeachConfig, run, __doc__))
