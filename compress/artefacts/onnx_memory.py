"""Activation memory of an ONNX graph, executed node by node in the order of the file, batch 1.

A tensor lives from the node that computes it to the last node that reads it. Three things take no
memory of their own:

    views         Reshape, Flatten, Squeeze ... share the buffer of what they view
    in place      an activation or batch norm overwrites its input where nothing else reads that
    int8 islands  DequantizeLinear -> operator -> QuantizeLinear runs in integers: tensors between
                  them are counted in their quantised type

Weights and everything computed from constants alone lie in flash and are not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from compress.artefacts.onnx_graph import Graph, Node, element_bytes

_VIEWS = ("Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze", "Dropout")
_IN_PLACE = (
    "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu",
    "Selu", "Celu", "Gelu", "FastGelu", "QuickGelu", "Mish", "Swish", "Softplus", "Softsign",
    "ThresholdedRelu", "Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Round", "Floor",
    "Ceil", "Sign", "BatchNormalization", "QLinearLeakyRelu", "QLinearSigmoid",
)  # fmt: skip
_IN_PLACE_WITH_CONSTANT = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
_SHAPE_ONLY = ("Shape", "Size")
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli")


def constant_tensors(graph: Graph) -> set[str]:
    """Keys of tensors that do not depend on the graph's inputs once the batch is fixed."""
    constant = set(graph.stored)
    for node in graph.nodes:
        fixed = node.op in _SHAPE_ONLY and node.inputs and node.inputs[0] in graph.shapes
        if node.has_subgraph or node.op in _RANDOM or not (fixed or node.inputs):
            continue
        if fixed or all(key in constant for key in node.inputs if key):
            constant.update(out for out in node.outputs if out)
    return constant


@dataclass(frozen=True)
class Buffers:
    """Which activations share memory, and when it is in use.

    home: tensor -> tensor whose buffer it lies in. sizes (bytes), born, dies: of each buffer;
    in use from node ``born`` to node ``dies``, both included. nodes: those that are executed.
    """

    home: dict[str, str]
    sizes: dict[str, int]
    born: dict[str, int]
    dies: dict[str, int]
    nodes: list[Node]


def buffers_of(graph: Graph) -> Buffers:
    """Buffers of a graph whose sizes are all fixed; raises ValueError where one is not."""
    constant = constant_tensors(graph)
    nodes = [node for node in graph.nodes if not all(out in constant for out in node.outputs)]
    sizes = _tensor_bytes(graph, nodes, constant)
    if isinstance(sizes, str):
        raise ValueError(f"the size of {sizes!r} is not fixed")
    return _buffers(graph, nodes, constant, sizes)


def peak_activation_bytes(
    graph: Graph, constant: set[str]
) -> tuple[int | None, str | None, tuple[str, ...]]:
    """(peak bytes, node at which it stands, why it cannot be told)."""
    if any(node.has_subgraph for node in graph.nodes):
        return None, None, ("activation bytes cannot be told: the graph has control flow",)
    nodes = [node for node in graph.nodes if not all(out in constant for out in node.outputs)]
    sizes = _tensor_bytes(graph, nodes, constant)
    if isinstance(sizes, str):
        return None, None, (f"activation bytes cannot be told: the size of {sizes!r} is not fixed",)
    return *_peak(_buffers(graph, nodes, constant, sizes)), ()


def _readers(nodes: list[Node]) -> dict[str, list[int]]:
    readers: dict[str, list[int]] = {}
    for number, node in enumerate(nodes):
        for key in node.inputs:
            if key:
                readers.setdefault(key, []).append(number)
    return readers


def _tensor_bytes(graph: Graph, nodes: list[Node], constant: set[str]) -> dict[str, int] | str:
    """Bytes of every activation in the type it is held in, or the name of one of unknown size."""
    held = _quantised_types(graph, nodes)
    sizes: dict[str, int] = {}
    readers = _readers(nodes)
    outputs = [key for node in nodes for key in node.outputs if key]
    for key in (*graph.inputs, *outputs):
        if key in constant:
            continue
        if key not in graph.shapes:
            if key in readers or key in graph.outputs:
                return key
            continue  # an optional output that nobody reads
        data_type = held.get(key, graph.types.get(key, 1))
        sizes[key] = math.ceil(math.prod(graph.shapes[key]) * element_bytes(data_type))
    return sizes


def _quantised_types(graph: Graph, nodes: list[Node]) -> dict[str, int]:
    """Types of the float tensors that exist only between Dequantize- and QuantizeLinear."""
    held: dict[str, int] = {}
    readers = _readers(nodes)
    kept = set(graph.outputs) | set(graph.inputs)

    def reader_type(number: int, key: str) -> int | None:
        node = nodes[number]
        if node.op == "QuantizeLinear" and node.inputs[0] == key:
            return graph.types.get(node.outputs[0])
        if node.op in (*_VIEWS, *_IN_PLACE) and node.inputs[0] == key:
            return held.get(node.outputs[0])
        return None

    for node in reversed(nodes):
        for key in node.outputs:
            types = {reader_type(number, key) for number in readers.get(key, [])}
            if key not in kept and len(types) == 1 and (found := types.pop()) is not None:
                held[key] = found
    for node in nodes:  # what integer operators read through DequantizeLinear
        if node.op != "DequantizeLinear" or node.outputs[0] in kept:
            continue
        key = node.outputs[0]
        integer = all(
            nodes[number].op == "QuantizeLinear"
            or any(out in held for out in nodes[number].outputs)
            for number in readers.get(key, [])
        )
        if integer and node.inputs[0] in graph.types:
            held[key] = graph.types[node.inputs[0]]
    return held


def _buffers(
    graph: Graph, nodes: list[Node], constant: set[str], sizes: dict[str, int]
) -> Buffers:
    """Walk the nodes and give each tensor a buffer of its own or that of its input."""
    end = len(nodes)
    last_read = {key: max(numbers) for key, numbers in _readers(nodes).items()}
    for key in graph.outputs:
        last_read[key] = end
    root: dict[str, str] = {}  # tensor -> tensor whose buffer it lies in
    born: dict[str, int] = {}
    dies: dict[str, int] = {}

    def open_buffer(key: str, number: int) -> None:
        root[key] = key
        born[key] = number
        dies[key] = max(number, last_read.get(key, number))

    for key in graph.inputs:
        if key in sizes:
            open_buffer(key, 0)
    for number, node in enumerate(nodes):
        source = _shared_input(node, constant)
        for key in node.outputs:
            if key not in sizes:
                continue
            buffer = root.get(source, "")
            same = bool(buffer) and sizes[key] <= sizes[buffer] and key == node.outputs[0]
            may_overwrite = buffer not in graph.inputs and dies.get(buffer) == number
            if same and (_is_view(node, sizes, source) or may_overwrite):
                root[key] = buffer
                dies[buffer] = max(dies[buffer], last_read.get(key, number))
            else:
                open_buffer(key, number)
    return Buffers(root, {key: sizes[key] for key in born}, born, dies, nodes)


def _peak(buffers: Buffers) -> tuple[int, str | None]:
    """Add up the buffers alive at each node."""
    end = len(buffers.nodes)
    changes = [0] * (end + 2)
    for key, number in buffers.born.items():
        changes[number] += buffers.sizes[key]
        changes[buffers.dies[key] + 1] -= buffers.sizes[key]
    alive = peak = 0
    where = None
    for number in range(end):
        alive += changes[number]
        if alive > peak:
            peak, where = alive, buffers.nodes[number].name
    return peak, where


def _is_view(node: Node, sizes: dict[str, int], source: str) -> bool:
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        return sizes[source] == sizes[node.outputs[0]]
    return node.op in _VIEWS


def _shared_input(node: Node, constant: set[str]) -> str:
    """The input whose buffer the node's output may lie in, or ''."""
    moving = [key for key in node.inputs if key and key not in constant]
    if not moving:
        return ""
    if node.op in (*_VIEWS, *_IN_PLACE, "QuantizeLinear", "DequantizeLinear"):
        return node.inputs[0] if node.inputs[0] in moving else ""
    if node.op in _IN_PLACE_WITH_CONSTANT and len(moving) == 1:
        return moving[0]
    return ""
