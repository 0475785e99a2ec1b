"""What can be known about a shipped file from the file alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compress.errors import InputError

# Groups of stored numbers that are not weights.
RUNNING_STATISTICS = "running statistics"
QUANTISATION = "quantisation parameters"
INPUT_SCALING = "input scaling"
FRONT_END = "front end"
SETTINGS = "shapes and settings"
MOST_SETTINGS = 64  # numbers at an operand for settings; more are weights in disguise


@dataclass(frozen=True)
class Layer:
    """One layer of a file: a graph node, or the tensors below one prefix of names."""

    name: str
    kind: str  # operator, or "tensors" where the file holds no graph
    params: int  # weights stored for it; a shared weight stands at its first layer
    macs: int | None = None  # multiply-accumulates at batch 1; None: not counted
    output_shape: tuple[int, ...] | None = None
    weights: tuple[str, ...] = ()  # names of the tensors behind ``params``
    flash_bytes: int = 0  # all numbers stored for it, as FileSummary.flash_bytes counts them

    @property
    def title(self) -> str:
        """The operator with the first of its weights, by which its author knows it."""
        named = [name for name in self.weights if name != self.name]
        return f"{self.name} ({named[0]})" if named and self.kind != "tensors" else self.name


@dataclass(frozen=True)
class FileSummary:
    """Figures of one file. ``None`` means that this kind of file cannot tell."""

    path: Path
    kind: str  # "onnx" | "tflite" | "safetensors" | "checkpoint"
    sha256: str  # of the file's own bytes
    file_bytes: int  # with external data
    file_params: int  # weights in the file, each counted once
    apart: Mapping[str, int] = field(default_factory=dict)  # stored numbers that are not weights
    layers: tuple[Layer, ...] = ()
    macs: int | None = None  # multiply-accumulates of convolutions and linear layers, batch 1
    peak_activation_bytes: int | None = None  # batch 1, in the order of execution
    peak_layer: str | None = None  # the node at which the peak stands
    at_peak: tuple[tuple[str, int], ...] = ()  # (node that wrote it, bytes) alive there
    flash_bytes: int | None = None  # all stored numbers, each in the type that it is stored in
    quantised: bool = False  # most of the weights are stored in integers of at most 8 bits
    notes: tuple[str, ...] = ()  # why a figure is missing, or what it leaves out

    def largest_layers(self, count: int = 3, figure: str = "params") -> tuple[Layer, ...]:
        """The layers with most ``params`` (or ``macs``, ``flash_bytes``), largest first."""
        ranked = sorted(self.layers, key=lambda layer: getattr(layer, figure) or 0, reverse=True)
        return tuple(layer for layer in ranked[:count] if getattr(layer, figure))

    def known_as(self, node: str) -> str:
        """An operator's name with the first of its weights, by which its author knows it."""
        layer = next((layer for layer in self.layers if layer.name == node), None)
        return layer.title if layer else node


def read_whole(path: Path, most_bytes: int) -> bytes:
    """The bytes of a file of bounded size; raises InputError where it cannot be read."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(
                f"{path}: not a file; give an .onnx, .tflite, .safetensors or .ckpt file"
            )
        if size > most_bytes:
            raise InputError(f"{path}: {size:,} bytes; files over {most_bytes:,} are not read")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give an existing file or folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def layers_by_prefix(tensors: Mapping[str, int]) -> tuple[Layer, ...]:
    """Layers of a file without a graph: tensors whose names agree up to the last dot."""
    grouped: dict[str, list[str]] = {}
    for name in tensors:
        grouped.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return tuple(
        Layer(prefix, "tensors", sum(tensors[name] for name in names), weights=tuple(names))
        for prefix, names in grouped.items()
    )


def is_running_statistic(name: str, shapes: Mapping[str, Sequence[int]]) -> bool:
    """True for the tensors in which torch keeps what batch norm has seen.

    A name alone is none: the mean and variance stand beside a weight, one number per channel each.
    """
    prefix, dot, last = name.rpartition(".")
    shape = list(shapes[name])
    if last == "num_batches_tracked":
        return math.prod(shape) == 1
    beside = list(shapes.get(f"{prefix}{dot}weight", ()))
    return last in ("running_mean", "running_var") and len(shape) == 1 and beside == shape
