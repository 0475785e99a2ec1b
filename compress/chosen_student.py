"""A student as options ask for it: by labels alone, or under teachers where some are named.

What crossval and sweep share; the runs are those of compress.train and compress.distill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import recipe as recipes
from compress import registry
from compress.config import CrossvalConfig, SweepConfig, map_size
from compress.recipe import Recipe
from compress.runs import is_folder

if TYPE_CHECKING:
    from compress.data.sets import SpectrogramSet
    from compress.runs import Run
    from compress.session import Session
    from compress.student_runs import Distillation


def recipe_name(config: CrossvalConfig | SweepConfig) -> str:
    return config.recipe or ("distill" if config.teacher else "audiobots")


def check(config: CrossvalConfig | SweepConfig) -> tuple[Recipe, dict[str, Recipe]]:
    """Recipes of the student and, by name, of its teachers; InputError before data is read."""
    recipe = recipes.chosen(recipe_name(config), config.student, config)
    teacher_recipes = recipes.of_teachers(
        config.teacher_recipe, config.teacher, config.teacher_epochs
    )
    map_size(config.teacher_map)
    registry.lookup(registry.DISTILL_LOSSES, "distillation loss", config.method)
    registry.check_student(config.student)
    for name in config.teacher:
        if not is_folder(name):
            registry.check_teacher(name)
    return recipe, teacher_recipes


def identity(
    config: CrossvalConfig | SweepConfig, teacher_recipes: Mapping[str, Recipe]
) -> dict[str, Any]:
    """What lies behind the names of student and teachers: a file may change and keep its name.

    Empty for a student of the registry on labels alone. Raises InputError where a teacher's folder
    holds no finished run.
    """
    from compress import runs

    _, shape = registry.student_named(config.student)
    found: dict[str, Any] = {"shape": shape} if shape else {}
    if config.teacher:
        found["teacher_models"] = {
            name: teacher_recipes[name].to_settings()
            if name in teacher_recipes
            else runs.open_run(Path(name)).model_hash()
            for name in config.teacher
        }
        found["teacher_building"] = [config.teacher_map, config.pretrained]
    return found


def distillation_of(
    session: Session,
    config: CrossvalConfig | SweepConfig,
    teacher_recipes: Mapping[str, Recipe],
    transfer: Sequence[SpectrogramSet],
) -> Distillation | None:
    """The teachers, trained where they must be, and how they are listened to; None without any."""
    from compress.student_runs import Distillation
    from compress.teaching import chosen_teacher

    if not config.teacher:
        return None
    teachers = [
        chosen_teacher(session, name, teacher_recipes, config.teacher_map, config.pretrained)
        for name in config.teacher
    ]
    return Distillation(
        teachers,
        config.method,
        config.temperature,
        config.label_loss_weight,
        config.distill_loss_weight,
        transfer,
        config.cache,
    )


def train_student(
    session: Session,
    config: CrossvalConfig,
    recipe: Recipe,
    teacher_recipes: Mapping[str, Recipe],
) -> Run:
    """An ordinary run, the same that compress.train or compress.distill makes."""
    from compress.student_runs import distilled_run, twin_run
    from compress.teaching import transfer_sets

    transfer = transfer_sets(session, config) if config.teacher else []
    distillation = distillation_of(session, config, teacher_recipes, transfer)
    if distillation is None:
        return twin_run(
            session,
            config.student,
            recipe,
            kind="trained",
            activation=config.activation,
            dropout=config.dropout,
            force=config.force,
        )
    return distilled_run(
        session,
        config.student,
        recipe,
        distillation,
        activation=config.activation,
        dropout=config.dropout,
        force=config.force,
    )
