"""Counts of ONNX and safetensors files against figures worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import model_files
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compress import artefacts
from compress.artefacts import onnx_graph
from compress.artefacts.summary import (
    INPUT_SCALING,
    QUANTISATION,
    RUNNING_STATISTICS,
    SETTINGS,
)
from compress.errors import InputError

W = 8
PLANE = 16 * 48  # of the student's first feature map


def test_weights_are_told_from_statistics_shapes_and_scaling(tmp_path: Path) -> None:
    found = artefacts.read(model_files.student(tmp_path / "m.onnx", W))
    assert found.file_params == 27 * W + 5
    assert found.apart == {INPUT_SCALING: 64, RUNNING_STATISTICS: 2 * W, SETTINGS: 2}
    assert {layer.name: layer.params for layer in found.layers} == {
        "conv": 10 * W,
        "norm": 2 * W,
        "depthwise": 10 * W,
        "linear": 5 * W + 5,
    }


def test_multiply_accumulates_by_hand(tmp_path: Path) -> None:
    found = artefacts.read(model_files.student(tmp_path / "m.onnx", W))
    assert found.macs == 2 * W * PLANE * 9 + 5 * W
    convolution = next(layer for layer in found.layers if layer.name == "conv")
    assert (convolution.macs, convolution.output_shape) == (W * PLANE * 9, (1, W, 16, 48))


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_that_is_no_number_of_windows_is_any_number(batch: int, tmp_path: Path) -> None:
    model = onnx.load(model_files.student(tmp_path / "m.onnx", 4))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    file = tmp_path / "other.onnx"
    file.write_bytes(model.SerializeToString())
    found, wanted = artefacts.read(file), artefacts.read(tmp_path / "m.onnx")
    assert found.macs == wanted.macs and not found.notes


def test_peak_activation_bytes_by_hand(tmp_path: Path) -> None:
    # At the sum: norm (also the skip), the depthwise branch and their sum, float32 each.
    found = artefacts.read(model_files.student(tmp_path / "m.onnx", W))
    assert found.peak_activation_bytes == 3 * W * PLANE * 4
    assert found.peak_layer == "add"


def test_names_decide_nothing(tmp_path: Path) -> None:
    """A weight called running_mean stays a weight."""
    path = model_files.student(tmp_path / "m.onnx", W)
    model = onnx.load(path)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "c.w":
                node.input[index] = "running_mean"
    next(t for t in model.graph.initializer if t.name == "c.w").name = "running_mean"
    path.write_bytes(model.SerializeToString())
    assert artefacts.read(path).file_params == 27 * W + 5


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4])
def test_quantised_weights_count_as_their_elements(tmp_path: Path, kind: int) -> None:
    found = artefacts.read(model_files.quantised(tmp_path / "q.onnx", W, kind))
    assert found.file_params == 10 * W + 5 * W + 5
    assert found.apart == {QUANTISATION: 2 + 2 * W}
    assert found.macs == W * 32 * 96 * 9 + 5 * W
    assert found.largest_layers(1)[0].name == "conv"
    # int8 between the float input and the pool: at the convolution 1 + W maps of one byte each,
    # which is under the float input (4 bytes) together with its codes.
    assert found.peak_activation_bytes == max(5, 1 + W) * 32 * 96


def test_without_quantise_after_it_an_operator_works_in_float(tmp_path: Path) -> None:
    path = model_files.quantised(tmp_path / "q.onnx", W)
    model = onnx.load(path)
    for node in model.graph.node:
        if node.name == "pool":
            node.input[0] = "r"  # the float map, past its codes
    path.write_bytes(model.SerializeToString())
    found = artefacts.read(path)
    assert found.peak_activation_bytes is not None
    assert found.peak_activation_bytes >= (4 + 4 * W) * 32 * 96


def test_qlinear_form_of_onnxruntime(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["log_mel_db", "s", "z"], ["xq"], "q"),
        helper.make_node(
            "QLinearConv", ["xq", "s", "z", "c.w", "s", "z", "s", "z", "c.b"], ["c"], "conv"
        ),
        helper.make_node(
            "QLinearAdd", ["c", "s", "z", "c", "s", "z", "s", "z"], ["a"], "add",
            domain="com.microsoft",
        ),
        helper.make_node(
            "QLinearGlobalAveragePool", ["a", "s", "z", "s", "z"], ["p"], "pool",
            domain="com.microsoft", channels_last=0,
        ),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node(
            "QGemm", ["f", "s", "z", "l.w", "s", "z", "l.b", "s", "z"], ["logits"], "linear",
            domain="com.microsoft", transB=1,
        ),
    ]  # fmt: skip
    stored = [
        model_files.scalar("s", 0.1),
        model_files.scalar("z", 0, np.int8),
        model_files.weight("c.w", 4, 1, 1, 1, dtype=np.int8),
        model_files.weight("c.b", 4, dtype=np.int32),
        model_files.weight("l.w", 5, 4, dtype=np.int8),
        model_files.weight("l.b", 5, dtype=np.int32),
    ]
    path = model_files.save(tmp_path / "q.onnx", nodes, stored, output_type=TensorProto.INT8)
    found = artefacts.read(path)
    assert (found.file_params, found.macs) == (8 + 25, 4 * 3072 + 20)
    assert found.peak_activation_bytes == 8 * 3072  # the sum: two maps of four channels, one byte


def test_one_tensor_read_by_two_layers_counts_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["alias"], "alias"),
        helper.make_node("Conv", ["log_mel_db", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "alias"], ["logits"], "second", pads=[1, 1, 1, 1]),
    ]
    path = model_files.save(tmp_path / "m.onnx", nodes, [model_files.weight("w", 1, 1, 3, 3)])
    found = artefacts.read(path)
    assert found.file_params == 9
    assert [(layer.name, layer.params) for layer in found.layers] == [("first", 9), ("second", 0)]


def test_weights_hidden_in_constants_codebooks_and_branches_count(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        inner = helper.make_node("MatMul", ["log_mel_db", f"{name}.w"], [f"{name}.y"], name)
        out = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        return helper.make_graph([inner], name, [], [out], [model_files.weight(f"{name}.w", 96, 2)])

    nodes = [
        helper.make_node("Constant", [], ["k"], value=model_files.weight("k", 96, 7)),
        helper.make_node("MatMul", ["log_mel_db", "k"], ["a"], "constant"),
        helper.make_node("Gather", ["book", "codes"], ["looked_up"], "lookup"),
        helper.make_node("MatMul", ["log_mel_db", "looked_up"], ["b"], "codebook"),
        helper.make_node(
            "If", ["yes"], ["c"], "if", then_branch=branch("then"), else_branch=branch("else")
        ),
        helper.make_node("Concat", ["a", "b", "c"], ["logits"], "concat", axis=3),
    ]
    stored = [
        model_files.weight("book", 16),
        model_files.weight("codes", 96, 3, dtype=np.uint8),
        numpy_helper.from_array(np.array(True), "yes"),
        model_files.weight("unused", 11),
    ]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
    assert found.file_params == 96 * 7 + 16 + 96 * 3 + 2 * 96 * 2 + 11
    assert found.macs is None and found.peak_activation_bytes is None
    assert any("control flow" in note for note in found.notes)


def test_more_than_one_value_per_band_is_no_scaling(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["log_mel_db", "big"], ["a"], "mul"),
        helper.make_node("Add", ["a", "bands"], ["logits"], "add"),
    ]
    stored = [model_files.weight("big", 1, 1, 32, 96), model_files.weight("bands", 32, 1)]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
    assert found.file_params == 32 * 96 + 32  # behind what is no scaling nothing is


def test_functions_are_looked_into(tmp_path: Path) -> None:
    body = [helper.make_node("Constant", [], ["w"], value=model_files.weight("w", 96, 4))]
    body.append(helper.make_node("MatMul", ["x", "w"], ["y"], "inner"))
    function = helper.make_function(
        "own", "layer", ["x"], ["y"], body, [helper.make_opsetid("", 21)]
    )
    path = tmp_path / "m.onnx"
    call = [helper.make_node("layer", ["log_mel_db"], ["logits"], "call", domain="own")]
    model_files.save(path, call, [], domains=(("", 21), ("own", 1)))
    model = onnx.load(path)
    model.functions.append(function)
    path.write_bytes(model.SerializeToString())
    found = artefacts.read(path)
    assert (found.file_params, found.macs) == (96 * 4, 32 * 96 * 4)


def test_exponential_functions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    call = [helper.make_node("f30", ["log_mel_db"], ["logits"], "call", domain="own")]
    model_files.save(path, call, [], domains=(("", 21), ("own", 1)))
    model = onnx.load(path)
    for level in range(31):
        name, domain = (f"f{level - 1}", "own") if level else ("Relu", "")
        body = [
            helper.make_node(name, ["x"], ["m"], domain=domain),
            helper.make_node(name, ["m"], ["y"], domain=domain),
        ]
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"f{level}", ["x"], ["y"], body, opsets))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="after inlining"):
        artefacts.read(path)


def test_functions_that_differ_in_their_overload_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overload that is called doubles at each level; the other of the same name does not."""
    monkeypatch.setattr(onnx_graph, "_MOST_NODES", 1000)
    path = tmp_path / "m.onnx"
    call = [helper.make_node("f9", ["log_mel_db"], ["logits"], "call", domain="own", overload="a")]
    model_files.save(path, call, [], domains=(("", 21), ("own", 1)))
    model = onnx.load(path)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    for overload in ("a", "b"):
        for level in range(10):
            name, domain, of = ("Relu", "", "")
            if overload == "a" and level:
                name, domain, of = (f"f{level - 1}", "own", "a")
            body = [
                helper.make_node(name, ["x"], ["m"], domain=domain, overload=of),
                helper.make_node(name, ["m"], ["y"], domain=domain, overload=of),
            ]
            model.functions.append(
                helper.make_function("own", f"f{level}", ["x"], ["y"], body, opsets,
                                     overload=overload)
            )  # fmt: skip
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="after inlining"):
        artefacts.read(path)


@pytest.mark.parametrize("domain", ["", "ai.onnx", "com.microsoft"])
def test_functions_that_stand_in_for_standard_operators_are_refused(
    tmp_path: Path, domain: str
) -> None:
    path = model_files.student(tmp_path / "m.onnx", W)
    model = onnx.load(path)
    body = [helper.make_node("Identity", ["x"], ["z"])]
    opsets = [helper.make_opsetid("", 21)]
    model.functions.append(helper.make_function(domain, "Conv", ["x", "w"], ["z"], body, opsets))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="domain of their own"):
        artefacts.read(path)


def test_the_standard_domain_has_two_names(tmp_path: Path) -> None:
    values = np.arange(96 * 4, dtype=np.float32)
    nodes = [
        helper.make_node("Constant", [], ["flat"], domain="ai.onnx", value_floats=values.tolist()),
        helper.make_node("Reshape", ["flat", "shape"], ["w"], "reshape", domain="ai.onnx"),
        helper.make_node("MatMul", ["log_mel_db", "w"], ["logits"], "linear", domain="ai.onnx"),
    ]
    shape = numpy_helper.from_array(np.array([96, 4]), "shape")
    for domain in ("", "ai.onnx"):
        path = model_files.save(tmp_path / "m.onnx", nodes, [shape], domains=((domain, 21),))
        found = artefacts.read(path)
        assert (found.file_params, found.macs) == (96 * 4, 32 * 96 * 4)
        assert found.apart == {SETTINGS: 2}


def test_an_operator_of_another_domain_is_another_operator(tmp_path: Path) -> None:
    """A Pad of somebody's own may compute anything with what stands where Pad has its sizes."""
    node = helper.make_node("Pad", ["log_mel_db", "w"], ["logits"], "own", domain="my.ops")
    domains = (("", 21), ("my.ops", 1))
    stored = [model_files.weight("w", 96, 10)]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", [node], stored, domains=domains))
    assert (found.file_params, found.layers[0].kind) == (960, "my.ops.Pad")


@pytest.mark.parametrize(
    ("operator", "domain"),
    [("Attention", "com.microsoft"), ("Conv", "com.microsoft.nchwc"), ("DeformConv", ""),
     ("SomethingNew", "")],
)  # fmt: skip
def test_what_an_unknown_operator_multiplies_is_not_known(
    tmp_path: Path, operator: str, domain: str
) -> None:
    node = helper.make_node(operator, ["log_mel_db", "w"], ["logits"], "own", domain=domain)
    domains = (("", 21), (domain, 1)) if domain else (("", 21),)
    stored = [model_files.weight("w", 96, 10)]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", [node], stored, domains=domains))
    assert (found.file_params, found.macs) == (960, None)
    assert any(f"not known here (own: {domain}" in n and operator in n for n in found.notes)


@pytest.mark.parametrize("operator", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_the_integer_products_of_onnxruntime_count_as_such(tmp_path: Path, operator: str) -> None:
    scales = ["s"] if operator == "DynamicQuantizeMatMul" else ["s", "s"]
    inputs = ["log_mel_db", "w", *scales]
    nodes = [
        helper.make_node(operator, inputs, ["a"], "l", domain="com.microsoft"),
        helper.make_node("Relu", ["a"], ["logits"], "relu"),
    ]
    stored = [model_files.weight("w", 96, 10, dtype=np.int8), model_files.scalar("s", 0.1)]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
    assert (found.file_params, found.macs) == (960, 32 * 96 * 10)
    assert found.apart == {QUANTISATION: 1} and found.peak_activation_bytes is not None


def test_external_data_counts_its_bytes_and_stays_in_its_folder(tmp_path: Path) -> None:
    path = model_files.student(tmp_path / "in" / "m.onnx", W)
    model = onnx.load(path)
    onnx.save(
        model, path, save_as_external_data=True, location="m.data", size_threshold=0,
        convert_attribute=False,
    )  # fmt: skip
    found = artefacts.read(path)
    data = path.with_name("m.data")
    assert found.file_params == 27 * W + 5
    assert found.file_bytes == path.stat().st_size + data.stat().st_size

    data.rename(tmp_path / "m.data")
    with pytest.raises(InputError, match="missing"):
        artefacts.read(path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../m.data"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside"):
        artefacts.read(path)


def external(name: str, dims: list[int], offset: int, kind: int = 1) -> onnx.TensorProto:
    bits = 32 if kind == TensorProto.FLOAT else 8
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    length = int(np.prod(dims)) * bits // 8
    for key, value in (("location", "m.data"), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_a_short_tensor_does_not_hide_a_long_one_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "m.data").write_bytes(bytes(96 * 10 * 4))
    nodes = [helper.make_node("MatMul", ["log_mel_db", "w"], ["logits"], "linear")]
    long = external("w", [96, 10], 0)
    for short in (external("a", [1], 0), external("a", [960], 0, TensorProto.INT8)):
        for stored in ([short, long], [long, short]):
            found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
            assert (found.file_params, found.flash_bytes) == (960, 3840)


def test_sparse_tensors_with_impossible_sizes_are_refused(tmp_path: Path) -> None:
    path = model_files.student(tmp_path / "m.onnx", W)
    whole = path.read_bytes()
    for dims, many in (([-1000], 0), ([2], 3), ([3], 3)):
        model = onnx.load_from_string(whole)
        values = helper.make_tensor("s", TensorProto.FLOAT, [many], [1.0] * many)
        indices = helper.make_tensor("i", TensorProto.INT64, [many], list(range(many)))
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(
            values=values, indices=indices, dims=dims))  # fmt: skip
        path.write_bytes(model.SerializeToString())
        if dims == [3]:
            assert artefacts.read(path).file_params == 27 * W + 5 + 3
        else:
            with pytest.raises(InputError, match="sparse tensor 's'"):
                artefacts.read(path)


def test_numbers_in_attributes_of_other_domains_count(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["log_mel_db"], ["f"], "flat"),
        helper.make_node(
            "LinearRegressor", ["f"], ["logits"], "regressor", domain="ai.onnx.ml", targets=2,
            coefficients=[0.5] * 6144, intercepts=[1.0, 2.0],
        ),
    ]  # fmt: skip
    domains = (("", 21), ("ai.onnx.ml", 3))
    # a tensor with the name under which the reader would keep the numbers hides none of them
    stored = [model_files.weight("regressor.coefficients#1", 7)]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored, domains=domains))
    assert (found.file_params, found.macs) == (6146 + 7, None)


def constant_of(name: str, value: float, *shape: int) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    filled = helper.make_tensor("v", TensorProto.FLOAT, [1], [value])
    node = helper.make_node("ConstantOfShape", [f"{name}.s"], [name], name, value=filled)
    return node, numpy_helper.from_array(np.array(shape), f"{name}.s")


def test_scales_of_no_weights_are_weights(tmp_path: Path) -> None:
    """A product of 960 ones and 960 "scales" is a layer of 960 weights."""
    filled = helper.make_tensor("v", TensorProto.INT8, [1], [1])
    nodes = [
        helper.make_node("ConstantOfShape", ["many"], ["ones"], "ones", value=filled),
        helper.make_node("DequantizeLinear", ["ones", "scales"], ["flat"], "dq", axis=0),
        helper.make_node("Reshape", ["flat", "shape"], ["w"], "reshape"),
        helper.make_node("MatMul", ["log_mel_db", "w"], ["logits"], "linear"),
    ]
    stored = [
        numpy_helper.from_array(np.array([960]), "many"),
        model_files.weight("scales", 960),
        numpy_helper.from_array(np.array([96, 10]), "shape"),
    ]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
    assert (found.file_params, found.apart) == (960 + 1, {SETTINGS: 3})  # and what fills ones


def test_statistics_without_their_weights_are_weights(tmp_path: Path) -> None:
    made = [constant_of("zero", 0, 1, 960, 1, 1)]
    made += [constant_of(name, value, 960) for name, value in (("one", 1), ("none", 0), ("v", 1))]
    nodes = [
        *(node for node, _ in made),
        helper.make_node(
            "BatchNormalization", ["zero", "one", "none", "mean", "v"], ["n"], "norm"
        ),
        helper.make_node("Reshape", ["n", "shape"], ["w"], "reshape"),
        helper.make_node("MatMul", ["log_mel_db", "w"], ["logits"], "linear"),
    ]
    stored = [
        *(tensor for _, tensor in made),
        model_files.weight("mean", 960),
        numpy_helper.from_array(np.array([96, 10]), "shape"),
    ]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
    assert found.file_params == 960 + 3  # and what fills zero, one, none
    assert found.apart.get(RUNNING_STATISTICS, 0) <= 2  # what fills v, and its size


@pytest.mark.parametrize("dtype", [bool, np.int64])
def test_whole_numbers_and_masks_too_many_for_settings_are_weights(
    tmp_path: Path, dtype: type
) -> None:
    choose = [
        helper.make_node("Where", ["w", "one", "minus"], ["chosen"], "where"),
        helper.make_node("MatMul", ["log_mel_db", "chosen"], ["logits"], "linear"),
    ]
    multiply = [
        helper.make_node("Cast", ["w"], ["real"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["log_mel_db", "real"], ["logits"], "linear"),
    ]
    stored = [
        model_files.weight("w", 96, 10, dtype=dtype),
        model_files.scalar("one", 1),
        model_files.scalar("minus", -1),
    ]
    nodes = choose if dtype is bool else multiply
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
    assert found.file_params == 960 + 2


def test_sizes_that_the_graph_computes_are_followed(tmp_path: Path) -> None:
    nodes = [  # rows 0 .. batch - 1 of the flattened input, as an exporter may write a view
        helper.make_node("Shape", ["log_mel_db"], ["sizes"], "shape", start=0, end=1),
        helper.make_node("Squeeze", ["sizes"], ["batch"], "squeeze"),
        helper.make_node("Range", ["zero", "batch", "one"], ["rows"], "range"),
        helper.make_node("Flatten", ["log_mel_db"], ["flat"], "flatten"),
        helper.make_node("Gather", ["flat", "rows"], ["picked"], "gather", axis=0),
        helper.make_node("Gemm", ["picked", "w"], ["logits"], "linear"),
    ]
    stored = [
        model_files.scalar("zero", 0, np.int64),
        model_files.scalar("one", 1, np.int64),
        model_files.weight("w", 32 * 96, 5),
    ]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
    assert (found.macs, found.notes) == (32 * 96 * 5, ())
    assert found.apart == {SETTINGS: 2}
    assert found.peak_activation_bytes == 2 * 32 * 96 * 4  # the picked rows beside the input


def test_a_huge_computed_size_allocates_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Range", ["zero", "many", "one"], ["rows"], "range"),
        helper.make_node("Gather", ["log_mel_db", "rows"], ["picked"], "gather", axis=3),
        helper.make_node("MatMul", ["picked", "w"], ["logits"], "linear"),
    ]
    stored = [
        model_files.scalar("zero", 0, np.int64),
        model_files.scalar("many", 2**62, np.int64),
        model_files.scalar("one", 1, np.int64),
        model_files.weight("w", 7, 5),
    ]
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored))
    assert found.file_params == 35


def test_unknown_sizes_are_said_and_not_guessed(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["log_mel_db", "w"], ["logits"], "conv")]
    stored = [model_files.weight("w", 1, 1, 3, 3)]
    shape = ("batch", 1, 32, "frames")
    found = artefacts.read(model_files.save(tmp_path / "m.onnx", nodes, stored, shape=shape))
    assert (found.file_params, found.macs, found.peak_activation_bytes) == (9, None, None)
    assert any("conv" in note for note in found.notes)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model", b"\x00" * 100, b"\x08\x0a" * 9],
    ids=["empty", "text", "zeros", "fields"],
)
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="m.onnx"):
        artefacts.read(path)


def test_truncated_at_any_place_is_refused(tmp_path: Path) -> None:
    whole = model_files.student(tmp_path / "m.onnx", W).read_bytes()
    path = tmp_path / "cut.onnx"
    for end in range(1, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError):
            artefacts.read(path)


def test_a_tensor_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = model_files.student(tmp_path / "m.onnx", W)
    model = onnx.load(path)
    next(t for t in model.graph.initializer if t.name == "d.w").dims[0] = 1
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="d.w"):
        artefacts.read(path)


@pytest.mark.parametrize("name", ["missing.onnx", "model.tflite", "."])
def test_missing_or_unknown_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.tflite").write_bytes(b"")
    with pytest.raises(InputError):
        artefacts.read(tmp_path / name)


# --- safetensors ---------------------------------------------------------------------------------


def write_safetensors(path: Path, header: dict[str, object], data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors_counts_shared_tensors_once_and_statistics_apart(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "conv.weight": entry([2, 3], 0, 24),
        "alias.weight": entry([2, 3], 0, 24),
        "conv.codes": entry([5], 24, 29, "I8"),
        "norm.running_mean": entry([2], 29, 37),
        "norm.num_batches_tracked": entry([], 37, 45, "I64"),
        "normalise.mean": entry([2], 45, 53),
        "normalise.huge": entry([2], 53, 61),
        "norm.weight": entry([2], 61, 69),
    }
    found = artefacts.read(write_safetensors(tmp_path / "m.safetensors", header, bytes(69)))
    assert found.file_params == 6 + 5 + 2 + 2
    assert found.apart == {RUNNING_STATISTICS: 3, INPUT_SCALING: 2}
    assert found.macs is None and found.peak_activation_bytes is None
    assert found.largest_layers(1)[0].name == "conv"


def test_statistics_are_told_by_more_than_their_name(tmp_path: Path) -> None:
    header = {
        "a.running_mean": entry([50, 50], 0, 10_000),
        "b.running_var": entry([7], 10_000, 10_028),
        "b.weight": entry([6], 10_028, 10_052),
        "b.num_batches_tracked": entry([5], 10_052, 10_072),
        "running_mean": entry([3], 10_072, 10_084),
    }
    found = artefacts.read(write_safetensors(tmp_path / "m.safetensors", header, bytes(10_084)))
    assert found.file_params == 2500 + 7 + 6 + 5 + 3 and not found.apart


def test_safetensors_written_by_the_library(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "m.safetensors"
    save_file({"a.weight": np.zeros((4, 5), np.float16), "b": np.zeros(3)}, path)
    assert artefacts.read(path).file_params == 23


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"w": entry([3], 0, 12)}, b"1234"),
        ({"w": entry([3], 0, 8)}, bytes(12)),
        ({"w": entry([3], -12, 0)}, bytes(12)),
        ({"w": entry([-3], 0, 12)}, bytes(12)),
        ({"w": entry([3], 0, 12, "F17")}, bytes(12)),
        ({"w": {"shape": [3]}}, bytes(12)),
        ({"w": 3}, bytes(12)),
        ({"v": entry([3], 0, 12), "w": entry([3], 4, 16)}, bytes(16)),
        ({"w": entry([True], 0, 4)}, bytes(4)),
    ],
)
def test_damaged_safetensors_are_refused(
    tmp_path: Path, header: dict[str, object], data: bytes
) -> None:
    with pytest.raises(InputError, match="m.safetensors"):
        artefacts.read(write_safetensors(tmp_path / "m.safetensors", header, data))


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, b"\x02" + bytes(7) + b"[]"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="m.safetensors"):
        artefacts.read(path)


# --- hostile bytes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("samples")
    header = {"a.weight": entry([2, 3], 0, 24), "b": entry([2], 24, 32)}
    return [
        model_files.student(folder / "m.onnx", 2),
        model_files.quantised(folder / "q.onnx", 2),
        write_safetensors(folder / "m.safetensors", header, bytes(32)),
    ]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    which=st.integers(0, 2),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_mutated_files_are_read_or_refused(
    samples: list[Path], tmp_path: Path, which: int, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(samples[which].read_bytes())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path = tmp_path / f"mutated{samples[which].suffix}"
    path.write_bytes(content)
    try:
        found = artefacts.read(path)
    except InputError as error:
        assert "mutated" in str(error)
    else:
        assert found.file_params >= 0
