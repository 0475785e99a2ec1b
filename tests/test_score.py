"""Runs measured on another data set: classes by name, nothing that was trained on, clip by clip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sounds
from conftest import band_spectrograms, command_that_comes_next, write_npy_pair

from compress import cli, evaluate, runs, score, train
from compress.config import ExploreConfig, ScoreConfig, TrainConfig
from compress.data import open_data
from compress.data.splits import Split
from compress.frontend import FrontEnd


def scored(*arguments: object) -> int:
    return cli.main(ScoreConfig, score.run, "", list(map(str, arguments)))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return write_npy_pair(tmp_path / "elsewhere", count=60, seed=9)


def test_accuracy_is_that_of_the_file_on_every_clip(
    finished_run: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored(finished_run, "--data", elsewhere, "--out", tmp_path / "out") == 0
    (row,) = json.loads((tmp_path / "out" / score.RESULT).read_text())["runs"]
    spectrograms, labels = band_spectrograms(60, 9)
    logits = evaluate.onnx_predictor(finished_run / runs.ONNX)(spectrograms[:, None])
    assert row["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert row["clips"] == 60 and row["sha256"] == runs.sha256_file(finished_run / runs.ONNX)
    own = runs.open_run(finished_run).metrics()["splits"]["test"]
    assert row["own_test"]["accuracy"] == own["accuracy"]
    assert (tmp_path / "out" / score.PICTURE).read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert f"{100 * row['accuracy']:.1f} %" in printed and "60 of 60 clips" in printed
    before = (tmp_path / "out" / score.RESULT).read_bytes()
    assert scored(finished_run, "--data", elsewhere, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / score.RESULT).read_bytes() == before


def test_of_its_own_data_only_the_test_split_counts(
    finished_run: Path, npy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scored(finished_run, "--data", npy_data, "--out", tmp_path) == 0
    (row,) = json.loads((tmp_path / score.RESULT).read_text())["runs"]
    own = runs.open_run(finished_run).metrics()["splits"]["test"]
    assert {key: row[key] for key in own if key in row} == own
    assert "its test split counts" in capsys.readouterr().out


def test_spectrograms_of_a_stated_front_end_are_its_own_data_again(
    npy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = tmp_path / "device.toml"
    device.write_text("sample_rate_hz = 24_000\n")
    run = tmp_path / "run"
    given = ["--student", "audiobot50", "--data", npy_data, "--frontend", device, "--out", run]
    given += ["--epochs", "1", "--workers", "1"]
    assert cli.main(TrainConfig, train.run, "", list(map(str, given))) == 0
    assert scored(run, "--data", npy_data, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "made of this data; its test split counts" in said
    assert command_that_comes_next(said, "explore", ExploreConfig).frontend == str(run)


def test_clips_that_it_was_trained_on_are_left_out_of_a_grown_folder(
    finished_run: Path, npy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder as it was trained on, and 60 clips more: another content, mostly heard."""
    old, labels = np.load(npy_data / "training.npy"), np.load(npy_data / "training_labels.npy")
    new, more = band_spectrograms(60, 9)
    grown = tmp_path / "grown"
    grown.mkdir()
    np.save(grown / "training.npy", np.concatenate([old, new]))
    np.save(grown / "training_labels.npy", np.concatenate([labels, more]))
    assert scored(finished_run, "--data", grown, "--out", tmp_path / "out") == 0
    (row,) = json.loads((tmp_path / "out" / score.RESULT).read_text())["runs"]
    split = Split.from_json(runs.read_json(finished_run / runs.SPLIT))
    unheard = len(split.test) + 60
    assert row["clips"] == unheard
    printed = capsys.readouterr().out
    assert f"{len(old) + 60 - unheard} clips left out" in printed
    np.save(grown / "training.npy", old[split.train])
    np.save(grown / "training_labels.npy", labels[split.train])
    assert scored(finished_run, "--data", grown) == 2
    assert "was trained on every clip; give other data" in capsys.readouterr().err
    options = ("--data", grown, "--cache", tmp_path / "empty", "--out", tmp_path / "out")
    assert scored(finished_run, *options) == 0
    assert "its own data is not in the cache" in capsys.readouterr().out


def test_several_runs_are_held_to_the_first_clip_by_clip(
    finished_run: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = shutil.copytree(finished_run, tmp_path / "twin")
    assert scored(finished_run, twin, "--data", elsewhere, "--out", tmp_path / "out") == 0
    first, second = json.loads((tmp_path / "out" / score.RESULT).read_text())["runs"]
    assert "minus_first" not in first
    assert second["minus_first"]["difference"] == 0 and second["minus_first"]["only_a"] == 0
    assert "twin minus audiobot50: +0.00 points" in capsys.readouterr().out


def test_runs_that_heard_different_clips_meet_on_those_that_neither_did(
    finished_run: Path, npy_data: Path, tmp_path: Path
) -> None:
    """A run of this data and one from elsewhere: the test split of the first."""
    away = renamed(finished_run, tmp_path / "away", lambda data: data.update(content_hash="x"))
    assert scored(away, finished_run, "--data", npy_data, "--out", tmp_path / "out") == 0
    rows = json.loads((tmp_path / "out" / score.RESULT).read_text())["runs"]
    own = runs.open_run(finished_run).metrics()["splits"]["test"]
    assert [row["clips"] for row in rows] == [own["clips"]] * 2
    assert rows[0]["accuracy"] == own["accuracy"]


def test_pauses_are_left_out_as_the_run_left_them_out_or_as_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = sounds.class_folders(tmp_path / "set", per_class=6, seconds=2.6)
    wave = np.concatenate([sounds.tone(3000, 1.0), np.zeros(64_000, dtype=np.float32)])
    elsewhere = sounds.class_folders(tmp_path / "elsewhere", per_class=2, seconds=2.6)
    sounds.write(elsewhere / "high" / "burst.wav", wave)
    usual = ["--student", "audiobot50", "--data", str(data), "--epochs", "1", "--workers", "1"]
    fixed = ["--reference", "fixed"]
    for name, options in (("every", []), ("loud", ["--drop-quiet", "20"]), ("fixed", fixed)):
        given = [*usual, *options, "--out", str(tmp_path / name)]
        assert cli.main(TrainConfig, train.run, "", given) == 0
    whole = open_data(str(elsewhere), frontend=FrontEnd(), workers=1)
    parts = open_data(str(elsewhere), frontend=FrontEnd(), workers=1, drop_quiet_db=20.0)
    assert len(parts) < len(whole)
    both = (tmp_path / "every", tmp_path / "loud")
    capsys.readouterr()
    for runs_given, options, wanted in (
        (both[:1], (), whole),
        (both[1:], (), parts),
        (both[:1], ("--drop-quiet", 20), parts),
        (both, ("--drop-quiet", 20), parts),
    ):
        out = tmp_path / "out"
        assert scored(*runs_given, "--data", elsewhere, *options, "--out", out) == 0
        assert json.loads((out / score.RESULT).read_text())["content_hash"] == wanted.content_hash
        assert ("left out, much quieter" in capsys.readouterr().out) == (wanted is parts)
    for name, heard in (("loud", {"drop_quiet": 20.0}), ("fixed", {"reference": "fixed"})):
        assert scored(tmp_path / name, "--data", elsewhere, "--strict", "--out", out) == 0
        found = command_that_comes_next(capsys.readouterr().out, "explore", ExploreConfig)
        assert found == ExploreConfig(data=str(elsewhere), strict=True, **heard)
    assert scored(*both, "--data", elsewhere, "--out", tmp_path / "no") == 2
    error = capsys.readouterr().err
    assert "leaves out other quiet windows than" in error and error.count("\n") == 1
    assert not (tmp_path / "no").exists()


def test_clips_that_a_teacher_heard_are_left_out(
    finished_run: Path, npy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student made elsewhere, of a run whose teacher was trained on this data."""
    middle = renamed(finished_run, tmp_path / "middle", lambda data: data.update(content_hash="x"))
    learnt_from(middle, teachers=[{"folder": str(finished_run)}, {"folder": str(tmp_path / "no")}])
    student = renamed(finished_run, tmp_path / "away", lambda data: data.update(content_hash="x"))
    unheard = runs.open_run(finished_run).metrics()["splits"]["test"]["clips"]
    for number, behind in enumerate(
        ({"parent": {"folder": str(middle)}}, {"members": [{"folder": str(middle)}]})
    ):
        learnt_from(student, **{"parent": None, "members": None} | behind)
        out = tmp_path / f"out{number}"
        assert scored(student, "--data", npy_data, "--out", out) == 0
        (row,) = json.loads((out / score.RESULT).read_text())["runs"]
        assert row["clips"] == unheard
        assert f"learnt from {tmp_path / 'no'}, which is missing" in capsys.readouterr().out


def learnt_from(run: Path, **manifest: object) -> None:
    runs.write_json(run / runs.MANIFEST, runs.read_json(run / runs.MANIFEST) | manifest)


def renamed(run: Path, to: Path, change) -> Path:  # type: ignore[no-untyped-def]
    """A copy of a run whose recorded data is changed, as if made elsewhere."""
    copy = shutil.copytree(run, to)
    manifest = runs.read_json(copy / runs.MANIFEST)
    change(manifest["data"])
    runs.write_json(copy / runs.MANIFEST, manifest)
    return copy


def test_classes_are_matched_by_name_and_some_may_lack(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Class folders of sound, of two of the classes, in another order than the run's."""
    import soundfile

    names = runs.open_run(finished_run).class_names
    there = [names[4], names[1]]
    for place, name in enumerate(there):
        for clip in range(3):
            sound = 0.1 * np.random.default_rng(10 * place + clip).normal(size=31_200)
            (tmp_path / "field" / name).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "field" / name / f"{clip}.wav", sound, 16_000)
    heard = renamed(
        finished_run,
        tmp_path / "heard",
        lambda data: data.update(frontend=FrontEnd().to_dict()),
    )
    assert scored(heard, "--data", tmp_path / "field", "--out", tmp_path, "--workers", 1) == 0
    found = json.loads((tmp_path / score.RESULT).read_text())
    (row,) = found["runs"]
    assert np.sum(row["confusion"], axis=1).tolist() == [0, 3, 0, 0, 3]
    assert row["recall"][names[0]] is None
    data = open_data(str(tmp_path / "field"), frontend=FrontEnd(), workers=1)
    logits = evaluate.logits_of(
        evaluate.onnx_predictor(heard / runs.ONNX), data, np.arange(len(data))
    )
    wanted = [names.index(data.class_names[label]) for label in data.labels]
    assert row["accuracy"] == pytest.approx((logits.argmax(1) == wanted).mean())
    printed = capsys.readouterr().out
    assert names[1] in printed and f"\n{names[0]} " not in printed


def test_what_cannot_be_scored_is_refused(
    finished_run: Path, npy_data: Path, elsewhere: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refused(*arguments: object) -> str:
        assert scored(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "give a run folder" in refused("--data", elsewhere)
    assert "--data must be given" in refused(finished_run)
    assert "made from sound is unknown" in refused(finished_run, "--data", "scenes:50")
    odd = renamed(finished_run, tmp_path / "odd", lambda data: data.update(frames=48))
    assert "takes 32 x 48" in refused(odd, "--data", elsewhere)
    names = runs.open_run(finished_run).class_names
    fewer = renamed(
        finished_run, tmp_path / "fewer",
        lambda data: data.update(class_names=["other name", *names[1:]]),
    )  # fmt: skip
    assert "knows no class" in refused(fewer, "--data", elsewhere)
    assert "score them one by one" in refused(finished_run, fewer, "--data", elsewhere)
    scene = renamed(
        finished_run, tmp_path / "scene",
        lambda data: data.update(frontend=FrontEnd().to_dict(), scene_seed=3, class_names=list(
            open_data("scenes:50", frontend=FrontEnd(), seed=3, workers=1).class_names)),
    )  # fmt: skip
    given = ("--data", "scenes:50", "--data-seed", 3, "--workers", 1)
    assert "shares clips" in refused(scene, *given)
    other = shutil.copytree(finished_run, tmp_path / "other")
    split = Split.from_json(runs.read_json(other / runs.SPLIT))
    swapped = Split(split.test, split.validation, split.train, split.description)
    runs.write_json(other / runs.SPLIT, swapped.to_json())
    manifest = runs.read_json(other / runs.MANIFEST)
    manifest["artefacts"][runs.SPLIT] = runs.sha256_file(other / runs.SPLIT)
    runs.write_json(other / runs.MANIFEST, manifest)
    said = refused(finished_run, other, "--data", npy_data)
    assert "these runs were trained on every clip" in said
