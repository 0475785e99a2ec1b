"""Scales of weights that 16 bits hold: half the bytes.

A scale per output channel is a number of four bytes for every nine or 25 weights of a depthwise
layer. Rounded to the nearest float16 it moves by at most 1 part in 2,048, so that the largest
weight of a channel lies at most a sixteenth of a step over the last code, where rounding costs up
to half a step anyway. Scales outside float16's normal range stay as they are, in 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.int8.graph import EditableGraph
from compress.int8.narrow import channel_axis

LEAST, MOST = 2.0**-14, 65_504.0  # float16's normal range
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def nearest_short(scale: np.ndarray) -> np.ndarray:
    """The nearest float16 of each scale, as float32; what is out of its range unchanged."""
    inside = (scale >= LEAST) & (scale <= MOST)
    return np.where(inside, np.clip(scale, LEAST, MOST).astype(np.float16), scale).astype(
        np.float32
    )


def fits_short(scale: np.ndarray) -> bool:
    """Whether float16 holds every one of these float32 scales to the bit."""
    inside = (scale >= LEAST) & (scale <= MOST)
    return bool(inside.all()) and np.array_equal(scale.astype(np.float16), scale)


def round_weight_scales(model: Any, floats: Mapping[str, np.ndarray]) -> Any:
    """A QDQ model whose int8 weights have float16 scales; their biases follow, codes of 32 bits.

    floats: the weights before they were quantised, by name, to be rounded in the new steps; codes
    of those that are not among them stay.
    """
    graph = EditableGraph(model)
    for layer in [node for node in graph.nodes if node.op_type in _WEIGHTED]:
        found = [graph.producer(name) if name else None for name in layer.input[:3]]
        if len(found) < 2 or found[1] is None or found[1].op_type != "DequantizeLinear":
            continue
        data, weight = found[0], found[1]
        codes, scale = graph.array(weight, 0), graph.array(weight, 1)
        if codes is None or scale is None or codes.dtype != np.int8 or scale.ndim == 0:
            continue
        short = nearest_short(scale)
        bias = found[2] if len(found) > 2 else None
        if bias is not None:
            _follow(graph, data, bias, short)
        graph.replace_operand(weight, 1, short)
        value = floats.get(weight.input[0])
        if value is not None and value.shape == codes.shape:
            shape = [1] * codes.ndim
            shape[channel_axis(weight, codes.ndim)] = -1
            steps = value.astype(np.float64) / short.astype(np.float64).reshape(shape)
            graph.replace_operand(weight, 0, np.clip(np.rint(steps), -127, 127).astype(np.int8))
    return graph.write()


def _follow(graph: EditableGraph, data: Any, bias: Any, short: np.ndarray) -> None:
    """The bias again in steps of its data's scale times its weight's, as onnxruntime asks for."""
    if data is None or bias.op_type != "DequantizeLinear":
        return
    codes, steps, step = graph.array(bias, 0), graph.array(bias, 1), graph.array(data, 1)
    if codes is None or steps is None or step is None or codes.dtype != np.int32:
        return
    new = (step * short).astype(np.float32)
    bounds = np.iinfo(np.int32)
    again = np.rint(codes * steps.astype(np.float64) / new.astype(np.float64))
    graph.replace_operand(bias, 0, np.clip(again, bounds.min, bounds.max).astype(np.int32))
    graph.replace_operand(bias, 1, new)
