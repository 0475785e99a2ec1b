"""Training recipes: every value of an optimisation and of its augmentation, checked, from TOML.

A recipe is named (a file in compress/recipes) or a path. ``base = "NAME"`` in it takes the values
of that recipe where it gives none itself; ``[students.NAME]`` holds values that are that student's
own, as the report's learning rates are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from compress.config import RecipeOptions, nearest, option, read_toml, sound_values
from compress.errors import InputError
from compress.registry import LABEL_LOSSES, student_named, teacher_and_seed
from compress.runs import is_folder

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes, drawn for each window and view. Shares are of the whole axis."""

    time_shift_probability: float = option(0.0, "roll along time", least=0, most=1)
    time_shift_most: float = option(0.1, "largest shift", unit="share of frames", least=0, most=1)
    frequency_shift_probability: float = option(0.0, "shift along mel bands", least=0, most=1)
    frequency_shift_most: float = option(
        0.1, "largest shift", unit="share of bands", least=0, most=1
    )
    time_stretch_probability: float = option(0.0, "resample along time", least=0, most=1)
    time_stretch_least: float = option(0.8, "slowest rate", least=0.1, most=1)
    time_stretch_most: float = option(1.2, "fastest rate", least=1, most=10)
    noise_probability: float = option(0.0, "add Gaussian noise", least=0, most=1)
    noise_least: float = option(0.01, "smallest amplitude", unit="standardised", least=0)
    noise_most: float = option(0.1, "largest amplitude", unit="standardised", least=0)
    mixup_probability: float = option(
        0.0, "mix two windows and their labels in the power domain", least=0, most=1
    )
    mixup_least: float = option(0.5, "smallest share of the first window", least=0.5, most=1)
    between_class_probability: float = option(
        0.0,
        "mix with a window of another class, in any ratio, levels evened out (arXiv 1711.10282)",
        least=0,
        most=1,
    )
    background_probability: float = option(
        0.0, "put another window, quieter, behind it; the label stays", least=0, most=1
    )
    background_least: float = option(10.0, "least difference in level", unit="dB", least=0)
    background_most: float = option(30.0, "largest difference in level", unit="dB", least=0)
    gain_probability: float = option(0.0, "make louder or quieter", least=0, most=1)
    gain_most: float = option(6.0, "largest change of level", unit="dB", least=0, most=80)
    time_crop_probability: float = option(
        0.0, "begin between two overlapping windows of a clip, where it has some", least=0, most=1
    )
    style_probability: float = option(
        0.0,
        "take on some of another window's band statistics (Freq-MixStyle, arXiv 2206.12513)",
        least=0,
        most=1,
    )
    style_alpha: float = option(0.3, "both parameters of the Beta that draws shares", least=0.01)
    time_mask_probability: float = option(
        0.0, "hide some frames (SpecAugment, arXiv 1904.08779)", least=0, most=1
    )
    time_mask_most: float = option(0.1, "widest mask", unit="share of frames", least=0, most=1)
    frequency_mask_probability: float = option(
        0.0, "hide some mel bands (SpecAugment, arXiv 1904.08779)", least=0, most=1
    )
    frequency_mask_most: float = option(0.2, "widest mask", unit="share of bands", least=0, most=1)


_LATER = ("weight_average", "keep", "train_on_validation")


@dataclass(frozen=True, kw_only=True)
class Recipe(Augmentation):
    """How a network is trained."""

    epochs: int = option(30, "most epochs", least=1)
    patience: int = option(30, "epochs without a better validation loss before stopping", least=1)
    optimiser: str = option("adam", "optimiser", choices=("adam", "adamw"))
    learning_rate: float = option(1e-3, "peak learning rate", least=0)
    weight_decay: float = option(0.0, "decoupled for adamw", least=0)
    schedule: str = option("cosine", "learning rate over time", choices=("cosine", "plateau"))
    warmup_share: float = option(0.1, "share of a cosine schedule that rises", least=0, most=0.9)
    plateau_factor: float = option(0.5, "learning rate is multiplied by it", least=0, most=1)
    plateau_patience: int = option(5, "epochs without a better validation loss", least=0)
    batch_size: tuple[str, ...] = option(
        ("64",), "windows per step over all processes: a number, or EPOCH:SIZE for each change"
    )
    precision: str = option(
        "float32",
        "arithmetic of the forward and backward pass; auto: bfloat16 where the processor has it",
        choices=("float32", "bfloat16", "auto"),
    )
    label_loss: str = option("cross_entropy", "loss on hard labels (registry LABEL_LOSSES)")
    label_smoothing: float = option(0.0, "share of a label spread evenly", least=0, most=0.5)
    class_weights: tuple[str, ...] = option(
        ("none",),
        "weight of each class in the loss on hard labels: none, balanced (windows / classes / "
        "windows of the class), or one number per class in their order",
    )
    weight_average: float = option(
        0.0,
        "decay per step of the running mean of the weights (EMA), which is then what is validated, "
        "kept and shipped; 0: none",
        least=0,
        most=0.99999,
    )
    keep: str = option(
        "best",
        "weights that are kept: of the epoch with the lowest validation loss, or of the last; the "
        "last where validation has too few clips to choose by",
        choices=("best", "last"),
    )
    train_on_validation: bool = option(
        False,
        "train on the validation clips too, once every choice is made: all epochs, last weights",
    )
    activation: str | None = option(None, "activation of the student, instead of its own")
    dropout: float | None = option(
        None, "dropout of the student, instead of its own", least=0.0, most=0.9
    )
    views: int = option(
        0, "augmented views of each window that recur over the epochs; 0: new ones in each", least=0
    )

    @property
    def keeps_last(self) -> bool:
        """Whether the last weights are kept, by choice or since no clips are left to judge by."""
        return self.keep == "last" or self.train_on_validation

    def batch_size_at(self, epoch: int) -> int:
        """Windows per step in ``epoch`` (from 0)."""
        size = 0
        for start, value in self.batch_sizes():
            if epoch >= start:
                size = value
        return size

    def batch_sizes(self) -> list[tuple[int, int]]:
        """(first epoch, windows per step) in order; raises InputError where the text is neither."""
        schedule, fault = _batch_sizes(self.batch_size)
        if fault:
            raise InputError(f"recipe: {fault}")
        return schedule

    def class_weighting(self) -> str | tuple[float, ...]:
        """'none', 'balanced', or one weight per class; raises InputError for anything else."""
        found, fault = _class_weights(self.class_weights)
        if fault:
            raise InputError(f"recipe: {fault}")
        return found

    def check_classes(self, count: int) -> None:
        """Raise InputError where class_weights are numbers for another count of classes."""
        weights = self.class_weighting()
        if not isinstance(weights, str) and len(weights) != count:
            raise InputError(
                f"class_weights: {len(weights)} numbers, the data set has {count} classes; "
                "give one per class, or balanced"
            )

    def stretched(self, factor: float) -> Recipe:
        """The recipe with so many times the epochs, and all that is counted in them."""
        sizes = [f"{round(start * factor)}:{size}" for start, size in self.batch_sizes()]
        return dataclasses.replace(
            self,
            epochs=max(1, round(self.epochs * factor)),
            patience=max(1, round(self.patience * factor)),
            plateau_patience=round(self.plateau_patience * factor),
            batch_size=tuple(sizes) if len(sizes) > 1 else self.batch_size,
        )

    def to_settings(self) -> dict[str, Any]:
        """What a run records of it, JSON-able. Options that came later than runs did are left out
        where they change nothing, so that the same command still finds those runs."""
        later = {name: getattr(Recipe, name) for name in _LATER}
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in later or v != later[k]}

    @property
    def augmentation(self) -> Augmentation:
        names = [field.name for field in dataclasses.fields(Augmentation)]
        return Augmentation(**{name: getattr(self, name) for name in names})

    def view_of(self, epoch: int) -> int:
        return epoch % self.views if self.views else epoch


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def chosen(name: str, model: str, options: RecipeOptions) -> Recipe:
    """The recipe of a command: ``name`` for ``model``, changed by the command's options."""
    model, _ = student_named(model)
    changes = {field.name: getattr(options, field.name) for field in fields(RecipeOptions)}
    return load(name, model, **changes)


def of_teachers(name: str, teachers: Sequence[str], epochs: int | None) -> dict[str, Recipe]:
    """The recipe ``name`` for each teacher that is no run folder, by the teacher as given."""
    return {
        teacher: load(name, teacher_and_seed(teacher)[0], epochs=epochs)
        for teacher in teachers
        if not is_folder(teacher)
    }


def load(name: str, model: str = "", **overrides: Any) -> Recipe:
    """A recipe by name or path, with values of ``model``, then ``overrides`` (None, False: keep).

    Raises InputError with all faults at once.
    """
    faults: list[str] = []
    path, values = _read(name, model, faults)
    given = {
        key: value
        for key, value in overrides.items()
        if value is not False and value not in (None, ())
    }
    values = _changed(values, given)
    for key in ("batch_size", "class_weights"):
        values[key] = _as_texts(values[key]) if key in values else None
    values = {key: value for key, value in values.items() if value is not None}
    fitting, wrong = sound_values(Recipe, values)
    faults += [*wrong, *_contradictions(values)]
    if faults:
        raise InputError(f"recipe {path.name}: {'; '.join(faults)}")
    return Recipe(**fitting)


def _read(
    name: str, model: str, faults: list[str], readers: tuple[Path, ...] = ()
) -> tuple[Path, dict[str, Any]]:
    """The file of a recipe, and its values for ``model`` over those of its ``base``."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if readers and name.endswith(".toml"):
        path = readers[-1].parent / name
    if not path.is_file():
        raise InputError(
            f"unknown recipe {name!r}{nearest(name, names())} "
            f"(known: {', '.join(names())}; or a path to a .toml file)"
            + (f", in {readers[-1]}: base" if readers else "")
        )
    if path in readers:
        raise InputError(f"{path}: base leads back to this recipe")
    values = read_toml(path)
    base = values.pop("base", None)
    if base is not None and not isinstance(base, str):
        faults.append(f"base is {base!r}; give the name of a recipe, or a path")
        base = None
    own = values.pop("students", {})
    if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
        faults.append("'students' must hold one table per student")
        own = {}
    values |= own.get(model, {})
    if base is not None:
        values = _changed(_read(base, model, faults, (*readers, path))[1], values)
    return path, values


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes``; another schedule leaves out what belongs to the former one."""
    if changes.get("schedule", values.get("schedule")) != values.get("schedule"):
        values = {key: value for key, value in values.items() if key not in _OF_SCHEDULE}
    return values | changes


_OF_SCHEDULE = {
    "warmup_share": "cosine",
    "plateau_factor": "plateau",
    "plateau_patience": "plateau",
}


def check_judges(recipe: Recipe, command: str) -> None:
    """Refuse a recipe that trains on the validation clips where they have to choose."""
    if recipe.train_on_validation:
        raise InputError(
            f"train_on_validation: {command} chooses by the validation clips; leave it out, and "
            "give it to compress.train or compress.distill once the choice is made"
        )


def unused_by(schedule: str) -> list[str]:
    """Values that say nothing under a schedule."""
    return [key for key, owner in _OF_SCHEDULE.items() if owner != schedule]
_RANGES = (("time_stretch_least", "time_stretch_most"), ("noise_least", "noise_most"))


def _as_texts(value: Any) -> Any:
    """A number, or a list that holds some, as the texts that a schedule or weights are made of."""
    values = value if isinstance(value, (list, tuple)) else [value]
    texts = [str(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v
             for v in values]  # fmt: skip
    return [piece for v in texts for piece in (v.split(",") if isinstance(v, str) else [v])]


def _contradictions(values: dict[str, Any]) -> list[str]:
    """What is wrong with values that are each allowed, or that only together make no sense."""
    faults = []
    schedule = values.get("schedule", Recipe.schedule)
    for key, owner in _OF_SCHEDULE.items():
        if key in values and schedule != owner and schedule in _OF_SCHEDULE.values():
            faults.append(f"{key}: says nothing while schedule is {schedule!r}; leave it out")
    if values.get("train_on_validation") and schedule == "plateau":
        faults.append(
            "train_on_validation: no clips are left to see a plateau by; make schedule 'cosine'"
        )
    for low, high in _RANGES:
        least, most = values.get(low, getattr(Recipe, low)), values.get(high, getattr(Recipe, high))
        numbers = all(isinstance(v, (int, float)) for v in (least, most))
        if numbers and least > most:
            faults.append(f"{low}: {least} is over {high}, {most}")
    if all(isinstance(entry, str) for entry in values.get("batch_size", ())):
        faults += filter(None, [_batch_sizes(values.get("batch_size", Recipe.batch_size))[1]])
    if all(isinstance(entry, str) for entry in values.get("class_weights", ())):
        faults += filter(None, [_class_weights(values.get("class_weights", ("none",)))[1]])
    loss = values.get("label_loss", Recipe.label_loss)
    if loss not in LABEL_LOSSES:
        faults.append(
            f"label_loss: unknown loss {loss!r}{nearest(str(loss), LABEL_LOSSES)} "
            f"(known: {', '.join(sorted(LABEL_LOSSES))})"
        )
    return faults


def _batch_sizes(entries: Sequence[str]) -> tuple[list[tuple[int, int]], str]:
    """([(first epoch, windows per step), ...] in order, what is wrong with them)."""
    schedule = []
    for entry in entries:
        start, _, size = entry.rpartition(":")
        try:
            schedule.append((int(start or 0), int(size)))
        except ValueError:
            return [], f"batch_size {entry!r} is neither a number nor EPOCH:SIZE"
    schedule.sort()
    if not schedule or schedule[0][0] != 0 or any(size < 1 for _, size in schedule):
        return [], "batch_size needs a size of at least 1 from epoch 0 on"
    twice = [a for (a, _), (b, _) in zip(schedule[:-1], schedule[1:], strict=True) if a == b]
    if twice:
        return [], f"batch_size has two sizes from epoch {twice[0]} on"
    return schedule, ""


def _class_weights(entries: Sequence[str]) -> tuple[str | tuple[float, ...], str]:
    """("none", "balanced" or the numbers, what is wrong with them)."""
    if len(entries) == 1 and entries[0] in ("none", "balanced"):
        return entries[0], ""
    try:
        numbers = tuple(float(entry) for entry in entries)
    except ValueError:
        shown = ", ".join(entries)
        return "none", f"class_weights: {shown!r} is not none, balanced or one number per class"
    if not all(0 <= n < float("inf") for n in numbers) or not any(numbers):
        return "none", "class_weights: each must be a finite number of at least 0, one above 0"
    return numbers, ""
