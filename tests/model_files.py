"""Small model files made by hand, whose counts can be worked out on paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def weight(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    values = np.arange(np.prod(shape)).reshape(shape) % 7
    return numpy_helper.from_array(values.astype(dtype), name)


def scalar(name: str, value: float, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    outputs: tuple[str, ...] = ("logits",),
    shape: tuple[int | str, ...] = ("batch", 1, 32, 96),
    input_type: int = TensorProto.FLOAT,
    output_type: int = TensorProto.FLOAT,
    domains: tuple[tuple[str, int], ...] = (("", 21), ("com.microsoft", 1)),
) -> Path:
    """Write a model with the input 'log_mel_db'."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("log_mel_db", input_type, shape)],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        initializers,
    )
    opsets = [helper.make_opsetid(*domain) for domain in domains]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def student(path: Path, width: int = 8, classes: int = 5) -> Path:
    """Scaling, convolution, batch norm, depthwise convolution, residual sum, pool, linear.

    Weights: conv 9 w + w, norm 2 w, depthwise 9 w + w, linear 5 w + 5 = 27 w + 5 at 5 classes.
    MACs: convolution w * 16 * 48 * 9, depthwise the same, linear 5 w.
    """
    w = width
    nodes = [
        helper.make_node("Sub", ["log_mel_db", "mean"], ["centred"], "sub"),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"], "div"),
        helper.make_node(
            "Conv", ["scaled", "c.w", "c.b"], ["c"], "conv", strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node(
            "BatchNormalization", ["r", "n.scale", "n.bias", "n.mean", "n.var"], ["n"], "norm"
        ),
        helper.make_node(
            "Conv", ["n", "d.w", "d.b"], ["d"], "depthwise", group=w, pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["d"], ["dr"], "relu2"),
        helper.make_node("Add", ["n", "dr"], ["sum"], "add"),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"], "pool"),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "l.w", "l.b"], ["logits"], "linear", transB=1),
    ]
    initializers = [
        weight("mean", 1, 1, 32, 1),
        weight("deviation", 1, 1, 32, 1),
        weight("c.w", w, 1, 3, 3),
        weight("c.b", w),
        *(weight(f"n.{part}", w) for part in ("scale", "bias", "mean", "var")),
        weight("d.w", w, 1, 3, 3),
        weight("d.b", w),
        numpy_helper.from_array(np.array([-1, w], np.int64), "shape"),
        weight("l.w", classes, w),
        weight("l.b", classes),
    ]
    return save(path, nodes, initializers)


def quantised(path: Path, width: int = 8, weight_type: int = TensorProto.INT8) -> Path:
    """QuantizeLinear, a convolution between Dequantize- and QuantizeLinear, pool, linear.

    Weights: 9 w + w of the convolution (int8 and int32), 5 w + 5 of the linear layer.
    """
    w = width
    codes = weight("c.w", w, 1, 3, 3, dtype=np.int8)
    if weight_type != TensorProto.INT8:
        numbers = (np.arange(9 * w) % 7).tolist()
        codes = helper.make_tensor("c.w", weight_type, (w, 1, 3, 3), numbers)
    zero_point = helper.make_tensor("w.z", weight_type, (w,), [0] * w)
    nodes = [
        helper.make_node("QuantizeLinear", ["log_mel_db", "x.s", "x.z"], ["xq"], "quantise"),
        helper.make_node("DequantizeLinear", ["xq", "x.s", "x.z"], ["x"], "dq"),
        helper.make_node("DequantizeLinear", ["c.w", "w.s", "w.z"], ["cw"], "dq_w", axis=0),
        helper.make_node("DequantizeLinear", ["c.b", "w.s"], ["cb"], "dq_b", axis=0),
        helper.make_node("Conv", ["x", "cw", "cb"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "x.s", "x.z"], ["rq"], "quantise_r"),
        helper.make_node("DequantizeLinear", ["rq", "x.s", "x.z"], ["rd"], "dq_r"),
        helper.make_node("GlobalAveragePool", ["rd"], ["p"], "pool"),
        helper.make_node("QuantizeLinear", ["p", "x.s", "x.z"], ["pq"], "quantise_p"),
        helper.make_node("DequantizeLinear", ["pq", "x.s", "x.z"], ["pd"], "dq_p"),
        helper.make_node("Flatten", ["pd"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "l.w", "l.b"], ["logits"], "linear", transB=1),
    ]
    initializers = [
        scalar("x.s", 0.1),
        scalar("x.z", 0, np.int8),
        codes,
        weight("w.s", w),
        zero_point,
        weight("c.b", w, dtype=np.int32),
        weight("l.w", 5, w),
        weight("l.b", 5),
    ]
    return save(path, nodes, initializers)
