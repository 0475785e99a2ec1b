"""python -m compress.predict: a hand-made model that hears whether low or high bands are louder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import sounds

from compress import cli
from compress.config import PredictConfig
from compress.decisions import Rule
from compress.decisions import exponential_mean as smooth
from compress.frontend import FrontEnd
from compress.predict import classify, load_model, run, segments_of

onnx = pytest.importorskip("onnx")

CLASSES = ("low", "high")


def write_model(path: Path, classes: int = 2) -> None:
    """logits = mean level of bands 0..15, of bands 16..31, times 0.2."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.zeros((32, classes), dtype=np.float32)
    weights[:16, 0] = weights[16:, 1] = 0.2 / 16
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["log_mel_db", "axes"], ["bands"], keepdims=0),
            helper.make_node("MatMul", ["bands", "weights"], ["logits"]),
        ],
        "bands",
        [helper.make_tensor_value_info("log_mel_db", TensorProto.FLOAT, ["batch", 1, 32, 96])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [
            numpy_helper.from_array(np.array([1, 3]), "axes"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)


def write_run(folder: Path, frontend: FrontEnd | None = FrontEnd()) -> Path:  # noqa: B008
    folder.mkdir(parents=True)
    write_model(folder / "model.onnx")
    manifest = {
        "schema": 1,
        "name": "bands",
        "stage": "train",
        "status": "complete",
        "model": "bands",
        "data": {
            "class_names": list(CLASSES),
            "frontend": frontend.to_dict() if frontend else None,
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def model_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def predict(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(PredictConfig, run, "", [str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def low_then_high(rate_hz: int = 16_000) -> np.ndarray:
    """10 s of 300 Hz, then 10 s of 5 kHz."""
    return np.concatenate([sounds.tone(300, 10.0, rate_hz), sounds.tone(5000, 10.0, rate_hz)])


def test_smoothing_by_hand() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    # One time constant apart: the past weighs 1/e.
    smoothed = smooth(probabilities, np.array([0.0, 2.0, 4.0]), 2.0)
    past = np.exp(-1)
    assert smoothed[:, 0] == pytest.approx([1.0, past, past**2])
    assert smoothed.sum(axis=1) == pytest.approx(np.ones(3))
    assert np.array_equal(smooth(probabilities, np.arange(3.0), 0.0), probabilities)


def test_timeline_covers_the_file_without_gaps(model_run: Path, tmp_path: Path) -> None:
    file = sounds.write(tmp_path / "a.wav", low_then_high())
    timeline = classify(file, load_model(model_run), 0.62, Rule("mean", 0.0))
    assert timeline.start[0] == 0 and timeline.end[-1] == pytest.approx(20.0)
    assert np.array_equal(timeline.start[1:], timeline.end[:-1])
    # 20 s are 999 frames: a window every 31, the last aligned to the end.
    assert len(timeline.start) == 31
    assert np.diff(timeline.start)[1:-2] == pytest.approx(0.62)
    assert timeline.probabilities.sum(axis=1) == pytest.approx(np.ones(31))
    (low, high) = segments_of(timeline)
    assert [low[2], high[2]] == [0, 1]
    assert low[1] == high[0] == pytest.approx(10.0, abs=0.62)
    assert low[3] > 0.9


def test_smoothing_delays_a_change(model_run: Path, tmp_path: Path) -> None:
    file = sounds.write(tmp_path / "a.wav", low_then_high())
    model = load_model(model_run)
    at_once = segments_of(classify(file, model, 0.62, Rule("mean", 0.0)))[1][0]
    smoothed = segments_of(classify(file, model, 0.62, Rule("mean", 2.0)))[1][0]
    assert 0.5 < smoothed - at_once < 3.0


@pytest.mark.parametrize(("rate_hz", "channels"), [(22_050, 1), (44_100, 2), (48_000, 1)])
def test_any_rate_mono_or_stereo(
    rate_hz: int,
    channels: int,
    model_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    waveform = np.concatenate([sounds.tone(300, 8.0, rate_hz), sounds.tone(5000, 8.0, rate_hz)])
    if channels == 2:
        waveform = np.stack([waveform, waveform], axis=1)
    file = sounds.write(tmp_path / "a.wav", waveform, rate_hz)
    code, text, _ = predict(capsys, file, "--model", model_run, "--smoothing", 0)
    assert code == 0
    head, first, second, summary = text.splitlines()
    assert f"16.0 s, {rate_hz} Hz, {'mono' if channels == 1 else 'stereo'}" in head
    assert first.split()[0].startswith("0.0-") and " low " in first
    assert second.strip().split(" s ")[0].endswith("16.0") and " high " in second
    assert summary.startswith("  in all: ") and "low" in summary and "high" in summary


def test_json(model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        sounds.write(tmp_path / "a.flac", low_then_high()),
        sounds.write(tmp_path / "b.ogg", sounds.tone(5000, 1.0)),
    ]
    code, text, _ = predict(capsys, *files, "--model", model_run, "--hop", 1, "--json")
    found = json.loads(text)
    assert code == 0
    assert found["classes"] == list(CLASSES)
    assert len(found["sha256"]) == 64
    long, short = found["files"]
    assert long["seconds"] == pytest.approx(20.0, abs=0.01)
    assert [segment["class"] for segment in long["segments"]] == ["low", "high"]
    assert long["windows"][1]["end"] - long["windows"][1]["start"] == pytest.approx(1.0)
    assert sum(long["shares"].values()) == pytest.approx(1.0, abs=1e-3)
    # Shorter than one window: padded, one decision for all of it.
    assert short["segments"] == [
        {
            "start": 0.0,
            "end": pytest.approx(1.0, abs=0.01),
            "class": "high",
            "probability": short["segments"][0]["probability"],
        }
    ]


def test_long_files_are_read_in_blocks(
    model_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sounds.write(tmp_path / "a.wav", low_then_high(44_100), 44_100)
    model = load_model(model_run)
    whole = classify(file, model, 0.62, Rule("mean", 2.0))
    monkeypatch.setattr("compress.data.audio._BLOCK_SECONDS", 1)
    blocks = classify(file, model, 0.62, Rule("mean", 2.0))
    np.testing.assert_allclose(blocks.smoothed, whole.smoothed, atol=1e-3)
    assert np.array_equal(blocks.start, whole.start)


def test_model_file_inside_a_run_is_taken_too(
    model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sounds.write(tmp_path / "a.wav", low_then_high())
    assert predict(capsys, file, "--model", model_run / "model.onnx")[0] == 0
    stray = tmp_path / "stray" / "model.onnx"
    stray.parent.mkdir()
    shutil.copy(model_run / "model.onnx", stray)
    code, _, err = predict(capsys, file, "--model", stray)
    assert code == 2 and "classes and front end are unknown" in err


def test_a_trained_run_predicts(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its data came as spectrograms, so the front end must be named."""
    file = sounds.write(tmp_path / "a.wav", sounds.tone(440, 5.0))
    code, _, err = predict(capsys, file, "--model", finished_run)
    assert code == 2 and "came as spectrograms" in err and "--frontend default" in err
    code, text, _ = predict(capsys, file, "--model", finished_run, "--frontend", "default")
    assert code == 0 and "in all: " in text


def test_another_front_end_is_named_where_none_is_recorded(
    model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sounds.write(tmp_path / "a.wav", sounds.tone(440, 5.0))
    unknown = write_run(tmp_path / "unknown", None)
    device = tmp_path / "device.toml"
    device.write_text("sample_rate_hz = 24_000\nwindow_samples = 480\nhop_samples = 240\n")
    code, text, _ = predict(capsys, file, "--model", unknown, "--frontend", device, "--json")
    assert code == 0
    heard = json.loads(text)["frontend"]
    assert (heard["sample_rate_hz"], heard["hop_samples"]) == (24_000, 240)
    code, text, _ = predict(capsys, file, "--model", unknown, "--frontend", model_run, "--json")
    assert code == 0 and json.loads(text)["frontend"] == FrontEnd().to_dict()
    err = refused(capsys, file, "--model", model_run, "--frontend", device)
    assert "records its own front end" in err
    unusual = write_run(tmp_path / "unusual", FrontEnd(reference="fixed"))
    err = refused(capsys, file, "--model", unusual, "--frontend", "default")
    assert "records its own front end, which --frontend default is not" in err
    device.write_text("mels = 24\n")
    err = refused(capsys, file, "--model", unknown, "--frontend", device)
    assert f"{device}: front end of 24 x 96, but the model takes 32 x 96" in err
    err = refused(capsys, file, "--model", unknown, "--frontend", unknown)
    assert "its front end is unknown" in err


def test_windows_that_are_short_leave_no_sound_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sounds.write(tmp_path / "a.wav", sounds.tone(440, 5.0))
    short = FrontEnd(hop_samples=80, window_samples=160, fft_size=512)  # 96 frames of 5 ms
    run = write_run(tmp_path / "short", short)
    code, text, _ = predict(capsys, file, "--model", run, "--json")
    found = json.loads(text)
    assert code == 0 and found["hop_seconds"] == pytest.approx(0.32)  # as they are cut to train
    (heard,) = found["files"]
    assert len(heard["windows"]) == 1 + -(-(999 - 96) // 64)
    code, text, _ = predict(capsys, file, "--model", run, "--json", "--hop", "1")
    assert code == 0 and json.loads(text)["hop_seconds"] == 1.0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, out, err = predict(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def test_bad_sound_is_refused_before_anything_is_printed(
    model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sounds.write(tmp_path / "good.wav", low_then_high())
    (tmp_path / "text.wav").write_text("no sound " * 500)
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "blip.wav", np.ones(100), 16_000)
    sounds.truncate(sounds.write(tmp_path / "half.wav", low_then_high()))
    for name, message in (
        ("none.wav", "cannot be opened"),
        ("text.wav", "not readable as sound"),
        ("empty.wav", "is empty"),
        ("half.wav", "is truncated"),
    ):
        assert message in refused(capsys, good, tmp_path / name, "--model", model_run)
    for name, message in (("nothing.wav", "holds no sound"), ("blip.wav", "too short")):
        assert message in refused(capsys, tmp_path / name, "--model", model_run)


def test_bad_models_are_refused(
    model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sounds.write(tmp_path / "a.wav", low_then_high())
    assert "give at least one sound file" in refused(capsys, "--model", model_run)
    assert "--model must be given" in refused(capsys, file)
    assert "no such run folder" in refused(capsys, file, "--model", tmp_path / "none")
    assert "not a run folder" in refused(capsys, file, "--model", tmp_path)
    model = model_run / "model.onnx"
    whole = model.read_bytes()
    write_model(model, classes=3)
    assert "gives 3 classes" in refused(capsys, file, "--model", model_run)
    model.write_bytes(whole[: len(whole) // 2])
    assert "model.onnx" in refused(capsys, file, "--model", model_run)
    model.write_text("not a model")
    assert "model.onnx" in refused(capsys, file, "--model", model_run)
    model.unlink()
    assert "has no model.onnx" in refused(capsys, file, "--model", model_run)
    other = write_run(tmp_path / "other", FrontEnd(mels=40))
    assert "do not belong together" in refused(capsys, file, "--model", other)


@pytest.mark.parametrize("decision", ["majority", "mean", "hmm"])
def test_the_decision_is_chosen(decision, model_run: Path, tmp_path: Path, capsys) -> None:
    file = sounds.write(tmp_path / "a.wav", low_then_high())
    given = ("--model", model_run, "--decision", decision, "--json")
    code, text, _ = predict(capsys, file, *given)
    found = json.loads(text)
    assert [segment["class"] for segment in found["files"][0]["segments"]][0] == found["classes"][0]
    assert code == 0 and found["decision"] == decision
    assert ("dwell_seconds" in found) == (decision == "hmm")
