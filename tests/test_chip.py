"""The C export: the same bits as the integers in numpy, memory as planned, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import band_spectrograms
from hypothesis import given, settings
from hypothesis import strategies as st
from qdq_models import Qdq

from compress import cli, evaluate, export, gate, onnx_export, quantize, registry, report, runs
from compress.artefacts import onnx_file
from compress.chip import arena, emit, host
from compress.chip.arena import Lifetime
from compress.chip.counting import count_constants
from compress.chip.fixed_point import (
    FIXED_POINT,
    encode_q8,
    encoding_of,
    requantise,
    scaling_of,
    sum_scaling,
)
from compress.chip.layers import read_network
from compress.config import ExportConfig, GateConfig, QuantizeConfig, ReportConfig
from compress.errors import InputError
from compress.int8 import static
from compress.int8.interface import Interface
from compress.int8.prepare import prepare
from compress.int8.reference import Codes, IntegerNetwork
from compress.material import Normalisation

WINDOWS, _ = band_spectrograms(48, seed=5)
STEPS = np.rint(WINDOWS * 256).astype(np.int16)
MEAN = Normalisation(WINDOWS.mean((0, 2)), WINDOWS.std((0, 2)))
FROM_TIMM = [
    pytest.param(f"timm/{name}", marks=pytest.mark.slow)
    for name in ("test_resnet", "test_efficientnet")
]
NAMES = ("other", "music", 'a "quoted" class?', "Geräusch", "alarm")
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
CROSS = "arm-none-eabi-gcc"

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler here"
)
needs_cross = pytest.mark.skipif(not shutil.which(CROSS), reason=f"{CROSS} is not installed")


def write_c(path: Path, folder: Path):
    """The C files of an int8 file, without golden windows; the network they come from."""
    network = read_network(path)
    plan = arena.plan(network.buffers)
    names = (NAMES * 2)[: network.classes]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / emit.HEADER).write_text(emit.header(network, plan, names), encoding="utf-8")
    (folder / emit.SOURCE).write_text(emit.source(network, plan, names), encoding="utf-8")
    for name in emit.COPIED:
        (folder / name).write_text(emit.copied_file(name), encoding="utf-8")
    return network, plan


def both_codes(path: Path, folder: Path, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(codes of the compiled C, codes of numpy) for windows in 1/256 dB."""
    network, _ = write_c(path, folder)
    with host.HostNetwork(folder, network.classes) as compiled:
        found = compiled(steps)
    reference = IntegerNetwork(path, FIXED_POINT, network.model)
    reference(steps[:, None].astype(np.float32) / 256)
    return found, reference.codes[network.output].values


@pytest.fixture(scope="module")
def int8_files(tmp_path_factory):
    """name -> int8 QDQ file of an untrained student, calibrated on a few windows."""
    made: dict[str, Path] = {}

    def file_of(name: str, **arguments) -> Path:
        key = f"{name}{arguments}"
        if key not in made:
            folder = tmp_path_factory.mktemp("int8")
            torch.manual_seed(0)
            model = registry.build_student(name, classes=5, **arguments)
            for layer in model.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
                    torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the tracing exporter, which takes no time
                torch.onnx.export(
                    onnx_export.Deployed(model, MEAN).eval(), (torch.zeros(1, 1, 32, 96),),
                    str(folder / "float.onnx"), dynamo=False, opset_version=18,
                    input_names=["log_mel_db"], output_names=["logits"],
                    dynamic_axes={"log_mel_db": {0: "batch"}},
                )  # fmt: skip
            prepared = prepare(folder / "float.onnx")
            with static.StaticQuantiser(prepared, WINDOWS[:16, None], "minmax") as quantiser:
                static.save(quantiser.quantise(), folder / "model.onnx")
            made[key] = folder / "model.onnx"
        return made[key]

    return file_of


# --- the same bits -------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("name", [*registry.STUDENTS, *FROM_TIMM])
def test_every_student_gives_the_bits_of_the_integers_in_numpy(name, int8_files, tmp_path):
    path = int8_files(name)
    found, wanted = both_codes(path, tmp_path, STEPS[:12])
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(found)) > 5
    in_onnx = evaluate.onnx_predictor(path, threads=1)(WINDOWS[:12, None])
    network, plan = write_c(path, tmp_path)
    apart = (network.interface.decode(found) - in_onnx) / network.interface.output_scale
    assert np.abs(apart).mean() <= 4  # untrained networks enlarge what rounding does
    codes = tmp_path / "codes.onnx"  # with codes at its ends, as on a chip
    codes.write_bytes(network.model.SerializeToString())
    summary = onnx_file.read(codes)
    assert plan.size == plan.bound == summary.peak_activation_bytes
    assert sum(layer.macs for layer in network.layers) == summary.macs
    counted = count_constants((tmp_path / emit.SOURCE).read_text(encoding="utf-8"))
    numbers = counted["weights"] + counted["biases"]
    first = network.layers[0]
    filled = 3 * first.biases.size if first.kernel == "first_convolution" else 0  # 25 in 28 places
    without_bias = sum(layer.biases.size for layer in network.layers
                       if hasattr(layer, "biases")) - counted["biases"]  # fmt: skip
    assert without_bias == 0 and numbers - filled >= summary.file_params
    assert numbers - filled - summary.file_params <= counted["biases"]  # absent ones are zeros


def _odd_convolutions() -> tuple[Qdq, str]:
    """Widths that are no multiple of 4, padding on one side, strides apart, plain convolutions."""
    net = Qdq((9, 13), 1)
    x = net.conv(net.input, 5, (3, 5), pads=(1, 2, 1, 2), strides=(1, 2))
    x = net.conv(x, 7, (3, 3), pads=(1, 1, 1, 1), factor=0.001)
    x = net.conv(x, 6, (2, 3), pads=(0, 1, 1, 1), strides=(2, 1), bias=False)
    x = net.conv(x, 3, (1, 1), strides=(1, 2))
    return net, net.classes(x)


def _odd_depthwise() -> tuple[Qdq, str]:
    net = Qdq((8, 12), 2)
    x = net.conv(net.input, 6, (1, 1))
    x = net.conv(x, 6, (5, 5), pads=(2, 2, 2, 2), group=6)
    x = net.conv(x, 11, (1, 1))
    x = net.conv(x, 11, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2), group=11)
    x = net.conv(x, 11, (1, 1), group=11)
    x = net.conv(x, 8, (1, 1))
    x = net.conv(x, 8, (7, 7), pads=(3, 3, 3, 3), group=8)  # wider than the map
    return net, net.classes(x)


def _functions() -> tuple[Qdq, str]:
    net = Qdq((8, 12), 3)
    x = net.conv(net.input, 4, (3, 3), pads=(1, 1, 1, 1))
    for number, op in enumerate(("LeakyRelu", "Elu", "Relu", "Sigmoid", "HardSwish")):
        x = net.operator(op, [x], 0.02 + 0.01 * number, 4)
    return net, net.classes(x)


def _pools() -> tuple[Qdq, str]:
    net = Qdq((9, 12), 4)
    x = net.conv(net.input, 5, (3, 3), pads=(1, 1, 1, 1))
    zero = net.meaning[x][1]
    window = {"kernel_shape": (3, 2), "pads": (1, 0, 1, 0), "strides": (2, 1)}
    x = net.operator("MaxPool", [x], 0.1, 5, zero, **window)
    x = net.operator("AveragePool", [x], 0.07, 5, ceil_mode=1, **window)
    x = net.operator("AveragePool", [x], 0.09, 5, count_include_pad=1, **window)
    x = net.operator("MaxPool", [x], 0.13, 5, kernel_shape=(1, 2))  # in another scale
    return net, net.classes(x)


def _sums_and_products() -> tuple[Qdq, str]:
    net = Qdq((6, 8), 5)
    a = net.conv(net.input, 6, (3, 3), pads=(1, 1, 1, 1))
    b = net.conv(a, 6, (1, 1), scale=0.02)
    total = net.operator("Add", [a, b], 0.11, 6)
    gate_of = net.operator("GlobalAveragePool", [total], 0.04, 6)
    gate_of = net.conv(gate_of, 6, (1, 1))
    gate_of = net.operator("Sigmoid", [gate_of], 1 / 256, 6, -128)
    scaled = net.operator("Mul", [gate_of, total], 0.08, 6)
    squared = net.operator("Mul", [scaled, a], 0.5, 6)
    total = net.operator("Add", [squared, total], 3.0, 6)
    return net, net.classes(total)


def _flattened_map() -> tuple[Qdq, str]:
    """A linear layer on a map: channels first in the file, last in C."""
    net = Qdq((4, 6), 6)
    x = net.conv(net.input, 5, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2))
    x = net.operator("Flatten", [x], 0.13, 30, axis=1)
    x = net.operator("LeakyRelu", [x], 0.1, 30)
    return net, net.linear(x, 30, 4)


def _large_factors() -> tuple[Qdq, str]:
    """Factors of 1/4 and more, where the kernels take another path, beside small ones."""
    net = Qdq((4, 6), 7)
    x = net.conv(net.input, 6, (1, 1), factor=0.3)
    x = net.conv(x, 5, (1, 1), factor=40.0, group=1)
    x = net.conv(x, 5, (1, 1), factor=1e-9, group=5)
    x = net.conv(x, 8, (3, 3), factor=600.0, pads=(1, 1, 1, 1))
    return net, net.classes(x)


MADE = (
    _odd_convolutions, _odd_depthwise, _functions, _pools, _sums_and_products, _flattened_map,
    _large_factors,
)  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("make", MADE)
def test_every_kernel_gives_the_bits_of_the_integers_in_numpy(make, tmp_path):
    net, output = make()
    path = net.save(tmp_path / "int8.onnx", output)
    generator = np.random.default_rng(0)
    steps = generator.integers(-80 * 256, 1, (32, *net.shape)).astype(np.int16)
    found, wanted = both_codes(path, tmp_path / "c", steps)
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(found)) > 3 or make is _large_factors
    network = read_network(path)
    plan = arena.plan(network.buffers)
    assert plan.size == plan.bound == onnx_file.read(path).peak_activation_bytes


@needs_compiler
@pytest.mark.parametrize("make", MADE[:-1])  # with large factors, single codes decide
def test_the_integers_follow_onnxruntime(make, tmp_path):
    """The two arithmetics round differently in single codes, and in no more."""
    net, output = make()
    path = net.save(tmp_path / "int8.onnx", output)
    decibels = np.random.default_rng(0).integers(-20480, 1, (32, 1, *net.shape)) / np.float32(256)
    in_onnx = evaluate.onnx_predictor(path, threads=1)(decibels.astype(np.float32))
    ours = IntegerNetwork(path, FIXED_POINT)(decibels.astype(np.float32))
    scale = net.meaning[output][0]
    assert np.abs(ours - in_onnx).max() <= 12 * scale
    assert np.abs(ours - in_onnx).mean() <= 1.5 * scale


# --- fixed point by hand -------------------------------------------------------------------------


def test_requantisation_by_hand():
    """0.375 = 0.75 * 2^-1: multiplier 0.75 * 2^31, shift 32."""
    scaling = scaling_of(np.float32([0.375, 1.0, 0.001]))
    assert scaling.multipliers.tolist()[:2] == [3 * 2**29, 2**30]
    assert scaling.shifts.tolist()[:2] == [32, 30]
    # 4 * 0.375 = 1.5 and -4 * 0.375 = -1.5: half up. 3 * 0.375 = 1.125, 5 * 0.375 = 1.875
    sums = np.array([4, -4, 3, 5, 0])
    assert requantise(sums, np.float32(0.375)).tolist() == [2, -1, 1, 2, 0]
    assert requantise(np.array([7, -7]), np.float32(1.0)).tolist() == [7, -7]


@given(st.integers(-(2**31), 2**31 - 1), st.floats(2.0**-40, 100, width=32))
@settings(max_examples=200, deadline=None)
def test_requantisation_is_the_exact_product_rounded_half_up(accumulator, factor):
    scaling = scaling_of(np.float32(factor))
    ratio = Fraction(int(scaling.multipliers), 2 ** int(scaling.shifts))
    if factor > 2**-24:
        assert abs(ratio / Fraction(factor) - 1) <= Fraction(1, 2**30)
    exact = (ratio * accumulator + Fraction(1, 2)).__floor__()
    assert int(scaling.apply(np.int64(accumulator))) == exact
    assert 0 <= int(scaling.multipliers) < 2**31 and int(scaling.shifts) <= 54


@given(
    st.floats(1e-4, 50), st.floats(1e-4, 50), st.floats(1e-3, 50), st.integers(-128, 127),
    st.integers(-128, 127), st.integers(-128, 127),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_a_sum_stays_within_32_bits_and_near_the_real_one(by_a, by_b, scale, zero_a, zero_b, zero):
    def operand(value: float, zero_point: int, codes: np.ndarray) -> Codes:
        return Codes(codes, np.float32(value).reshape(()), np.asarray(zero_point))

    grid = np.array([-128, -1, 0, 1, 127])
    a, b = np.meshgrid(grid, grid)
    x, y = operand(by_a, zero_a, a), operand(by_b, zero_b, b)
    found = sum_scaling(x, y, scale, zero)
    steps = (a * found.multiplier_a, a * found.multiplier_a + b * found.multiplier_b,
             a * found.multiplier_a + b * found.multiplier_b + found.constant)  # fmt: skip
    assert all(np.abs(step).max() < 2**31 for step in (*steps, np.array(found.constant)))
    exact = (x.centred * by_a + y.centred * by_b) / scale + zero
    codes = np.clip(FIXED_POINT.add([x, y], scale, zero), -128, 127)
    assert np.abs(codes - np.clip(exact, -128, 127)).max() <= 0.51


def test_input_codes_by_hand():
    """2 codes per dB and 128 of offset: -80 dB is -32, -64.25 dB is -0.5, half up: 0."""
    interface = Interface("int8", (2.0,), (128.0,), 0.1, 0)
    encoding = encoding_of(interface, 1)
    steps = (np.array([[-80.0, -64.25, -64.0, 0.0, -128.0]]) * 256).astype(np.int16)
    assert encode_q8(encoding, steps).tolist() == [[-32, 0, 0, 127, -128]]
    assert encode_q8(encoding, steps)[0].tolist()[:3] == [-32, 0, 0]


def test_input_codes_equal_those_in_float():
    generator = np.random.default_rng(0)
    interface = Interface("int8", tuple(generator.uniform(0.1, 20, 32)),
                          tuple(generator.uniform(-50, 900, 32)), 0.1, 0)  # fmt: skip
    steps = generator.integers(-(2**15), 2**15, (20, 32, 96)).astype(np.int16)
    ours = encode_q8(encoding_of(interface, 32), steps)
    in_float = interface.encode((steps / np.float64(256))[:, None])[:, 0]
    assert (ours != in_float).mean() < 1e-4  # ties alone may differ


# --- memory --------------------------------------------------------------------------------------


@st.composite
def lifetimes(draw):
    count = draw(st.integers(1, 9))
    found = []
    for number in range(count):
        born = draw(st.integers(0, 8))
        dies = draw(st.integers(born, 9))
        found.append(Lifetime(f"b{number}", draw(st.integers(1, 40)), born, dies))
    return found


@given(lifetimes())
@settings(max_examples=100, deadline=None)
def test_buffers_that_live_at_once_never_overlap(buffers):
    plan = arena.plan(buffers)
    assert plan.bound == arena.least_size(buffers) <= plan.size <= sum(b.size + 3 for b in buffers)
    places = [range(plan.offsets[b.name], plan.offsets[b.name] + b.size) for b in buffers]
    assert max(place.stop for place in places) == plan.size and min(p.start for p in places) == 0
    for i, a in enumerate(buffers):
        for j in range(i):
            apart = places[i].stop <= places[j].start or places[j].stop <= places[i].start
            assert apart or not a.meets(buffers[j])


def test_a_chain_meets_the_bound_and_a_gap_that_greedy_placement_leaves_is_found():
    chain = [Lifetime(f"b{i}", size, i, i + 1) for i, size in enumerate((7, 20, 5, 16, 9, 3))]
    assert arena.plan(chain).size == arena.plan(chain).bound == 27
    # by size: c 6, then a 4 and b 4 that live beside it only in part
    tricky = [Lifetime("a", 4, 0, 2), Lifetime("b", 4, 3, 5), Lifetime("c", 6, 2, 3),
              Lifetime("d", 2, 0, 5), Lifetime("e", 3, 1, 1)]  # fmt: skip
    assert arena.plan(tricky).size == arena.plan(tricky).bound == 12


def test_a_network_keeps_its_buffers_apart(tmp_path):
    net, output = _sums_and_products()
    network, plan = write_c(net.save(tmp_path / "int8.onnx", output), tmp_path / "c")
    text = (tmp_path / "c" / emit.SOURCE).read_text(encoding="utf-8")
    for layer in network.layers:
        result = plan.offsets[network.home[layer.output]]
        assert result + network.maps[layer.output].size <= plan.size
        assert f"arena + {result}" in text


# --- the C itself --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_files(tmp_path_factory) -> list[Path]:
    """C of every hand-made network, with golden windows."""
    root, folders = tmp_path_factory.mktemp("made"), []
    for make in MADE:
        net, output = make()
        folder = root / make.__name__
        folder.mkdir()
        steps = np.random.default_rng(1).integers(-20480, 1, (3, *net.shape)).astype(np.int16)
        found, _ = both_codes(net.save(folder / "int8.onnx", output), folder, steps)
        golden = emit.Golden(steps, found, np.zeros(3, np.int64))
        (folder / emit.GOLDEN).write_text(emit.golden_header(golden))
        folders.append(folder)
    return folders


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_warnings_and_clean_under_the_sanitizers(compiler, made_files):
    flags = [*host.STRICT, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    folders = made_files if compiler == COMPILERS[0] else made_files[:1]
    for folder in folders:
        program = folder / f"host_test.{compiler}"
        host.compile_files(
            [compiler, *flags], [folder / n for n in ("host_test.c", "model.c", "kernels.c")],
            program, folder,
        )  # fmt: skip
        done = subprocess.run([str(program)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "3 of 3 windows give the golden codes bit for bit" in done.stdout


@needs_compiler
def test_the_host_test_fails_on_another_code(made_files, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(made_files[0], folder)
    golden = (folder / emit.GOLDEN).read_text()
    logits = re.search(r"scene_golden_logits\[.*?\] = \{\s+(-?\d+)", golden)
    changed = golden[: logits.start(1)] + str(-int(logits.group(1)) - 1) + golden[logits.end(1) :]
    (folder / emit.GOLDEN).write_text(changed)
    done = subprocess.run(["make", "-s", "test"], cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0 and "2 of 3 windows" in done.stdout


@needs_cross
@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m7", "cortex-m55"])
def test_every_path_compiles_without_warnings(core, made_files, tmp_path):
    abi = "hard" if core == "cortex-m55" else "soft"
    target = [f"-mcpu={core}", "-mthumb", f"-mfloat-abi={abi}", "-O2"]
    kernels = made_files[0] / "kernels.c"
    result = tmp_path / "kernels.s"
    host.compile_files([CROSS, *target, *host.STRICT, "-S"], [kernels], result, made_files[0])
    assembly = result.read_text()
    wanted = {"cortex-m4": "smlad", "cortex-m7": "smlad", "cortex-m55": r"vml\w+\.s8"}.get(core)
    assert wanted is None or re.search(rf"\t{wanted}", assembly)
    assert not re.search(r"__aeabi_[df]|malloc|memcpy\b.*@.*float", assembly)
    host.compile_files(
        [CROSS, *target, *host.STRICT, "-c"], [made_files[0] / "model.c"], tmp_path / "model.o",
        made_files[0],
    )  # fmt: skip


def test_class_names_of_any_text_are_c_strings():
    assert emit._quoted('a"b\\c?') == '"a\\042b\\134c\\077"'
    assert emit._quoted("ä1") == '"\\303\\2441"'


# --- the command ---------------------------------------------------------------------------------


def run_export(*arguments: str | Path) -> int:
    return cli.main(ExportConfig, export.run, "", [*map(str, arguments), "--workers", "1"])


@pytest.fixture(scope="module")
def int8_run(finished_run, tmp_path_factory) -> Path:
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    out = tmp_path_factory.mktemp("chip") / "int8"
    arguments = ["--run", str(finished_run), "--out", str(out), "--samples", "32"]
    arguments += ["--threads", "1", "--workers", "1"]
    assert cli.main(QuantizeConfig, quantize.run, "", arguments) == 0
    return out


@needs_compiler
def test_a_run_is_exported_measured_and_reported(int8_run, tmp_path, capsys):
    out = tmp_path / "runs" / "c"
    assert run_export("--run", int8_run, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "one arena of 36,864 bytes" in printed and "no plan can be smaller" in printed
    assert f"The export lies in {out}" in printed
    written = runs.open_run(out)
    written.check_unchanged()
    found = written.metrics()
    assert found["artifact"] == "model.c"
    assert found["sha256"] == runs.sha256_file(out / "model.c")
    assert found["bit_exact"] == {"windows": 20, "unequal": 0}
    assert found["peak_activation_bytes"] == 36864 and found["latency_ms"] is None
    assert found["compiler"] and found["params"] == 49_733 and found["constants"]["bytes"] > 49_000
    agreement = found["agreement"]
    differing = round((1 - agreement["top1"]) * agreement["windows"])
    assert len(agreement["disagreements"]) == differing
    for name in ("model.h", "kernels.h", "kernels.c", "golden.h", "host_test.c", "Makefile"):
        assert name in written.manifest["artefacts"]
    done = subprocess.run(["make", "-s", "test"], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0 and "8 of 8 windows" in done.stdout
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert "scene_classify(decibels_q8, logits)" in readme and "3,816,768" in readme

    assert run_export("--run", int8_run, "--out", out) == 0
    assert "finished before" in capsys.readouterr().out
    assert run_export("--run", out) == 2
    assert "is an export already" in capsys.readouterr().err

    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    assert cli.main(ReportConfig, report.run, "", arguments) == 0
    (row,) = json.loads((tmp_path / "report" / "report.json").read_text())
    assert row["stage"].startswith("export") and row["sha256"] == found["sha256"]
    assert row["peak_activation_bytes"] == 36864
    assert row["accuracy"] == found["splits"]["test"]["accuracy"]
    assert cli.main(GateConfig, gate.run, "", ["--runs", str(tmp_path / "runs")]) in (0, 1)


def test_what_cannot_be_exported_is_said_in_one_line(
    finished_run, int8_run, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"

    def refused(*arguments: str | Path) -> str:
        assert run_export("--out", out, *arguments) == 2
        assert not (out / "manifest.json").exists()
        return capsys.readouterr().err

    assert "compress.quantize --run" in refused("--run", finished_run)
    assert "36,864 bytes, the nearest that can be reached" in refused(
        "--run", int8_run, "--arena-limit", "36863"
    )
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "holds 'thesis.txt'" in refused("--run", int8_run)
    assert sorted(path.name for path in out.iterdir()) == ["thesis.txt"]
    monkeypatch.setattr(host.shutil, "which", lambda name: None)
    assert "apt install gcc" in refused("--run", int8_run, "--force")


def _unsupported(op: str, name: str, **found) -> tuple[Qdq, str]:
    net = Qdq((8, 12), 9)
    x = net.conv(net.input, 4, (1, 1))
    x = net.operator(op, [x], 0.1, 4, name=name, **found)
    return net, net.classes(x)


@pytest.mark.parametrize(
    ("op", "found", "reason"),
    [
        ("Transpose", {"perm": (0, 1, 3, 2)}, "there is no kernel"),
        ("MaxPool", {"kernel_shape": (2, 2), "dilations": (2, 2)}, "dilated"),
        ("AveragePool", {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}, "rounded up"),
    ],
)
def test_an_operator_without_kernel_is_named_with_its_layer(op, found, reason, tmp_path):
    net, output = _unsupported(op, "blocks.3.odd", **found)
    with pytest.raises(InputError, match=f"operator {op} in layer 'blocks.3.odd'.*{reason}"):
        read_network(net.save(tmp_path / "int8.onnx", output))


def test_grouped_convolutions_and_float_layers_are_named(tmp_path, int8_files):
    net = Qdq((8, 12), 9)
    x = net.conv(net.input, 4, (1, 1))
    x = net.conv(x, 8, (3, 3), group=2)
    with pytest.raises(InputError, match="Conv in layer 'layer.*2 groups of 2 inputs"):
        read_network(net.save(tmp_path / "int8.onnx", net.classes(x)))
    with pytest.raises(InputError, match="is no int8 file"):
        read_network(int8_files("audiobot50-dsc").with_name("float.onnx"))
    prepared = prepare(int8_files("audiobot50-dsc").with_name("float.onnx"))
    with static.StaticQuantiser(prepared, WINDOWS[:8, None], "minmax") as quantiser:
        static.save(quantiser.quantise(["head.0"]), tmp_path / "partly.onnx")
    with pytest.raises(InputError, match="Gemm in layer 'head.0' computes in float"):
        read_network(tmp_path / "partly.onnx")


@pytest.mark.parametrize("coded", [False, True])
def test_unsigned_and_coded_files_are_the_same_network(coded, int8_files, tmp_path):
    path = int8_files("audiobot50-dsc")
    import onnx

    model = onnx.load(path)
    if coded:
        model = static.with_coded_ends(model, prepare(path.with_name("float.onnx")))
    else:
        model = static.with_signed_activations(model)
    static.save(model, tmp_path / "other.onnx")
    texts = []
    for file in (path, tmp_path / "other.onnx"):
        network = read_network(file)
        texts.append(emit.source(network, arena.plan(network.buffers), NAMES))
    assert texts[0] == texts[1]
