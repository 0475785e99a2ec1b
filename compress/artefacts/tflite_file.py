"""Weights, MACs and activation memory of a .tflite file, from the file alone.

As in an ONNX file, what a stored number is gets decided by the operator that reads it, at which
operand: whatever is not shown to be a shape or a setting is a weight. Two tensors in one range of
bytes are one weight. Sizes are those of the batch that the file is fixed to.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from compress.artefacts.flatbuffer_tables import FlatBuffer, Table
from compress.artefacts.summary import (
    MOST_SETTINGS,
    QUANTISATION,
    SETTINGS,
    FileSummary,
    Layer,
    read_whole,
)
from compress.errors import InputError

IDENTIFIER = b"TFL3"
_MOST_BYTES = 2**31 - 1  # the format's own limit
_MOST_AXES = 16
_MOST_NAME = 200  # characters of a tensor's name that are shown

_BITS = {
    0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64, 15: 32,
    16: 16, 17: 4, 18: 16, 19: 2, 20: 4, 21: 8, 22: 8,
}  # fmt: skip
_STRING, _OPAQUE = 5, (13, 14)
_SMALL_TYPES = (3, 9, 17, 19, 20)  # uint8, int8, and of 4 and 2 bits
_NOT_WEIGHT_TYPES = (4, _STRING, 6)  # int64, string, bool: positions, texts, masks

_OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE", 7: "EMBEDDING_LOOKUP", 9: "FULLY_CONNECTED", 14: "LOGISTIC", 16: "LSTM",
    17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR",
    24: "RNN", 25: "SOFTMAX", 27: "SVDF", 28: "TANH", 32: "CUSTOM", 34: "PAD",
    35: "UNIDIRECTIONAL_SEQUENCE_RNN", 36: "GATHER", 37: "BATCH_TO_SPACE_ND",
    38: "SPACE_TO_BATCH_ND", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE",
    44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 45: "STRIDED_SLICE", 46: "BIDIRECTIONAL_SEQUENCE_RNN",
    48: "TOPK_V2", 49: "SPLIT", 52: "BIDIRECTIONAL_SEQUENCE_LSTM", 53: "CAST", 54: "PRELU",
    55: "MAXIMUM", 56: "ARG_MAX", 57: "MINIMUM", 60: "PADV2", 65: "SLICE", 67: "TRANSPOSE_CONV",
    69: "TILE", 70: "EXPAND_DIMS", 74: "SUM", 81: "REDUCE_PROD", 82: "REDUCE_MAX", 83: "PACK",
    85: "ONE_HOT", 88: "UNPACK", 89: "REDUCE_MIN", 94: "FILL", 97: "RESIZE_NEAREST_NEIGHBOR",
    98: "LEAKY_RELU", 100: "MIRROR_PAD", 102: "SPLIT_V", 105: "REVERSE_V2", 114: "QUANTIZE",
    116: "ROUND", 117: "HARD_SWISH", 118: "IF", 119: "WHILE", 126: "BATCH_MATMUL", 128: "CUMSUM",
    130: "BROADCAST_TO", 132: "CONV_3D", 141: "CONV_3D_TRANSPOSE",
}  # fmt: skip
_CUSTOM = 32
_SETTINGS_AT = {
    "RESHAPE": (1,), "PAD": (1,), "PADV2": (1, 2), "MIRROR_PAD": (1,), "TRANSPOSE": (1,),
    "MEAN": (1,), "SUM": (1,), "REDUCE_PROD": (1,), "REDUCE_MAX": (1,), "REDUCE_MIN": (1,),
    "STRIDED_SLICE": (1, 2, 3), "SLICE": (1, 2), "SPLIT": (0,), "SPLIT_V": (1, 2),
    "EXPAND_DIMS": (1,), "TILE": (1,), "TOPK_V2": (1,), "ARG_MAX": (1,), "BROADCAST_TO": (1,),
    "FILL": (0,), "SPACE_TO_BATCH_ND": (1, 2), "BATCH_TO_SPACE_ND": (1, 2), "REVERSE_V2": (1,),
    "CUMSUM": (1,), "RESIZE_BILINEAR": (1,), "RESIZE_NEAREST_NEIGHBOR": (1,),
    "TRANSPOSE_CONV": (0,), "GATHER": (1,), "ONE_HOT": (1, 2, 3),
}  # fmt: skip
# Operators that multiply and accumulate in a way that is not counted here.
_UNCOUNTED = (
    "LSTM", "RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_RNN", "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM", "CONV_3D", "CONV_3D_TRANSPOSE",
    "IF", "WHILE", "CUSTOM",
)  # fmt: skip


@dataclass(frozen=True)
class _Tensor:
    """shape: None where the file does not fix it. data: (place, bytes) of a constant."""

    name: str
    shape: tuple[int, ...] | None
    type: int
    data: tuple[int, int] | None

    @property
    def elements(self) -> int:
        return math.prod(self.shape or ())

    @property
    def bytes(self) -> int:
        return math.ceil(self.elements * _BITS.get(self.type, 8) / 8)


@dataclass(frozen=True)
class _Operator:
    kind: str
    custom: str  # name of a custom operator
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class _Graph:
    tensors: list[_Tensor]
    operators: list[_Operator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def name(self, operator: _Operator) -> str:
        """An operator goes by what it computes: the format has no other name for it."""
        named = [self.tensors[i].name for i in operator.outputs if i >= 0]
        return named[0] if named else operator.kind


def read(path: Path) -> FileSummary:
    """Figures of a .tflite file; raises InputError where it is corrupt."""
    content = read_whole(path, _MOST_BYTES)
    graphs, scales, unused = _parse(path, content)
    counted = [_constants(graph) for graph in graphs]
    params, apart, owners = _count(graphs, counted)
    params += unused
    apart[QUANTISATION] += sum(scales)
    quantised = _quantised(graphs, owners)
    layers, notes = _layers(graphs, owners)
    if unused:
        layers.append(Layer("buffers that no tensor refers to", "not used", unused))
    peak, where = None, None
    if len(graphs) == 1:
        peak, where = _peak_activation_bytes(graphs[0])
    if peak is None:
        notes.append("activation bytes cannot be told: not all sizes are fixed")
    compiled = sorted({o.custom for g in graphs for o in g.operators if o.custom})
    if compiled:
        notes.append(f"what custom operators hold counts as weights ({', '.join(compiled[:3])})")
    return FileSummary(
        path=path,
        kind="tflite",
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
        file_params=params,
        apart={group: count for group, count in apart.items() if count},
        layers=tuple(layers),
        macs=None if _uncounted(graphs) else sum(layer.macs or 0 for layer in layers),
        peak_activation_bytes=peak,
        peak_layer=where,
        flash_bytes=_stored_bytes(graphs, scales) + unused,
        quantised=quantised,
        notes=tuple(notes),
    )


def operators(path: Path) -> list[tuple[str, str]]:
    """(kind, name) of every operator of a file; a custom one goes by its own name as kind."""
    graphs, *_ = _parse(path, read_whole(path, _MOST_BYTES))
    return [(o.custom or o.kind, g.name(o)) for g in graphs for o in g.operators]


def metadata(path: Path) -> dict[str, str]:
    """The text entries that stand in the file beside the network, by name."""
    content = read_whole(path, _MOST_BYTES)
    model = _root(path, content)
    buffers = [_data(path, content, table) for table in model.tables(4)]
    found = {}
    for entry in model.tables(6):
        index = entry.number(1, "<I")
        data = buffers[index] if index < len(buffers) else None
        if data is not None:
            text = content[data[0] : data[0] + data[1]]
            found[entry.text(0)] = text.decode(errors="replace")
    return found


# --- from bytes to operators ---------------------------------------------------------------------


def _root(path: Path, content: bytes) -> Table:
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise InputError(f"{path}: not a .tflite file (it does not begin with {IDENTIFIER!r})")
    damaged = f"{path}: damaged .tflite file"
    return FlatBuffer(content, lambda why: InputError(f"{damaged}: {why}")).root()


def _parse(path: Path, content: bytes) -> tuple[list[_Graph], tuple[int, int], int]:
    """(graphs, how many scales and how many zero points, bytes that nothing refers to)."""
    model = _root(path, content)
    codes = [
        (max(code.number(0, "<b"), code.number(3, "<i")), code.text(1)) for code in model.tables(1)
    ]
    buffers = [_data(path, content, table) for table in model.tables(4)]
    if model.tables(9):
        raise InputError(f"{path}: keeps weights in other files, which is not read here")
    used = {entry.number(1, "<I") for entry in model.tables(6)} | set(model.numbers(5, "i"))
    graphs, scales, zero_points = [], 0, 0
    for graph in model.tables(2):
        tensors = []
        for table in graph.tables(0):
            index = table.number(2, "<I")
            if index >= max(len(buffers), 1):
                raise InputError(f"{path}: damaged .tflite file: a tensor has no buffer {index}")
            used.add(index)
            tensors.append(_tensor(path, table, buffers[index] if buffers else None))
            quantisation = table.table(4)
            if quantisation is not None:
                scales += quantisation.length(2, "f")
                zero_points += quantisation.length(3, "q")
        found = [_operator(path, table, codes, len(tensors)) for table in graph.tables(3)]
        ends = [_indices(path, graph, field, len(tensors)) for field in (1, 2)]
        graphs.append(_Graph(tensors, found, *ends))
    if not graphs:
        raise InputError(f"{path}: damaged .tflite file: holds no network")
    referred = {buffers[i] for i in used if 0 <= i < len(buffers)}
    unused = sum(data[1] for data in set(buffers) - referred if data is not None)
    return graphs, (scales, zero_points), unused


def _stored_bytes(graphs: list[_Graph], scales: tuple[int, int]) -> int:
    """Bytes of every stored number, each range of the file once, as in an ONNX file.

    Scales are stored in 4 bytes, zero points in 8.
    """
    ranges = {t.data for graph in graphs for t in graph.tensors if t.type != _STRING and t.data}
    return sum(length for _, length in ranges) + 4 * scales[0] + 8 * scales[1]


def _quantised(graphs: list[_Graph], owned: list[dict[int, int]]) -> bool:
    """Whether most of the weights are stored in integers of at most 8 bits."""
    small = sum(
        count
        for graph, counts in zip(graphs, owned, strict=True)
        for index, count in counts.items()
        if graph.tensors[index].type in _SMALL_TYPES
    )
    return 2 * small > sum(sum(counts.values()) for counts in owned)


def _data(path: Path, content: bytes, table: Table) -> tuple[int, int] | None:
    """(place, bytes) of a buffer's content; None for an empty one."""
    place, length = table.number(1, "<Q"), table.number(2, "<Q")
    if place > 1:  # content behind the flatbuffer, for files over 2 GB
        if place + length > len(content):
            raise InputError(f"{path}: damaged .tflite file: a buffer ends behind the file")
        return (place, length) if length else None
    found = table.span(0)
    return found if found and found[1] else None


def _tensor(path: Path, table: Table, data: tuple[int, int] | None) -> _Tensor:
    name = table.text(3)[:_MOST_NAME]
    if table.length(0, "i") > _MOST_AXES or table.length(7, "i") > _MOST_AXES:
        raise InputError(f"{path}: damaged .tflite file: tensor {name!r} has too many axes")
    shape, signature = table.numbers(0, "i"), table.numbers(7, "i")
    kind = table.number(1, "<b")
    if kind not in _BITS and kind != _STRING and kind not in _OPAQUE:
        raise InputError(f"{path}: tensor {name!r} has an unknown type {kind}")
    fixed = all(n >= 0 for n in (*shape, *signature))
    tensor = _Tensor(name, shape if fixed else None, kind, data)
    if data is None:
        return tensor
    if table.table(6) is not None:
        raise InputError(f"{path}: tensor {name!r} is stored sparsely, which is not read here")
    if not fixed or kind in _OPAQUE or (kind != _STRING and tensor.bytes != data[1]):
        raise InputError(
            f"{path}: damaged .tflite file: tensor {name!r} declares {list(shape)} and holds "
            f"{data[1]:,} bytes"
        )
    return tensor


def _operator(path: Path, table: Table, codes: list[tuple[int, str]], tensors: int) -> _Operator:
    index = table.number(0, "<I")
    if index >= len(codes):
        raise InputError(f"{path}: damaged .tflite file: an operator has no code {index}")
    code, custom = codes[index]
    kind = _OPERATORS.get(code, f"BUILTIN_{code}")
    ends = [_indices(path, table, field, tensors) for field in (1, 2)]
    return _Operator(kind, (custom or "CUSTOM") if code == _CUSTOM else "", *ends)


def _indices(path: Path, table: Table, field: int, tensors: int) -> tuple[int, ...]:
    found = table.numbers(field, "i")
    if any(not -1 <= index < tensors for index in found):
        raise InputError(f"{path}: damaged .tflite file: an operator refers to no tensor")
    return found


# --- which stored numbers are weights ------------------------------------------------------------


def _constants(graph: _Graph) -> dict[int, bool]:
    """Constant tensor -> whether it is a weight, by who reads it."""
    weight: dict[int, bool] = {}
    for operator in graph.operators:
        settings = _SETTINGS_AT.get(operator.kind, ())
        for position, index in enumerate(operator.inputs):
            if index < 0 or graph.tensors[index].data is None:
                continue
            tensor = graph.tensors[index]
            may_be = tensor.type in _NOT_WEIGHT_TYPES or position in settings
            setting = _few(tensor) if may_be else tensor.elements <= 1
            weight[index] = weight.get(index, False) or not setting
    for index, tensor in enumerate(graph.tensors):
        if tensor.data is not None and index not in weight:
            weight[index] = tensor.type not in _NOT_WEIGHT_TYPES or not _few(tensor)
    return weight


def _few(tensor: _Tensor) -> bool:
    """Whether these may be settings: texts, or no more numbers than settings have."""
    return tensor.type == _STRING or tensor.elements <= MOST_SETTINGS


def _count(
    graphs: list[_Graph], constants: list[dict[int, bool]]
) -> tuple[int, Counter[str], list[dict[int, int]]]:
    """(weights, numbers apart by group, weights of each graph by tensor): every range once."""
    apart: Counter[str] = Counter()
    owned: list[dict[int, int]] = []
    params, places = 0, set()
    for graph, roles in zip(graphs, constants, strict=True):
        owned.append({})
        for index, is_weight in roles.items():
            tensor = graph.tensors[index]
            if is_weight and tensor.data not in places:
                places.add(tensor.data)
                params += tensor.elements
                owned[-1][index] = tensor.elements
    for graph, roles in zip(graphs, constants, strict=True):
        for index, is_weight in roles.items():
            tensor = graph.tensors[index]
            if not is_weight and tensor.data not in places:
                places.add(tensor.data)
                apart[SETTINGS] += tensor.elements
    return params, apart, owned


# --- layers, multiply-accumulates, memory --------------------------------------------------------


def _layers(
    graphs: list[_Graph], owned: list[dict[int, int]]
) -> tuple[list[Layer], list[str]]:
    layers = []
    for graph, left in zip(graphs, owned, strict=True):
        for operator in graph.operators:
            weights = [i for i in dict.fromkeys(operator.inputs) if i in left]
            params = sum(left.pop(index) for index in weights)
            macs = _macs(graph, operator) if _countable(graph, operator) else None
            if not weights and macs is None:
                continue
            shape = graph.tensors[operator.outputs[0]].shape if operator.outputs else None
            names = tuple(graph.tensors[index].name for index in weights)
            layers.append(
                Layer(
                    graph.name(operator), operator.kind, params, macs, shape, names,
                    sum(graph.tensors[index].bytes for index in weights),
                )
            )
        layers += [
            Layer(graph.tensors[i].name, "not used", n, weights=(graph.tensors[i].name,))
            for i, n in left.items()
        ]
    uncounted = _uncounted(graphs)
    notes = []
    if uncounted:
        shown = ", ".join(uncounted[:3]) + (" ..." if len(uncounted) > 3 else "")
        notes.append(f"MACs cannot be counted: {len(uncounted)} operators ({shown})")
    return layers, notes


_MULTIPLYING = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"
)  # fmt: skip
_RANKS = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 4}


def _operands(operator: _Operator) -> tuple[int, int] | None:
    """Tensors (data, weight) of an operator that multiplies; None where one is absent."""
    positions = (2, 1) if operator.kind == "TRANSPOSE_CONV" else (0, 1)
    if len(operator.inputs) <= max(positions) or not operator.outputs:
        return None
    found = tuple(operator.inputs[position] for position in positions)
    return None if min(*found, operator.outputs[0]) < 0 else found  # type: ignore[return-value]


def _countable(graph: _Graph, operator: _Operator) -> bool:
    found = _operands(operator)
    if operator.kind not in _MULTIPLYING or found is None:
        return False
    shapes = [graph.tensors[i].shape for i in (*found, operator.outputs[0])]
    if any(shape is None for shape in shapes) or not shapes[0]:
        return False
    return len(shapes[1] or ()) == _RANKS.get(operator.kind, len(shapes[1] or ()))


def _uncounted(graphs: list[_Graph]) -> list[str]:
    return [
        graph.name(operator)
        for graph in graphs
        for operator in graph.operators
        if operator.kind in _UNCOUNTED
        or (operator.kind in _MULTIPLYING and not _countable(graph, operator))
    ]


def _macs(graph: _Graph, operator: _Operator) -> int:
    """Multiply-accumulates of a countable operator."""
    data, weight = (graph.tensors[i].shape or () for i in _operands(operator) or ())
    output = graph.tensors[operator.outputs[0]].elements
    if operator.kind == "CONV_2D":  # weight (out channels, rows, columns, in channels)
        return output * math.prod(weight[1:])
    if operator.kind == "DEPTHWISE_CONV_2D":  # weight (1, rows, columns, out channels)
        return output * math.prod(weight[1:3])
    if operator.kind == "TRANSPOSE_CONV":  # weight (out channels, rows, columns, in channels)
        return math.prod(data) * math.prod(weight[:3])
    if operator.kind == "FULLY_CONNECTED":  # weight (outputs, inputs)
        return output * weight[1]
    return output * data[-1]


def _peak_activation_bytes(graph: _Graph) -> tuple[int | None, str | None]:
    """(peak, operator at which it stands): nothing is computed in place, as TFLite Micro plans.

    A tensor lives from the operator that computes it to the last one that reads it.
    """
    born: dict[int, int] = dict.fromkeys((i for i in graph.inputs if i >= 0), 0)
    dies = dict(born)
    end = len(graph.operators)
    for number, operator in enumerate(graph.operators):
        for index in (*operator.inputs, *operator.outputs):
            if index >= 0 and graph.tensors[index].data is None:
                born.setdefault(index, number)
                dies[index] = number
    for index in graph.outputs:
        if index in born:
            dies[index] = end
    if any(graph.tensors[index].shape is None for index in born):
        return None, None
    changes = [0] * (end + 2)
    for index, number in born.items():
        changes[number] += graph.tensors[index].bytes
        changes[dies[index] + 1] -= graph.tensors[index].bytes
    alive = peak = 0
    where = None
    for number, operator in enumerate(graph.operators):
        alive += changes[number]
        if alive > peak:
            peak, where = alive, graph.name(operator)
    return peak, where
