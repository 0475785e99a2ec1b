"""Silence and sound as two components: the map by hand, its inverse, and the same map in files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import band_spectrograms
from torch import nn

from compress import checkpoint, evaluate, onnx_export, runs
from compress.data.sets import SpectrogramSet, encode_db
from compress.errors import InputError
from compress.int8 import static
from compress.int8.coded import signed_codes
from compress.int8.interface import Interface
from compress.int8.prepare import prepare
from compress.material import Material, Normalisation, measure_normalisation
from compress.recipe import Augmentation


def set_of(decibels: np.ndarray, labels: np.ndarray | None = None) -> SpectrogramSet:
    numbers = np.arange(len(decibels))
    return SpectrogramSet(
        name="made up",
        codes=encode_db(decibels),
        labels=numbers % 2 if labels is None else labels,
        class_names=("a", "b"),
        recording_ids=numbers,
        clip_ids=numbers,
        folds=None,
        frontend=None,
        synthetic=True,
        content_hash="made up",
    )


def with_silence(count: int = 40, seed: int = 0) -> np.ndarray:
    decibels, _ = band_spectrograms(count, seed)
    decibels[:, :, :30] = -80
    return decibels


def mixture(decibels: np.ndarray) -> Normalisation:
    data = set_of(decibels)
    return measure_normalisation(data, np.arange(len(data)), block=7, kind="mixture")


def test_by_hand():
    # One band: sound at -20 and -40 dB (mean -30, deviation 10), silence at -80 and -79.5. The
    # quietest sound, -79 dB, lies at -4.9; silence a quarter deviation lower; halfway between them
    # lies -79.5 dB.
    found = mixture(np.array([[[-20.0, -40.0, -80.0, -79.5]]]))
    assert found.mean == pytest.approx([-30]) and found.deviation == pytest.approx([10])
    assert found.silence == pytest.approx([-5.15])
    x = torch.tensor([[-80.0, -79.5, -79.0, -40.0, -20.0, 0.0, -95.0]])
    expected = torch.tensor([[-5.15, -5.025, -4.9, -1.0, 1.0, 3.0, -5.15]])
    torch.testing.assert_close(found.apply(x), expected)
    # Sound that keeps within two deviations of the floor: silence lies at three.
    found = mixture(np.array([[[-50.0, -70.0, -80.0, -80.0]]]))
    assert found.silence == pytest.approx([-3.0])


def test_statistics_are_those_of_sound_alone():
    decibels = with_silence()
    found = mixture(decibels)
    sound = decibels[:, :, 30:]
    sound = np.where(sound >= -79, sound, np.nan)
    assert np.allclose(found.mean, np.nanmean(sound, axis=(0, 2)), atol=0.01)
    assert np.allclose(found.deviation, np.nanstd(sound, axis=(0, 2)), atol=0.01)
    band = measure_normalisation(set_of(decibels), np.arange(40))
    assert band.kind == "band" and (found.mean > band.mean + 5).all()


def test_it_rises_everywhere_and_turns_back():
    found = mixture(with_silence())
    x = torch.linspace(-80, 0, 1000).expand(32, 1000)
    mapped = found.apply(x)
    assert (mapped.diff(dim=1) > 0).all()
    torch.testing.assert_close(found.invert(mapped), x, atol=1e-3, rtol=0)


def test_bands_of_silence_alone_stay_finite():
    decibels = with_silence()
    decibels[:, 31] = -80
    found = mixture(decibels)
    assert np.isfinite([found.mean, found.deviation, found.silence]).all()
    assert torch.isfinite(found.apply(torch.from_numpy(decibels))).all()


def test_training_material_gets_it():
    decibels = with_silence()
    data = set_of(decibels)
    found = mixture(decibels)
    material = Material([(data, np.arange(40))], 2, found, Augmentation(), seed=0)
    x, _ = material.view(torch.tensor([3, 5]), 0)
    torch.testing.assert_close(
        x[:, 0], found.apply(torch.from_numpy(data.decibels(np.array([3, 5]))))
    )
    assert torch.equal(x[0, 0, :, 0], torch.from_numpy(found.silence))
    shifted = Augmentation(frequency_shift_probability=1.0)
    material = Material([(data, np.arange(40))], 2, found, shifted, seed=0)
    x, _ = material.view(torch.arange(20), 0)
    emptied = x[:, 0, 0, 90]  # a band that nothing moved into is silent
    assert (emptied == float(found.silence[0])).any()


class Small(nn.Module):
    """Convolution, pool, linear: enough for int8."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 5, 2, 2)
        self.linear = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.convolution(x)).mean((2, 3)))


def test_the_same_in_the_float_file_and_in_int8_with_and_without_coded_ends(tmp_path):
    torch.manual_seed(0)
    decibels = with_silence()
    decibels[0, :, 40] = np.linspace(-80, -78, 32)
    data, found, network = set_of(decibels), mixture(decibels), Small().eval()
    path = tmp_path / "float.onnx"
    onnx_export.to_onnx(network, found, 32, 96, path)
    windows = data.decibels(np.arange(40))[:, None]
    logits = evaluate.onnx_predictor(path)(windows)
    with torch.inference_mode():
        expected = network(found.apply(torch.from_numpy(windows))).numpy()
    assert np.abs(logits - expected).max() < 1e-5

    prepared = prepare(path)
    assert prepared.step is not None
    assert (prepared.step.knee_db, prepared.step.floor_db) == (-79.0, -80.0)
    assert np.allclose(prepared.step.slope, found.step_slope, rtol=1e-5)
    assert np.allclose(prepared.gain, 1 / found.deviation, rtol=1e-5)
    with static.StaticQuantiser(prepared, windows, "minmax") as quantiser:
        model = quantiser.quantise()
    assert static.float_operators(model, prepared) == []
    static.save(model, tmp_path / "int8.onnx")
    int8 = evaluate.onnx_predictor(tmp_path / "int8.onnx")(windows)
    assert np.abs(int8 - logits).max() < 0.05
    static.save(static.with_coded_ends(model, prepared), tmp_path / "coded.onnx")
    coded = evaluate.onnx_predictor(tmp_path / "coded.onnx")(windows)
    assert np.abs(coded - int8).max() < 0.02
    for file in ("int8.onnx", "coded.onnx"):  # no chip format has the step to silence
        with pytest.raises(InputError, match="--normalise band"):
            signed_codes(tmp_path / file)


def test_codes_below_the_knee_by_hand():
    text = json.dumps(
        {"kind": "uint8", "gain": [2.0], "offset": [170.0], "output_scale": 1.0,
         "output_zero_point": 0, "step": {"knee_db": -79.0, "floor_db": -80.0, "slope": [6.0]}}
    )  # fmt: skip
    interface = Interface.from_metadata({"compress.int8_interface": text}, "test")
    x = np.array([[[[-79.0, -79.5, -80.0, -90.0, -70.0]]]])
    assert interface.encode(x).ravel().tolist() == [12, 9, 6, 6, 30]
    assert Interface.from_metadata({"compress.int8_interface": interface.to_json()}, "again") == (
        interface
    )


def test_it_is_saved_with_the_weights_and_recorded(tmp_path, npy_data):
    from compress import cli, train
    from compress.config import TrainConfig

    out = tmp_path / "run"
    arguments = ["--student", "audiobot50", "--data", str(npy_data), "--epochs", "1"]
    arguments += ["--batch-size", "64", "--out", str(out), "--normalise", "mixture"]
    assert cli.main(TrainConfig, train.run, "", arguments) == 0
    run = runs.open_run(out)
    assert run.manifest["normalise"] == run.manifest["settings"]["normalise"] == "mixture"
    assert runs.read_json(out / runs.MODEL)["normalise"] == "mixture"
    _, found = checkpoint.load(run)
    assert found.kind == "mixture"
    assert run.metrics()["agreement"]["largest_logit_difference"] < 1e-4


def test_folds_trials_and_members_take_it_too(tmp_path, npy_data, capsys):
    pytest.importorskip("optuna")
    from compress import cli, crossval, ensemble, sweep
    from compress.config import CrossvalConfig, EnsembleConfig, SweepConfig

    common = ["--student", "audiobot50", "--data", str(npy_data), "--epochs", "1"]
    common += ["--batch-size", "64", "--normalise", "mixture", "--runs", str(tmp_path)]
    given = [*common, "--folds", "2", "--fold-index", "1"]
    assert cli.main(CrossvalConfig, crossval.run, "", given) == 0
    assert cli.main(EnsembleConfig, ensemble.run, "", [*common, "--seeds", "2"]) == 0
    made = [runs.open_run(file.parent) for file in tmp_path.glob("*/manifest.json")]
    kinds = {run.manifest["stage"]: checkpoint.load(run)[1].kind for run in made}
    assert kinds == {"train": "mixture", "ensemble": "mixture"} and len(made) == 4
    assert cli.main(SweepConfig, sweep.run, "", [*common, "--trials", "1"]) == 0
    assert "best.toml --normalise mixture" in capsys.readouterr().out


def test_a_teacher_of_the_other_kind_sees_the_same_spectrograms(finished_run):
    from compress.teaching import _in_our_units

    model, theirs = checkpoint.load(runs.open_run(finished_run))
    decibels = torch.from_numpy(with_silence(4))[:, None]
    ours = mixture(with_silence())
    session = type("Session", (), {"normalisation": ours, "fabric": None})()
    session.fabric = type("Fabric", (), {"device": torch.device("cpu")})()
    predict = _in_our_units(model, theirs, session)
    with torch.inference_mode():
        expected = model(theirs.apply(decibels))
    torch.testing.assert_close(predict(ours.apply(decibels)), expected, atol=1e-3, rtol=1e-3)
    assert dataclasses.replace(ours, silence=None).kind == "band"
