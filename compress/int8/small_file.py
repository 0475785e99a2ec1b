"""The same integers in fewer bytes: the last step before an int8 file is written.

    bias scale      Mul(input scale, weight scale) instead of a stored number per channel
    bias            int16 -> Cast where its codes fit, as they do in most layers
    weight scale    float16 -> Cast where it holds them, as compress.int8.scales sees to
    zero point 0    left out where onnxruntime fuses without it
    names           two letters for tensors; weights keep theirs, by which layers are known, but
                    for the "network." that all of them begin with

A network of 50,000 weights is a third of such things otherwise. onnxruntime computes Mul and Cast
once, when it loads the file, and fuses as before; the readers of this project do so in
:class:`compress.int8.graph.EditableGraph`. Nothing is left out that cannot be had back bit by bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.int8.graph import QUANTISING, WEIGHT_OPERATORS, EditableGraph
from compress.int8.scales import fits_short

_NETWORK = "network."  # what the weights of a run's file begin with
_CAST_BYTES = 32  # what a Cast takes in the file, about
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def small(model: Any) -> Any:
    """A QDQ model as it is written, its ends and metadata untouched."""
    graph = EditableGraph(model)
    for node in [n for n in graph.nodes if n.op_type in WEIGHT_OPERATORS]:
        _derive_bias_scale(graph, node)
    for node in [n for n in graph.nodes if n.op_type == "DequantizeLinear"]:
        _shorten_bias(graph, node)
        _shorten_scale(graph, node)
    for node in graph.nodes:
        if node.op_type in ("Conv", "ConvTranspose"):  # the weight's shape tells it
            _drop(node, "kernel_shape")
        elif node.op_type == "Flatten":
            _drop(node, "axis", 1)
        if _weight_of(graph, node):
            node.ClearField("name")
    _rename(graph)
    result = graph.write()
    result.ClearField("producer_name")
    result.ClearField("producer_version")
    return result


def _derive_bias_scale(graph: EditableGraph, node: Any) -> None:
    """The scale of a layer's bias from those that it is the product of, where it is to the bit."""
    from onnx import helper

    found = [graph.producer(name) if name else None for name in node.input[:3]]
    sources = [s for s in found if s is not None and s.op_type == "DequantizeLinear"]
    stored = [graph.array(source, 1) for source in sources]
    scales = [scale for scale in stored if scale is not None and scale.dtype == np.float32]
    if len(scales) < 3:
        return
    data, weight, bias = sources
    product = scales[0] * scales[1]
    if product.shape != scales[2].shape or product.tobytes() != scales[2].tobytes():
        return
    if scales[2].nbytes <= _CAST_BYTES:
        return
    derived = f"{bias.input[1]}.derived"
    factors = [data.input[1], weight.input[1]]
    graph.insert_before(bias, helper.make_node("Mul", factors, [derived]))
    bias.input[1] = derived


def _shorten_bias(graph: EditableGraph, node: Any) -> None:
    from onnx import TensorProto, helper

    codes, zero_point = graph.array(node, 0), graph.array(node, 2)
    if codes is None or codes.dtype != np.int32:
        return
    if zero_point is not None and not zero_point.any():
        del node.input[2:]
    short = codes.astype(np.int16)
    if np.array_equal(short, codes) and codes.nbytes - short.nbytes > _CAST_BYTES:
        name, wide = node.input[0], f"{node.input[0]}.32"
        graph.arrays[name] = short
        graph.insert_before(node, helper.make_node("Cast", [name], [wide], to=TensorProto.INT32))
        node.input[0] = wide


def _shorten_scale(graph: EditableGraph, node: Any) -> None:
    from onnx import TensorProto, helper

    scale = graph.array(node, 1)
    if scale is None or scale.dtype != np.float32 or not fits_short(scale):
        return
    if scale.nbytes // 2 <= _CAST_BYTES:
        return
    name, wide = node.input[1], f"{node.input[1]}.wide"
    readers = graph.readers(name)
    graph.arrays[name] = scale.astype(np.float16)
    for reader in readers:
        for position, read in enumerate(reader.input):
            if read == name:
                reader.input[position] = wide
    cast = helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT)
    graph.insert_before(readers[0], cast)


def _weight_of(graph: EditableGraph, node: Any) -> str:
    """The stored weight of a layer, through what makes its integers of what is stored."""
    if node.op_type not in WEIGHT_OPERATORS:
        return ""
    name = node.input[1]
    while (producer := graph.producer(name)) is not None:
        if producer.op_type not in ("DequantizeLinear", "Cast", "Gather"):
            return ""
        name = producer.input[0]
    return name


def _drop(node: Any, name: str, default: int | None = None) -> None:
    """Take out an attribute that says what is known without it."""
    kept = [a for a in node.attribute if a.name != name or (default is not None and a.i != default)]
    del node.attribute[:]
    node.attribute.extend(kept)


def _rename(graph: EditableGraph) -> None:
    """Names of two letters for tensors: the first says what it is.

    q codes, x what DequantizeLinear makes of them, y what an operator gives, s scales, z zero
    points, b biases, p products and casts of stored numbers. Weights lose the "network." that the
    file of a run begins them with. All others keep their names: the ends, what computes in float.
    """
    weights = {_weight_of(graph, node) for node in graph.nodes}
    letters: dict[str, str] = {}
    for node in graph.nodes:
        quantising = node.op_type in QUANTISING
        folded = not quantising and all(graph.is_stored(name) for name in node.input)
        for position, name in enumerate(node.input):
            if name in graph.arrays and name not in weights and (quantising or folded):
                scaled = node.op_type == "Mul" or graph.arrays[name].dtype == np.float16
                letter = "bsz"[position] if quantising else "s" if scaled else "b"
                letters.setdefault(name, letter)
        letter = {"QuantizeLinear": "q", "DequantizeLinear": "x"}.get(node.op_type, "y")
        letters.update(dict.fromkeys(node.output, "p" if folded else letter))
    for name in ("", *graph.inputs, *graph.outputs):
        letters.pop(name, None)
    used = {name for node in graph.nodes for name in (*node.input, *node.output)}
    taken = used - set(letters)
    counts = dict.fromkeys(letters.values(), 0)
    names: dict[str, str] = {}
    for name in sorted(weights - {""}):
        short = name.removeprefix(_NETWORK)
        if short != name and short and short not in used:
            names[name] = short
    taken |= set(names.values())
    for name, letter in letters.items():
        while name not in names:
            short = letter + _base36(counts[letter])
            counts[letter] += 1
            if short not in taken:
                names[name] = short
    for node in graph.nodes:
        for listed in (node.input, node.output):
            for position, name in enumerate(listed):
                listed[position] = names.get(name, name)
    arrays = graph.arrays.items()
    graph.arrays = {names.get(name, name): value for name, value in arrays if name in used}


def _base36(number: int) -> str:
    head, last = divmod(number, len(_DIGITS))
    return (_base36(head - 1) if head else "") + _DIGITS[last]
