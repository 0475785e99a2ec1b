"""One ONNX file from sound to logits: its front end, its figures, its command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx
import pytest
import sounds
from onnx import TensorProto, helper, numpy_helper

from compress import cli, evaluate, export, quantize, runs, train
from compress.artefacts import onnx_file
from compress.artefacts.summary import FRONT_END
from compress.artefacts.wave_front_end import DECIBELS, constants
from compress.config import ExportConfig, QuantizeConfig, TrainConfig
from compress.data.sets import decode_db, encode_db
from compress.data.waves import window_waveforms
from compress.errors import InputError
from compress.frontend import FrontEnd, log_mel
from compress.int8.interface import METADATA_KEY, Interface
from compress.runs import Run
from compress.wave_graph import WAVEFORM, with_decibels, with_front_end

FRONT_ENDS = {
    "clip": FrontEnd(),
    "fixed": FrontEnd(reference="fixed"),
    "400 points": FrontEnd(fft_size=400, window_samples=400, hop_samples=160, mels=20, frames=30),
}


def network(frontend: FrontEnd, interface: Interface | None = None) -> onnx.ModelProto:
    """logits = mean level of the lower and of the upper half of the bands, over 5."""
    weights = np.zeros((frontend.mels, 2), dtype=np.float32)
    weights[: frontend.mels // 2, 0] = weights[frontend.mels // 2 :, 1] = 0.4 / frontend.mels
    kind = TensorProto.INT8 if interface else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["given"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "axes"], ["bands"], keepdims=0),
        helper.make_node("MatMul", ["bands", "weights"], ["sums" if interface else "logits"]),
    ]
    numbers = [
        numpy_helper.from_array(np.array([1, 3]), "axes"),
        numpy_helper.from_array(weights, "weights"),
    ]
    if interface:
        nodes.append(helper.make_node("QuantizeLinear", ["sums", "scale", "zero"], ["logits"]))
        numbers.append(numpy_helper.from_array(np.float32(0.1), "scale"))
        numbers.append(numpy_helper.from_array(np.int8(3), "zero"))
    shape = ["batch", 1, frontend.mels, frontend.frames]
    graph = helper.make_graph(
        nodes,
        "bands",
        [helper.make_tensor_value_info("given", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, ["batch", 2])],
        numbers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if interface:
        helper.set_model_props(model, {METADATA_KEY: interface.to_json()})
    return model


def waveforms(frontend: FrontEnd) -> np.ndarray:
    generator = np.random.default_rng(0)
    samples = frontend.clip_samples
    click = np.zeros(samples)
    click[samples // 3] = 1
    return np.stack(
        [
            generator.normal(0, 0.1, samples),
            np.sin(0.4 * np.arange(samples)),
            generator.normal(0, 1e-3, samples) + click,
            np.zeros(samples),
        ]
    ).astype(np.float32)


def run_model(model: onnx.ModelProto, path: Path, given: np.ndarray) -> list[np.ndarray]:
    onnx.save(model, path)
    session = evaluate.onnx_session(path)
    (described,) = session.get_inputs()
    return session.run(None, {described.name: given})


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_equals_the_front_end_in_python(name: str, tmp_path: Path) -> None:
    frontend = FRONT_ENDS[name]
    given = waveforms(frontend)
    model = with_decibels(with_front_end(network(frontend), frontend, "x"), frontend)
    logits, decibels = run_model(model, tmp_path / "m.onnx", given)
    expected = decode_db(encode_db(log_mel(given, frontend)))
    assert decibels.shape == (4, 1, frontend.mels, frontend.frames)
    apart = np.abs(decibels[:, 0] - expected)
    assert apart[expected > -70].max() < 0.01
    assert (decibels[3] == -80).all()
    alone = run_model(network(frontend), tmp_path / "n.onnx", expected[:, None])[0]
    assert np.abs(logits - alone).max() < 0.01
    assert logits.argmax(1).tolist() == alone.argmax(1).tolist()


def test_only_operators_of_the_standard_that_every_runtime_has() -> None:
    frontend = FRONT_ENDS["clip"]
    model = with_front_end(network(frontend), frontend, "x")
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    ours = {node.op_type for node in model.graph.node if node.name.startswith("front_end/")}
    assert ours == {"Reshape", "Conv", "Mul", "MatMul", "Max", "Log", "ReduceMax", "Sub", "Round"}


def test_codes_are_made_and_read_inside(tmp_path: Path) -> None:
    frontend = FRONT_ENDS["fixed"]
    interface = Interface("int8", (1.5,) * 32, (60.0,) * 32, 0.1, 3)
    given = waveforms(frontend)
    found = run_model(
        with_front_end(network(frontend, interface), frontend, "x"), tmp_path / "m.onnx", given
    )[0]
    codes = interface.encode(decode_db(encode_db(log_mel(given, frontend)))[:, None])
    alone = run_model(network(frontend, interface), tmp_path / "n.onnx", codes)[0]
    assert found.dtype == np.float32
    assert np.abs(found - interface.decode(alone)).max() <= 0.1001  # one step of the output
    assert (found.argmax(1) == alone.argmax(1)).all()


def test_the_front_end_is_no_weight_and_a_changed_one_is(tmp_path: Path) -> None:
    frontend = FRONT_ENDS["fixed"]
    model = with_front_end(network(frontend), frontend, "x")
    onnx.save(model, tmp_path / "m.onnx")
    found = onnx_file.read(tmp_path / "m.onnx")
    assert found.file_params == 64  # the network's own
    basis, filters = constants(frontend).values()
    assert basis.shape == (2 * 511, 1, 640)
    assert found.apart[FRONT_END] == basis.size + filters.size
    # 96 frames: basis, then filters
    assert found.macs == 96 * (basis.size + filters.size) + 64

    (stored,) = [t for t in model.graph.initializer if t.name == "front_end_basis"]
    learned = basis.copy()
    learned[0, 0, 0] += 0.01
    stored.CopyFrom(numpy_helper.from_array(learned, stored.name))
    onnx.save(model, tmp_path / "changed.onnx")
    assert onnx_file.read(tmp_path / "changed.onnx").file_params == 64 + basis.size


@pytest.mark.parametrize("recorded", ["{", "[]", '{"mels": 0}', '{"mels": 1e9}', '{"colour": 1}'])
def test_damaged_settings_make_all_of_it_weights(recorded: str, tmp_path: Path) -> None:
    model = with_front_end(network(FRONT_ENDS["fixed"]), FRONT_ENDS["fixed"], "x")
    helper.set_model_props(model, {"compress.frontend": recorded})
    onnx.save(model, tmp_path / "m.onnx")
    assert onnx_file.read(tmp_path / "m.onnx").file_params > 600_000


def test_a_second_front_end_is_refused() -> None:
    model = with_front_end(network(FRONT_ENDS["clip"]), FRONT_ENDS["clip"], "x.onnx")
    with pytest.raises(InputError, match="has a front end inside already"):
        with_front_end(model, FRONT_ENDS["clip"], "x.onnx")


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data, run): audiobot50 on low and high tones, for one epoch."""
    root = tmp_path_factory.mktemp("sound")
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    data = sounds.class_folders(root / "tones", per_class=4, seconds=2.6)
    arguments = ["--student", "audiobot50", "--data", str(data), "--epochs", "1"]
    arguments += ["--out", str(root / "run"), "--workers", "1"]
    assert cli.main(TrainConfig, train.run, "", arguments) == 0
    return data, root / "run"


@pytest.fixture(scope="module")
def int8_run(sound_run: tuple[Path, Path]) -> Path:
    """The same with 8-bit codes at both ends."""
    out = sound_run[1].with_name("int8")
    arguments = ["--run", str(sound_run[1]), "--activations", "int8", "--int8-io"]
    assert cli.main(QuantizeConfig, quantize.run, "", [*arguments, "--out", str(out)]) == 0
    return out


def exported(*arguments: object, format: str = "onnx") -> int:
    given = ["--format", format, *map(str, arguments)]
    return cli.main(ExportConfig, export.run, "", given)


def test_export_is_a_run_measured_on_sound(sound_run, tmp_path: Path, capsys) -> None:
    data, parent = sound_run
    arguments = ["--run", parent, "--from-wave", "--data", data, "--out", tmp_path / "wave"]
    assert exported(*arguments) == 0
    assert "0 of 6 test windows are decided otherwise" in capsys.readouterr().out
    run = runs.open_run(tmp_path / "wave")
    run.check_unchanged()
    figures, base = run.metrics(), runs.open_run(parent).metrics()
    assert figures["sha256"] == runs.sha256_file(tmp_path / "wave" / "model.onnx")
    assert figures["splits"]["test"]["accuracy"] == base["splits"]["test"]["accuracy"]
    assert figures["params"] == base["params"]
    assert figures["file_params"] == base["file_params"]
    assert figures["front_end"]["largest_difference_db"] < 0.1
    assert figures["front_end"]["compared_levels"] > 0
    assert figures["agreement"]["windows"] == 6
    assert figures["macs"] > figures["network_macs"] == base["macs"]
    session = evaluate.onnx_session(tmp_path / "wave" / "model.onnx")
    assert session.get_inputs()[0].name == WAVEFORM
    assert session.get_inputs()[0].shape == ["batch", 31_040]
    assert not list((tmp_path / "wave").glob(".with*"))
    assert exported(*arguments) == 0
    assert "finished before" in capsys.readouterr().out


def test_an_int8_run_keeps_its_decisions(sound_run, int8_run, tmp_path: Path) -> None:
    arguments = ["--run", int8_run, "--from-wave", "--data", sound_run[0]]
    assert exported(*arguments, "--out", tmp_path / "wave") == 0
    figures = runs.open_run(tmp_path / "wave").metrics()
    assert figures["front_end"]["changed_decisions"] == 0
    assert figures["agreement"]["largest_logit_difference"] < 0.1
    session = evaluate.onnx_session(tmp_path / "wave" / "model.onnx")
    assert [end.type for end in (*session.get_inputs(), *session.get_outputs())] == [
        "tensor(float)"
    ] * 2


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler (cc) is here")
def test_the_c_export_hears(sound_run, int8_run, tmp_path: Path) -> None:
    out = tmp_path / "c"
    assert exported("--run", int8_run, "--data", sound_run[0], "--out", out, format="c") == 0
    run = runs.open_run(out)
    run.check_unchanged()
    assert {"frontend.c", "frontend_tables.h", "scene.c"} <= set(run.manifest["artefacts"])
    found = run.metrics()["front_end"]
    assert found["windows"] == 6
    assert found["largest_difference_db"] < 0.1
    assert found["changed_decisions"] == 0
    assert "--reference fixed" in (out / "README.md").read_text()
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    sources = [str(out / name) for name in ("scene.c", "frontend.c", "model.c", "kernels.c")]
    library = str(tmp_path / "scene.so")
    subprocess.run(["cc", *flags, "-O2", "-shared", "-fPIC", "-o", library, *sources], check=True)
    if shutil.which("make"):
        done = subprocess.run(["make", "test"], cwd=out, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "front end: largest difference" in done.stdout


def test_refusals_are_one_line(sound_run, finished_run, npy_data, tmp_path: Path, capsys) -> None:
    data, parent = sound_run
    other = sounds.class_folders(tmp_path / "other", per_class=4, seconds=2.6)
    for name in ("low", "high"):  # the same names, other sound
        for path in (other / name).iterdir():
            sounds.write(path, sounds.tone(1000, 2.6))
    out = ["--out", tmp_path / "wave"]
    cases = [
        (["--run", parent], "is that file already"),
        (["--run", parent, "--from-wave"], "say with --data where"),
        (["--run", parent, "--from-wave", "--data", tmp_path], "only one class is there"),
        (["--run", parent, "--from-wave", "--data", npy_data], "holds spectrograms"),
        (["--run", parent, "--from-wave", "--data", other], "its sound is not that of"),
        (["--run", finished_run, "--from-wave"], "came as spectrograms"),
    ]
    for arguments, message in cases:
        assert exported(*arguments, *out) == 2
        printed = capsys.readouterr().err.strip()
        assert message in printed
        assert len(printed.splitlines()) == 1
        assert not (tmp_path / "wave" / "metrics.json").exists()


def test_scenes_that_are_made_otherwise_today_get_advice_that_helps(
    monkeypatch, tmp_path: Path
) -> None:
    from compress.chip import frontend_c, frontend_host
    from compress.data.sets import SpectrogramSet
    from compress.data.splits import Split
    from compress.parents import lost_data

    frontend = FrontEnd(reference="fixed")
    first = np.array([0])
    silence = np.full((1, frontend.mels, frontend.frames), -20_480, dtype=np.int16)
    data = SimpleNamespace(
        name="scenes:1", synthetic=True, frontend=frontend, clip_ids=first, labels=first,
        codes=silence, read=lambda windows: silence[windows],
    )  # fmt: skip
    with pytest.raises(InputError, match="train again") as raised:
        list(window_waveforms(cast(SpectrogramSet, data), first, "scenes:1", 0))
    assert "--data" not in str(raised.value)

    # The code of the network is as good as before, so its export goes on.
    frontend_c.write_frontend(tmp_path, frontend)
    split = cast(Split, SimpleNamespace(test=first, description="seed 0"))
    monkeypatch.setattr(frontend_host, "_run_golden", lambda folder: None)
    found = frontend_host.measure(
        tmp_path, lambda codes: codes, data.codes, cast(SpectrogramSet, data), split, None
    )
    assert found is not None
    assert found["windows"] == 0
    (line,) = frontend_host.lines_of(found)
    assert "not measured on sound: scenes:1: the synthesiser" in line

    lost = SimpleNamespace(folder="runs/old", manifest={"data": {"name": "scenes:1"}})
    message = str(lost_data(cast(Run, lost), "--data"))
    assert "give --cache" in message
    assert "else train again" in message


def test_gate_and_report_take_the_export(sound_run, tmp_path: Path, capsys) -> None:
    from compress import gate, report
    from compress.config import GateConfig, ReportConfig

    data, parent = sound_run
    out = tmp_path / "runs" / "wave"
    assert exported("--run", parent, "--from-wave", "--data", data, "--out", out) == 0
    assert cli.main(GateConfig, gate.run, "", ["--runs", str(tmp_path / "runs")]) == 0
    assert "wave/model.onnx: not gated (takes sound" in capsys.readouterr().out
    assert cli.main(GateConfig, gate.run, "", [str(out)]) == 1  # asked for by name, it is counted
    assert "front_end/spectrum" in capsys.readouterr().out
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(tmp_path / "runs")]) == 0
    (entry,) = json.loads((tmp_path / "runs" / "report" / "report.json").read_text())
    assert entry["stage"] == "export onnx"
    assert entry["accuracy"] == runs.open_run(out).metrics()["splits"]["test"]["accuracy"]
    assert DECIBELS not in [o.name for o in onnx.load(out / "model.onnx").graph.output]
