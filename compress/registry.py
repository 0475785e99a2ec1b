"""Names that can be asked for: each row is a builder string, a sentence and a source.

Plain strings: listing imports nothing heavy, and listing is documentation.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compress.config import nearest
from compress.errors import InputError


@dataclass(frozen=True)
class Row:
    """``builder`` is ``package.module:function``; ``source`` a paper, a report or 'own design'."""

    builder: str
    sentence: str
    source: str

    def load(self) -> Callable[..., Any]:
        module, _, function = self.builder.partition(":")
        return getattr(importlib.import_module(module), function)


STUDENTS: dict[str, Row] = {
    "audiobot500": Row(
        "students.audiobot:audiobot500",
        "four plain convolutions and an MLP head, 499,853 parameters",
        "AudioBots report, Oticon Audio Explorers 2023",
    ),
    "audiobot50": Row(
        "students.audiobot:audiobot50",
        "three plain convolutions and an MLP head, 49,733 parameters",
        "AudioBots report, Oticon Audio Explorers 2023",
    ),
    "dsc500": Row(
        "students.separable:dsc500",
        "residual depthwise-separable network for 500K parameters and 17.6 M MACs",
        "own design after MobileNet, arXiv 1704.04861",
    ),
    "dsc50": Row(
        "students.separable:dsc50",
        "residual depthwise-separable network for 50K parameters and 3.8 M MACs",
        "own design after MobileNet, arXiv 1704.04861",
    ),
    "tfnet500": Row(
        "students.timefrequency:tfnet500",
        "plain convolutions, then blocks along time alone, for 500K parameters and 17.6 M MACs",
        "own design after the frequency and time steps of BC-ResNet, arXiv 2106.04140",
    ),
    "tfnet50": Row(
        "students.timefrequency:tfnet50",
        "plain convolutions, then blocks along time alone, for 50K parameters and 3.8 M MACs",
        "own design after the frequency and time steps of BC-ResNet, arXiv 2106.04140",
    ),
    "audiobot500-dsc": Row(
        "students.audiobot:audiobot500_dsc",
        "audiobot500 with every convolution but the first made depthwise-separable",
        "suggested by the AudioBots report",
    ),
    "audiobot50-dsc": Row(
        "students.audiobot:audiobot50_dsc",
        "audiobot50 with every convolution but the first made depthwise-separable",
        "suggested by the AudioBots report",
    ),
}

DISTILL_LOSSES: dict[str, Row] = {
    "kd": Row(
        "compress.losses.distillation:SoftTargets",
        "T^2 KL(teacher || student) of softened logits",
        "Hinton et al. 2015, arXiv 1503.02531",
    ),
}

LABEL_LOSSES: dict[str, Row] = {
    "cross_entropy": Row(
        "compress.losses.labels:CrossEntropy", "negative log-likelihood of the labels", "standard"
    ),
    "focal": Row(
        "compress.losses.labels:Focal",
        "cross-entropy that weighs hard windows more, gamma 2",
        "Lin et al. 2017, arXiv 1708.02002",
    ),
}

LOGGERS: dict[str, Row] = {
    "csv": Row("compress.tracking:CsvLogger", "curves.csv, after every epoch", "own design"),
    "tensorboard": Row(
        "compress.tracking:TensorBoardLogger",
        "event files in tensorboard/ of the run folder",
        "TensorBoard",
    ),
    "wandb": Row(
        "compress.tracking:WandbLogger",
        "Weights & Biases; WANDB_MODE=offline keeps everything in the run folder",
        "wandb",
    ),
    "mlflow": Row(
        "compress.tracking:MlflowLogger",
        "MLflow, at MLFLOW_TRACKING_URI or in mlflow.db beside the run folders",
        "MLflow",
    ),
}

# Each is called with training features (compress.baselines.Training) and gives plain arrays.
BASELINES: dict[str, Row] = {
    "naive-bayes": Row(
        "compress.baselines:naive_bayes",
        "Gaussian naive Bayes on band statistics",
        "AudioBots report, Oticon Audio Explorers 2023",
    ),
    "svm": Row(
        "compress.baselines:support_vectors",
        "linear SVM on a Nystroem map of an RBF kernel of band statistics",
        "Williams and Seeger 2001; ESC paper (Piczak 2015) for SVM and random forest",
    ),
    "random-forest": Row(
        "compress.baselines:random_forest",
        "random forest on band statistics",
        "Breiman 2001; ESC paper (Piczak 2015) for SVM and random forest",
    ),
}

# Each is called with the run and the options of compress.export, and gives the run it wrote and
# the lines that say what it measured.
EXPORTS: dict[str, Row] = {
    "tflite": Row(
        "compress.tflite.export:tflite_run",
        "int8 .tflite file of an int8 run, for TFLite Micro and Ethos-U NPUs (--vela)",
        "own writer after the TFLite schema",
    ),
    "c": Row(
        "compress.chip.export:c_run",
        "C99 in 8-bit integers for a microcontroller, of an int8 run",
        "own kernels",
    ),
    "onnx": Row(
        "compress.wave_runs:export_onnx",
        "with --from-wave: one ONNX file from sound to logits, the front end inside",
        "own design; the front end as convolution and matrix product",
    ),
}

TIMM_PREFIX = "timm/"
_TEACHER_BUILDER = Row(
    "teachers.timm_teacher:build", "any timm classifier, adapted to one channel", "timm"
)


def lookup(table: Mapping[str, Row], kind: str, name: str) -> Row:
    """The row of ``name``; an unknown name answers with the nearest and the full list."""
    if name in table:
        return table[name]
    known = ", ".join(sorted(table))
    raise InputError(f"unknown {kind} {name!r}{nearest(name, table)} (known: {known})")


def student_named(name: str) -> tuple[str, dict[str, Any]]:
    """(builder, arguments that are asked for) of a name, or of a file such as a run's model.json.

    Classes and window size come from the data. Raises InputError where the file is no student.
    """
    if not name.endswith(".json"):
        return name, {}
    from pathlib import Path

    from compress.runs import read_json

    found = read_json(Path(name))
    builder, arguments = found.get("name"), found.get("arguments")
    if found.get("family") != "student" or not isinstance(arguments, dict):
        raise InputError(f"{name}: describes no student; give a search's best.json or a model.json")
    lookup(STUDENTS, f"student in {name}:", str(builder))
    kept = {k: v for k, v in arguments.items() if k not in ("classes", "mels", "frames")}
    return str(builder), kept


def build_student(name: str, **arguments: Any) -> Any:
    """A student by name, or ``timm/NAME``: an ``nn.Module`` with ``.arguments`` to rebuild it."""
    if name.startswith(TIMM_PREFIX):
        return build_teacher(name.removeprefix(TIMM_PREFIX), **arguments)
    builder = lookup(STUDENTS, "student", name).load()
    return _build(builder, f"student {name!r}", arguments)


def build_teacher(name: str, **arguments: Any) -> Any:
    """A timm classifier by name, adapted to (B, 1, mels, frames)."""
    unavailable = importlib.import_module("teachers.timm_teacher").PretrainedUnavailable
    try:
        return _build(_TEACHER_BUILDER.load(), f"teacher {name!r}", {"name": name, **arguments})
    except unavailable as error:
        raise InputError(str(error)) from None


def arguments_of(model: Any) -> dict[str, Any]:
    """What makes the structure of a student or teacher again: the arguments of its builder."""
    return dict(model.arguments)


def check_student(name: str) -> None:
    """Refuse a name that no builder has, before any data is read."""
    name, _ = student_named(name)
    if name.startswith(TIMM_PREFIX):
        _check_timm(name.removeprefix(TIMM_PREFIX))
    else:
        lookup(STUDENTS, "student", name)


def check_teacher(text: str) -> None:
    """Refuse what is neither a student's name nor timm's, before any data is read."""
    name, _ = teacher_and_seed(text)
    if name not in STUDENTS:
        _check_timm(name)


def teacher_and_seed(text: str) -> tuple[str, int | None]:
    """A teacher as an option names it: ``NAME``, or ``NAME:SEED`` with a seed of its own."""
    name, colon, seed = text.rpartition(":")
    return (name, int(seed)) if colon and seed.isdecimal() else (text, None)


def _check_timm(name: str) -> None:
    check = importlib.import_module("teachers.timm_teacher").check_name
    try:
        check(name)
    except ValueError as error:
        raise InputError(str(error)) from None


def _build(builder: Callable[..., Any], what: str, arguments: dict[str, Any]) -> Any:
    try:
        return builder(**arguments)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what}: {error}") from None
