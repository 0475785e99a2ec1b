"""Weights, MACs and activation memory of an ONNX file, from the file alone.

What a stored number is gets decided by who reads it, at which operand, never by its name:

    stored tensor -> (Cast, DequantizeLinear, Reshape ... of constants) -> operand of an operator

A number is a weight unless its readers show that it is something else. Sizes are those of batch 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from compress.artefacts import onnx_memory
from compress.artefacts.onnx_graph import STRING, Graph, Node, Stored, element_bytes, load
from compress.artefacts.summary import (
    FRONT_END,
    INPUT_SCALING,
    MOST_SETTINGS,
    QUANTISATION,
    RUNNING_STATISTICS,
    SETTINGS,
    FileSummary,
    Layer,
)
from compress.artefacts.wave_front_end import DECIBELS

# Roles that an operand gives; DATA leaves the decision to the tensor's type and rank.
_WEIGHT, _DATA = "weight", "data"
_PRIORITY = (_WEIGHT, RUNNING_STATISTICS, INPUT_SCALING, QUANTISATION, SETTINGS)

_S, _Q, _W = SETTINGS, QUANTISATION, _WEIGHT
_OPERANDS: dict[str, dict[int, str]] = {
    "Conv": {1: _W, 2: _W},
    "FusedConv": {1: _W, 2: _W},
    "ConvTranspose": {1: _W, 2: _W},
    "Gemm": {0: _W, 1: _W, 2: _W},
    "FusedGemm": {0: _W, 1: _W, 2: _W},
    "MatMul": {0: _W, 1: _W},
    "FusedMatMul": {0: _W, 1: _W},
    "ConvInteger": {1: _W, 2: _Q, 3: _Q},
    "MatMulInteger": {0: _W, 1: _W, 2: _Q, 3: _Q},
    "DynamicQuantizeMatMul": {0: _W, 1: _W, 2: _Q, 3: _Q, 4: _W},
    "MatMulIntegerToFloat": {0: _W, 1: _W, 2: _Q, 3: _Q, 4: _Q, 5: _Q, 6: _W},
    "QLinearConv": {1: _Q, 2: _Q, 3: _W, 4: _Q, 5: _Q, 6: _Q, 7: _Q, 8: _W},
    "QLinearMatMul": {0: _W, 1: _Q, 2: _Q, 3: _W, 4: _Q, 5: _Q, 6: _Q, 7: _Q},
    "QGemm": {0: _W, 1: _Q, 2: _Q, 3: _W, 4: _Q, 5: _Q, 6: _W, 7: _Q, 8: _Q},
    "QLinearAdd": {1: _Q, 2: _Q, 4: _Q, 5: _Q, 6: _Q, 7: _Q},
    "QLinearMul": {1: _Q, 2: _Q, 4: _Q, 5: _Q, 6: _Q, 7: _Q},
    "QLinearLeakyRelu": {1: _Q, 2: _Q, 3: _Q, 4: _Q},
    "QLinearSigmoid": {1: _Q, 2: _Q, 3: _Q, 4: _Q},
    "QLinearSoftmax": {1: _Q, 2: _Q, 3: _Q, 4: _Q},
    "QLinearGlobalAveragePool": {1: _Q, 2: _Q, 3: _Q, 4: _Q},
    "QLinearAveragePool": {1: _Q, 2: _Q, 3: _Q, 4: _Q},
    "MatMulNBits": {1: _W, 2: _Q, 3: _Q, 4: _S, 5: _W},
    "QuantizeLinear": {1: _Q, 2: _Q},
    "DequantizeLinear": {1: _Q, 2: _Q},
    "BatchNormalization": {1: _W, 2: _W, 3: RUNNING_STATISTICS, 4: RUNNING_STATISTICS},
    "Reshape": {1: _S},
    "Expand": {1: _S},
    "Tile": {1: _S},
    "Squeeze": {1: _S},
    "Unsqueeze": {1: _S},
    "Split": {1: _S},
    "Slice": {1: _S, 2: _S, 3: _S, 4: _S},
    "Pad": {1: _S, 2: _S, 3: _S},
    "Resize": {1: _S, 2: _S, 3: _S},
    "Upsample": {1: _S},
    "Clip": {1: _S, 2: _S},
    "Dropout": {1: _S, 2: _S},
    "TopK": {1: _S},
    "OneHot": {1: _S, 2: _S},
    "CumSum": {1: _S},
    "Trilu": {1: _S},
    "ConstantOfShape": {0: _S},
    "Range": {0: _S, 1: _S, 2: _S},
    "CenterCropPad": {1: _S},
    "Where": {0: _S},
    "Loop": {0: _S, 1: _S},
    "If": {0: _S},
    "Gather": {1: _S},
    "GatherElements": {1: _S},
    "GatherND": {1: _S},
    "ScatterND": {1: _S},
    "ScatterElements": {1: _S},
} | {
    f"Reduce{kind}": {1: _S}
    for kind in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
}
# Where data and indices are both stored, the indices may be the weights (a codebook).
_LOOKUPS = ("Gather", "GatherElements", "GatherND")
_NOT_WEIGHT_TYPES = (7, 8, 9)  # int64, string, bool: positions, counts, masks
_LEAST_BLOCK = 8  # stored numbers, two weights in each where they are packed
_SMALL_TYPES = (2, 3, 21, 22, 25, 26)  # uint8, int8, and of 4 and 2 bits

_AFFINE = ("Add", "Sub", "Mul", "Div")
_THROUGH = ("Cast", "Identity", "QuantizeLinear", "DequantizeLinear", "Unsqueeze")
_MOST_SCALING_STEPS = 4


def read(path: Path) -> FileSummary:
    """Figures of an ONNX file; raises InputError where it is corrupt or refers outside."""
    graph = load(path)
    constant = onnx_memory.constant_tensors(graph)
    roles = _roles(graph, constant)
    params, apart, weights_of = _count(graph, constant, roles)
    stored_bytes = _stored_bytes(graph)
    layers, notes = _layers(graph, constant, weights_of, stored_bytes)
    peak = onnx_memory.peak_activation_bytes(graph, constant)
    return FileSummary(
        path=path,
        kind="onnx",
        sha256=graph.sha256,
        file_bytes=graph.file_bytes,
        file_params=params,
        apart=dict(apart),
        layers=layers,
        macs=None if notes else sum(layer.macs or 0 for layer in layers),
        peak_activation_bytes=peak.value,
        peak_layer=peak.layer,
        at_peak=peak.alive,
        flash_bytes=sum(stored_bytes.values()),
        quantised=_quantised(graph, weights_of),
        notes=(*graph.notes, *notes, *((peak.reason,) if peak.reason else ())),
    )


# --- flash ---------------------------------------------------------------------------------------


def _stored_bytes(graph: Graph) -> dict[str, int]:
    """Bytes of every stored tensor, each once; their sum is the flash that a file needs.

    That is: weights, biases, scales, zero points, codebooks, input scaling, shapes, each in the
    type in which the file stores it, values of 4 bits two to a byte, every tensor rounded up to
    whole bytes. Names, the list of operators and the code that runs them are not in it: those are
    the runtime's, and differ from one to the next.
    """
    sizes = {
        key: math.ceil(stored.elements * element_bytes(stored.data_type))
        for key, stored in graph.stored.items()
        if stored.data_type != STRING
    }
    return {key: sizes[key] for key in _each_place_once(graph, sizes)}


def _each_place_once(graph: Graph, sizes: Mapping[str, Any]) -> list[str]:
    """Keys of ``sizes``; of several tensors at one place of external data the one of most size."""
    best: dict[object, str] = {}
    for key, size in sizes.items():
        place = graph.stored[key].place or key
        if place not in best or size > sizes[best[place]]:
            best[place] = key
    return list(best.values())


def _quantised(graph: Graph, weights_of: dict[str, int]) -> bool:
    small = sum(n for key, n in weights_of.items() if graph.stored[key].data_type in _SMALL_TYPES)
    return 2 * small > sum(weights_of.values())


# --- which stored numbers are weights ------------------------------------------------------------


def _roles(graph: Graph, constant: set[str]) -> dict[str, set[str]]:
    """Roles of every constant tensor: what its readers, or their readers, use it as."""
    behind = _stored_behind(graph, constant)
    scaling = _input_scaling(graph, constant)
    roles: dict[str, set[str]] = {}
    for key in graph.outputs:
        if key in constant:
            roles.setdefault(key, set()).add(_DATA)
    for number, node in reversed(list(enumerate(graph.nodes))):
        folded = bool(node.outputs) and all(out in constant for out in node.outputs if out)
        passed = set().union(*(roles.get(out, set()) for out in node.outputs)) if folded else set()
        operands = _OPERANDS.get(node.op, {})
        for position, key in enumerate(node.inputs):
            if key not in constant:
                continue
            role = operands.get(position, _DATA)
            if (node.op, position) == ("Pow", 1) and graph.shapes.get(key) in ((), (1,)):
                role = SETTINGS
            if node.op in _LOOKUPS and position == 1 and folded:
                role = _DATA
            if (number, key) in scaling:
                role = INPUT_SCALING
            if role in (QUANTISATION, RUNNING_STATISTICS) and not _serves_weights(
                node, key, operands, behind, graph
            ):
                role = _WEIGHT
            if role is _DATA and folded:
                roles.setdefault(key, set()).update(passed)
            else:
                roles.setdefault(key, set()).add(role)
    return roles


def _stored_behind(graph: Graph, constant: set[str]) -> dict[str, int]:
    """Constant tensor -> numbers in the largest stored tensor behind it, scales aside."""
    behind = {key: stored.elements for key, stored in graph.stored.items()}
    for node in graph.nodes:
        data = node.inputs[:1] if node.op == "DequantizeLinear" else node.inputs
        count = max((behind.get(key, 0) for key in data), default=0)
        behind |= {out: count for out in node.outputs if out in constant}
    return behind


def _serves_weights(
    node: Node, key: str, operands: Mapping[int, str], behind: Mapping[str, int], graph: Graph
) -> bool:
    """Whether scales or statistics are as few as the stored weights that they belong to allow.

    One number is always allowed; more need as many weights at the same operator, and numbers of
    blocks eight each.
    """
    weights = max(
        (behind.get(other, 0) for position, other in enumerate(node.inputs)
         if operands.get(position, _DATA) in (_WEIGHT, _DATA)),
        default=0,
    )  # fmt: skip
    per_number = _LEAST_BLOCK if len(graph.shapes.get(key, ())) > 1 else 1
    return behind.get(key, 0) <= 1 or behind[key] * per_number <= weights


def _input_scaling(graph: Graph, constant: set[str]) -> set[tuple[int, str]]:
    """(number of node, constant) of the scaling chained directly on the network's input.

    At most one value per mel band (the last axis but one of the input) is scaling; anything larger
    stays a weight.
    """
    chain = {key: 0 for key in graph.inputs if key not in constant}
    bands = {key: _bands(graph.inputs[key]) for key in chain}
    if graph.front_end_bands:  # the front end stands before the network, and gives its input
        chain[DECIBELS] = 0
        bands[DECIBELS] = graph.front_end_bands
    found = set()
    for number, node in enumerate(graph.nodes):
        moving = [key for key in node.inputs if key in chain]
        if len(moving) != 1 or node.nested or not node.outputs:
            continue
        source = moving[0]
        if node.op in _THROUGH and node.inputs[0] == source:
            steps = chain[source]
        elif node.op in _AFFINE and len(node.inputs) == 2:
            other = next((key for key in node.inputs if key != source), "")
            shape = graph.shapes.get(other)
            steps = chain[source] + 1
            if other not in constant or shape is None or steps > _MOST_SCALING_STEPS:
                continue
            across_bands = len(shape) >= 2 and shape[-2] or 1
            if math.prod(shape) != across_bands or across_bands > bands[source]:
                continue
            found.add((number, other))
        else:
            continue
        chain[node.outputs[0]] = steps
        bands[node.outputs[0]] = bands[source]
    return found


def _bands(shape: tuple[int | None, ...] | None) -> int:
    return (shape[-2] or 1) if shape and len(shape) >= 2 else 1


def _resolve(stored: Stored, roles: set[str]) -> str:
    """Weight, or the group of numbers that it stands in apart from the weights."""
    settled = {role for role in roles if role is not _DATA}
    if _DATA in roles or not roles:
        is_setting = stored.data_type in _NOT_WEIGHT_TYPES or (roles and stored.dims == ())
        settled.add(SETTINGS if is_setting else _WEIGHT)
    role = next(role for role in _PRIORITY if role in settled)
    disguised = stored.data_type != STRING and stored.elements > MOST_SETTINGS
    return _WEIGHT if role is SETTINGS and disguised else role


def _count(
    graph: Graph, constant: set[str], roles: dict[str, set[str]]
) -> tuple[int, Counter[str], dict[str, int]]:
    """(weights, numbers apart by group, weights by key): every stored tensor once."""
    params, apart = 0, Counter[str]()
    weights_of: dict[str, int] = {}
    packed = _packed_weights(graph)
    found = {
        key: FRONT_END if key in graph.front_end else _resolve(stored, roles.get(key, set()))
        for key, stored in graph.stored.items()
    }
    sizes = {
        key: (found[key] is _WEIGHT, packed.get(key, stored.elements))
        for key, stored in graph.stored.items()
    }
    for key in _each_place_once(graph, sizes):
        is_weight, elements = sizes[key]
        if is_weight:
            params += elements
            weights_of[key] = elements
        else:
            apart[found[key]] += elements
    return params, apart, weights_of


def _packed_weights(graph: Graph) -> dict[str, int]:
    """Weights behind tensors that pack several into a byte (onnxruntime's MatMulNBits)."""
    packed = {}
    for node in graph.nodes:
        if node.op == "MatMulNBits" and len(node.inputs) > 1 and node.inputs[1] in graph.stored:
            stored = graph.stored[node.inputs[1]]
            size = node.attributes
            declared = int(size.get("K", 0)) * int(size.get("N", 0))
            room = stored.elements * 8 // max(int(size.get("bits", 4)), 1)
            # The blocks of K are padded; what is declared may not be less than half of the room.
            packed[stored.key] = declared if room // 2 <= declared <= room else room
    return packed


# --- layers and multiply-accumulates -------------------------------------------------------------


def _layers(
    graph: Graph, constant: set[str], weights_of: dict[str, int], stored_bytes: dict[str, int]
) -> tuple[tuple[Layer, ...], list[str]]:
    """Layers that hold weights or compute, and notes on what was not counted."""
    owners = _owners(graph, constant, weights_of)
    flash = _owners(graph, constant, stored_bytes)
    layers: list[Layer] = []
    uncounted: list[str] = []
    unknown: list[str] = []
    for number, node in enumerate(graph.nodes):
        owned = owners.pop(number, [])
        macs = None
        if not all(out in constant for out in node.outputs if out):
            try:
                macs = _macs(node, graph)
            except _Unknown as error:
                unknown.append(f"{node.name}: {error}")
            except LookupError:
                uncounted.append(node.name)
        if node.nested and macs:
            macs = None
            uncounted.append(node.name)
        if owned or macs is not None:
            layers.append(
                Layer(
                    name=node.name,
                    kind=node.op,
                    params=sum(weights_of[key] for key in owned),
                    macs=macs,
                    output_shape=graph.shapes.get(node.outputs[0]) if node.outputs else None,
                    weights=tuple(graph.stored[key].name for key in owned),
                    flash_bytes=sum(stored_bytes[key] for key in flash.get(number, [])),
                )
            )
    for key in owners.pop(-1, []):
        name = graph.stored[key].name
        size = stored_bytes.get(key, 0)
        layers.append(Layer(name, "not used", weights_of[key], weights=(name,), flash_bytes=size))
    notes = [
        f"MACs cannot be counted: {len(names)} operators {why} "
        f"({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
        for names, why in (
            (uncounted, "whose size the file does not fix"),
            (unknown, "that are not known here"),
        )
        if names
    ]
    return tuple(layers), notes


def _owners(graph: Graph, constant: set[str], stored: Iterable[str]) -> dict[int, list[str]]:
    """Number of the first computing node behind each stored tensor -> its key; -1: none."""
    first_reader: dict[str, int] = {}
    for number in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[number]
        folded = bool(node.outputs) and all(out in constant for out in node.outputs if out)
        reader = number
        if folded:
            readers = [first_reader[out] for out in node.outputs if out in first_reader]
            if not readers:
                continue
            reader = min(readers)
        for key in node.inputs:
            if key in constant:
                first_reader[key] = min(reader, first_reader.get(key, reader))
    owners: dict[int, list[str]] = {}
    for key in stored:
        owners.setdefault(first_reader.get(key, -1), []).append(key)
    return owners


_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_GEMMS = {"Gemm": 1, "FusedGemm": 1, "QGemm": 3}
_MATMULS = (
    "MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
)  # fmt: skip
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Operators that move, compare, pool or change values one by one: nothing of convolutions and linear
# layers is in them. Any other may hold as many products as it likes.
_WITHOUT_PRODUCTS = frozenset((
    "Abs", "Acos", "Acosh", "Add", "AffineGrid", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan",
    "Atanh", "AveragePool", "BatchNormalization", "Bernoulli", "BiasGelu", "BitCast", "BitShift",
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow", "Cast", "CastLike",
    "Ceil", "Celu", "CenterCropPad", "Clip", "Col2Im", "Compress", "Concat", "ConcatFromSequence",
    "Constant", "ConstantOfShape", "Cos", "Cosh", "CumProd", "CumSum", "DepthToSpace",
    "DequantizeLinear", "Div", "Dropout", "DynamicQuantizeLinear", "Elu", "Equal", "Erf", "Exp",
    "Expand", "EyeLike", "FastGelu", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
    "Gelu", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
    "GridSample", "GroupNormalization", "HammingWindow", "HannWindow", "HardSigmoid", "HardSwish",
    "Hardmax", "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN", "LRN",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop",
    "LpNormalization", "LpPool", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean",
    "MeanVarianceNormalization", "MelWeightMatrix", "Min", "Mish", "Mod", "Mul", "Multinomial",
    "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Optional", "OptionalGetElement",
    "OptionalHasElement", "Or", "PRelu", "Pad", "Pow", "QLinearAdd", "QLinearAveragePool",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid",
    "QLinearSoftmax", "QuantizeLinear", "QuickGelu", "RMSNormalization", "RandomNormal",
    "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence",
    "RoiAlign", "RotaryEmbedding", "Round", "Scan", "Scatter", "ScatterElements", "ScatterND",
    "Selu", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceLength", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice",
    "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "SplitToSequence", "Sqrt",
    "Squeeze", "Sub", "Sum", "SwiGLU", "Swish", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu",
    "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Upsample", "Where", "Xor",
))  # fmt: skip


class _Unknown(LookupError):
    """An operator whose products nothing here can count; named by its type."""


def _macs(node: Node, graph: Graph) -> int | None:
    """Multiply-accumulates of one node; None where it has none to count.

    Raises LookupError where a shape that decides them is not known, or the operator itself.
    """

    def shape(position: int) -> tuple[int, ...]:
        return graph.shapes[node.inputs[position]]

    def output() -> int:
        return math.prod(graph.shapes[node.outputs[0]])

    op, attributes = node.op, node.attributes
    if op in _CONVOLUTIONS:
        # weight (out channels, in channels / groups, *kernel)
        return output() * math.prod(shape(_CONVOLUTIONS[op])[1:])
    if op == "ConvTranspose":
        # weight (in channels, out channels / groups, *kernel)
        return math.prod(shape(0)) * math.prod(shape(1)[1:])
    if op in _GEMMS:
        second = shape(_GEMMS[op])  # (K, N), or (N, K) transposed
        return output() * second[1 if attributes.get("transB", 0) else 0]
    if op in _MATMULS:
        first = shape(0)
        inner = first[-2] if attributes.get("transA", 0) and len(first) > 1 else first[-1]
        return output() * inner
    if op == "MatMulNBits":
        return math.prod(shape(0)[:-1]) * int(attributes.get("K", 0)) * int(attributes.get("N", 0))
    if op in _RECURRENT:
        steps_and_batch = math.prod(shape(0)[:2])
        return steps_and_batch * (math.prod(shape(1)) + math.prod(shape(2)))
    if op == "Einsum":
        return _einsum_macs(attributes, [shape(i) for i in range(len(node.inputs))])
    if op not in _WITHOUT_PRODUCTS:
        raise _Unknown(op)
    return None


def _einsum_macs(attributes: dict[str, object], shapes: list[tuple[int, ...]]) -> int | None:
    """The product of all index sizes, for contractions without an ellipsis."""
    equation = attributes.get("equation", b"")
    text = equation.decode(errors="replace") if isinstance(equation, bytes) else str(equation)
    terms = text.replace(" ", "").partition("->")[0].split(",")
    if len(terms) < 2:
        return None
    if "." in text or [len(term) for term in terms] != [len(shape) for shape in shapes]:
        raise LookupError("einsum")
    sizes = {
        index: size
        for term, shape in zip(terms, shapes, strict=True)
        for index, size in zip(term, shape, strict=True)
    }
    return math.prod(sizes.values())
