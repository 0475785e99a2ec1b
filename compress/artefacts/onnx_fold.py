"""Folding of the small whole-number arithmetic by which exporters compute shapes and indices.

Shape inference gives up where a size is computed (Range over a batch, for example). With the batch
fixed those computations have known results; a handful of operators on short vectors is enough.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

MOST_ELEMENTS = 1024
_WHOLE = (6, 7)  # TensorProto.INT32, INT64


def fold(graph: Any, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Replace computed whole numbers of a protobuf graph by stored ones; True where any was."""
    from onnx import numpy_helper

    values = {t.name: value for t in graph.initializer if (value := _stored(t)) is not None}
    kept = []
    folded = False
    for node in graph.node:
        result = _evaluate(node, values, shapes)
        if result is None or result.size > MOST_ELEMENTS:
            kept.append(node)
            continue
        values[node.output[0]] = result
        if node.op_type == "Constant":
            kept.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(result, node.output[0]))
            folded = True
    if folded:
        kept = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)
    return folded


def _stored(tensor: Any) -> np.ndarray | None:
    from onnx import numpy_helper

    if tensor.data_type not in _WHOLE or tensor.data_location == tensor.EXTERNAL:
        return None
    return numpy_helper.to_array(tensor) if math.prod(tensor.dims) <= MOST_ELEMENTS else None


def _evaluate(
    node: Any, values: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]
) -> np.ndarray | None:
    """The result of one operator on known whole numbers, or None where it is not one of them."""
    if node.domain or len(node.output) != 1:
        return None
    attributes = {a.name: a for a in node.attribute}
    try:
        if node.op_type == "Constant":
            if "value" in attributes:
                return _stored(attributes["value"].t)
            return np.array(attributes["value_ints"].ints) if "value_ints" in attributes else None
        if node.op_type == "Shape":
            start = attributes["start"].i if "start" in attributes else 0
            end = attributes["end"].i if "end" in attributes else None
            return np.array(shapes[node.input[0]][start:end], np.int64)
        inputs = [values[name] for name in node.input]
        axis = attributes["axis"].i if "axis" in attributes else 0
        return _compute(node.op_type, inputs, axis, attributes)
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError):
        return None


def _compute(
    op: str, inputs: list[np.ndarray], axis: int, attributes: dict[str, Any]
) -> np.ndarray | None:
    if sum(value.size for value in inputs) > 2 * MOST_ELEMENTS:
        return None
    first = inputs[0]
    if op in ("Add", "Sub", "Mul"):
        if np.prod(np.broadcast_shapes(first.shape, inputs[1].shape)) > MOST_ELEMENTS:
            return None
        with np.errstate(over="ignore"):
            function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[op]
            return np.asarray(function(first, inputs[1]))
    if op == "Range":
        start, limit, step = (int(value) for value in inputs)
        numbers = range(start, limit, step)
        # len() of a range refuses what does not fit a machine word
        return np.array(numbers, np.int64) if len(numbers) <= MOST_ELEMENTS else None
    if op == "Gather":
        return np.asarray(np.take(first, inputs[1], axis)) if inputs[1].size <= 64 else None
    if op == "Concat":
        return np.concatenate(inputs, axis)
    if op == "Unsqueeze":
        return np.expand_dims(first, tuple(int(a) for a in inputs[1]))
    if op == "Squeeze":
        axes = tuple(int(a) for a in inputs[1]) if len(inputs) > 1 else None
        return np.asarray(np.squeeze(first, axes))
    if op == "Reshape":
        return first.reshape([int(size) for size in inputs[1]])
    if op == "Identity":
        return first
    if op == "Cast" and attributes["to"].i in _WHOLE:
        return first.astype(np.int32 if attributes["to"].i == 6 else np.int64)
    return None
