"""int8 files: what they compute, what is said of them, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import model_files
import numpy as np
import onnx
import pytest
import torch
from conftest import band_spectrograms, write_npy_pair
from onnx import TensorProto, helper, numpy_helper
from qdq_models import Qdq

from compress import (
    cli,
    distill,
    evaluate,
    metrics,
    onnx_export,
    predict,
    quantize,
    quantized_runs,
    registry,
    runs,
)
from compress.artefacts import onnx_file
from compress.chip import arena, emit
from compress.chip.layers import read_network
from compress.config import DistillConfig, QuantizeConfig
from compress.int8 import layers as int8_layers
from compress.int8 import static
from compress.int8.clustered import cluster, codebook, entries_of, tables
from compress.int8.clustered import pack as pack_clusters
from compress.int8.coded import signed_codes
from compress.int8.graph import EditableGraph
from compress.int8.interface import METADATA_KEY, Interface
from compress.int8.narrow import channel_axis, clip_shares, narrow_weights, pack
from compress.int8.prepare import prepare
from compress.int8.reference import IntegerNetwork
from compress.int8.scales import fits_short, short_scale
from compress.int8.simulated import SimulatedNetwork
from compress.int8.small_file import small
from compress.material import Normalisation
from compress.session import DECISIONS
from compress.tflite.convert import convert

EFFICIENT = pytest.param("timm/test_efficientnet", marks=pytest.mark.slow)
STUDENTS = [*registry.STUDENTS, "timm/test_resnet", EFFICIENT]
WINDOWS, LABELS = band_spectrograms(200, seed=5)
MEAN = Normalisation(WINDOWS.mean((0, 2)), WINDOWS.std((0, 2)))
FEW = ["--threads", "1", "--workers", "1", "--samples", "64"]


def run_quantize(*arguments: str | Path) -> int:
    return cli.main(QuantizeConfig, quantize.run, "", [*FEW, *map(str, arguments)])


def logits_of(path: Path, windows: np.ndarray = WINDOWS) -> np.ndarray:
    return evaluate.onnx_predictor(path, threads=1)(windows[:, None])


def stored(path: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}


@pytest.fixture(scope="session")
def float_files(tmp_path_factory):
    """name -> ONNX file of a student after a few steps on the small set."""
    made: dict[str, Path] = {}

    def file_of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("float") / "model.onnx"
            onnx_export.to_onnx(_toy_student(name), MEAN, 32, 96, made[name])
        return made[name]

    return file_of


def _toy_student(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = registry.build_student(name, classes=5).train()
    x = torch.from_numpy((WINDOWS - MEAN.mean[:, None]) / MEAN.deviation[:, None])[:, None]
    y = torch.from_numpy(LABELS)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(24):
        rows = torch.arange(step * 15, step * 15 + 15) % len(x)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="session")
def quantised(float_files, tmp_path_factory):
    """name -> (prepared float model, QDQ model with uint8 activations, its file)."""
    made = {}

    def of(name: str):
        if name not in made:
            prepared = prepare(float_files(name))
            with static.StaticQuantiser(prepared, WINDOWS[:96, None], "minmax") as quantiser:
                model = quantiser.quantise()
            path = tmp_path_factory.mktemp("int8") / "model.onnx"
            static.save(model, path)
            made[name] = prepared, model, path
        return made[name]

    return of


@pytest.fixture(scope="module")
def int8_run(finished_run, tmp_path_factory):
    """(run folder, what was printed)."""
    import contextlib
    import io

    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    out = tmp_path_factory.mktemp("quantised") / "int8"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run_quantize("--run", finished_run, "--out", out, "--sensitivity") == 0
    return out, printed.getvalue()


@pytest.fixture(scope="module")
def distilled(finished_run, npy_data, tmp_path_factory):
    """A run with a teacher (another student serves as one), in a folder that may be copied."""
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    root = tmp_path_factory.mktemp("distilled")
    shutil.copytree(finished_run, root / "teacher")
    arguments = ["--student", "dsc50", "--data", str(npy_data), "--epochs", "1", "--workers", "1"]
    arguments += ["--teacher", str(root / "teacher"), "--out", str(root / "student")]
    assert cli.main(DistillConfig, distill.run, "", [*arguments, "--threads", "1"]) == 0
    return root


# --- what the file computes ----------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_decides_in_int8_as_in_float(name, float_files, quantised):
    prepared, model, path = quantised(name)
    in_float, in_int8 = logits_of(float_files(name)), logits_of(path)
    assert evaluate.agreement(in_int8, in_float)["top1"] >= 0.99
    assert static.float_operators(model, prepared) == []
    tensors = stored(path)
    weights = {name for name in tensors if tensors[name].data_type == TensorProto.INT8}
    floats = stored(float_files(name))
    for name, tensor in tensors.items():
        large_float = tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1
        assert not large_float or name in ("mean", "gain"), f"{name} is stored in float"
    assert sum(name in floats or "factor" in name for name in weights) == len(prepared.layers)


@pytest.mark.parametrize("name", ["audiobot50", "audiobot50-dsc", "dsc50", "timm/test_resnet"])
def test_preparing_changes_nothing(name, float_files, tmp_path):
    static.save(prepare(float_files(name)).model, tmp_path / "prepared.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "prepared.onnx").graph.node}
    assert "BatchNormalization" not in operators and "ReduceMean" not in operators
    before, after = logits_of(float_files(name)), logits_of(tmp_path / "prepared.onnx")
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())


@pytest.mark.parametrize(
    "name", ["audiobot50", "dsc50", "audiobot50-dsc", "timm/test_resnet", EFFICIENT]
)
def test_numpy_integers_equal_onnxruntime_bit_for_bit(name, quantised):
    _, _, path = quantised(name)
    np.testing.assert_array_equal(IntegerNetwork(path)(WINDOWS[:24, None]), logits_of(path)[:24])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["audiobot50", "dsc50"])
def test_numpy_integers_equal_the_file_over_a_whole_split(name, quantised):
    _, _, path = quantised(name)
    windows = band_spectrograms(1000, seed=7)[0][:, None]
    in_onnx = evaluate.onnx_predictor(path)
    for start in range(0, len(windows), 100):
        block = windows[start : start + 100]
        np.testing.assert_array_equal(IntegerNetwork(path)(block), in_onnx(block))


def test_integer_convolution_by_hand():
    """2 x 2 window of codes, one kernel: zero points, padding, bias, rounding half to even."""
    from compress.int8.reference import Codes, _conv, round_as_onnxruntime

    x = Codes(np.array([[[[12, 10], [10, 14]]]]), np.float32([0.5]), np.array([10]))
    weight = Codes(np.array([[[[1, 2, 3]]]]), np.float32([0.25]), np.array([0]))
    bias = Codes(np.array([3]), np.float32([0.125]), np.array([0]))
    sums, factor = _conv([x, weight, bias], {"pads": (0, 1, 0, 1)})
    # row 0: 2 0 -> 0*1 + 2*2 + 0*3 = 4, then 2*1 + 0*2 + 0*3 = 2; row 1: 0 4 -> 12, 8; bias 3
    assert sums.tolist() == [[[[7, 5], [15, 11]]]] and factor == 0.125
    assert round_as_onnxruntime(np.array([1, 3, 5, -3]), np.float32(0.5)).tolist() == [0, 2, 2, -2]


def test_short_scales_by_hand():
    """0.1 lies between 1638 and 1639 / 16384; what float16 has only in fewer bits stays."""
    scale = np.float32([0.1, 0.25, 1e-5, 40_001])
    assert short_scale(scale).tolist() == [1639 / 16384, 0.25, float(scale[2]), 40_001]
    assert fits_short(short_scale(scale[:2])) and not fits_short(short_scale(scale[:3]))
    assert not fits_short(scale[:2])


@pytest.mark.parametrize("name", ["audiobot50", "dsc50", "timm/test_resnet"])
def test_weights_are_rounded_in_steps_that_float16_holds(name, quantised):
    prepared, model, _ = quantised(name)
    graph, floats = EditableGraph(model), EditableGraph(prepared.model).arrays
    seen = 0
    for layer in [node for node in graph.nodes if node.op_type in ("Conv", "Gemm")]:
        data, weight, bias = (graph.producer(tensor) for tensor in layer.input)
        codes, scale = graph.array(weight, 0), graph.array(weight, 1)
        if codes is None or not fits_short(scale):
            continue
        seen += 1
        shape = [1] * codes.ndim
        shape[channel_axis(weight, codes.ndim)] = -1
        exact = floats[weight.input[0]] / scale.reshape(shape)
        assert np.abs(codes - exact).max() <= 0.5 and np.abs(exact).max() < 127.001
        assert np.array_equal(graph.array(bias, 1), graph.array(data, 1) * scale)
    assert seen >= 3


@pytest.mark.parametrize("name", ["audiobot50", "dsc50", "timm/test_resnet"])
def test_the_simulation_is_what_onnxruntime_computes(name, quantised, tmp_path):
    prepared, model, path = quantised(name)
    network = SimulatedNetwork(prepared, model).eval()
    x = torch.from_numpy((WINDOWS - MEAN.mean[:, None]) / MEAN.deviation[:, None])[:, None]
    with torch.inference_mode():
        simulated = network(x).numpy()
    in_file = logits_of(path)
    step = _output_step(model)
    assert np.abs(simulated - in_file).max() <= 2 * step * 1.001
    assert evaluate.agreement(simulated, in_file)["top1"] >= 0.99
    static.save(network.to_onnx(), tmp_path / "again.onnx")
    assert np.abs(logits_of(tmp_path / "again.onnx") - in_file).max() <= 2 * step * 1.001


def _output_step(model: onnx.ModelProto) -> float:
    last = next(n for n in model.graph.node if n.output[0] == model.graph.output[0].name)
    arrays = {t.name: t for t in model.graph.initializer}
    return float(numpy_helper.to_array(arrays[last.input[1]]))


def test_every_weight_gets_a_gradient_through_the_rounding(quantised):
    prepared, model, _ = quantised("dsc50")
    network = SimulatedNetwork(prepared, model, range_steps=1).train()
    x = torch.randn(4, 1, 32, 96)
    network(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert int(network.steps_left) == 0
    ranges = {k: v.clone() for k, v in network.state_dict().items() if k.startswith("high")}
    network(100 * x)
    frozen = network.state_dict()
    assert all(torch.equal(frozen[key], value) for key, value in ranges.items())


def test_signed_activations_are_the_same_integers(quantised, tmp_path):
    _, model, path = quantised("audiobot50")
    static.save(static.with_signed_activations(model), tmp_path / "signed.onnx")
    before, after = stored(path), stored(tmp_path / "signed.onnx")
    for name, tensor in before.items():
        if tensor.data_type == TensorProto.UINT8:
            assert after[name].data_type == TensorProto.INT8
            value = numpy_helper.to_array(after[name]).astype(int) + 128
            np.testing.assert_array_equal(value, numpy_helper.to_array(tensor))
    np.testing.assert_array_equal(logits_of(tmp_path / "signed.onnx"), logits_of(path))


@pytest.mark.parametrize("signed", [False, True])
def test_coded_ends_give_the_same_decisions(signed, quantised, tmp_path):
    prepared, model, path = quantised("audiobot50")
    unsigned = tmp_path / "unsigned.onnx"
    static.save(static.with_coded_ends(model, prepared), unsigned)
    model = static.with_signed_activations(model) if signed else model
    coded = tmp_path / "coded.onnx"
    static.save(static.with_coded_ends(model, prepared), coded)
    session = evaluate.onnx_session(coded)
    kind = "tensor(int8)" if signed else "tensor(uint8)"
    assert [end.type for end in (*session.get_inputs(), *session.get_outputs())] == [kind, kind]
    np.testing.assert_array_equal(logits_of(coded).argmax(1), logits_of(path).argmax(1))
    # onnxruntime computes in integers where activations are unsigned; on x86 it adds up a signed
    # convolution in float32, which moves a result that lies half-way between two codes. One model,
    # two zero points: the integers of both files are those of the unsigned one.
    integers = IntegerNetwork(coded)(WINDOWS[:32, None])
    np.testing.assert_array_equal(integers, logits_of(unsigned)[:32])
    np.testing.assert_array_equal(integers, IntegerNetwork(unsigned)(WINDOWS[:32, None]))
    summary = onnx_file.read(coded)
    assert summary.apart.get("input scaling", 0) == 0


def test_codes_by_hand():
    interface = Interface("int8", (2.0, 1.0), (10.0, -3.0), 0.5, 4)
    decibels = np.array([[[[-80.0, 1.2], [0.5, 1.5]]]])
    assert interface.encode(decibels).tolist() == [[[[-128, 12], [-2, -2]]]]
    assert interface.decode(np.array([[6, 0]], np.int8)).tolist() == [[1.0, -2.0]]
    assert Interface.from_metadata({METADATA_KEY: interface.to_json()}, "x") == interface
    with pytest.raises(Exception, match="damaged"):
        Interface.from_metadata({METADATA_KEY: '{"kind": "int3"}'}, "x")


def test_four_bit_weights_are_packed_and_computed_in_int8(quantised, float_files, tmp_path):
    prepared, model, path = quantised("dsc50")
    names = narrow_weights(prepared, model)
    small = SimulatedNetwork(prepared, model, narrow=names).eval().to_onnx()
    static.save(small, tmp_path / "wide.onnx")
    static.save(pack(small, names), tmp_path / "packed.onnx")
    tensors = stored(tmp_path / "packed.onnx")
    assert {tensors[name].data_type for name in names} == {TensorProto.INT4}
    np.testing.assert_array_equal(
        logits_of(tmp_path / "packed.onnx"), logits_of(tmp_path / "wide.onnx")
    )
    sizes = [p.stat().st_size for p in (float_files("dsc50"), path, tmp_path / "packed.onnx")]
    assert sizes[1] < 0.35 * sizes[0] and sizes[2] < 0.75 * sizes[1]
    counts = [onnx_file.read(p).file_params for p in (path, tmp_path / "packed.onnx")]
    assert counts[0] == counts[1]
    exact = IntegerNetwork(tmp_path / "packed.onnx")(WINDOWS[:32, None])
    np.testing.assert_array_equal(exact, logits_of(tmp_path / "packed.onnx")[:32])


def test_clipping_to_four_bits_loses_less_than_the_largest_weight_would():
    weight = np.random.default_rng(0).standard_t(3, (4, 200)).astype(np.float32)
    shares = clip_shares(weight, 0)
    assert ((shares >= 0.4) & (shares <= 1)).all()

    def error(scale: np.ndarray) -> float:
        rounded = np.clip(np.rint(weight / scale), -7, 7) * scale
        return float(np.square(rounded - weight).sum())

    largest = np.abs(weight).max(1, keepdims=True) / 7
    assert error(shares[:, None] * largest) < error(largest)


# --- what a run says of it -----------------------------------------------------------------------


def test_an_int8_run_holds_everything_and_measures_its_own_file(int8_run, finished_run, npy_data):
    folder, _ = int8_run
    run, parent = runs.open_run(folder), runs.open_run(finished_run)
    figures = run.metrics()
    assert run.complete and run.manifest["stage"] == "quantize"
    assert run.manifest["parent"]["weights_sha256"] == parent.model_hash()
    assert figures["sha256"] == runs.sha256_file(run.file(runs.ONNX))
    assert not runs.missing(folder, run.manifest)
    split = json.loads(run.file(runs.SPLIT).read_text())
    assert split == json.loads(parent.file(runs.SPLIT).read_text())
    test = np.concatenate([np.arange(a, b + 1) for a, b in split["test"]])
    windows = np.load(npy_data / "training.npy")[test]
    labels = np.load(npy_data / "training_labels.npy")[test]
    right = [logits_of(r.file(runs.ONNX), windows).argmax(1) == labels for r in (run, parent)]
    assert figures["splits"]["test"]["accuracy"] == pytest.approx(right[0].mean())
    found = figures["differences"]["test"]
    assert found["difference"] == pytest.approx(right[0].mean() - right[1].mean())
    assert (found["only_a"], found["only_b"]) == (
        (right[0] & ~right[1]).sum(),
        (right[1] & ~right[0]).sum(),
    )
    recorded = evaluate.load_decisions(run.file(DECISIONS))
    np.testing.assert_array_equal(recorded.correct, right[0])
    ratio = run.file(runs.ONNX).stat().st_size / parent.file(runs.ONNX).stat().st_size
    assert figures["file_bytes_ratio"] == pytest.approx(ratio) and ratio < 0.3
    assert figures["params"] == parent.metrics()["params"]


def test_memory_is_counted_in_bytes_of_int8(int8_run):
    """The first batch norm reads and writes 24 maps of 16 x 48, one byte each."""
    figures = runs.open_run(int8_run[0]).metrics()
    assert figures["peak_activation_bytes"] == 2 * 24 * 16 * 48
    assert figures["parent"]["peak_activation_bytes"] == 4 * (24 * 16 * 48 + 48 * 8 * 24)


def test_the_run_prints_what_was_measured(int8_run):
    folder, printed = int8_run
    figures = runs.open_run(folder).metrics()
    for word in ("McNemar", f"{figures['file_bytes']:,}", "int8 minus float", "one thread"):
        assert word in printed
    timing = figures["latency_ratio"]
    assert timing["low"] <= timing["ratio"] <= timing["high"] and timing["runs"] >= 20
    assert ("Not faster" in printed) == (timing["ratio"] >= 1)
    assert "In float:" not in printed
    table = printed.split("\n\n")[0].splitlines()
    details = runs.read_json(folder / quantized_runs.DETAILS)
    assert len(table) == 1 + len(details["layers"]) == 9
    divergences = [layer["alone"]["divergence"] for layer in details["layers"]]
    assert divergences == sorted(divergences, reverse=True) and min(divergences) >= 0


def test_the_same_command_does_the_work_once(int8_run, finished_run, capsys):
    before = (int8_run[0] / runs.MANIFEST).read_text()
    assert run_quantize("--run", finished_run, "--out", int8_run[0], "--sensitivity") == 0
    printed = capsys.readouterr().out
    assert "finished before" in printed and "alone in int8" in printed
    assert (int8_run[0] / runs.MANIFEST).read_text() == before


def test_files_against_themselves_take_equal_time(finished_run):
    file = finished_run / runs.ONNX
    found = evaluate.latency_ratio(file, file, 32, 96)
    assert 0.7 < found["ratio"] < 1.4


def test_layers_are_kept_in_float_by_name_and_by_cost(finished_run, tmp_path, capsys):
    options = ("--run", finished_run, "--calibration", "percentile")
    assert run_quantize(*options, "--keep-float", "blocks.1.0,head.4", "--out", tmp_path / "a") == 0
    printed = capsys.readouterr().out
    assert "In float: " in printed
    details = runs.read_json(tmp_path / "a" / quantized_runs.DETAILS)
    assert details["keep_float"] == ["blocks.1.0", "head.4"]
    kinds = {t.name: t.data_type for t in stored(tmp_path / "a" / runs.ONNX).values()}
    assert kinds["blocks.1.0.weight"] == TensorProto.FLOAT
    assert kinds["blocks.0.0.weight"] == TensorProto.INT8
    assert run_quantize(*options, "--keep-float", "2", "--out", tmp_path / "b") == 0
    details = runs.read_json(tmp_path / "b" / quantized_runs.DETAILS)
    assert details["keep_float"] == [layer["name"] for layer in details["layers"][:2]]


def test_a_constant_difference_has_its_divergence_by_hand():
    """Float: evens; quantised: 3 to 1 for the right class."""
    found = int8_layers.compare(np.array([[np.log(3.0), 0.0]]), np.zeros((1, 2)), np.array([0]))
    assert found.agreement == 1.0
    assert found.loss_increase == pytest.approx(np.log(0.5 / 0.75))
    assert found.divergence == pytest.approx(0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25))


def test_fine_tuning_runs_under_the_teacher_and_ships_what_it_simulated(
    distilled, tmp_path, capsys
):
    out = tmp_path / "tuned"
    options = ("--run", distilled / "student", "--qat", "--epochs", "1")
    assert run_quantize(*options, "--out", out) == 0
    assert "fine-tuned" in capsys.readouterr().out
    run = runs.open_run(out)
    details = runs.read_json(out / quantized_runs.DETAILS)
    assert details["chosen"] == "fine-tuned"
    assert details["fine_tuned"]["simulated_agreement"]["top1"] >= 0.99
    assert "train_distill_loss" in (out / runs.CURVES).read_text().splitlines()[0]
    assert run.manifest["teachers"][0]["folder"] == str(distilled / "teacher")
    assert not (out / runs.CHECKPOINT).exists()
    assert run_quantize("--run", distilled / "student", "--out", tmp_path / "plain") == 0
    hashes = [stored(folder / runs.ONNX)["stem.0.weight"].raw_data
              for folder in (out, tmp_path / "plain")]  # fmt: skip
    assert hashes[0] != hashes[1], "the weights moved"


@pytest.mark.parametrize(("fall", "tuned"), [(0.002, False), (0.05, True)])
def test_auto_fine_tunes_only_where_accuracy_fell(fall, tuned, finished_run, tmp_path, monkeypatch):
    measured = quantized_runs._candidate

    def fallen(parent, base, how, model, details):
        candidate = measured(parent, base, how, model, details)
        if how == "calibrated":
            difference = metrics.PairedDifference(-fall, -fall, -fall, 0, 1, 1.0)
            candidate = quantized_runs.Candidate(how, model, difference, details)
        return candidate

    monkeypatch.setattr(quantized_runs, "_candidate", fallen)
    options = ("--run", finished_run, "--auto", "--epochs", "1", "--out", tmp_path / "auto")
    assert run_quantize(*options) == 0
    details = runs.read_json(tmp_path / "auto" / quantized_runs.DETAILS)
    assert ("fine_tuned" in details) == tuned
    assert details["chosen"] == ("fine-tuned" if tuned else "calibrated")


def test_all_options_together_and_predict_takes_the_run(finished_run, tmp_path):
    out = tmp_path / "small"
    options = ("--weight-bits", "4", "--int8-io", "--activations", "int8", "--calibration")
    assert run_quantize("--run", finished_run, "--out", out, *options, "entropy") == 0
    figures = runs.open_run(out).metrics()
    assert figures["activations"] == "int8" and figures["weight_bits"] == 4
    session = evaluate.onnx_session(out / runs.ONNX)
    assert session.get_inputs()[0].type == "tensor(int8)"
    model = predict.load_model(out, "default")
    probabilities = model.probabilities(WINDOWS[:3])
    np.testing.assert_allclose(probabilities.sum(1), 1)


# --- a file from elsewhere -----------------------------------------------------------------------


def foreign_file(path: Path, classes: int = 5, opset: int = 11, batch: int | str = 1) -> Path:
    """Convolution, batch norm, pool, linear, without normalisation, with names of its own."""
    random = np.random.default_rng(0)

    def array(name: str, *shape: int, add: float = 0.0) -> onnx.TensorProto:
        values = (0.1 * random.normal(size=shape) + add).astype(np.float32)
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["r"], "act"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "g", "h"], ["y"], "last", transB=1),
    ]
    stored_arrays = [
        array("w", 8, 1, 3, 3), array("s", 8, add=1), array("b", 8), array("m", 8),
        array("v", 8, add=1), array("g", classes, 8), array("h", classes),
    ]  # fmt: skip
    ends = [("x", (batch, 1, 32, 96)), ("y", (batch, classes))]
    values = [helper.make_tensor_value_info(name, 1, shape) for name, shape in ends]
    graph = helper.make_graph(nodes, "elsewhere", values[:1], values[1:], stored_arrays)
    opsets = [helper.make_opsetid("", opset)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


@pytest.mark.parametrize(("opset", "batch"), [(11, 1), (17, "n")])
def test_a_file_from_elsewhere_is_quantised(opset, batch, npy_data, tmp_path, capsys):
    file = foreign_file(tmp_path / "theirs.onnx", opset=opset, batch=batch)
    out = tmp_path / "out"
    assert run_quantize("--run", file, "--data", npy_data, "--out", out) == 0
    assert "int8 minus float" in capsys.readouterr().out
    run = runs.open_run(out)
    assert run.manifest["parent"]["sha256"] == runs.sha256_file(file)
    assert run.metrics()["agreement"]["windows"] == 20
    kinds = {t.data_type for t in stored(out / runs.ONNX).values() if len(t.dims) == 4}
    assert kinds == {TensorProto.INT8}


def test_files_that_cannot_be_quantised_are_refused_with_the_reason(npy_data, tmp_path, capsys):
    x = helper.make_tensor_value_info("x", 1, ("n", 1, 32, 96))
    y = helper.make_tensor_value_info("y", 1, ("n", 5))
    empty = helper.make_graph([], "e", [], [helper.make_tensor_value_info("z", 1, ())], [])
    del empty.output[:]
    weight = numpy_helper.from_array(np.ones((3072, 5), np.float32), "w")
    flat = helper.make_node("Flatten", ["x"], ["f"], "flat")
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["f", "w"], ["o"], "inner")],
        "b",
        [],
        [helper.make_tensor_value_info("o", 1, None)],
    )
    condition = numpy_helper.from_array(np.array(True), "c")
    choice = helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch)
    pool = helper.make_node("GlobalAveragePool", ["x"], ["p"], "pool")
    expand = helper.make_node("Expand", ["p1", "shape"], ["y"], "expand")
    shape = numpy_helper.from_array(np.array([1, 5], np.int64), "shape")
    flat_pool = helper.make_node("Flatten", ["p"], ["p1"], "flat")
    files = {
        "branching": ([flat, choice], [weight, condition], ["If", "'choice'"]),
        "weightless": ([pool, flat_pool, expand], [shape], ["nothing to quantise", "Expand"]),
    }
    for name, (nodes, arrays, words) in files.items():
        graph = helper.make_graph(nodes, name, [x], [y], arrays)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
        assert run_quantize("--run", tmp_path / f"{name}.onnx", "--data", npy_data,
                            "--out", tmp_path / name) == 2  # fmt: skip
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        for word in words:
            assert word in error


def test_recurrent_quantised_and_damaged_files_are_refused(npy_data, tmp_path, capsys):
    """A file that was not made here: the operator and the layer are named, or what is wrong."""

    def refused(path: Path) -> str:
        options = ("--data", npy_data, "--runs", tmp_path / "runs")
        assert run_quantize("--run", path, *options) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not (tmp_path / "runs").exists()
        return error

    def array(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.ones(shape, np.float32), name)

    squeezed = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("Squeeze", ["x", "axes"], ["s"], "squeeze"),
        helper.make_node("LSTM", ["s", "w", "r"], ["", "h"], "memory", hidden_size=5),
        helper.make_node("ReduceMean", ["h"], ["y"], "mean", axes=[0], keepdims=0),
    ]
    ends = [helper.make_tensor_value_info("x", 1, (1, 1, 32, 96)),
            helper.make_tensor_value_info("y", 1, None)]  # fmt: skip
    stored_arrays = [squeezed, array("w", 1, 20, 96), array("r", 1, 20, 5)]
    graph = helper.make_graph(nodes, "recurrent", ends[:1], ends[1:], stored_arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    recurrent = tmp_path / "recurrent.onnx"
    recurrent.write_bytes(model.SerializeToString())
    error = refused(recurrent)
    assert "unsupported operator LSTM in layer 'memory'" in error
    assert "is quantised already" in refused(model_files.quantised(tmp_path / "int8.onnx"))
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(recurrent.read_bytes()[:100])
    assert str(damaged) in refused(damaged)


def test_what_another_operator_reads_before_a_relu_keeps_its_negative_values(tmp_path):
    """As in a pre-activation block: x is read by the ReLU and by the sum."""

    class PreActivation(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(1, 8, 3, 2, 1)
            self.second = torch.nn.Conv2d(8, 8, 3, 1, 1)
            self.head = torch.nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.head(torch.relu(x + self.second(torch.relu(x))).mean((2, 3)))

    torch.manual_seed(0)
    model = PreActivation().eval()
    normalisation = Normalisation(np.full(32, -40, np.float32), np.full(32, 15, np.float32))
    onnx_export.to_onnx(model, normalisation, 32, 96, tmp_path / "float.onnx")
    prepared = prepare(tmp_path / "float.onnx")
    windows = np.random.default_rng(0).uniform(-80, 0, (32, 1, 32, 96)).astype(np.float32)
    with static.StaticQuantiser(prepared, windows, "minmax") as quantiser:
        network = SimulatedNetwork(prepared, quantiser.quantise(), range_steps=150)

    def lows() -> list[float]:
        found = network.named_buffers()
        return [float(value) for name, value in found if name.startswith("low")]

    x = normalisation.apply(torch.from_numpy(windows))
    calibrated = lows()
    assert sum(low < -0.5 for low in calibrated) >= 2, "the first convolution and the input"
    network.train()
    with torch.no_grad():
        for _ in range(150):
            network(x)
    assert lows() == pytest.approx(calibrated, rel=0.02, abs=0.02), "no weight has changed"


def test_operators_that_cannot_be_simulated_are_named(quantised):
    prepared, model, _ = quantised("audiobot50")
    strange = onnx.ModelProto()
    strange.CopyFrom(model)
    node = next(n for n in strange.graph.node if n.op_type == "LeakyRelu")
    node.op_type = "Mish"
    del node.attribute[:]
    with pytest.raises(Exception, match=f"unsupported operator Mish in layer '{node.name}'"):
        SimulatedNetwork(prepared, strange)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--run must be given"]),
        (["--run", "no/such"], ["no/such", "no such run"]),
        (["--run", "{tmp}"], ["not a run folder"]),
        (["--run", "{file}"], ["--data"]),
        (["--run", "{wrong}", "--data", "{data}"], ["3", "5 classes"]),
        (["--run", "{file}", "--data", "{data}", "--qat"], ["needs a run folder"]),
        (["--run", "{run}", "--qat", "--auto"], ["exclude"]),
        (["--run", "{run}", "--teacher", "x"], ["--qat"]),
        (["--run", "{run}", "--calibration", "minmx"], ["minmax"]),
        (["--run", "{run}", "--samples", "0"], ["samples"]),
        (["--run", "{run}", "--keep-float", "blocks.0.1"], ["blocks.0.0"]),
        (["--run", "{run}", "--keep-float", "8"], ["8 layers", "at most 7"]),
        (["--run", "{run}", "--data", "{other}"], ["other data", "bands"]),
        (["--run", "{run}", "--int8-io", "--keep-float", "blocks.0.0"], ["first layer"]),
        (["--run", "{run}", "--int8-io", "--keep-float", "head.4"], ["last layer"]),
        (["--run", "{run}", "--devices", "2"], ["one process"]),
        (["--run", "{int8}"], ["int8 run already"]),
    ],
)
def test_bad_options_get_one_line(
    arguments, words, finished_run, int8_run, npy_data, tmp_path, capsys
):
    places = {
        "tmp": tmp_path,
        "run": finished_run,
        "int8": int8_run[0],
        "data": npy_data,
        "file": tmp_path / "theirs.onnx",
        "wrong": tmp_path / "wrong.onnx",
        "other": tmp_path / "other",
    }
    foreign_file(places["file"])
    foreign_file(places["wrong"], classes=3)
    if "{other}" in arguments:
        write_npy_pair(places["other"], 100, seed=9)
    given = [argument.format(**places) for argument in arguments]
    assert run_quantize(*given, "--runs", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    for word in words:
        assert word in error
    assert not (tmp_path / "runs").exists(), "nothing half-written"


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_a_run_without_its_model_is_refused(finished_run, tmp_path, capsys):
    run = copied(finished_run, tmp_path / "run")
    (run / runs.ONNX).unlink()
    assert run_quantize("--run", run, "--runs", tmp_path / "runs") == 2
    assert runs.ONNX in capsys.readouterr().err


def test_a_parent_that_changed_is_refused(finished_run, tmp_path, capsys):
    run = copied(finished_run, tmp_path / "run")
    with (run / runs.WEIGHTS).open("ab") as file:
        file.write(b"x")
    assert run_quantize("--run", run, "--runs", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert runs.WEIGHTS in error and "changed" in error


def test_a_child_of_another_parent_is_not_taken_for_finished(finished_run, distilled, tmp_path,
                                                             capsys):  # fmt: skip
    out = tmp_path / "child"
    assert run_quantize("--run", finished_run, "--out", out) == 0
    capsys.readouterr()
    assert run_quantize("--run", distilled / "student", "--out", out) == 2
    assert "holds another run" in capsys.readouterr().err


def test_a_teacher_that_is_missing_or_changed_is_named(distilled, tmp_path, capsys):
    teacher, kept = distilled / "teacher", distilled / "kept"
    options = ("--run", distilled / "student", "--qat", "--runs", tmp_path / "runs")
    teacher.rename(kept)
    try:
        assert run_quantize(*options) == 2
        assert "is missing" in capsys.readouterr().err
        copied(kept, teacher)
        with (teacher / runs.WEIGHTS).open("ab") as file:
            file.write(b"x")
        assert run_quantize(*options) == 2
        assert "changed" in capsys.readouterr().err
    finally:
        shutil.rmtree(teacher, ignore_errors=True)
        kept.rename(teacher)


def test_data_that_left_the_cache_is_asked_for(finished_run, npy_data, tmp_path, capsys):
    options = ("--run", finished_run, "--cache", tmp_path / "empty", "--out", tmp_path / "out")
    assert run_quantize(*options) == 2
    assert "--data" in capsys.readouterr().err
    assert run_quantize(*options, "--data", npy_data) == 0


def test_an_int8_run_is_no_start_for_training(int8_run, npy_data, tmp_path, capsys):
    from compress import train
    from compress.config import TrainConfig

    arguments = ["--student", "audiobot50", "--data", str(npy_data), "--weights", str(int8_run[0])]
    arguments += ["--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert cli.main(TrainConfig, train.run, "", arguments) == 2
    assert "int8 file" in capsys.readouterr().err


# --- weights that share a codebook ---------------------------------------------------------------


def test_a_codebook_by_hand():
    """Codes 0 0 1 1 1 and 10: two clusters are {0, 1} and {10}; the mean 0.6 rounds to 1."""
    counts = np.zeros(256)
    counts[[128, 129, 138]] = (2, 3, 1)
    assert codebook(counts, 2).tolist() == [1, 10]
    assert codebook(counts, 3).tolist() == [0, 1, 10]
    assert codebook(counts, 16).tolist() == [0, 1, 10]


def test_a_codebook_is_the_optimum():
    """No choice of three entries has a smaller error, by trying them all."""
    import itertools

    counts = np.zeros(256)
    random = np.random.default_rng(3)
    counts[120:134] = random.integers(0, 9, 14)
    codes = np.arange(-128, 128)

    def error(book):
        distance = np.abs(codes[:, None] - np.array(book)[None, :]).min(1)
        return float((counts * distance**2).sum())

    least = min(error(book) for book in itertools.combinations(range(-8, 6), 3))
    assert error(codebook(counts, 3)) == least


def test_clustered_weights_are_a_smaller_file_of_the_same_integers(quantised, tmp_path):
    prepared, model, path = quantised("dsc50")
    names = narrow_weights(prepared, model)
    shared = cluster(model, names, 16)
    assert max(entries_of(shared, names).values()) == 16
    static.save(shared, tmp_path / "wide.onnx")
    static.save(pack_clusters(shared, names), tmp_path / "packed.onnx")
    tensors = stored(tmp_path / "packed.onnx")
    assert {tensors[name].data_type for name in names} == {TensorProto.UINT4}
    np.testing.assert_array_equal(
        logits_of(tmp_path / "packed.onnx"), logits_of(tmp_path / "wide.onnx")
    )
    assert (tmp_path / "packed.onnx").stat().st_size < 0.8 * path.stat().st_size
    before, after = onnx_file.read(path), onnx_file.read(tmp_path / "packed.onnx")
    assert after.file_params == before.file_params + 16 * len(names), "the codebooks count"
    assert after.quantised and after.peak_activation_bytes == before.peak_activation_bytes
    halved = sum(int(np.prod(tensors[name].dims)) // 2 for name in names)
    assert after.flash_bytes == before.flash_bytes - halved + 16 * len(names)
    exact = IntegerNetwork(tmp_path / "packed.onnx")(WINDOWS[:32, None])
    np.testing.assert_array_equal(exact, logits_of(tmp_path / "packed.onnx")[:32])


def test_a_run_with_clusters_says_so(finished_run, tmp_path, capsys):
    out = tmp_path / "clusters"
    assert run_quantize("--run", finished_run, "--out", out, "--clusters", "16") == 0
    printed = capsys.readouterr().out
    assert "bytes of constants. On a chip it gains nothing yet" in printed
    assert "in flash" not in printed, "no export holds such weights on a chip"
    run = runs.open_run(out)
    assert run.metrics()["clusters"] == 16 and run.manifest["settings"]["clusters"] == 16
    details = runs.read_json(out / quantized_runs.DETAILS)
    # the factors of a batch norm are one code each, their scales tell them apart
    assert max(details["clusters"].values()) == 16 and min(details["clusters"].values()) == 1
    assert run_quantize("--run", finished_run, "--clusters", "16", "--weight-bits", "4") == 2
    assert "exclude" in capsys.readouterr().err


def test_fine_tuning_keeps_to_the_codebook(quantised):
    prepared, model, _ = quantised("audiobot50")
    names = narrow_weights(prepared, model)
    shared = tables(model, names, 4)
    network = SimulatedNetwork(prepared, model, shared=shared).train()
    before = network.to_onnx()
    wanted = {t.name: numpy_helper.to_array(t) for t in cluster(model, names, 4).graph.initializer}
    arrays = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer}
    for name in names:
        np.testing.assert_array_equal(arrays[name], wanted[name])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    network(torch.randn(8, 1, 32, 96)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    optimiser.step()
    after = entries_of(network.eval().to_onnx(), names)
    assert max(after.values()) <= 4


# --- the file that is written --------------------------------------------------------------------


def fused_operators(path: Path, folder: Path) -> dict[str, int]:
    """How often each operator stands in what onnxruntime makes of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimised.onnx").graph.node
    return dict(Counter(node.op_type for node in nodes))


@pytest.mark.parametrize("name", STUDENTS)
def test_the_written_file_is_small_and_computes_the_same_bits(
    name, float_files, quantised, tmp_path
):
    _, model, path = quantised(name)
    written = tmp_path / "model.onnx"
    static.save(small(model), written)
    onnx.checker.check_model(onnx.load(written), full_check=True)
    np.testing.assert_array_equal(logits_of(written), logits_of(path))
    np.testing.assert_array_equal(
        IntegerNetwork(written)(WINDOWS[:8, None]), IntegerNetwork(path)(WINDOWS[:8, None])
    )
    assert fused_operators(written, tmp_path) == fused_operators(path, tmp_path)
    before, after = onnx_file.read(path), onnx_file.read(written)
    for figure in ("file_params", "macs", "peak_activation_bytes", "quantised", "notes"):
        assert getattr(after, figure) == getattr(before, figure), figure
    assert after.flash_bytes < before.flash_bytes

    def weights(network):
        return [[w.removeprefix("network.") for w in layer.weights
                 if "." in w or not w.startswith("b")] for layer in network.layers]  # fmt: skip

    assert weights(after) == weights(before)
    # Of a network of 16,000 weights, operators alone are six hundredths of the float file.
    most = 0.30 if before.file_params > 40_000 else 0.325
    assert written.stat().st_size <= most * float_files(name).stat().st_size


@pytest.mark.parametrize("form", ["signed", "coded", "mixed", "4 bits", "clusters", "tuned"])
def test_every_form_of_the_file_is_written_small(form, quantised, tmp_path):
    prepared, model, _ = quantised("audiobot50-dsc")
    names = narrow_weights(prepared, model)
    if form == "signed":
        model = static.with_signed_activations(model)
    elif form == "coded":
        model = static.with_coded_ends(model, prepared)
    elif form == "mixed":
        with static.StaticQuantiser(prepared, WINDOWS[:64, None], "minmax") as quantiser:
            model = quantiser.quantise([prepared.layers[1].name, prepared.layers[-1].name])
    elif form == "4 bits":
        model = pack(SimulatedNetwork(prepared, model, narrow=names).eval().to_onnx(), names)
    elif form == "clusters":
        model = pack_clusters(cluster(model, names, 16), names)
    else:
        model = SimulatedNetwork(prepared, model).eval().to_onnx()
    for made, file in ((model, "plain.onnx"), (small(model), "small.onnx")):
        static.save(made, tmp_path / file)
    plain, written = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    np.testing.assert_array_equal(logits_of(written), logits_of(plain))
    if form != "mixed":
        np.testing.assert_array_equal(
            IntegerNetwork(written)(WINDOWS[:8, None]), IntegerNetwork(plain)(WINDOWS[:8, None])
        )
    assert fused_operators(written, tmp_path) == fused_operators(plain, tmp_path)
    assert written.stat().st_size < 0.95 * plain.stat().st_size
    static.save(small(onnx.load(written)), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").stat().st_size == written.stat().st_size


@pytest.mark.parametrize("name", ["audiobot50-dsc", "dsc50"])
def test_exports_of_the_small_file_are_those_of_the_plain_one(name, quantised, tmp_path):
    _, model, path = quantised(name)
    written = tmp_path / "model.onnx"
    static.save(small(model), written)
    networks = [read_network(file) for file in (path, written)]
    in_c = [emit.source(network, arena.plan(network.buffers), "abcde") for network in networks]
    assert in_c[0] == in_c[1], "names of layers among it"
    tensors = [convert(signed_codes(file)[0], file).tensors for file in (path, written)]
    assert len(tensors[0]) == len(tensors[1])
    for plain, other in zip(*tensors, strict=True):
        assert plain.shape == other.shape
        np.testing.assert_array_equal(plain.data, other.data)
        if plain.quantisation:
            assert plain.quantisation.equals(other.quantisation)


def test_biases_that_cannot_be_had_back_bit_by_bit_stay_as_they_are(tmp_path):
    """Of three layers one has codes beyond int16, one another scale; names are not taken twice."""
    net = Qdq((8, 12), 3)
    x = net.conv(net.input, 24, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2))
    x = net.conv(x, 24, (1, 1))
    x = net.conv(x, 24, (1, 1))
    first, second, third = [t for t in net.arrays if t.name.endswith(".bias")]
    products = [t for t in net.arrays if t.name.endswith(".bias.scale")]
    weights = [t.name.removesuffix(".bias") for t in (first, second, third)]
    for tensor, source in zip(products, ("log_mel_codes", *_inputs_of(net)[1:3]), strict=True):
        weight = next(t for t in net.arrays if t.name == f"{weights[0]}.weight.scale")
        weights.pop(0)
        scale = numpy_helper.to_array(weight) * np.float32(net.meaning[source][0])
        tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
    wide = numpy_helper.to_array(second).copy()
    wide[3] = 40_000
    second.CopyFrom(numpy_helper.from_array(wide, second.name))
    other = numpy_helper.to_array(products[2]).copy()
    other[5] = np.nextafter(other[5], np.float32(9))
    products[2].CopyFrom(numpy_helper.from_array(other, products[2].name))
    for node in net.nodes:  # a stored number of someone else's that is called like ours
        node.input[:] = ["b0" if name == third.name else name for name in node.input]
    third.name = "b0"
    path = net.save(tmp_path / "plain.onnx", net.classes(x))
    written = tmp_path / "small.onnx"
    static.save(small(onnx.load(path)), written)
    kinds = [tensor.data_type for tensor in onnx.load(written).graph.initializer]
    assert kinds.count(TensorProto.INT16) == 2 and kinds.count(TensorProto.INT32) == 2
    products = [node for node in onnx.load(written).graph.node if node.op_type == "Mul"]
    assert len(products) == 2
    np.testing.assert_array_equal(logits_of(written, _SHORT), logits_of(path, _SHORT))
    np.testing.assert_array_equal(
        IntegerNetwork(written)(_SHORT[:, None]), IntegerNetwork(path)(_SHORT[:, None])
    )


_SHORT = WINDOWS[:16, :8, :12]


def _inputs_of(net: Qdq) -> list[str]:
    """The codes that each convolution reads, in order."""
    return [node.input[0].partition(".real")[0] for node in net.nodes if node.op_type == "Conv"]
