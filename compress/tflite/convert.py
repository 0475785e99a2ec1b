"""A QDQ ONNX graph as operators of TFLite: the same int8 weights, scales, zero points and biases.

    DequantizeLinear -> operator -> QuantizeLinear     becomes one integer operator
    (B, C, H, W)                                       becomes (1, H, W, C)
    Conv weight (O, I, kh, kw)                         becomes (O, kh, kw, I)
    depthwise   (C * m, 1, kh, kw)                     becomes (1, kh, kw, C * m)

TFLite asks for equal scales before and after pooling and moving, and for one fixed scale behind a
logistic function. Where the ONNX file has another there, a QUANTIZE follows: one more rounding.
Padding becomes SAME where that means the same, else a PAD before the operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.int8.graph import EditableGraph, attributes

LOWEST = -128
_MAP_RANK = 4
_TO_NHWC = (0, 2, 3, 1)
_TO_NCHW = (0, 3, 1, 2)
_LOGISTIC_SCALE = 1 / 256  # what TFLite demands behind LOGISTIC, with zero point -128


@dataclass(frozen=True)
class Quantisation:
    """Codes stand for ``(code - zero_point) * scale``; scale float32, one or one per channel."""

    scale: np.ndarray
    zero_point: int = 0
    axis: int = 0

    def equals(self, other: Quantisation) -> bool:
        return self.zero_point == other.zero_point and np.array_equal(self.scale, other.scale)


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file: an activation, or a constant where ``data`` is given."""

    name: str
    shape: tuple[int, ...]
    quantisation: Quantisation | None = None
    data: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int8) if self.data is None else self.data.dtype


@dataclass(frozen=True)
class Operator:
    """kind: name of a builtin operator. options: fields of its options table."""

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """Operators in order of execution; ``inputs``, ``outputs`` and operands index ``tensors``."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def convert(model: Any, path: Path) -> Network:
    """The network of an int8 QDQ model with int8 ends (compress.int8.coded), for one window.

    path: what messages name. Raises InputError for an operator that TFLite cannot take as it is,
    with its layer.
    """
    return _Conversion(model, path).network()


@dataclass(frozen=True)
class _Windows:
    """How an operator slides over a map, per axis (rows, columns)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]  # padding that windows reach, which may be less than declared
    output: tuple[int, int]

    @property
    def padded(self) -> bool:
        return any((*self.before, *self.after))

    def same(self, size: Sequence[int]) -> bool:
        """Whether TFLite's SAME pads a map of this size in the same way."""
        return all(
            self.output[i] == -(-size[i] // self.strides[i])
            and self.before[i] == (self.before[i] + self.after[i]) // 2
            for i in (0, 1)
        )


class _Conversion:
    def __init__(self, model: Any, path: Path) -> None:
        self._path = path
        self._graph = EditableGraph(model)
        self._tensors: list[Tensor] = []
        self._operators: list[Operator] = []
        self._codes: dict[str, int] = {}  # ONNX tensor of codes -> tensor
        self._reads: dict[str, Any] = {}  # what a DequantizeLinear gives -> that node

    # --- the walk ----------------------------------------------------------------------------

    def network(self) -> Network:
        graph = self._graph
        start = graph.inputs[0]
        dims = graph.model.graph.input[0].type.tensor_type.shape.dim
        channels, *size = (dim.dim_value for dim in dims[1:])
        readers = graph.readers(start)
        if len(dims) != _MAP_RANK or not all((channels, *size)) or not readers:
            raise InputError(f"{self._path}: its input is no window of fixed size")
        _, quantisation = self._meaning(readers[0])
        self._codes[start] = self._add(Tensor(start, (1, *size, channels), quantisation))
        for node in graph.nodes:
            if node.op_type == "Cast":
                raise InputError(
                    f"{self._path}: holds weights of 4 bits ({node.input[0]}), which TFLite's "
                    "int8 operators do not take; quantise again with --weight-bits 8"
                )
            if node.op_type == "DequantizeLinear":
                self._reads[node.output[0]] = node
            elif node.op_type == "QuantizeLinear":
                self._again(node)
            else:
                self._compute(node)
        end = graph.outputs[0]
        if end not in self._codes:
            raise InputError(f"{self._path}: its last layer is in float")
        return Network(
            tuple(self._tensors),
            tuple(self._operators),
            (self._codes[start],),
            (self._codes[end],),
        )

    def _again(self, node: Any) -> None:
        """QuantizeLinear: done by the operator before it, unless it only changes the scale."""
        if node.output[0] in self._codes:
            return
        if node.input[0] not in self._reads:
            raise InputError(f"{self._path}: {node.input[0]} is computed in float")
        source = self._operand(node, 0)
        _, quantisation = self._meaning(node)
        name = node.name or node.output[0]
        self._codes[node.output[0]] = self._requantised(name, source, quantisation)

    def _compute(self, node: Any) -> None:
        convert = _OPERATORS.get(node.op_type)
        if convert is None:
            raise self._unsupported(node, "it has no int8 operator in TFLite")
        readers = self._graph.readers(node.output[0])
        given = node.input[:1] if node.op_type == "Clip" else node.input  # limits may be float
        floats = [name for name in given if name and self._is_float(name)]
        if floats or len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            raise InputError(
                f"{self._path}: operator {node.op_type} in layer {node.name!r} computes in float; "
                "quantise all layers (without --keep-float)"
            )
        _, quantisation = self._meaning(readers[0])
        self._codes[readers[0].output[0]] = convert(self, node, quantisation)

    def _is_float(self, name: str) -> bool:
        stored = self._graph.arrays.get(name)
        return name not in self._reads and (stored is None or stored.dtype == np.float32)

    def _unsupported(self, node: Any, why: str) -> InputError:
        return InputError(
            f"{self._path}: unsupported operator {node.op_type} in layer {node.name!r}: {why}"
        )

    # --- tensors -----------------------------------------------------------------------------

    def _add(self, tensor: Tensor) -> int:
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _constant(self, name: str, data: np.ndarray, quantisation: Any = None) -> int:
        data = np.ascontiguousarray(data)
        return self._add(Tensor(name, data.shape, quantisation, data))

    def _emit(
        self,
        name: str,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        quantisation: Quantisation,
        **options: Any,
    ) -> int:
        """One more operator; gives the tensor that it computes."""
        result = self._add(Tensor(name, tuple(int(n) for n in shape), quantisation))
        self._operators.append(Operator(name, kind, tuple(inputs), (result,), options))
        return result

    def _of(self, tensor: int) -> Quantisation:
        found = self._tensors[tensor].quantisation
        assert found is not None
        return found

    def _shape(self, tensor: int) -> tuple[int, ...]:
        return self._tensors[tensor].shape

    def _meaning(self, node: Any) -> tuple[str, Quantisation]:
        """(codes, what they stand for) at a Quantize- or DequantizeLinear."""
        scale, zero_point = (self._graph.array(node, position) for position in (1, 2))
        codes = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
        if scale is None or (len(node.input) > 2 and node.input[2] and zero_point is None):
            raise InputError(f"{self._path}: the scale of {codes} is computed, not stored")
        zero_points = np.zeros(1, np.int64) if zero_point is None else np.unique(zero_point)
        if len(zero_points) != 1:
            raise InputError(f"{self._path}: {codes} has a zero point per channel")
        axis = int(attributes(node).get("axis", 1))
        return codes, Quantisation(scale.astype(np.float32).ravel(), int(zero_points[0]), axis)

    def _operand(self, node: Any, position: int) -> int:
        """The tensor of codes that an operator reads; constants are stored as NHWC."""
        reader = self._reads[node.input[position]]
        codes, quantisation = self._meaning(reader)
        if codes in self._codes:
            tensor = self._codes[codes]
            if not self._of(tensor).equals(quantisation):
                raise InputError(f"{self._path}: {codes} is written and read with other scales")
            return tensor
        if codes not in self._graph.arrays:
            raise InputError(f"{self._path}: {codes} is read before it is computed")
        values = self._graph.arrays[codes]
        if values.dtype != np.int8 or quantisation.scale.size != 1:
            raise self._unsupported(node, f"its constant {codes} is not int8 with one scale")
        if values.ndim == _MAP_RANK:
            values = values.transpose(_TO_NHWC)
        return self._constant(codes, values, quantisation)

    def _weight(self, node: Any) -> tuple[str, np.ndarray, Quantisation]:
        """(name, int8 array, symmetric scales with the axis that they belong to)."""
        reader = self._reads[node.input[1]]
        name, quantisation = self._meaning(reader)
        values = self._graph.arrays.get(name)
        if values is None:
            raise self._unsupported(node, "its weight is computed, not stored")
        if values.dtype != np.int8 or quantisation.zero_point != 0:
            raise self._unsupported(node, f"its weight {name} is not int8 with zero point 0")
        return name, values, Quantisation(quantisation.scale, 0, quantisation.axis % values.ndim)

    def _bias(self, node: Any, source: int, weight: Quantisation, outputs: int) -> int:
        """The int32 bias, whose scale has to be input x weight.

        Zeros where there is none: LiteRT's convolutions do not run without one.
        """
        if len(node.input) < 3 or not node.input[2]:
            meaning = Quantisation(self._of(source).scale * weight.scale)
            return self._constant(f"{node.name}.bias", np.zeros(outputs, np.int32), meaning)
        name, found = self._meaning(self._reads[node.input[2]])
        values = self._graph.arrays.get(name)
        expected = self._of(source).scale * weight.scale
        fits = np.allclose(found.scale, expected, rtol=1e-5, atol=0) and found.zero_point == 0
        if values is None or values.dtype != np.int32 or not fits:
            raise self._unsupported(node, f"its bias {name} is not int32 in scale input x weight")
        return self._constant(name, values.ravel(), Quantisation(found.scale))

    def _requantised(self, name: str, source: int, wanted: Quantisation) -> int:
        if self._of(source).equals(wanted):
            return source
        return self._emit(f"{name}.quantize", "QUANTIZE", (source,), self._shape(source), wanted)

    # --- windows -----------------------------------------------------------------------------

    def _windows(self, node: Any, source: int, kernel: Sequence[int]) -> _Windows:
        found = attributes(node)
        if len(kernel) != 2 or len(self._shape(source)) != _MAP_RANK:
            raise self._unsupported(node, "only maps with two axes are exported")
        size = self._shape(source)[1:3]
        strides = tuple(found.get("strides", (1, 1)))
        dilations = tuple(found.get("dilations", (1, 1)))
        pads = self._pads(node, found, size, kernel)
        output, after = [], []
        for i in (0, 1):
            span = dilations[i] * (kernel[i] - 1) + 1
            room = size[i] + pads[i] + pads[i + 2] - span
            count = room // strides[i] + 1
            if found.get("ceil_mode", 0) and room % strides[i]:
                count += (count * strides[i]) < size[i] + pads[i]  # it has to start inside
            if count < 1:
                raise self._unsupported(node, "its window is larger than the map")
            output.append(count)
            after.append(max(0, (count - 1) * strides[i] + span - size[i] - pads[i]))
        return _Windows(
            *(_pair(sizes) for sizes in (kernel, strides, dilations, pads, after, output))
        )

    def _pads(
        self, node: Any, found: dict[str, Any], size: Sequence[int], kernel: Sequence[int]
    ) -> tuple[int, ...]:
        """(rows before, columns before, rows after, columns after)."""
        automatic = found.get("auto_pad", "NOTSET")
        if automatic == "NOTSET":
            return tuple(found.get("pads", (0, 0, 0, 0)))
        if automatic == "VALID":
            return (0, 0, 0, 0)
        strides, dilations = found.get("strides", (1, 1)), found.get("dilations", (1, 1))
        before, after = [], []
        for i in (0, 1):
            outputs = -(-size[i] // strides[i])
            span = dilations[i] * (kernel[i] - 1) + 1
            total = max(0, (outputs - 1) * strides[i] + span - size[i])
            small, large = total // 2, total - total // 2
            before.append(small if automatic == "SAME_UPPER" else large)
            after.append(large if automatic == "SAME_UPPER" else small)
        return (*before, *after)

    def _padded(
        self, name: str, source: int, windows: _Windows, value: int | None = None
    ) -> tuple[int, str]:
        """(tensor that the operator reads, its padding): a PAD is added where SAME differs.

        value: the code to pad with, where that is not the zero point, which stands for 0.
        """
        size = self._shape(source)[1:3]
        if not windows.padded:
            return source, "VALID"
        if windows.same(size):
            return source, "SAME"
        rows, columns = zip(windows.before, windows.after, strict=True)
        widths = np.array([(0, 0), rows, columns, (0, 0)], np.int32)
        shape = (1, size[0] + sum(rows), size[1] + sum(columns), self._shape(source)[3])
        quantisation = self._of(source)
        operands = [source, self._constant(f"{name}.paddings", widths)]
        kind = "PAD"
        if value is not None and value != quantisation.zero_point:
            kind = "PADV2"
            operands.append(
                self._constant(f"{name}.pad_value", np.array([value], np.int8), quantisation)
            )
        return self._emit(f"{name}.pad", kind, operands, shape, quantisation), "VALID"

    # --- operators ---------------------------------------------------------------------------

    def conv(self, node: Any, wanted: Quantisation) -> int:
        source = self._operand(node, 0)
        name, weight, scales = self._weight(node)
        if weight.ndim != _MAP_RANK:
            raise self._unsupported(node, "only convolutions with two axes are exported")
        outputs, per_group, *kernel = weight.shape
        channels, groups = self._shape(source)[3], attributes(node).get("group", 1)
        depthwise = groups > 1 and per_group == 1 and groups == channels
        if groups > 1 and not depthwise:
            raise self._unsupported(
                node, f"a convolution in {groups} groups is neither plain nor depthwise"
            )
        if scales.scale.size > 1 and scales.axis != 0:
            raise self._unsupported(node, "its weight has scales along another axis")
        bias = self._bias(node, source, scales, outputs)
        windows = self._windows(node, source, kernel)
        source, padding = self._padded(node.name, source, windows)
        options: dict[str, Any] = {
            "padding": padding,
            "strideH": windows.strides[0],
            "strideW": windows.strides[1],
            "dilationHFactor": windows.dilations[0],
            "dilationWFactor": windows.dilations[1],
        }
        if depthwise:
            kind, values = "DEPTHWISE_CONV_2D", weight.transpose(1, 2, 3, 0)
            options["depthMultiplier"] = outputs // groups
            scales = Quantisation(scales.scale, 0, 3)
        else:
            kind, values = "CONV_2D", weight.transpose(0, 2, 3, 1)
            scales = Quantisation(scales.scale, 0, 0)
        stored = self._constant(name, values, scales)
        shape = (1, *windows.output, outputs)
        return self._emit(node.name, kind, (source, stored, bias), shape, wanted, **options)

    def linear(self, node: Any, wanted: Quantisation) -> int:
        found = attributes(node)
        source = self._operand(node, 0)
        name, weight, scales = self._weight(node)
        plain = found.get("alpha", 1.0) == found.get("beta", 1.0) == 1.0
        if weight.ndim != 2 or len(self._shape(source)) != 2 or not plain or found.get("transA", 0):
            raise self._unsupported(node, "only plain linear layers are exported")
        transposed = found.get("transB", 0)  # (outputs, inputs), as TFLite has it
        if scales.scale.size > 1 and scales.axis != (0 if transposed else 1):
            raise self._unsupported(node, "its weight has scales along another axis")
        values = weight if transposed else weight.T
        bias = self._bias(node, source, scales, len(values))
        stored = self._constant(name, values, Quantisation(scales.scale, 0, 0))
        return self._emit(
            node.name, "FULLY_CONNECTED", (source, stored, bias), (1, len(values)), wanted
        )

    def binary(self, node: Any, wanted: Quantisation) -> int:
        operands = [self._operand(node, position) for position in (0, 1)]
        shapes = [self._shape(tensor) for tensor in operands]
        if len({len(shape) for shape in shapes if math.prod(shape) > 1}) > 1:
            raise self._unsupported(node, "its operands have different numbers of axes")
        shape = np.broadcast_shapes(*shapes)
        kind = {"Add": "ADD", "Mul": "MUL"}[node.op_type]
        return self._emit(node.name, kind, operands, shape, wanted)

    def max_pool(self, node: Any, wanted: Quantisation) -> int:
        return self._pool(node, wanted, "MAX_POOL_2D", LOWEST)

    def average_pool(self, node: Any, wanted: Quantisation) -> int:
        return self._pool(node, wanted, "AVERAGE_POOL_2D", None)

    def _pool(self, node: Any, wanted: Quantisation, kind: str, value: int | None) -> int:
        found = attributes(node)
        source = self._operand(node, 0)
        windows = self._windows(node, source, found["kernel_shape"])
        if windows.dilations != (1, 1):
            raise self._unsupported(node, "TFLite has no dilated pooling")
        size = self._shape(source)[1:3]
        if kind == "AVERAGE_POOL_2D" and windows.padded:
            # SAME leaves padding out of the mean, a PAD takes it in.
            counted = bool(found.get("count_include_pad", 0))
            if counted == windows.same(size):
                raise self._unsupported(node, "its padding has no equal in TFLite")
        pooled, padding = self._padded(node.name, source, windows, value)
        result = self._emit(
            node.name,
            kind,
            (pooled,),
            (1, *windows.output, self._shape(source)[3]),
            self._of(source),
            padding=padding,
            strideH=windows.strides[0],
            strideW=windows.strides[1],
            filterHeight=windows.kernel[0],
            filterWidth=windows.kernel[1],
        )
        return self._requantised(node.name, result, wanted)

    def global_mean(self, node: Any, wanted: Quantisation) -> int:
        source = self._operand(node, 0)
        axes = self._constant(f"{node.name}.axes", np.array([1, 2], np.int32))
        shape = (1, 1, 1, self._shape(source)[3])
        return self._emit(node.name, "MEAN", (source, axes), shape, wanted, keepDims=True)

    def relu(self, node: Any, wanted: Quantisation) -> int:
        source = self._operand(node, 0)
        return self._emit(node.name, "RELU", (source,), self._shape(source), wanted)

    def clip(self, node: Any, wanted: Quantisation) -> int:
        limits = []
        for position in (1, 2):
            value = self._graph.array(node, position)
            name = node.input[position] if position < len(node.input) else ""
            if value is None and name in self._reads:
                codes, meaning = self._meaning(self._reads[name])
                value = (self._graph.arrays[codes] - meaning.zero_point) * meaning.scale
            limits.append(math.nan if value is None else float(np.ravel(value)[0]))
        if not np.allclose(limits, (0, 6)):
            raise self._unsupported(node, "only limits of 0 and 6 are exported")
        source = self._operand(node, 0)
        return self._emit(node.name, "RELU6", (source,), self._shape(source), wanted)

    def leaky_relu(self, node: Any, wanted: Quantisation) -> int:
        source = self._operand(node, 0)
        alpha = float(attributes(node).get("alpha", 0.01))
        shape = self._shape(source)
        return self._emit(node.name, "LEAKY_RELU", (source,), shape, wanted, alpha=alpha)

    def logistic(self, node: Any, wanted: Quantisation) -> int:
        source = self._operand(node, 0)
        fixed = Quantisation(np.array([_LOGISTIC_SCALE], np.float32), LOWEST)
        result = self._emit(node.name, "LOGISTIC", (source,), self._shape(source), fixed)
        return self._requantised(node.name, result, wanted)

    def reshape(self, node: Any, wanted: Quantisation) -> int:
        source = self._operand(node, 0)
        before = _as_nchw(self._shape(source))
        after = self._new_shape(node, before)
        quantisation = self._of(source)
        if len(before) == _MAP_RANK and min(before[1], before[2] * before[3]) > 1:
            source = self._transposed(node.name, source, _TO_NCHW, before, quantisation)
        is_map = len(after) == _MAP_RANK
        direct = not is_map or min(after[1], after[2] * after[3]) == 1
        stored = tuple(after[axis] for axis in _TO_NHWC) if is_map and direct else after
        shape = self._constant(f"{node.name}.shape", np.array(stored, np.int32))
        result = self._emit(
            f"{node.name}",
            "RESHAPE",
            (source, shape),
            stored,
            quantisation,
            newShape=[int(n) for n in stored],
        )
        if not direct:
            shape_nhwc = tuple(after[axis] for axis in _TO_NHWC)
            result = self._transposed(
                f"{node.name}.nhwc", result, _TO_NHWC, shape_nhwc, quantisation
            )
        return self._requantised(node.name, result, wanted)

    def _transposed(
        self,
        name: str,
        source: int,
        order: Sequence[int],
        shape: Sequence[int],
        quantisation: Quantisation,
    ) -> int:
        axes = self._constant(f"{name}.order", np.array(order, np.int32))
        return self._emit(f"{name}.transpose", "TRANSPOSE", (source, axes), shape, quantisation)

    def _new_shape(self, node: Any, before: tuple[int, ...]) -> tuple[int, ...]:
        """The shape, in ONNX's order of axes, behind an operator that only renames axes."""
        found, operand = attributes(node), self._graph.array(node, 1)
        if node.op_type == "Flatten":
            first = math.prod(before[: found.get("axis", 1)])
            return (first, math.prod(before) // first)
        axes = found.get("axes", operand)
        if node.op_type == "Squeeze":
            if axes is None:
                raise self._unsupported(node, "its axes are not stored")
            gone = {int(axis) % len(before) for axis in np.ravel(axes)}
            return tuple(n for axis, n in enumerate(before) if axis not in gone)
        if node.op_type == "Unsqueeze":
            if axes is None:
                raise self._unsupported(node, "its axes are not stored")
            shape = list(before)
            added = [int(axis) for axis in np.ravel(axes)]
            for axis in sorted(axis % (len(before) + len(added)) for axis in added):
                shape.insert(axis, 1)
            return tuple(shape)
        if operand is None:
            raise self._unsupported(node, "its shape is computed, not stored")
        kept = not found.get("allowzero", 0)
        shape = [before[i] if n == 0 and kept else int(n) for i, n in enumerate(operand)]
        if -1 in shape:
            shape[shape.index(-1)] = math.prod(before) // -math.prod(shape)
        if math.prod(shape) != math.prod(before):
            raise self._unsupported(node, f"its shape {shape} does not hold one window")
        return tuple(shape)

    def concat(self, node: Any, wanted: Quantisation) -> int:
        operands = [self._operand(node, position) for position in range(len(node.input))]
        operands = [
            self._requantised(f"{node.name}.{position}", tensor, wanted)
            for position, tensor in enumerate(operands)
        ]
        shapes = [self._shape(tensor) for tensor in operands]
        rank = len(shapes[0])
        axis = int(attributes(node)["axis"]) % rank
        axis = _TO_NHWC.index(axis) if rank == _MAP_RANK else axis
        shape = list(shapes[0])
        shape[axis] = sum(one[axis] for one in shapes)
        return self._emit(node.name, "CONCATENATION", operands, shape, wanted, axis=axis)


def _as_nchw(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _TO_NCHW) if len(shape) == _MAP_RANK else shape


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    """Rows and columns, the first two."""
    return sizes[0], sizes[1]


_OPERATORS: dict[str, Callable[[_Conversion, Any, Quantisation], int]] = {
    "Conv": _Conversion.conv,
    "Gemm": _Conversion.linear,
    "MatMul": _Conversion.linear,
    "Add": _Conversion.binary,
    "Mul": _Conversion.binary,
    "MaxPool": _Conversion.max_pool,
    "AveragePool": _Conversion.average_pool,
    "GlobalAveragePool": _Conversion.global_mean,
    "Relu": _Conversion.relu,
    "Clip": _Conversion.clip,
    "LeakyRelu": _Conversion.leaky_relu,
    "Sigmoid": _Conversion.logistic,
    "Reshape": _Conversion.reshape,
    "Flatten": _Conversion.reshape,
    "Squeeze": _Conversion.reshape,
    "Unsqueeze": _Conversion.reshape,
    "Concat": _Conversion.concat,
}
