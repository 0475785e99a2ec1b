"""A float ONNX file as the same function in operators that have int8 kernels.

    batch norm behind a convolution           into its weights
    batch norm before a linear layer          into its weights, also through a global average
    batch norm before an unpadded convolution into its weights
    batch norm elsewhere                      a depthwise 1 x 1 convolution: integer arithmetic
    mean over both axes of a map              global average pooling
    dropout, identity                         gone

The AudioBots' batch norms stand behind the activation and before a padded convolution: the padding
is 0 behind the batch norm, so folding its shift forward would change the borders. As a depthwise
convolution it costs one multiply-accumulate per value and is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.artefacts import onnx_file
from compress.errors import InputError
from compress.int8.graph import WEIGHT_OPERATORS, EditableGraph, attributes, subgraph_nodes
from compress.int8.interface import Step

_SHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_LEAST_OPSET = 13  # per-channel DequantizeLinear
_OPSET = 18


@dataclass(frozen=True)
class FloatLayer:
    """A weight operator and what follows it up to the next one: the unit of mixed precision.

    name: the parameter's name in the network, where the file keeps it. nodes: names, in order.
    """

    name: str
    operator: str
    nodes: tuple[str, ...]
    params: int


@dataclass(frozen=True)
class Prepared:
    """A float model that is ready to be quantised.

    standardised: the tensor behind the normalisation of the input, which is
    ``dB * gain + offset`` with one number per mel band, or one for all; ``step`` says where it is
    another line below a knee.
    """

    path: Path
    model: Any
    input: str
    output: str
    normalising: tuple[str, ...]
    standardised: str
    gain: np.ndarray
    offset: np.ndarray
    layers: tuple[FloatLayer, ...]
    step: Step | None = None


def prepare(path: Path) -> Prepared:
    """Read a float ONNX file and rewrite it; raises InputError where int8 cannot be made of it."""
    import onnx

    onnx_file.read(path)  # refuses damaged files and data outside the folder, before it is loaded
    model = _at_opset(onnx.load(path), path)
    _refuse(model, path)
    graph = EditableGraph(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise InputError(
            f"{path}: has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
            "a classifier with one of each can be quantised"
        )
    for node in list(graph.nodes):
        if node.op_type in ("Identity", "Dropout") and node.input[0] not in graph.inputs:
            graph.bypass(node)
    ranks = _ranks(graph.write())
    for node in [n for n in graph.nodes if n.op_type == "ReduceMean"]:
        _mean_to_pooling(graph, node, ranks)
    for node in [n for n in graph.nodes if n.op_type == "BatchNormalization"]:
        _fold_batch_norm(graph, node, ranks)
    normalising, standardised, gain, offset, step = _normalisation(graph)
    layers = _layers(graph, normalising)
    if not layers:
        listed = ", ".join(sorted({n.op_type for n in graph.nodes})[:8])
        raise InputError(
            f"{path}: has no convolution or linear layer with stored weights, nothing to quantise "
            f"(its operators: {listed})"
        )
    return Prepared(
        path,
        graph.write(),
        graph.inputs[0],
        graph.outputs[0],
        normalising,
        standardised,
        gain,
        offset,
        layers,
        step,
    )


def ends_of(model: Any, path: Path) -> Prepared:
    """What ``static.with_coded_ends`` has to know of a file that is quantised already.

    Its layers are left out; raises InputError where it has several inputs or outputs.
    """
    graph = EditableGraph(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise InputError(f"{path}: has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    normalising, standardised, gain, offset, step = _normalisation(graph)
    return Prepared(path, model, graph.inputs[0], graph.outputs[0], normalising, standardised,
                    gain, offset, (), step)  # fmt: skip


def _at_opset(model: Any, path: Path) -> Any:
    import onnx.version_converter

    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version < _LEAST_OPSET:
            try:
                return onnx.version_converter.convert_version(model, _OPSET)
            except Exception as error:  # C++ raises RuntimeError and others
                raise InputError(
                    f"{path}: opset {entry.version} is too old for per-channel weights and cannot "
                    f"be converted ({' '.join(str(error).split())[:120]}); export it again"
                ) from None
    return model


def _refuse(model: Any, path: Path) -> None:
    """Operators that calibration cannot look into, and files that are quantised already."""
    for node in subgraph_nodes(model):
        raise InputError(
            f"{path}: unsupported operator {node.op_type} in layer "
            f"{node.name or node.output[0]!r}: activations inside control flow cannot be calibrated"
        )
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.op_type.startswith(
            ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantize")
        ):
            raise InputError(f"{path}: is quantised already ({node.op_type}); give the float file")
        if node.op_type in ("LSTM", "GRU", "RNN"):
            raise InputError(
                f"{path}: unsupported operator {node.op_type} in layer "
                f"{node.name or node.output[0]!r}: recurrent layers have no int8 kernel here"
            )


def _ranks(model: Any) -> dict[str, int]:
    from onnx import shape_inference

    try:
        inferred = shape_inference.infer_shapes(model).graph
    except Exception:  # only convenience: an unknown rank leaves the operator as it is
        return {}
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _mean_to_pooling(graph: EditableGraph, node: Any, ranks: dict[str, int]) -> None:
    """ReduceMean over both axes of a map -> GlobalAveragePool (and Flatten)."""
    from onnx import helper

    found = attributes(node)
    axes = found.get("axes", graph.array(node, 1))
    if ranks.get(node.input[0]) != 4 or axes is None:
        return
    if sorted(int(axis) % 4 for axis in np.ravel(axes)) != [2, 3]:
        return
    kept = found.get("keepdims", 1)
    result = node.output[0]
    pooled = result if kept else f"{result}.pooled"
    pool = helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name)
    graph.insert_before(node, pool)
    if not kept:
        flat = helper.make_node("Flatten", [pooled], [result], name=f"{node.name}.flat", axis=1)
        graph.insert_before(node, flat)
    graph.nodes = [n for n in graph.nodes if n is not node]


# --- batch norm ----------------------------------------------------------------------------------


def _fold_batch_norm(graph: EditableGraph, node: Any, ranks: dict[str, int]) -> None:
    stored = [graph.array(node, position) for position in range(1, 5)]
    if any(value is None for value in stored) or len(node.output) > 1 and any(node.output[1:]):
        return
    scale, shift, mean, variance = (np.asarray(v, dtype=np.float64) for v in stored)
    factor = scale / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    shift = shift - mean * factor
    before = graph.producer(node.input[0])
    alone = before is not None and graph.only_reader(node.input[0]) is node
    folded = alone and _fold_backward(graph, before, factor, shift)
    if folded or _fold_forward(graph, node, factor, shift):
        graph.bypass(node)
    elif ranks.get(node.input[0]) == 4:
        _to_depthwise(graph, node, factor, shift)


def _fold_backward(graph: EditableGraph, layer: Any, factor: np.ndarray, shift: np.ndarray) -> bool:
    weight = graph.array(layer, 1)
    if layer.op_type != "Conv" or weight is None:
        return False
    bias = graph.array(layer, 2)
    bias = np.zeros(len(factor)) if bias is None else bias.astype(np.float64)
    scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    graph.replace_operand(layer, 1, scaled.astype(weight.dtype))
    graph.replace_operand(layer, 2, (bias * factor + shift).astype(weight.dtype))
    return True


def _fold_forward(graph: EditableGraph, node: Any, factor: np.ndarray, shift: np.ndarray) -> bool:
    """Into the one layer that reads the batch norm, where that is exact."""
    reader = graph.only_reader(node.output[0])
    if reader is None:
        return False
    if reader.op_type == "Conv" and reader.input[0] == node.output[0]:
        return _into_convolution(graph, reader, factor, shift)
    if reader.op_type != "GlobalAveragePool":
        return False
    while reader is not None and reader.op_type in ("GlobalAveragePool", *_SHAPING):
        last = reader.output[0]
        reader = graph.only_reader(last)
    if reader is None or reader.op_type != "Gemm" or reader.input[0] != last:
        return False
    return _into_linear(graph, reader, factor, shift)


def _into_convolution(
    graph: EditableGraph, layer: Any, factor: np.ndarray, shift: np.ndarray
) -> bool:
    found, weight = attributes(layer), graph.array(layer, 1)
    padded = any(found.get("pads", ())) or found.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    )
    if weight is None or padded:
        return False
    outputs, per_group = weight.shape[:2]
    group = np.arange(outputs) // (outputs // found.get("group", 1))
    channels = group[:, None] * per_group + np.arange(per_group)  # (outputs, inputs per group)
    extra = [1] * (weight.ndim - 2)
    bias = graph.array(layer, 2)
    bias = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    moved = (weight * shift[channels].reshape(*channels.shape, *extra)).reshape(outputs, -1).sum(1)
    scaled = weight * factor[channels].reshape(*channels.shape, *extra)
    graph.replace_operand(layer, 1, scaled.astype(weight.dtype))
    graph.replace_operand(layer, 2, (bias + moved).astype(weight.dtype))
    return True


def _into_linear(graph: EditableGraph, layer: Any, factor: np.ndarray, shift: np.ndarray) -> bool:
    found, weight = attributes(layer), graph.array(layer, 1)
    plain = found.get("alpha", 1.0) == found.get("beta", 1.0) == 1.0 and not found.get("transA", 0)
    if weight is None or not plain:
        return False
    matrix = weight if found.get("transB", 0) else weight.T  # (outputs, inputs)
    if matrix.shape[1] != len(factor):
        return False
    bias = graph.array(layer, 2)
    if bias is None and len(layer.input) > 2 and layer.input[2]:
        return False
    bias = np.zeros(len(matrix)) if bias is None else bias.astype(np.float64)
    scaled = matrix * factor
    scaled = scaled if found.get("transB", 0) else scaled.T
    graph.replace_operand(layer, 2, (bias + matrix @ shift).astype(weight.dtype))
    graph.replace_operand(layer, 1, np.ascontiguousarray(scaled).astype(weight.dtype))
    return True


def _to_depthwise(graph: EditableGraph, node: Any, factor: np.ndarray, shift: np.ndarray) -> None:
    from onnx import helper

    name = node.input[1].rpartition(".")[0] or node.name
    weight = graph.store(f"{name}.factor", factor.astype(np.float32).reshape(-1, 1, 1, 1))
    bias = graph.store(f"{name}.shift", shift.astype(np.float32))
    layer = helper.make_node(
        "Conv",
        [node.input[0], weight, bias],
        [node.output[0]],
        name=node.name,
        group=len(factor),
        kernel_shape=[1, 1],
    )
    graph.insert_before(node, layer)
    graph.nodes = [n for n in graph.nodes if n is not node]


# --- what the graph is made of -------------------------------------------------------------------


_Line = tuple[list[str], str, np.ndarray, np.ndarray]
"""Names of affine nodes in a row, the tensor behind them, gain and offset."""


def _normalisation(
    graph: EditableGraph,
) -> tuple[tuple[str, ...], str, np.ndarray, np.ndarray, Step | None]:
    """(names of the nodes on the input, tensor behind them, gain, offset, step to silence)."""
    tensor = graph.inputs[0]
    bent = _two_lines(graph, tensor)
    if bent is not None:
        return bent
    names, tensor, gain, offset = _line(graph, tensor)
    gain, offset = np.broadcast_arrays(gain, offset)
    return tuple(names), tensor, gain.copy(), offset.copy(), None


def _line(graph: EditableGraph, tensor: str) -> _Line:
    """Follow additions and multiplications by stored numbers from ``tensor`` on."""
    gain, offset = np.ones(1), np.zeros(1)
    names: list[str] = []
    while (node := graph.only_reader(tensor)) is not None and len(node.input) == 2:
        position = 1 if node.input[0] == tensor else 0
        value = graph.array(node, position)
        bands = None if value is None else _per_band(value)
        if bands is None or (node.op_type in ("Sub", "Div") and position == 0):
            break
        if node.op_type == "Sub":
            offset = offset - bands
        elif node.op_type == "Add":
            offset = offset + bands
        elif node.op_type in ("Mul", "Div"):
            by = bands if node.op_type == "Mul" else 1.0 / bands
            gain, offset = gain * by, offset * by
        else:
            break
        names.append(node.name)
        tensor = node.output[0]
    return names, tensor, gain, offset


def _two_lines(
    graph: EditableGraph, tensor: str
) -> tuple[tuple[str, ...], str, np.ndarray, np.ndarray, Step] | None:
    """The sum of a line from a knee up and one from the floor to the knee (see material)."""
    clips = graph.readers(tensor)
    if len(clips) != 2 or any(node.op_type != "Clip" for node in clips):
        return None
    lines = []
    for node in clips:
        bounds = [graph.array(node, position) for position in (1, 2)]
        low, high = (None if b is None else float(b.reshape(-1)[0]) for b in bounds)
        lines.append((low, high, _line(graph, node.output[0]), node.name))
    sound, quiet = sorted(lines, key=lambda line: line[1] is not None)
    join, knee, floor = graph.only_reader(sound[2][1]), sound[0], quiet[0]
    if (
        join is None
        or join.op_type != "Add"
        or sorted(join.input) != sorted((sound[2][1], quiet[2][1]))
        or knee is None
        or floor is None
        or sound[1] is not None
        or knee != quiet[1]
    ):
        return None
    names = [sound[3], quiet[3], *sound[2][0], *quiet[2][0], join.name]
    (_, _, gain, offset), (_, _, slope, moved) = sound[2], quiet[2]
    gain, offset, slope = np.broadcast_arrays(gain, offset + slope * knee + moved, slope)
    step = Step(knee, floor, tuple(map(float, slope)))
    return tuple(names), join.output[0], gain.copy(), offset.copy(), step


def _per_band(value: np.ndarray) -> np.ndarray | None:
    """A constant as one number per mel band, or one for all; None for any other shape."""
    if value.size == 1:
        return value.reshape(1).astype(np.float64)
    if value.ndim >= 2 and value.size == value.shape[-2]:
        return value.reshape(-1).astype(np.float64)
    return None


def _layers(graph: EditableGraph, normalising: tuple[str, ...]) -> tuple[FloatLayer, ...]:
    """Every weight operator with the nodes behind it; a node belongs to its latest producer's."""
    layers: list[FloatLayer] = []
    members: list[list[str]] = []
    owner: dict[str, int] = {}  # tensor -> layer that it comes from
    for node in graph.nodes:
        if node.name in normalising:
            continue
        weight = _stored_weight(graph, node)
        if weight is not None:
            size = sum(graph.arrays[i].size for i in node.input if i in graph.arrays)
            layers.append(FloatLayer(_layer_name(weight, node), node.op_type, (), size))
            members.append([])
            number = len(layers) - 1
        else:
            number = max((owner.get(name, -1) for name in node.input), default=-1)
        if number >= 0:
            members[number].append(node.name)
            owner.update(dict.fromkeys(node.output, number))
    return tuple(
        replace(layer, nodes=tuple(names)) for layer, names in zip(layers, members, strict=True)
    )


def _stored_weight(graph: EditableGraph, node: Any) -> str | None:
    if node.op_type not in WEIGHT_OPERATORS:
        return None
    return next((name for name in node.input[:2] if name in graph.arrays), None)


def _layer_name(weight: str, node: Any) -> str:
    """``blocks.0.0`` of ``network.blocks.0.0.weight``, else the node's own name."""
    if not weight.startswith("network."):
        return node.name
    return weight.removeprefix("network.").rpartition(".")[0] or node.name
