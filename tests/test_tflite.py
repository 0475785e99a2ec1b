"""Files for TFLite Micro: the same integers as the int8 ONNX file, run, compiled, refused."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import band_spectrograms
from onnx import TensorProto, helper, numpy_helper

from compress import artefacts, cli, evaluate, export, gate, onnx_export, quantize, registry, report
from compress import runs as run_folders
from compress.artefacts import tflite_file
from compress.config import ExportConfig, GateConfig, QuantizeConfig, ReportConfig
from compress.errors import InputError
from compress.int8 import static
from compress.int8.coded import signed_codes
from compress.int8.interface import METADATA_KEY, Interface
from compress.int8.prepare import prepare
from compress.material import Normalisation
from compress.session import DECISIONS
from compress.tflite import convert as conversion
from compress.tflite import flatbuffer, vela
from compress.tflite.convert import convert
from compress.tflite.flatbuffer import serialise
from compress.tflite.interpreter import CodesNetwork, available
from reports import npu

TINY = Path(__file__).parent / "files" / "tiny.tflite"
WINDOWS, _ = band_spectrograms(48, seed=5)
MEAN = Normalisation(WINDOWS.mean((0, 2)), WINDOWS.std((0, 2)))

needs_litert = pytest.mark.skipif(
    not available(), reason="LiteRT is not installed (pip install '.[tflite]')"
)


def _has_vela() -> bool:
    with contextlib.suppress(InputError):
        vela.check()
        return True
    return False


needs_vela = pytest.mark.skipif(
    not (available() and _has_vela()), reason="Vela is not installed (pip install '.[tflite]')"
)


def written(path: Path, folder: Path, description: str = "x") -> tuple[Path, Interface]:
    """The .tflite file of an int8 ONNX file."""
    model, interface = signed_codes(path)
    metadata = {METADATA_KEY: interface.to_json()}
    file = folder / "model.tflite"
    file.write_bytes(serialise(convert(model, path), description, metadata))
    return file, interface


@pytest.fixture(scope="module")
def int8_files(tmp_path_factory):
    """name -> int8 QDQ file of an untrained student, calibrated on a few windows."""
    made: dict[str, Path] = {}

    def file_of(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("int8")
            torch.manual_seed(0)
            model = registry.build_student(name, classes=5)
            for layer in model.modules():
                if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                    torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
                    torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
            onnx_export.to_onnx(model.eval(), MEAN, 32, 96, folder / "float.onnx")
            prepared = prepare(folder / "float.onnx")
            with static.StaticQuantiser(prepared, WINDOWS[:, None], "minmax") as quantiser:
                static.save(quantiser.quantise(), folder / "model.onnx")
            made[name] = folder / "model.onnx"
        return made[name]

    return file_of


# --- the same integers ---------------------------------------------------------------------------


@needs_litert
@pytest.mark.parametrize(
    "name", [*registry.STUDENTS, pytest.param("timm/test_resnet", marks=pytest.mark.slow),
             pytest.param("timm/test_efficientnet", marks=pytest.mark.slow)]
)  # fmt: skip
def test_every_student_computes_the_codes_of_its_onnx_file(name, int8_files, tmp_path):
    source = int8_files(name)
    file, interface = written(source, tmp_path)
    codes = interface.encode(WINDOWS[:24, None])
    logits = evaluate.onnx_predictor(source, threads=1)(WINDOWS[:24, None])
    expected = np.rint(logits / np.float32(interface.output_scale)) + interface.output_zero_point
    assert len(np.unique(expected)) > 20
    for reference in (True, False):
        network = CodesNetwork(file, reference)
        assert network.input_shape == (1, 32, 96, 1)
        found = network(codes)
        assert found.dtype == np.int8 and found.shape == (24, 5)
        assert np.abs(found - expected).max() <= 6
    kinds = {kind for kind, _ in tflite_file.operators(file)}
    if name in registry.STUDENTS:
        assert not kinds & {"QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "CUSTOM"}
    ours, theirs = artefacts.read(file), artefacts.read(source)
    assert ours.macs == theirs.macs
    assert ours.file_params == theirs.file_params + _zero_biases(file)
    assert Interface.from_metadata(tflite_file.metadata(file), file) == interface


def _details(file: Path) -> list[dict]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    found = interpreter.get_tensor_details()
    for detail in found:
        with contextlib.suppress(ValueError):
            detail["values"] = interpreter.get_tensor(detail["index"]).copy()
    return found


def _zero_biases(file: Path) -> int:
    """Numbers in biases that layers without one were given."""
    return sum(d["values"].size for d in _details(file) if d["name"].endswith(".bias")
               and d["name"].startswith("node") and not d["values"].any())  # fmt: skip


@needs_litert
@pytest.mark.parametrize("name", ["audiobot50-dsc", "dsc50"])
def test_weights_scales_and_biases_are_the_same_numbers(name, int8_files, tmp_path):
    file, _ = written(int8_files(name), tmp_path)
    model, _ = signed_codes(int8_files(name))
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    details = {d["name"]: d for d in _details(file)}
    compared = 0
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in arrays:
            continue
        values, scales = arrays[node.input[0]], arrays[node.input[1]].ravel()
        found = details[node.input[0]]
        quantisation = found["quantization_parameters"]
        np.testing.assert_array_equal(quantisation["scales"], scales)
        assert not quantisation["zero_points"].any()
        if values.ndim == 4 and found["values"].shape[0] == 1 and values.shape[0] > 1:
            values, axis = values.transpose(1, 2, 3, 0), 3  # depthwise
        else:
            axis = 0
            values = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
        assert scales.size == 1 or quantisation["quantized_dimension"] == axis
        np.testing.assert_array_equal(found["values"], values)
        compared += 1
    assert compared >= 12


@needs_litert
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("coded", [False, True])
def test_every_form_of_an_int8_file_gives_the_same_bytes(signed, coded, int8_files, tmp_path):
    source = int8_files("audiobot50-dsc")
    model, plain = onnx.load(source), onnx.load(source)
    model = static.with_signed_activations(model) if signed else model
    if coded:
        prepared = prepare(source.with_name("float.onnx"))
        model = static.with_coded_ends(model, prepared)
    static.save(model, tmp_path / "form.onnx")
    static.save(plain, tmp_path / "plain.onnx")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, first = written(tmp_path / "form.onnx", tmp_path / "a")
    other, second = written(tmp_path / "plain.onnx", tmp_path / "b")
    np.testing.assert_allclose(first.offset, second.offset, rtol=1e-12)
    assert convert_of(tmp_path / "form.onnx") == convert_of(tmp_path / "plain.onnx")
    x = first.encode(WINDOWS[:4, None])
    np.testing.assert_array_equal(CodesNetwork(one)(x), CodesNetwork(other)(x))


def convert_of(path: Path) -> bytes:
    return serialise(convert(signed_codes(path)[0], path), "", {})


@needs_litert
def test_constants_are_aligned_for_a_chip_that_reads_them_from_flash(int8_files, tmp_path):
    from ai_edge_litert import schema_py_generated as schema

    content = written(int8_files("audiobot50-dsc"), tmp_path)[0].read_bytes()
    model = schema.Model.GetRootAs(content)
    places = []
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if not buffer.DataIsNone():
            places.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert len(places) > 15 and all(place % 16 == 0 for place in places)


# --- operators one by one ------------------------------------------------------------------------


def one_operator(
    path: Path, node: onnx.NodeProto, shapes: list[tuple[int, ...]], stored: dict[str, np.ndarray],
    shape: tuple[int, ...], scale: float = 0.05, zero_point: int = 3,
) -> Path:  # fmt: skip
    """An int8 file of one operator with int8 ends. shapes: of the inputs x0 (and x1).

    Stored int8 and int32 arrays are read through DequantizeLinear (scale 0.02; a bias' is 0.0008);
    x0 is the input, with scale 0.04 and zero point -5; x1 is x0 again.
    """
    arrays = {"s": np.float32(0.04), "z": np.int8(-5), "so": np.float32(scale),
              "zo": np.int8(zero_point), "sw": np.float32(0.02), "zw": np.int8(0),
              "sb": np.float32(np.float32(0.04) * np.float32(0.02)), **stored}  # fmt: skip
    nodes = [helper.make_node("DequantizeLinear", ["codes", "s", "z"], [f"x{i}"])
             for i in range(len(shapes))]  # fmt: skip
    for name, values in stored.items():
        if values.dtype == np.int64:
            continue
        meaning = ["sb"] if values.dtype == np.int32 else ["sw", "zw"]
        nodes.append(helper.make_node("DequantizeLinear", [name, *meaning], [f"{name}.real"]))
        node.input[list(node.input).index(name)] = f"{name}.real"
    node.name = node.name or "layer"
    nodes += [node, helper.make_node("QuantizeLinear", ["y", "so", "zo"], ["out"])]
    graph = helper.make_graph(
        nodes, "one",
        [helper.make_tensor_value_info("codes", TensorProto.INT8, shapes[0])],
        [helper.make_tensor_value_info("out", TensorProto.INT8, shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    interface = Interface("int8", (1.0,), (0.0,), scale, zero_point)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, interface.to_json()
    path.write_bytes(model.SerializeToString())
    return path


def int8_array(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def differences(path: Path, shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """Codes of LiteRT's reference kernels minus those of onnxruntime, on random codes."""
    file, _ = written(path, folder)
    codes = int8_array(*shape, seed=2)
    session = evaluate.onnx_session(path, threads=1)
    expected = session.run(None, {"codes": codes})[0]
    assert len(np.unique(expected)) > 4
    found = CodesNetwork(file)(codes)
    if found.ndim == 4:
        found = found.transpose(0, 3, 1, 2)
    return found.astype(int) - expected.astype(int)


@needs_litert
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "padding"),
    [
        (3, 1, (1, 1, 1, 1), "SAME"),
        (3, 2, (1, 1, 1, 1), "PAD"),  # SAME would begin with no padding
        (5, 2, (2, 2, 2, 2), "PAD"),
        (3, 2, (0, 0, 1, 1), "SAME"),
        (3, 2, (0, 0, 0, 0), "VALID"),
        (1, 1, (0, 0, 0, 0), "VALID"),
        (3, 1, (1, 0, 1, 0), "PAD"),
    ],
)
def test_convolutions_pad_as_in_onnx(group, kernel, stride, pads, padding, tmp_path):
    node = helper.make_node("Conv", ["x0", "w", "b"], ["y"], strides=[stride] * 2, pads=pads,
                            group=group)  # fmt: skip
    weight, bias = int8_array(8, 4 // group, kernel, kernel), np.arange(-400, 400, 100, np.int32)
    path = one_operator(tmp_path / "m.onnx", node, [(1, 4, 10, 12)], {"w": weight, "b": bias},
                        ("n", 8, "h", "v"), scale=0.3)  # fmt: skip
    assert np.abs(differences(path, (1, 4, 10, 12), tmp_path)).max() <= 1
    network = convert(signed_codes(path)[0], path)
    kinds = [operator.kind for operator in network.operators]
    assert kinds[-1] == ("CONV_2D" if group == 1 else "DEPTHWISE_CONV_2D")
    assert (kinds[0] == "PAD") == (padding == "PAD")
    assert network.operators[-1].options["padding"] == padding.replace("PAD", "VALID")


@needs_litert
@pytest.mark.parametrize(
    ("node", "shape", "stored"),
    [
        (("LeakyRelu", {"alpha": 0.1}), (1, 4, 6, 6), {}),
        (("Relu", {}), (1, 4, 6, 6), {}),
        (("Sigmoid", {}), (1, 4, 6, 6), {}),
        (("GlobalAveragePool", {}), (1, 40, 6, 6), {}),
        (("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}), (1, 4, 6, 6), {}),
        (("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4}), (1, 4, 6, 6), {}),
        (("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
         (1, 4, 7, 7), {}),
        (("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4,
                          "count_include_pad": 1}), (1, 4, 6, 6), {}),
        (("MaxPool", {"kernel_shape": [3, 3], "pads": [1] * 4}), (1, 4, 6, 6), {}),
        (("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
         (1, 4, 6, 6), {}),
        (("Flatten", {}), (1, 4, 6, 6), {}),
        (("Reshape", {}), (1, 4, 6, 6), {"shape": np.array([0, -1])}),
        (("Mul", {}), (1, 4, 6, 6), {"w": int8_array(1, 4, 1, 1)}),
        (("Add", {}), (1, 4, 6, 6), {"w": int8_array(1, 4, 6, 6)}),
        (("Concat", {"axis": 1}), (1, 4, 6, 6), {"w": int8_array(1, 3, 6, 6)}),
        (("Gemm", {"transB": 1}), (1, 40), {"w": int8_array(30, 40)}),
        (("Gemm", {}), (1, 40), {"w": int8_array(40, 30)}),
        (("MatMul", {}), (1, 40), {"w": int8_array(40, 30)}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and isinstance(value[0], str) else "",
)  # fmt: skip
def test_operators_compute_what_onnxruntime_does(node, shape, stored, tmp_path):
    kind, attributes = node
    made = helper.make_node(kind, ["x0", *stored], ["y"], **attributes)
    scale = 0.4 if kind in ("Gemm", "MatMul") else 0.01 if kind == "Sigmoid" else 0.05
    if len(shape) == 2:  # a window has four axes: the linear layer stands behind a Flatten
        path = behind_flatten(tmp_path / "m.onnx", made, shape, stored, scale)
        shape = (1, 1, 1, shape[1])
    else:
        path = one_operator(tmp_path / "m.onnx", made, [shape], stored, None, scale)
    # Pooling rounds in its own scale before a QUANTIZE rounds to the file's.
    allowed = 2 if kind in ("AveragePool", "Sigmoid") else 1
    assert np.abs(differences(path, shape, tmp_path)).max() <= allowed


def behind_flatten(path, node, shape, stored, scale):
    """``one_operator`` on a window (1, 1, 1, n) that is flattened first."""
    one_operator(path, node, [(1, 1, 1, shape[1])], stored, None, scale)
    model = onnx.load(path)
    graph = model.graph
    first = graph.node[0]
    flat = [
        helper.make_node("Flatten", ["map"], ["flat"], "flat"),
        helper.make_node("QuantizeLinear", ["flat", "s", "z"], ["flat.q"]),
        helper.make_node("DequantizeLinear", ["flat.q", "s", "z"], ["x0"]),
    ]
    first.output[0] = "map"
    nodes = [first, *flat, *list(graph.node)[1:]]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())
    return path


def test_windows_that_same_padding_covers_by_hand():
    """Kernel 3, stride 2: on 10 rows SAME pads (0, 1), on 11 rows (1, 1); ONNX said (1, 1)."""
    windows = conversion._Windows((3, 3), (2, 2), (1, 1), (1, 1), (0, 0), (5, 5))
    assert not windows.same((10, 10))
    windows = conversion._Windows((3, 3), (2, 2), (1, 1), (1, 1), (1, 1), (6, 6))
    assert windows.same((11, 11)) and not windows.same((11, 13))


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "stored", "words"),
    [
        (("Elu", {}), {}, ["unsupported operator Elu", "'layer'"]),
        (("Conv", {"group": 2}), {"w": int8_array(8, 2, 3, 3)}, ["Conv", "'layer'", "2 groups"]),
        (("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}), {},
         ["AveragePool", "'layer'", "padding"]),
        (("Transpose", {"perm": [0, 2, 3, 1]}), {}, ["unsupported operator Transpose"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_tflite_cannot_take_is_named_with_its_layer(node, stored, words, tmp_path):
    kind, attributes = node
    made = helper.make_node(kind, ["x0", *stored], ["y"], **attributes)
    path = one_operator(tmp_path / "m.onnx", made, [(1, 4, 6, 6)], stored, None)
    with pytest.raises(InputError) as refusal:
        convert(signed_codes(path)[0], path)
    for word in words:
        assert word in str(refusal.value)


def test_a_layer_in_float_is_named(int8_files, tmp_path):
    prepared = prepare(int8_files("audiobot50-dsc").with_name("float.onnx"))
    with static.StaticQuantiser(prepared, WINDOWS[:8, None], "minmax") as quantiser:
        for number, word in ((2, "--keep-float"), (0, "first layer"), (-1, "last layer")):
            layer = prepared.layers[number].name
            path = tmp_path / "m.onnx"
            static.save(quantiser.quantise({layer}), path)
            with pytest.raises(InputError, match=word):
                convert(signed_codes(path)[0], path)


# --- the command ---------------------------------------------------------------------------------


def run_export(*arguments: str | Path) -> int:
    given = ["--format", "tflite", "--workers", "1", *map(str, arguments)]
    return cli.main(ExportConfig, export.run, "", given)


@pytest.fixture(scope="module")
def int8_run(finished_run, tmp_path_factory):
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    out = tmp_path_factory.mktemp("quantised") / "int8"
    given = ["--threads", "1", "--workers", "1", "--samples", "32", "--run", str(finished_run)]
    assert cli.main(QuantizeConfig, quantize.run, "", [*given, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def exported(int8_run, tmp_path_factory):
    """(run folder, what was printed)."""
    if not available():
        pytest.skip("LiteRT is not installed (pip install '.[tflite]')")
    out = tmp_path_factory.mktemp("runs") / "tflite"
    printed = io.StringIO()
    more = ["--vela", "ethos-u55-128", "--vela", "ethos-u85-256"] if _has_vela() else []
    with contextlib.redirect_stdout(printed):
        assert run_export("--run", int8_run, "--out", out, *more) == 0
    return out, printed.getvalue()


def test_an_export_measures_its_own_file(exported, int8_run, npy_data):
    run, parent = run_folders.open_run(exported[0]), run_folders.open_run(int8_run)
    figures = run.metrics()
    file = run.file("model.tflite")
    assert run.complete and run.manifest["stage"] == "export"
    assert figures["artifact"] == "model.tflite"
    assert figures["sha256"] == run_folders.sha256_file(file)
    assert run.manifest["settings"]["parent"] == parent.metrics()["sha256"]
    assert not run_folders.missing(run.folder, run.manifest)
    split = run_folders.read_json(run.file("split.json"))
    assert split == run_folders.read_json(parent.file("split.json"))
    test = np.concatenate([np.arange(a, b + 1) for a, b in split["test"]])
    windows = np.load(npy_data / "training.npy")[test][:, None]
    labels = np.load(npy_data / "training_labels.npy")[test]
    described = run_folders.read_json(run.file("interface.json"))
    gain, offset = (np.array(described[key])[:, None] for key in ("gain", "offset"))
    codes = np.clip(np.rint(windows * gain + offset), -128, 127).astype(np.int8)
    found = CodesNetwork(file)(codes)
    right = found.argmax(1) == labels
    assert figures["splits"]["test"]["accuracy"] == pytest.approx(right.mean())
    recorded = evaluate.load_decisions(run.file(DECISIONS))
    np.testing.assert_array_equal(recorded.correct, right)
    assert figures["agreement"]["windows"] == len(test)
    assert figures["agreement"]["top1"] >= 0.9
    assert figures["agreement"]["largest_code_difference"] <= 6
    assert figures["params"] == parent.metrics()["params"]
    assert described["class_names"] == list(run.class_names)
    with pytest.raises(InputError, match="holds an export"):
        run.file(run_folders.ONNX)


def test_the_closing_lines_say_what_was_measured(exported):
    folder, printed = exported
    figures = run_folders.open_run(folder).metrics()
    for words in ("TFLite minus ONNX", f"{figures['file_bytes']:,}", "interface.json", str(folder)):
        assert words in printed
    for estimate in figures["vela"]:
        assert f"{estimate['accelerator']}: {estimate['sram_bytes'] / 1024:.1f} KiB" in printed
        assert f"{estimate['inferences_per_second']:,.0f} inferences/s" in printed
    assert "WARNING" not in printed


def test_the_same_export_is_made_once(exported, int8_run, capsys):
    before = (exported[0] / "manifest.json").read_text()
    more = ["--vela", "ethos-u55-128", "--vela", "ethos-u85-256"] if _has_vela() else []
    assert run_export("--run", int8_run, "--out", exported[0], *more) == 0
    printed = capsys.readouterr().out
    assert "finished before" in printed and "TFLite minus ONNX" in printed
    assert (exported[0] / "manifest.json").read_text() == before


def test_gate_and_report_take_the_file(exported, tmp_path, capsys):
    runs = exported[0].parent
    limits = tmp_path / "limits.toml"
    limits.write_text("[limits]\nparams = 1000\nmacs = 100_000_000\n")
    given = [str(exported[0]), "--budgets", str(limits)]
    assert cli.main(GateConfig, gate.run, "", given) == 1
    out = capsys.readouterr().out
    figures = run_folders.open_run(exported[0]).metrics()
    assert f"params {figures['file_params']:,} is over the limit of 1,000" in out
    assert "1 checked" in out and "not measured" not in out
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(runs), "--out",
                                                   str(tmp_path / "report")]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "export tflite" in printed
    if figures["vela"]:
        assert "ethos-u85-256" in printed and "est. inferences/s" in printed
        for name in ("report.md", "report.html", "npu.csv", "npu.json"):
            assert "ethos-u55-128" in (tmp_path / "report" / name).read_text()


def test_npu_figures_of_a_file_that_changed_are_left_out(exported, tmp_path, capsys):
    if not _has_vela():
        pytest.skip("Vela is not installed (pip install '.[tflite]')")
    copy = Path(shutil.copytree(exported[0], tmp_path / "runs" / "copy"))
    with (copy / "model.tflite").open("ab") as file:
        file.write(b"x")
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(copy.parent)]) == 0
    printed = capsys.readouterr().out
    assert "changed since Vela compiled it" in printed and "est. inferences/s" not in printed
    metrics = run_folders.read_json(copy / "metrics.json")
    metrics["vela"][0]["cycles"] = float("inf")
    metrics["sha256"] = run_folders.sha256_file(copy / "model.tflite")
    run_folders.write_json(copy / "metrics.json", metrics)
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(copy.parent)]) == 0
    assert "damaged under 'vela'" in capsys.readouterr().out


def test_bad_input_gets_one_line(finished_run, int8_run, tmp_path, capsys, monkeypatch):
    four_bits = Path(shutil.copytree(int8_run, tmp_path / "four"))
    metrics = run_folders.read_json(four_bits / "metrics.json") | {"weight_bits": 4}
    run_folders.write_json(four_bits / "metrics.json", metrics)
    manifest = run_folders.read_json(four_bits / "manifest.json")
    manifest["artefacts"]["metrics.json"] = run_folders.sha256_file(four_bits / "metrics.json")
    run_folders.write_json(four_bits / "manifest.json", manifest)
    cases = [
        (["--run", finished_run], ["float", "python -m compress.quantize --run"]),
        (["--run", int8_run, "--vela", "ethos-u55-12"], ["ethos-u55-128"]),
        ([], ["--run must be given"]),
    ]
    if available():
        cases.append((["--run", four_bits], ["4 bits", "--weight-bits 8"]))
    for arguments, words in cases:
        assert run_export(*arguments, "--runs", tmp_path / "runs") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        for word in words:
            assert word in error
    monkeypatch.setattr("compress.tflite.export.available", lambda: False)
    assert run_export("--run", int8_run, "--runs", tmp_path / "runs") == 2
    assert "pip install '.[tflite]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "nothing half-written"


# --- what an NPU leaves to the CPU ---------------------------------------------------------------


@needs_vela
def test_operators_that_fall_back_to_the_cpu_are_flagged(tmp_path, monkeypatch):
    """An NPU cannot round. Vela ends with exit code 0 even where nothing is left to the NPU."""
    monkeypatch.setitem(flatbuffer._VERSIONS, "ROUND", 1)
    network, file = tiny_network(), tmp_path / "m.tflite"
    meaning = network.tensors[5].quantisation
    tensors = (*network.tensors, conversion.Tensor("rounded", (1, 2), meaning))
    last = conversion.Operator("rounded", "ROUND", (5,), (6,))
    file.write_bytes(serialise(conversion.Network(
        tensors, (*network.operators, last), (0,), (6,)), "", {}))  # fmt: skip
    found = vela.compile_for(file, "ethos-u55-128")
    assert found["cpu_operators"] == ["ROUND rounded"] and not found["all_on_cpu"]
    assert "WARNING: 1 operators fall back" in vela.lines(found)[1]
    file.write_bytes(serialise(conversion.Network(tensors, (last,), (5,), (6,)), "", {}))
    found = vela.compile_for(file, "ethos-u55-128")
    assert found["all_on_cpu"] and "NOTHING" in vela.lines(found)[1]
    record = npu.NpuRecord("n", "ethos-u55-128", sram_bytes=5, cycles=7, all_on_cpu=True,
                           cpu_operators=tuple(found["cpu_operators"]))  # fmt: skip
    assert "EVERYTHING" in npu.cells(record) and "7" not in npu.cells(record)
    assert "EVERYTHING" in npu.warnings_of([record])[0]


# --- the reader, without LiteRT ------------------------------------------------------------------


def tiny_network() -> conversion.Network:
    """A convolution 1 -> 2 channels on (1, 4, 6, 1), stride 2, then a mean: 20 weights."""
    activation = conversion.Quantisation(np.float32([0.5]), 1)
    per_channel = conversion.Quantisation(np.float32([0.25, 0.125]))
    tensors = (
        conversion.Tensor("codes", (1, 4, 6, 1), activation),
        conversion.Tensor("w", (2, 3, 3, 1), per_channel, (np.arange(18) % 7 - 3).astype(np.int8)
                          .reshape(2, 3, 3, 1)),
        conversion.Tensor("b", (2,), per_channel, np.array([5, -5], np.int32)),
        conversion.Tensor("conv", (1, 2, 3, 2), activation),
        conversion.Tensor("axes", (2,), None, np.array([1, 2], np.int32)),
        conversion.Tensor("mean", (1, 2), activation),
    )  # fmt: skip
    options = {"padding": "SAME", "strideH": 2, "strideW": 2, "dilationHFactor": 1,
               "dilationWFactor": 1}  # fmt: skip
    operators = (
        conversion.Operator("conv", "CONV_2D", (0, 1, 2), (3,), options),
        conversion.Operator("mean", "MEAN", (3, 4), (5,), {"keepDims": False}),
    )
    return conversion.Network(tensors, operators, (0,), (5,))


@needs_litert
def test_the_tiny_file_is_what_the_writer_gives():
    assert TINY.read_bytes() == serialise(tiny_network(), "tiny", {"note": "two words"})


def test_a_file_is_counted_by_hand():
    found = artefacts.read(TINY)
    assert found.kind == "tflite" and found.notes == ()
    assert found.file_params == 18 + 2
    # conv: 2 x 3 places x 2 channels x 9; the mean has none
    assert found.macs == 108
    # scales and zero points: one each for three activations, two each for weight and bias
    assert found.apart == {"shapes and settings": 2, "quantisation parameters": 6 + 8}
    # 18 int8 weights, 2 biases and 2 axes of 4 bytes; 7 scales of 4 bytes, 7 zero points of 8
    assert found.quantised and found.flash_bytes == 18 + 4 * 4 + 7 * 4 + 7 * 8
    assert found.largest_layers(1, "flash_bytes")[0].flash_bytes == 18 + 8
    # at the convolution: 24 bytes of input, 12 of output
    assert (found.peak_activation_bytes, found.peak_layer) == (36, "conv")
    assert [(layer.name, layer.kind, layer.params) for layer in found.layers] == [
        ("conv", "CONV_2D", 20)
    ]
    assert tflite_file.operators(TINY) == [("CONV_2D", "conv"), ("MEAN", "mean")]
    assert tflite_file.metadata(TINY) == {"note": "two words"}


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x00" * 64, b"\x10\0\0\0TFL3" + b"\xff" * 40])
def test_what_is_no_tflite_file_is_refused(content, tmp_path):
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(InputError, match="tflite"):
        artefacts.read(tmp_path / "m.tflite")


@pytest.mark.parametrize(("kind", "elements", "weights"), [(4, 960, 960), (6, 960, 960), (4, 4, 0)])
def test_whole_numbers_too_many_for_settings_are_weights(kind, elements, weights):
    """A cast makes weights of int64 or bool."""
    shape = (elements // 2, 2)
    tensors = [
        tflite_file._Tensor("x", (1, 2), 0, None),
        tflite_file._Tensor("w", shape, kind, (100, elements)),
        tflite_file._Tensor("real", shape, 0, None),
        tflite_file._Tensor("y", (1, elements // 2), 0, None),
    ]
    operators = [
        tflite_file._Operator("CAST", "", (1,), (2,)),
        tflite_file._Operator("FULLY_CONNECTED", "", (0, 2), (3,)),
    ]
    graph = tflite_file._Graph(tensors, operators, (0,), (3,))
    assert tflite_file._count([graph], [tflite_file._constants(graph)])[0] == weights


def test_the_flash_of_a_file_is_limited(tmp_path, capsys):
    limits = tmp_path / "limits.toml"
    limits.write_text("[fail]\nflash_bytes = 117\n")
    assert cli.main(GateConfig, gate.run, "", [str(TINY), "--budgets", str(limits)]) == 1
    assert "flash_bytes 118 is over the limit of 117 by 1 bytes" in capsys.readouterr().out


def test_truncated_at_any_place_is_refused(tmp_path):
    content = TINY.read_bytes()
    path = tmp_path / "m.tflite"
    for length in range(0, len(content), 13):
        path.write_bytes(content[:length])
        with contextlib.suppress(InputError):
            # What is lost may be a description; then every count has to be the whole file's.
            assert artefacts.read(path).file_params == 20


def test_mutated_files_are_read_or_refused(tmp_path):
    """Every sixth byte of the file in turn, and pairs of bytes at random."""
    content, path = TINY.read_bytes(), tmp_path / "m.tflite"
    generator = np.random.default_rng(0)
    places = [[place] for place in range(0, len(content), 6)]
    places += generator.integers(0, len(content), (100, 2)).tolist()
    for changed in places:
        mutated = bytearray(content)
        for place in changed:
            mutated[place] = int(generator.choice([0, 1, 127, 128, 255]))
        path.write_bytes(mutated)
        for read in (artefacts.read, tflite_file.operators, tflite_file.metadata):
            with contextlib.suppress(InputError):
                read(path)
