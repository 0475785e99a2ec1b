"""Weights of 4 bits in the file with 8-bit arithmetic: an experiment for flash.

    float weight -> code in -7..7, per output channel -> INT4 in the file -> Cast -> int8 kernel

onnxruntime computes the Cast once, when it loads the file, and fuses as before: the file shrinks,
time and memory at run time do not. Scales minimise the squared error of each channel, since the
largest weight leaves few of 15 levels to the others. First and last layer keep 8 bits: they hold
few weights and most of the harm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.int8.graph import EditableGraph, attributes
from compress.int8.prepare import Prepared

MOST = 7
_OPSET, _IR_VERSION = 21, 10  # the first with INT4
_SHARES = np.linspace(0.4, 1.0, 25)


def narrow_weights(prepared: Prepared, model: Any) -> tuple[str, ...]:
    """Names of the weights of a QDQ model that get 4 bits: all but the first and last layer's."""
    graph = EditableGraph(model)
    names = [
        node.input[0]
        for node in graph.nodes
        if node.op_type == "DequantizeLinear"
        and (value := graph.array(node, 0)) is not None
        and value.dtype == np.int8
    ]
    return tuple(names[1:-1])


def clip_shares(weight: np.ndarray, axis: int) -> np.ndarray:
    """Share of each channel's largest weight at which 4 bits lose least, (channels,) float32."""
    rows = np.moveaxis(weight.astype(np.float64), axis, 0).reshape(weight.shape[axis], -1)
    most = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12)
    errors = []
    for share in _SHARES:
        scale = share * most / MOST
        rounded = np.clip(np.rint(rows / scale), -MOST, MOST) * scale
        errors.append(np.square(rounded - rows).sum(axis=1))
    return _SHARES[np.argmin(errors, axis=0)].astype(np.float32)


def pack(model: Any, names: tuple[str, ...]) -> Any:
    """The model with the weights ``names`` (codes in -7..7) stored as INT4 and cast to int8."""
    import ml_dtypes
    from onnx import TensorProto, helper

    graph = EditableGraph(model)
    graph.require(_OPSET, _IR_VERSION)
    for node in [n for n in graph.nodes if n.op_type == "DequantizeLinear"]:
        name = node.input[0]
        if name in names:
            graph.arrays[name] = graph.arrays[name].astype(ml_dtypes.int4)
            node.input[0] = f"{name}.8"
            cast = helper.make_node("Cast", [name], [f"{name}.8"], to=TensorProto.INT8)
            graph.insert_before(node, cast)
    return graph.write()


def channel_axis(node: Any, rank: int) -> int:
    """The axis of the channels that a DequantizeLinear scales one by one."""
    return int(attributes(node).get("axis", 1)) % rank
