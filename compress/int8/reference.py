"""A QDQ file computed in integers, in numpy: what any runtime or firmware has to give.

    codes -> integer accumulators -> requantise -> codes          one step per quantised operator

Accumulators are exact. Rounding happens in an ``Arithmetic`` only: by default the float32 factors
and round-half-to-even of onnxruntime's kernels; ``compress.chip.fixed_point`` has the one of the C
code. Element-wise functions are tables of 256 entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.int8.graph import EditableGraph, attributes
from compress.int8.interface import Interface

Requantise = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""int64 accumulators and float32 factors (broadcastable) -> int64, before zero point and limits."""

Operands = list[Any]
"""Codes of each operand; None for an optional one that is left out."""


@dataclass(frozen=True)
class Codes:
    """Integers that stand for ``(values - zero_point) * scale``. values: int64.

    scale: one number, or one per channel along ``axis``.
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0

    @property
    def centred(self) -> np.ndarray:
        if self.zero_point.size == 1:
            return self.values - int(self.zero_point.reshape(()))
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return self.values - self.zero_point.reshape(shape)


def round_as_onnxruntime(accumulators: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """float32 product, rounded half to even."""
    product = accumulators.astype(np.float32) * np.asarray(factors, dtype=np.float32)
    return np.rint(product).astype(np.int64)


@dataclass(frozen=True)
class Arithmetic:
    """How a kernel rounds.

    requantise: see ``Requantise``. add: two operands, scale and zero point of the result -> its
    codes before the limits. mean_pool: one operand, attributes of AveragePool, scale -> the same
    before zero point and limits. encode: interface and (B, 1, mels, frames) dB -> input codes.
    """

    requantise: Requantise
    add: Callable[[list[Codes], float, int], np.ndarray]
    mean_pool: Callable[[Codes, dict[str, Any], float], np.ndarray]
    encode: Callable[[Interface, np.ndarray], np.ndarray]


class IntegerNetwork:
    """A QDQ file of compress.quantize, or such a model, as a function in integers.

    Raises InputError for an operator that is not in integers there, with its name.
    """

    def __init__(
        self, path: Path, arithmetic: Arithmetic | None = None, model: Any | None = None
    ) -> None:
        import onnx

        self._path, self._arithmetic = path, arithmetic or ONNXRUNTIME
        model = onnx.load(path) if model is None else model
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        self._interface = Interface.from_metadata(metadata, path)
        self._graph = EditableGraph(model)
        self.codes: dict[str, Codes] = {}

    def __call__(self, decibels: np.ndarray) -> np.ndarray:
        """(B, 1, mels, frames) dB -> logits (B, classes) float32; ``codes`` keeps every tensor."""
        graph = self._graph
        start, end = graph.inputs[0], graph.outputs[0]
        floats: dict[str, np.ndarray] = {}
        self.codes = {}
        if self._interface is not None:
            given = self._arithmetic.encode(self._interface, decibels).astype(np.int64)
            self.codes[start] = Codes(given, *_unknown())
        else:
            floats[start] = decibels.astype(np.float32)
        for node in graph.nodes:
            name, result = node.input[0], node.output[0]
            if node.op_type in ("Cast", "Gather"):  # of stored weights, see _stored
                continue
            if node.op_type == "QuantizeLinear":
                if name in floats:
                    self.codes[result] = self._quantise(node, floats[name])
            elif node.op_type == "DequantizeLinear":
                self.codes[result] = self._read(node)
            elif name in floats:
                floats[result] = _normalise(node, floats[name], graph.array(node, 1))
            else:
                self._compute(node)
        codes = self.codes[end]
        if self._interface is not None:
            return self._interface.decode(codes.values)
        return (codes.centred.astype(np.float32) * codes.scale.astype(np.float32)).astype(
            np.float32
        )

    def _read(self, node: Any) -> Codes:
        """DequantizeLinear: the same integers, now with what they mean."""
        graph, name = self._graph, node.input[0]
        scale, zero_point = graph.array(node, 1), graph.array(node, 2)
        assert scale is not None
        zero_point = np.zeros(1, np.int64) if zero_point is None else zero_point.astype(np.int64)
        values = self._stored(name)
        if values is not None:
            axis = int(attributes(node).get("axis", 1)) % max(values.ndim, 1)
            return Codes(values, scale.astype(np.float32), zero_point, axis)
        return Codes(self.codes[name].values, scale.astype(np.float32), zero_point)

    def _stored(self, name: str) -> np.ndarray | None:
        """A stored tensor, int64: as it is, cast from 4 bits, or looked up in a codebook."""
        graph = self._graph
        if name in graph.arrays:
            return graph.arrays[name].astype(np.int64)
        producer = graph.producer(name)
        if producer is None or producer.op_type not in ("Cast", "Gather"):
            return None
        if producer.op_type == "Cast":
            return self._stored(producer.input[0])
        book, indices = (self._stored(operand) for operand in producer.input)
        return None if book is None or indices is None else book[indices]

    def _target(self, node: Any) -> tuple[Any, float, int, tuple[int, int]]:
        """The QuantizeLinear behind an operator: (node, scale, zero point, limits)."""
        readers = self._graph.readers(node.output[0])
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            raise InputError(
                f"{self._path}: operator {node.op_type} in layer {node.name!r} does not end in "
                "integers"
            )
        scale, zero_point = (self._graph.array(readers[0], i) for i in (1, 2))
        assert scale is not None and zero_point is not None
        limits = np.iinfo(zero_point.dtype)
        return readers[0], float(scale), int(zero_point), (limits.min, limits.max)

    def _quantise(self, node: Any, x: np.ndarray) -> Codes:
        scale, zero_point = (self._graph.array(node, i) for i in (1, 2))
        assert scale is not None and zero_point is not None
        limits = np.iinfo(zero_point.dtype)
        values = np.rint(x / scale.astype(np.float32)).astype(np.int64) + int(zero_point)
        return Codes(np.clip(values, limits.min, limits.max), *_unknown())

    def _compute(self, node: Any) -> None:
        operands: Operands = [self.codes.get(name) for name in node.input]
        target, scale, zero_point, limits = self._target(node)
        found = attributes(node)
        if node.op_type in _TABLES:
            low = int(operands[0].values.min(initial=0))
            inputs = np.arange(low, int(operands[0].values.max(initial=255)) + 1)
            table = element_wise(node.op_type, found, replace(operands[0], values=inputs), scale)
            values = table[operands[0].values - low] + zero_point
        elif node.op_type in _ACCUMULATORS:
            accumulators, factor = _ACCUMULATORS[node.op_type](operands, found)
            factors = factor / np.float32(scale)
            values = self._arithmetic.requantise(accumulators, factors) + zero_point
        elif node.op_type == "Add":
            values = self._arithmetic.add(operands, scale, zero_point)
        elif node.op_type == "AveragePool":
            if found.get("ceil_mode", 0) and _ragged(operands[0].values.shape[2:], found):
                raise InputError(
                    f"{self._path}: AveragePool in layer {node.name!r} rounds its size up, which "
                    "has no integer form here"
                )
            values = self._arithmetic.mean_pool(operands[0], found, scale) + zero_point
        elif node.op_type in _MOVES:
            moved = _MOVES[node.op_type](operands[0].values, found, self._graph.array(node, 1))
            values = self._again(Codes(moved, operands[0].scale, operands[0].zero_point),
                                 scale, zero_point)  # fmt: skip
        elif node.op_type == "Concat":
            again = [self._again(operand, scale, zero_point) for operand in operands]
            values = np.concatenate(again, axis=found["axis"])
        else:
            raise InputError(
                f"{self._path}: unsupported operator {node.op_type} in layer {node.name!r}: it has "
                "no integer form"
            )
        self.codes[target.output[0]] = Codes(np.clip(values, *limits), *_unknown())

    def _again(self, codes: Codes, scale: float, zero_point: int) -> np.ndarray:
        if float(codes.scale) == scale and int(codes.zero_point) == zero_point:
            return codes.values
        factors = codes.scale / np.float32(scale)
        return self._arithmetic.requantise(codes.centred, factors) + zero_point


def element_wise(operator: str, found: dict[str, Any], codes: Codes, scale: float) -> np.ndarray:
    """The function of an operator in ``ELEMENT_WISE`` for each of ``codes``, in steps of
    ``scale``, before zero point and limits."""
    reals = (codes.centred * codes.scale).astype(np.float32)
    return np.rint(_TABLES[operator](reals, found) / np.float32(scale)).astype(np.int64)


def _unknown() -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of codes whose DequantizeLinear has not been read yet."""
    return np.ones(1), np.zeros(1, np.int64)


def _normalise(node: Any, x: np.ndarray, constant: np.ndarray | None) -> np.ndarray:
    functions = {"Sub": np.subtract, "Add": np.add, "Mul": np.multiply, "Div": np.divide}
    if node.op_type not in functions or constant is None:
        raise InputError(f"operator {node.op_type} in layer {node.name!r} computes in float")
    return functions[node.op_type](x, constant)


def _add(operands: list[Codes], scale: float, zero_point: int) -> np.ndarray:
    """Sum of two tensors in the scale of the result, in the order of onnxruntime's kernel:
    two fused multiply-adds in float32 on a constant that holds all zero points."""
    single = np.float32
    a, b = operands
    ratios = [single(single(x.scale.reshape(())) / single(scale)) for x in (a, b)]
    zeros = [single(x.zero_point.reshape(())) for x in (a, b)]
    constant = single(zero_point) - single(ratios[0] * zeros[0] + ratios[1] * zeros[1])
    # float64 holds such a product exactly, so one rounding follows it, as in a fused operation.
    total = (a.values * np.float64(ratios[0]) + np.float64(constant)).astype(single)
    total = (b.values * np.float64(ratios[1]) + total.astype(np.float64)).astype(single)
    return np.rint(total).astype(np.int64)


def _mean_pool(x: Codes, found: dict[str, Any], scale: float) -> np.ndarray:
    """Windows averaged in float32, as onnxruntime does; padding counts where the operator says so.

    With equal scales a mean of four often lies half-way between two codes, so the order matters.
    """
    kernel = found["kernel_shape"]
    reals = x.centred.astype(np.float32) * np.float32(x.scale.reshape(()))
    patches = patches_of(reals, kernel, found, 0)
    total = np.zeros(patches.shape[:4], np.float32)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            total += patches[..., row, column]
    ones = np.ones((1, 1, *x.values.shape[2:]), np.int64)
    counted = patches_of(ones, kernel, found, int(found.get("count_include_pad", 0)))
    means = total / counted.sum(axis=(4, 5)).astype(np.float32)
    return np.rint(means / np.float32(scale)).astype(np.int64)


ONNXRUNTIME = Arithmetic(round_as_onnxruntime, _add, _mean_pool, Interface.encode)


# --- accumulators --------------------------------------------------------------------------------


def patches_of(x: np.ndarray, kernel: Any, found: dict[str, Any], fill: int) -> np.ndarray:
    """(B, C, H', W', kh, kw) views of a padded map."""
    pads = found.get("pads", (0, 0, 0, 0))
    rows, columns = found.get("strides", (1, 1))
    down, across = found.get("dilations", (1, 1))
    width = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    padded = np.pad(x, width, constant_values=fill)
    span = (down * (kernel[0] - 1) + 1, across * (kernel[1] - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    return windows[:, :, ::rows, ::columns, ::down, ::across]


def _conv(operands: Operands, found: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """float64 products of integers under 2^53 are exact."""
    x, weight = operands[:2]
    kernels = weight.centred.astype(np.float64)
    outputs, per_group = kernels.shape[:2]
    groups = found.get("group", 1)
    patches = patches_of(x.centred, kernels.shape[2:], found, 0).astype(np.float64)
    batch, channels, rows, columns = patches.shape[:4]
    patches = patches.reshape(batch, groups, per_group, rows, columns, *kernels.shape[2:])
    kernels = kernels.reshape(groups, outputs // groups, *kernels.shape[1:])
    sums = np.einsum("bgcijkl,gockl->bgoij", patches, kernels, optimize=True)
    sums = np.rint(sums).astype(np.int64).reshape(batch, outputs, rows, columns)
    if len(operands) > 2 and operands[2] is not None:
        sums += operands[2].values[None, :, None, None]
    factor = x.scale * weight.scale
    return sums, factor.reshape(1, -1, 1, 1) if factor.size > 1 else factor


def _gemm(operands: Operands, found: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    x, weight = operands[:2]
    matrix = weight.centred.T if found.get("transB", 0) else weight.centred
    sums = x.centred @ matrix
    if len(operands) > 2 and operands[2] is not None:
        sums = sums + operands[2].values
    return sums, x.scale * weight.scale


def _mul(operands: Operands, found: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    a, b = operands
    return a.centred * b.centred, a.scale * b.scale


def _global_mean(
    operands: Operands, found: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    x = operands[0]
    places = x.values.shape[2] * x.values.shape[3]
    return x.centred.sum(axis=(2, 3), keepdims=True), x.scale / np.float32(places)


def _ragged(size: tuple[int, ...], found: dict[str, Any]) -> bool:
    pads, strides = found.get("pads", (0,) * 4), found.get("strides", (1, 1))
    return any(
        (size[i] + pads[i] + pads[i + 2] - found["kernel_shape"][i]) % strides[i] for i in (0, 1)
    )


_ACCUMULATORS = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _gemm,
    "Mul": _mul,
    "GlobalAveragePool": _global_mean,
}


# --- tables and moves ----------------------------------------------------------------------------


def _leaky_relu(x: np.ndarray, found: dict[str, Any]) -> np.ndarray:
    return np.where(x >= 0, x, np.float32(found.get("alpha", 0.01)) * x)


_TABLES: dict[str, Callable[[np.ndarray, dict[str, Any]], np.ndarray]] = {
    "LeakyRelu": _leaky_relu,
    "Relu": lambda x, found: np.maximum(x, 0),
    "Elu": lambda x, found: np.where(x > 0, x, found.get("alpha", 1.0) * np.expm1(x)),
    "Sigmoid": lambda x, found: 1 / (1 + np.exp(-x)),
    "HardSigmoid": lambda x, found: np.clip(
        x * found.get("alpha", 0.2) + found.get("beta", 0.5), 0, 1
    ),
    "HardSwish": lambda x, found: x * np.clip(x / 6 + 0.5, 0, 1),
}

ELEMENT_WISE = tuple(_TABLES)


def _max_pool(x: np.ndarray, found: dict[str, Any], _: np.ndarray | None) -> np.ndarray:
    lowest = int(np.iinfo(np.int64).min)
    return patches_of(x, found["kernel_shape"], found, lowest).max(axis=(4, 5))


def _reshape(x: np.ndarray, found: dict[str, Any], shape: Any) -> np.ndarray:
    sizes = [x.shape[i] if size == 0 else int(size) for i, size in enumerate(shape)]
    return x.reshape(sizes)


_MOVES: dict[str, Callable[[np.ndarray, dict[str, Any], Any], np.ndarray]] = {
    "MaxPool": _max_pool,
    "Reshape": _reshape,
    "Flatten": lambda x, found, _: x.reshape(int(np.prod(x.shape[: found.get("axis", 1)])), -1),
    "Squeeze": lambda x, found, axes: x.squeeze(tuple(int(a) for a in axes)),
    "Unsqueeze": lambda x, found, axes: np.expand_dims(x, tuple(int(a) for a in axes)),
    "Transpose": lambda x, found, _: x.transpose(found["perm"]),
}
