"""Training recipes: every value of an optimisation and of its augmentation, checked, from TOML.

A recipe is named (a file in compress/recipes) or a path. ``[students.NAME]`` in it holds values
that are that student's own, as the report's learning rates are.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from compress.config import RecipeOptions, build, nearest, option, read_toml
from compress.errors import InputError

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
    views: int = option(
        0, "augmented views of each window that recur over the epochs; 0: new ones in each", least=0
    )

    def batch_size_at(self, epoch: int) -> int:
        """Windows per step in ``epoch`` (from 0)."""
        size = 0
        for start, value in self.batch_sizes():
            if epoch >= start:
                size = value
        return size

    def batch_sizes(self) -> list[tuple[int, int]]:
        """(first epoch, windows per step) in order; raises InputError where the text is neither."""
        schedule = []
        for entry in self.batch_size:
            start, _, size = entry.rpartition(":")
            try:
                schedule.append((int(start or 0), int(size)))
            except ValueError:
                raise InputError(
                    f"recipe: batch_size {entry!r} is neither a number nor EPOCH:SIZE"
                ) from None
        schedule.sort()
        if not schedule or schedule[0][0] != 0 or any(size < 1 for _, size in schedule):
            raise InputError("recipe: batch_size needs a size of at least 1 from epoch 0 on")
        return schedule

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
    changes = {field.name: getattr(options, field.name) for field in fields(RecipeOptions)}
    return load(name, model, **changes)


def load(name: str, model: str = "", **overrides: Any) -> Recipe:
    """A recipe by name or path, with the values of ``model`` and then ``overrides`` (None: keep).

    Raises InputError with all faults at once.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"unknown recipe {name!r}{nearest(name, names())} "
            f"(known: {', '.join(names())}; or a path to a .toml file)"
        )
    values = read_toml(path)
    own = values.pop("students", {})
    if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
        raise InputError(f"{path}: 'students' must hold one table per student")
    values |= own.get(model, {})
    values |= {key: value for key, value in overrides.items() if value is not None}
    sizes = values.get("batch_size")
    if isinstance(sizes, int) and not isinstance(sizes, bool):
        values["batch_size"] = [str(sizes)]
    recipe = build(Recipe, values, source=f"recipe {path.name}")
    recipe.batch_sizes()
    return recipe
