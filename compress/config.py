"""Command options: field, unit and help sentence stand together, the command line is derived.

One frozen dataclass per command. A field made with :func:`option` becomes a flag; adding an option
is one edit. Values come from defaults, then a TOML file (``--config FILE``), then the command line.
All faults are reported at once, before any data is read.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import shutil
import tomllib
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compress.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: Sequence[str] = (),
    positional: bool = False,
    numbers: bool = False,
    least: float | None = None,
    most: float | None = None,
    flag: str = "",
) -> Any:
    """A dataclass field that is also a flag, named after it unless ``flag`` says otherwise.

    ``unit`` is printed behind the help sentence; ``least`` and ``most`` bound numbers (inclusive).
    A tuple default makes a flag that may be given several times. ``numbers``: a text that may also
    stand as a number in a TOML file.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "choices": tuple(choices),
        "positional": positional,
        "numbers": numbers,
        "least": least,
        "most": most,
        "flag": flag,
    }
    return field(default=default, metadata=metadata)


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for a mistyped name, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def _base_type(annotation: Any) -> tuple[type, bool, bool]:
    """(type, optional, several) of an annotation such as ``int | None`` or ``tuple[str, ...]``."""
    optional = several = False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        optional = True
        annotation = members[0]
    if typing.get_origin(annotation) is tuple:
        several = True
        annotation = typing.get_args(annotation)[0]
    return annotation, optional, several


def _convert(spec: dataclasses.Field[Any], kind: type, value: Any) -> Any:
    """One value of the field's type; raises ValueError with the half sentence that says why not."""
    meta = spec.metadata
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise ValueError("is a switch: true or false")
    if kind in (int, float):
        if isinstance(value, bool):
            raise ValueError(f"{value!r} is not a number")
        try:
            number = kind(value)
        except (TypeError, ValueError, OverflowError):
            wanted = "a whole number" if kind is int else "a number"
            raise ValueError(f"{value!r} is not {wanted}") from None
        if kind is float and number != number:
            raise ValueError("is not a number (NaN)")
        if isinstance(value, float) and kind is int and value != number:
            raise ValueError(f"{value!r} is not a whole number")
        if meta["least"] is not None and number < meta["least"]:
            raise ValueError(f"{number} is under the least allowed, {meta['least']}")
        if meta["most"] is not None and number > meta["most"]:
            raise ValueError(f"{number} is over the most allowed, {meta['most']}")
        return number
    if kind is Path:
        return Path(str(value)).expanduser()
    if meta["numbers"] and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    if meta["choices"] and value not in meta["choices"]:
        listed = ", ".join(meta["choices"])
        raise ValueError(f"{value!r} is not one of {listed}{nearest(value, meta['choices'])}")
    return value


def build(config_class: type[Config], values: dict[str, Any], source: str) -> Config:
    """Check raw ``values`` against the dataclass; raises InputError with all faults."""
    fitting, faults = sound_values(config_class, values)
    if faults:
        raise InputError(f"{source}: " + "; ".join(faults))
    return config_class(**fitting)


def sound_values(
    config_class: type[Config], values: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """(the values that are options of the dataclass, converted; what is wrong with the others)."""
    hints = typing.get_type_hints(config_class)
    fields = dataclasses.fields(config_class)
    specs = {spec.name: spec for spec in fields if spec.metadata}
    faults: list[str] = []
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in specs:
            faults.append(f"unknown option {name!r}{nearest(name, specs)}")
            continue
        kind, optional, several = _base_type(hints[name])
        if value is None and optional:
            checked[name] = None
            continue
        try:
            if several:
                items = value if isinstance(value, (list, tuple)) else [value]
                checked[name] = tuple(_convert(specs[name], kind, item) for item in items)
            else:
                checked[name] = _convert(specs[name], kind, value)
        except ValueError as error:
            faults.append(f"{name.replace('_', '-')}: {error}")
    for name, spec in specs.items():
        if name not in checked and spec.default is MISSING and name in values:
            continue
        if name not in values and spec.default is MISSING:
            faults.append(f"{name.replace('_', '-')}: must be given")
    return checked, faults


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(100, shutil.get_terminal_size((100, 24)).columns)
        super().__init__(prog, max_help_position=30, width=width)


def _describe(spec: dataclasses.Field[Any], kind: type, several: bool) -> str:
    meta = spec.metadata
    text = meta["help"]
    if meta["choices"]:
        text += f" ({' | '.join(meta['choices'])})"
    if meta["unit"]:
        text += f" [{meta['unit']}]"
    if several:
        text += "; may be given several times"
    default = spec.default
    if kind is not bool and default not in (None, "", (), MISSING):
        shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
        text += f" (default: {shown})"
    return text.replace("%", "%%")


def parser_for(
    config_class: type[DataclassInstance], prog: str, description: str
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=_Help, allow_abbrev=False
    )
    hints = typing.get_type_hints(config_class)
    for spec in dataclasses.fields(config_class):
        if not spec.metadata:
            continue
        kind, _, several = _base_type(hints[spec.name])
        text = _describe(spec, kind, several)
        if spec.metadata["positional"]:
            parser.add_argument(
                spec.name,
                nargs="*" if several else ("?" if spec.default is not MISSING else 1),
                default=argparse.SUPPRESS,
                metavar=spec.name.upper(),
                help=text,
            )
        elif kind is bool:
            parser.add_argument(
                flag_of(spec.name), action="store_true", default=argparse.SUPPRESS, help=text
            )
        else:
            parser.add_argument(
                spec.metadata["flag"] or flag_of(spec.name),
                dest=spec.name,
                action="append" if several else "store",
                default=argparse.SUPPRESS,
                metavar=kind.__name__.upper() if kind is not str else "NAME",
                help=text,
            )
    parser.add_argument(
        "--config", metavar="FILE", default=None, help="TOML file with any of these options"
    )
    return parser


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary; raises InputError with one clear line."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give an existing TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise InputError(f"{path}: not valid TOML ({error})") from None


def parse(config_class: type[Config], argv: Sequence[str], prog: str, description: str) -> Config:
    """Options from the command line and an optional TOML file; raises InputError."""
    parser = parser_for(config_class, prog, description)
    known, extras = parser.parse_known_args(list(argv))
    given = vars(known)
    config_file = given.pop("config")
    values: dict[str, Any] = {}
    if config_file is not None:
        table = read_toml(Path(config_file))
        values.update({name.replace("-", "_"): value for name, value in table.items()})
    values.update({k: v for k, v in given.items() if v != []})
    if extras:
        flags = [
            spec.metadata.get("flag") or flag_of(spec.name)
            for spec in dataclasses.fields(config_class)
            if not spec.metadata.get("positional")
        ]
        unknown = ", ".join(f"{extra}{nearest(extra, flags)}" for extra in extras)
        raise InputError(f"unknown argument {unknown} ({prog} --help lists all)")
    return build(config_class, values, source=config_file or "options")


def map_size(text: str) -> tuple[int, int]:
    """'1x6' -> (1, 6): mels and frames; raises InputError for anything else."""
    mels, _, frames = text.partition("x")
    if not (mels.isdecimal() and frames.isdecimal() and int(mels) and int(frames)):
        raise InputError(f"teacher-map: {text!r} is no size; give MELSxFRAMES, for example 1x6")
    return int(mels), int(frames)


# Options that mean the same in every command that has them.


@dataclass(frozen=True, kw_only=True)
class RecipeDataOptions:
    """Which data a command reads and how it is split, where a recipe says what is not given."""

    data: str | None = option(None, "data set, as for distill (default: the recipe's)")
    data_seed: int | None = option(
        None, "seed of the synthetic scenes and of the split (default: the recipe's)", least=0
    )
    fold: int | None = option(
        None, "official fold that is the test set (default: the recipe's folds, in turn)", least=1
    )
    folds: int | None = option(
        None, "folds to deal outside the test, where none are official", least=2, most=100
    )
    classes: str | None = option(
        None,
        "class names, as for distill (default: the recipe's)",
        choices=("own", "five", "sources"),
    )
    frontend: str | None = option(
        None, "front end, as for distill (default: the recipe's)"
    )
    reference: str | None = option(
        None, "what 0 dB means, as for distill (default: the recipe's)", choices=("clip", "fixed")
    )
    drop_quiet: float | None = option(
        None,
        "leave out windows so many dB quieter than the loudest of their clip (default: the "
        "recipe's)",
        least=0.0,
        unit="dB",
    )
    strict: bool = option(False, "refuse a data set with unreadable files instead of skipping them")
    cache: Path | None = option(
        None, "folder for prepared data (default: $COMPRESS_CACHE or ~/.cache/compress-workbench)"
    )
    workers: int = option(0, "processes that prepare data; 0: one per core", least=0)


@dataclass(frozen=True, kw_only=True)
class DataOptions(RecipeDataOptions):
    """Which data a command reads and how it is split. ``data`` None: that of the given run."""

    data: str | None = option(
        "scenes",
        "data set: scenes[:N] (built in, synthetic), a folder with training.npy, a folder of class "
        "folders of audio, or a folder in ESC-50 or FSD50K layout",
    )
    data_seed: int = option(0, "seed of the synthetic scenes and of the split", least=0)
    fold: int | None = option(
        None,
        "official fold that is the test (ESC-50 layout); with --folds, the dealt one that is "
        "validation",
        least=1,
    )
    validation_fold: int | None = option(
        None,
        "official fold that is validation, whole (default: 10 % of what is not the test): to "
        "choose among methods by all clips of the other folds",
        least=1,
    )
    classes: str = option(
        "own",
        "own: those of the data set; five: those mapped to the report's five; sources: of "
        "synthetic scenes the source in front, some 150 kinds, to pre-train on",
        choices=("own", "five", "sources"),
    )
    frontend: str | None = option(
        None,
        "front end that makes windows of sound: a TOML file (README.md has one), a run folder, to "
        "hear as that run does, or the word default: 16 kHz, frames of 40 ms every 20 ms, 32 bands "
        "x 96 frames. Not given: default, or as the run heard that the command goes on with. "
        "Given, it also says how spectrograms in .npy were made",
    )
    reference: str | None = option(
        None,
        "what 0 dB means: each window's loudest bin (clip), as in the report, or a fixed level, as "
        "on a chip (default: that of --frontend, else clip)",
        choices=("clip", "fixed"),
    )
    drop_quiet: float | None = option(
        None,
        "leave out windows so many dB quieter than the loudest of their clip, pauses under its "
        "label, in training and in decisions (20 suits single sounds; default: keep all)",
        least=0.0,
        unit="dB",
    )


def data_options(options: DataOptions, **changes: Any) -> DataOptions:
    """The data options alone of a command's options, some of them changed."""
    values = {spec.name: getattr(options, spec.name) for spec in dataclasses.fields(DataOptions)}
    return DataOptions(**values | changes)


@dataclass(frozen=True, kw_only=True)
class ContinuingOptions:
    """Where and how a command that goes on with a run computes. ``seed`` None: the run's."""

    seed: int | None = option(None, "seed (default: the run's)", least=0)
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    devices: int = option(1, "processes (devices) that train together", least=1)
    nodes: int = option(1, "machines that train together (start the command on each)", least=1)
    threads: int = option(0, "CPU threads per process; 0: all cores", least=0)
    out: Path | None = option(None, "run folder to write (default: a name under runs/)")
    runs: Path = option(Path("runs"), "folder that holds the run folders")
    force: bool = option(False, "start again in a run folder that holds another run")
    logger: tuple[str, ...] = option(
        ("csv",), "where the curves go while it trains: csv, tensorboard, wandb, mlflow"
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions(ContinuingOptions):
    """Where and how a command that trains runs."""

    seed: int = option(0, "seed of weights, batches, dropout and augmentation", least=0)


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """The training recipe and the values of it that are changed most."""

    epochs: int | None = option(None, "most epochs, instead of the recipe's", least=1)
    batch_size: tuple[str, ...] = option(
        (), "windows per step, instead of the recipe's: a number, or EPOCH:SIZE,EPOCH:SIZE,...",
        numbers=True,
    )
    learning_rate: float | None = option(
        None, "peak learning rate, instead of the recipe's", least=0.0
    )
    precision: str | None = option(
        None,
        "arithmetic of training, instead of the recipe's; auto: bfloat16 where it is fast",
        choices=("float32", "bfloat16", "auto"),
    )
    patience: int | None = option(
        None, "epochs without a better validation loss before stopping", least=1
    )
    label_loss: str | None = option(
        None, "loss on hard labels, instead of the recipe's: cross_entropy or focal"
    )
    class_weights: tuple[str, ...] = option(
        (),
        "weight of each class in that loss: none, balanced, or numbers in the order of the "
        "classes, W,W,...",
        numbers=True,
    )
    schedule: str | None = option(
        None, "learning rate over time, instead of the recipe's", choices=("cosine", "plateau")
    )
    plateau_factor: float | None = option(
        None, "a plateau multiplies the learning rate by it", least=0, most=1
    )
    plateau_patience: int | None = option(
        None, "epochs without a better validation loss that make a plateau", least=0
    )
    train_on_validation: bool = option(
        False,
        "train on the validation clips too, once every choice is made: all epochs are trained, the "
        "last weights kept, and validation figures say nothing any more",
    )


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How dB become the input of a network that is trained."""

    normalise: str = option(
        "band",
        "input of the network: every mel band standardised over all values, or over sound alone "
        "with silence (the -80 dB floor) at a place of its own",
        choices=("band", "mixture"),
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataOptions, RunOptions, RecipeOptions, InputOptions):
    """python -m compress.train"""

    student: str = option("audiobot500", "student to train (python -m compress lists them)")
    recipe: str = option("audiobots", "training recipe: a name or a TOML file")
    activation: str | None = option(None, "activation of the student, instead of its own")
    dropout: float | None = option(None, "dropout of the student", least=0.0, most=0.9)
    weights: Path | None = option(
        None,
        "start from these weights: a run folder (the head is new where it has other classes), a "
        "Lightning .ckpt of the original project, or for timm/NAME a file of timm's",
    )


@dataclass(frozen=True, kw_only=True)
class TeachConfig(DataOptions, RunOptions, RecipeOptions, InputOptions):
    """python -m compress.teach"""

    teacher: str = option("resnet10t", "teacher: a classifier of timm or a student, by name")
    teacher_map: str = option(
        "1x6", "least size of the teacher's last feature map", unit="mels x frames"
    )
    recipe: str = option("teacher", "training recipe: a name or a TOML file")
    pretrained: bool = option(False, "start from timm's pretrained weights (asks the network)")
    weights: Path | None = option(
        None,
        "start from these weights: a run folder of the same network (the head is new where it has "
        "other classes), or a .safetensors or .pth file of timm's",
    )


@dataclass(frozen=True, kw_only=True)
class TeachingOptions:
    """How a student listens to its teachers."""

    teacher_map: str = option(
        "1x6", "least size of the teacher's last feature map", unit="mels x frames"
    )
    pretrained: bool = option(False, "start the teacher from timm's pretrained weights")
    teacher_recipe: str = option("teacher", "training recipe of a teacher that must be trained")
    teacher_epochs: int | None = option(None, "most epochs of the teacher", least=1)
    method: str = option("kd", "distillation loss")
    temperature: float = option(2.0, "temperature that softens both sets of logits", least=0.01)
    label_loss_weight: float = option(0.1, "weight of the loss on hard labels", least=0.0)
    distill_loss_weight: float = option(
        0.9, "weight of the distillation loss (which includes T squared)", least=0.0
    )
    transfer: tuple[Path, ...] = option(
        (),
        "folder of unlabelled audio that the teacher labels, as extra training material, or "
        "scenes:N, synthetic sound without its labels, other clips than any data set has",
    )


@dataclass(frozen=True, kw_only=True)
class DistillConfig(DataOptions, RunOptions, RecipeOptions, TeachingOptions, InputOptions):
    """python -m compress.distill"""

    student: str = option("dsc500", "student to train (python -m compress lists them)")
    teacher: tuple[str, ...] = option(
        ("resnet10t",),
        "teacher: a classifier of timm or a student, by name (NAME:SEED has a seed of its own), or "
        "a run folder; several make an ensemble",
    )
    recipe: str = option("distill", "training recipe of the student: a name or a TOML file")
    without_teacher: bool = option(False, "train the twin: the same student without a teacher")
    compare: bool = option(False, "train student and twin and print the difference")
    weights: Path | None = option(
        None,
        "start from these weights: a run folder (the head is new where it has other classes), a "
        "Lightning .ckpt of the original project, or for timm/NAME a file of timm's",
    )


@dataclass(frozen=True, kw_only=True)
class CrossvalConfig(DataOptions, RunOptions, RecipeOptions, TeachingOptions, InputOptions):
    """python -m compress.crossval"""

    student: str = option("audiobot500", "student to train (python -m compress lists them)")
    folds: int = option(
        10, "folds to deal outside the test; a data set with official ones has its own",
        least=2, most=100,
    )  # fmt: skip
    teacher: tuple[str, ...] = option(
        (), "distil from this teacher: a name, trained anew in each fold, or a run folder"
    )
    recipe: str = option(
        "", "training recipe (default: audiobots, or distill where there is a teacher)"
    )
    activation: str | None = option(None, "activation of the student, instead of its own")
    dropout: float | None = option(None, "dropout of the student", least=0.0, most=0.9)
    jobs: int = option(1, "folds that train at the same time", least=1)
    engine: str = option(
        "local",
        "where folds train: processes here, or the workers of a cluster that is up",
        choices=("local", "dask", "ray"),
    )
    scheduler: str | None = option(
        None, "address of the dask scheduler (tcp://HOST:8786) or of the ray head (HOST:6379)"
    )
    attempts: int = option(3, "times that a fold is started before it is given up", least=1)
    fold_index: int | None = option(
        None, "train this fold alone, for the array jobs of a scheduler", least=1
    )
    collect: bool = option(False, "gather the folds that are there, train nothing")
    fold: None = None
    validation_fold: int | None = option(
        None, "refused here, where every official fold is the test once", least=1
    )


@dataclass(frozen=True, kw_only=True)
class SweepConfig(DataOptions, RunOptions, RecipeOptions, TeachingOptions, InputOptions):
    """python -m compress.sweep"""

    student: str = option("audiobot500", "student to search for (python -m compress lists them)")
    trials: int = option(77, "trials of the study, over all processes and earlier commands",
                         least=1)  # fmt: skip
    sampler: str = option(
        "random", "how values are chosen: at random, or by Bayesian search (tree-structured "
        "Parzen estimator, Gaussian process)", choices=("random", "tpe", "gp"),
    )  # fmt: skip
    space: str = option("report", "search space: a name or a TOML file")
    keep_hopeless: bool = option(
        False, "let every trial end instead of stopping those worse than the median"
    )
    warmup_epochs: int = option(5, "epochs before a trial may be stopped as hopeless", least=0)
    teacher: tuple[str, ...] = option(
        (), "distil from this teacher: a name, trained first, or a run folder"
    )
    recipe: str = option(
        "", "recipe that the trials change (default: audiobots, or distill with a teacher)"
    )


@dataclass(frozen=True, kw_only=True)
class SearchConfig(DataOptions, RunOptions, RecipeOptions):
    """python -m compress.search"""

    params: int = option(50_000, "most learnable parameters", least=100)
    macs: float = option(
        3.8e6, "most multiply-accumulates of convolutions and linear layers, one window", least=1000
    )
    family: tuple[str, ...] = option(
        (), "family of students: plain, separable or time-frequency (default: all)"
    )
    candidates: int = option(24, "students that are tried", least=2, most=1000)
    windows: int = option(12_000, "most training windows that a candidate sees", least=1)
    finalists: int = option(3, "students that are trained to the end", least=1)
    seeds: int = option(3, "trainings of every finalist, with the seeds --seed, --seed + 1, ...",
                        least=1, most=20)  # fmt: skip
    recipe: str = option("distill", "recipe of the short trainings: a name or a TOML file")
    epochs: int | None = option(9, "epochs of a finalist; a third, a ninth in earlier rounds",
                                least=1)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig(DataOptions, RunOptions, RecipeOptions, InputOptions):
    """python -m compress.ensemble"""

    member: tuple[Path, ...] = option((), "run folder of a member")
    student: str | None = option(None, "student whose members are trained first, one per seed")
    seeds: int = option(3, "members to train, with the seeds --seed, --seed + 1, ...", least=2)
    recipe: str = option("audiobots", "training recipe of members: a name or a TOML file")
    combine: str = option(
        "probabilities", "what the mean is taken of", choices=("probabilities", "logits")
    )
    data: str | None = option(
        None, "data set, as for train (default: scenes, or that of the members, from the cache)"
    )


@dataclass(frozen=True, kw_only=True)
class StreamConfig(DataOptions):
    """python -m compress.stream"""

    run: Path | None = option(None, "run folder of the model")
    hours: float = option(8.0, "sound to put together", unit="h", least=0.01, most=1000.0)
    dwell: float = option(20.0, "mean time that a scene lasts", unit="s", least=0.1, most=3600.0)
    seed: int = option(0, "seed of the scenes", least=0)
    data: str | None = option(
        None, "data set (default: that of the run, from the cache), as for distill"
    )
    out: Path | None = option(None, "folder to write into (default: the run folder)")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """python -m compress.score"""

    folders: tuple[Path, ...] = option((), "run folder to measure", positional=True)
    data: str | None = option(
        None,
        "data set to measure on: scenes[:N] (built in, synthetic) or a folder, as for distill",
    )
    data_seed: int = option(0, "seed of the synthetic scenes", least=0)
    classes: str = option(
        "own",
        "class names of the data set, or mapped to the report's five",
        choices=("own", "five"),
    )
    drop_quiet: float | None = option(
        None,
        "leave out windows so many dB quieter than the loudest of their clip (default: as the runs "
        "were trained)",
        least=0.0,
        unit="dB",
    )
    strict: bool = option(
        False, "refuse a data set with unreadable files instead of skipping them"
    )
    cache: Path | None = option(
        None, "folder for prepared data (default: $COMPRESS_CACHE or ~/.cache/compress-workbench)"
    )
    workers: int = option(0, "processes that prepare data; 0: one per core", least=0)
    out: Path | None = option(
        None, "folder to write into (default: a name beside the first run's folder)"
    )


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """What is checked against which limits."""

    paths: tuple[Path, ...] = option(
        (), "file or folder to check; none: every registered student and run", positional=True
    )
    budgets: Path | None = option(None, "limits (default: budgets.toml here, else 500,000 params)")
    runs: Path = option(Path("runs"), "folder that holds the run folders")
    base: Path | None = option(
        None, "report.json of an earlier state (or this command's json): says what changed"
    )
    why: bool = option(False, "name the layers that each figure is made of, largest first")
    format: str = option(
        "text", "how findings are printed", choices=("text", "github", "junit", "json")
    )
    out: Path | None = option(None, "file for the junit or json form, beside the text")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What is gathered into the report."""

    runs: Path = option(Path("runs"), "folder that holds the run folders")
    out: Path | None = option(None, "folder to write the report into (default: report in --runs)")
    budgets: Path | None = option(None, "limits (default: budgets.toml here, else 500,000 params)")
    details: int = option(12, "runs with confusion matrix, recalls and curves", least=0)
    results: bool = option(
        False, "every network over its seeds: results.md, results.json and Pareto figures"
    )
    baseline: str | None = option(
        None,
        "network or run folder whose errors the results are divided by (default: audiobot500 where "
        "there is one)",
    )
    readme: Path | None = option(
        None, "file that gets the results, between its lines <!-- results: begin --> and end"
    )
    earlier: tuple[Path, ...] = option(
        (),
        "results.json of other machines or of runs that are gone: their rows stand in the results "
        "too, where no run here gives the same row",
    )
    costs: Path | None = option(
        None, "what wrong decisions cost (default: costs.toml here, else the shipped ones)"
    )


@dataclass(frozen=True, kw_only=True)
class ExploreConfig(DataOptions):
    """python -m compress.explore"""

    examples: int = option(3, "spectrograms shown of each class", least=1, most=20)
    near: float = option(
        1.0,
        "windows that differ by no more are near-duplicates (root mean square over audible bins)",
        unit="dB",
        least=0,
        most=20,
    )
    augmentations: bool = option(False, "show each augmentation on clips of the set as well")
    pictures: bool = option(
        False, "write spectrograms.png, values.png and means.png beside the page, for documents"
    )
    seed: int = option(0, "seed of the choice of examples and of the augmentations", least=0)
    out: Path | None = option(
        None, "folder to write into (default: explore/NAME OF THE SET in --runs)"
    )
    runs: Path = option(Path("runs"), "folder that holds the run folders")


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(DataOptions):
    """python -m compress.baseline"""

    baseline: tuple[str, ...] = option(
        (), "naive-bayes, svm or random-forest (default: all three)"
    )
    seed: int = option(0, "seed of landmarks (svm) and trees (random-forest)", least=0)
    out: Path | None = option(None, "run folder to write (default: a name under runs/)")
    runs: Path = option(Path("runs"), "folder that holds the run folders")
    force: bool = option(False, "start again in a run folder that holds another run")


@dataclass(frozen=True, kw_only=True)
class DataConfig(DataOptions):
    """What a data set holds."""

    data: str = option(
        "scenes",
        "data set: scenes[:N], a folder with training.npy, a folder of class folders of audio, or "
        "a folder in ESC-50 or FSD50K layout",
        positional=True,
    )
    json: bool = option(False, "print one JSON object instead of text")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Which files are classified by which model."""

    files: tuple[Path, ...] = option(
        (), "sound file (wav, flac, ogg, mp3; any sample rate, mono or stereo)", positional=True
    )
    model: Path | None = option(None, "run folder with model.onnx, or an .onnx file in one")
    hop: float | None = option(
        None,
        "time from one decision to the next (default: as windows are cut for training, 0.62 or "
        "two thirds of a window, the shorter of the two)",
        unit="s",
        least=0.01,
        most=60.0,
    )
    smoothing: float = option(
        2.0, "time constant of the mean, or length of the vote; 0: none", unit="s", least=0.0,
        most=600.0,
    )
    decision: str = option(
        "mean",
        "how windows decide together: majority of the last --smoothing seconds, exponential mean, "
        "or a hidden Markov model of scenes that last --dwell seconds in the mean",
        choices=("majority", "mean", "hmm"),
    )
    dwell: float = option(
        20.0, "mean time that a scene lasts, for --decision hmm", unit="s", least=0.1, most=3600.0
    )
    frontend: str = option(
        "run",
        "front end: the one that the run recorded (run), or where it recorded none, being trained "
        "on spectrograms in .npy, a TOML file, another run folder or default, as for distill",
    )
    costs: Path | None = option(
        None,
        "decide for the least expected cost by this TOML file, not for the most probable class; "
        "'default': the shipped costs",
    )
    json: bool = option(False, "print one JSON object instead of text")


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig(DataOptions, ContinuingOptions):
    """python -m compress.quantize"""

    run: Path | None = option(None, "what to quantise: a run folder, or a float .onnx file")
    data: str | None = option(
        None,
        "data set to calibrate and measure on, as for distill (default: that of the run, from the "
        "cache; an .onnx file needs it)",
    )
    seed: int | None = option(None, "seed of samples and fine-tuning (default: the run's)", least=0)
    calibration: str = option(
        "minmax",
        "how ranges come from activations on training windows",
        choices=("minmax", "percentile", "entropy"),
    )
    samples: int = option(256, "training windows to calibrate on", least=1, most=65536)
    activations: str = option(
        "uint8",
        "type of activations: uint8 is fast on x86, int8 is what microcontrollers take (one model, "
        "other zero points)",
        choices=("uint8", "int8"),
    )
    int8_io: bool = option(False, "8-bit input and output instead of float dB and logits")
    qat: bool = option(False, "fine-tune with fake quantisation, under the run's teacher")
    auto: bool = option(False, "fine-tune only where accuracy falls by more than --tolerance")
    tolerance: float = option(
        0.3, "allowed fall of validation accuracy for --auto", unit="points", least=0, most=100
    )
    sensitivity: bool = option(False, "print what quantising each layer costs")
    keep_float: tuple[str, ...] = option(
        (), "layer to keep in float: a name, or a number for the costliest ones"
    )
    weight_bits: str = option(
        "8", "bits of a weight in the file; 4 keeps 8-bit arithmetic", choices=("8", "4")
    )
    clusters: int | None = option(
        None,
        "values that the weights of a layer share, in an int8 codebook with 4-bit indices",
        least=2,
        most=16,
    )
    teacher: tuple[Path, ...] = option(
        (), "run folder of a teacher for --qat (default: those of the run, or labels alone)"
    )
    without_teacher: bool = option(False, "fine-tune on labels alone")
    epochs: int = option(10, "epochs of fine-tuning", least=1)
    learning_rate: float = option(1e-4, "peak learning rate of fine-tuning", least=0.0)
    batch_size: int = option(64, "windows per step of fine-tuning", least=2)


@dataclass(frozen=True, kw_only=True)
class PruneConfig(DataOptions, ContinuingOptions, RecipeOptions):
    """python -m compress.prune"""

    run: Path | None = option(None, "run folder of the student (or teacher) to prune")
    params: int | None = option(None, "prune channels until it has at most so many", least=1)
    macs: float | None = option(
        None, "prune channels until a window takes at most so many multiply-accumulates", least=1.0
    )
    latency_ratio: float | None = option(
        None,
        "prune channels until the file takes at most this share of its time, measured here",
        least=0.01,
        most=0.99,
    )
    sparsity: float | None = option(
        None,
        "set this share of single weights to zero instead; the network keeps its size and speed",
        least=0.01,
        most=0.99,
    )
    sparsity_scope: str = option(
        "global", "where the smallest weights are looked for", choices=("global", "layer")
    )
    importance: str = option(
        "magnitude",
        "which channels go first; random is the control",
        choices=("magnitude", "bn-scale", "taylor", "random"),
    )
    round_to: int = option(8, "widths stay multiples of it", unit="channels", least=1, most=256)
    steps: int = option(4, "times that channels are taken out, with training after each", least=1)
    step_epochs: int = option(3, "epochs of training between steps", least=1)
    recipe: str = option("finetune", "training recipe: a name or a TOML file")
    data: str | None = option(
        None, "data set, where that of the run is not in the cache any more, as for distill"
    )
    seed: int | None = option(None, "seed of batches and importance (default: the run's)", least=0)
    teacher: tuple[Path, ...] = option(
        (), "run folder of a teacher (default: those of the run, or labels alone)"
    )
    without_teacher: bool = option(False, "fine-tune on labels alone")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """python -m compress.export"""

    run: Path | None = option(None, "run folder of the model to export")
    format: str = option("c", "what to write, as listed above")
    target: tuple[str, ...] = option(
        (),
        "processor that the C code is cross-compiled for and emulated on",
        choices=("cortex-m4", "cortex-m7", "cortex-m55"),
    )
    windows: int = option(64, "test windows to emulate", least=1)
    clock_mhz: float | None = option(
        None, "clock for the estimates (default: that of a usual part)", unit="MHz", least=0.001
    )
    microwatts_per_mhz: float | None = option(
        None, "power for the estimates, equal to pJ per cycle (default: that of a usual part)",
        unit="uW/MHz", least=0.0,
    )  # fmt: skip
    from_wave: bool = option(
        False,
        "onnx: the file takes samples (batch, samples) in -1..1, with the front end inside; c with "
        "--target: front end and stream are run and counted too",
    )
    arena_limit: int | None = option(
        None, "most bytes that all activations may take in C", unit="bytes", least=1
    )
    vela: tuple[str, ...] = option(
        (),
        "Arm NPU that Vela compiles the .tflite file for, to estimate memory and cycles",
        choices=(
            "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u85-128",
            "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048",
        ),
    )  # fmt: skip
    vela_optimise: str = option(
        "performance", "what Vela compiles for: fewer cycles or less SRAM",
        choices=("performance", "size"),
    )  # fmt: skip
    data: str | None = option(
        None, "data set to measure on (default: that of the run, from the cache), as for distill"
    )
    cache: Path | None = option(
        None, "folder for prepared data (default: $COMPRESS_CACHE or ~/.cache/compress-workbench)"
    )
    workers: int = option(0, "processes that prepare data; 0: one per core", least=0)
    out: Path | None = option(None, "run folder to write (default: a name under runs/)")
    runs: Path = option(Path("runs"), "folder that holds the run folders")
    force: bool = option(False, "write over a folder that holds something else")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(RecipeDataOptions):
    """python -m compress.pipeline"""

    recipe: str = option(
        "quick", "pipeline: a name (listed above) or a TOML file", positional=True
    )
    from_stage: str | None = option(
        None, "first stage to run; those before it must be finished", flag="--from"
    )
    until: str | None = option(None, "last stage to run")
    run: Path | None = option(
        None, "run folder that --from starts with, instead of this pipeline's own"
    )
    seeds: str | None = option(None, "seeds, for example 0,1,2 (default: the recipe's)")
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    threads: int = option(0, "CPU threads; 0: all cores", least=0)
    jobs: int = option(
        1, "steps at a time that do not wait for each other: seeds, folds, teachers", least=1
    )
    runs: Path = option(Path("runs"), "folder for the pipeline's folder of run folders")
    force: bool = option(False, "start every stage again")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(DataOptions):
    """python -m compress.verify"""

    folders: tuple[Path, ...] = option(
        (), "run folder to verify; none: every finished run", positional=True
    )
    runs: Path = option(Path("runs"), "folder that holds the run folders")
    data: str | None = option(
        None, "data set, where that of the run is not in the cache any more, as for distill"
    )
    files_only: bool = option(False, "check hashes and counts alone, without the data")
