"""Scales of weights that 16 bits hold: half the bytes.

A scale per output channel is a number of four bytes for every nine or 25 weights of a depthwise
layer. Rounded up to the next float16 it grows by less than 1 part in 1,024, so that no weight of a
channel comes to lie beyond the last code. Scales outside float16's normal range stay as they are,
in 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.int8.graph import WEIGHT_OPERATORS, EditableGraph
from compress.int8.narrow import channel_axis

_LEAST, _MOST = 2.0**-14, 2.0**15  # in float16's normal range, with a next number


def short_scale(scale: np.ndarray) -> np.ndarray:
    """The least float16 that is not under each scale, as float32; those out of range unchanged."""
    inside = (scale >= _LEAST) & (scale <= _MOST)
    near = np.where(inside, scale, _LEAST).astype(np.float16)
    above = np.where(near < scale, np.nextafter(near, np.float16(np.inf)), near)
    return np.where(inside, above, scale).astype(np.float32)


def fits_short(scale: np.ndarray) -> bool:
    """Whether float16 holds every one of these float32 scales to the bit, in its normal range."""
    inside = (scale >= _LEAST) & (scale <= _MOST)
    return bool(inside.all()) and np.array_equal(short_scale(scale), scale)


def round_weight_scales(model: Any, floats: Mapping[str, np.ndarray]) -> Any:
    """A QDQ model whose int8 weights have float16 scales; their biases follow, codes of 32 bits.

    floats: the weights before they were quantised, by name, to be rounded in the new steps; codes
    of those that are not among them stay.
    """
    graph = EditableGraph(model)
    for layer in [node for node in graph.nodes if node.op_type in WEIGHT_OPERATORS]:
        data, weight, bias = ([graph.producer(name) for name in layer.input] + [None] * 3)[:3]
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        codes, scale = graph.array(weight, 0), graph.array(weight, 1)
        if codes is None or scale is None or codes.dtype != np.int8 or scale.ndim == 0:
            continue
        short = short_scale(scale)
        if data is not None and bias is not None and bias.op_type == "DequantizeLinear":
            _follow(graph, data, bias, short)
        graph.replace_operand(weight, 1, short)
        value = floats.get(weight.input[0])
        if value is not None and value.shape == codes.shape:
            shape = [1] * codes.ndim
            shape[channel_axis(weight, codes.ndim)] = -1
            steps = value.astype(np.float64) / short.astype(np.float64).reshape(shape)
            graph.replace_operand(weight, 0, np.rint(steps).astype(np.int8))
    return graph.write()


def _follow(graph: EditableGraph, data: Any, bias: Any, short: np.ndarray) -> None:
    """The bias again in steps of its data's scale times its weight's, as onnxruntime asks for."""
    codes, steps, step = graph.array(bias, 0), graph.array(bias, 1), graph.array(data, 1)
    if codes is None or steps is None or step is None or codes.dtype != np.int32:
        return
    new = step * short
    again = codes * (steps / new.astype(np.float64))
    graph.replace_operand(bias, 0, np.rint(again).astype(np.int32))
    graph.replace_operand(bias, 1, new)
