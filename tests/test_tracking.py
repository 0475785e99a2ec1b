"""Loggers: the same rows everywhere, a clear line where a package is missing, no lost training."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
from pathlib import Path

import pytest
from killing import killed_at_first_checkpoint

from compress import cli, registry, runs, tracking, train
from compress.__main__ import COMMANDS
from compress.config import TrainConfig
from compress.errors import InputError
from compress.tracking import Loggers

SMALL = ["--student", "audiobot50", "--epochs", "2", "--batch-size", "64", "--workers", "1"]
TRAINING = {"teach", "train", "distill", "prune", "quantize", "crossval", "sweep", "ensemble"}


def run_train(*arguments: str | Path) -> int:
    return cli.main(TrainConfig, train.run, "", [*SMALL, *map(str, arguments)])


def curves(folder: Path) -> list[dict[str, float]]:
    with (folder / runs.CURVES).open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_every_command_that_trains_has_the_option():
    from compress import config

    for name in TRAINING & set(COMMANDS):
        options = dataclasses.fields(getattr(config, f"{name.capitalize()}Config"))
        assert "logger" in {option.name for option in options}, name


@pytest.mark.parametrize("name", sorted(registry.LOGGERS))
def test_a_missing_package_is_one_line_before_any_data_is_read(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    if name == "csv":
        tracking.check(["csv"])
        return
    assert run_train("--logger", name, "--data", "nowhere", "--runs", tmp_path) == 2
    error = capsys.readouterr().err
    assert f"pip install '.[{name}]'" in error and error.count("\n") == 1
    assert "nowhere" not in error and not list(tmp_path.iterdir())


def test_an_unknown_logger_names_the_nearest(capsys, tmp_path):
    assert run_train("--logger", "tensorbord", "--runs", tmp_path) == 2
    assert "tensorboard" in capsys.readouterr().err


ROWS = [
    {"epoch": 1, "train_loss": 1.5, "validation_loss": 1.25, "learning_rate": 1e-3},
    {"epoch": 2, "train_loss": 1.0, "validation_loss": 0.75, "learning_rate": 5e-4},
]


def send(name: str, folder: Path) -> None:
    """Two epochs and the figures of a file that was measured, as a training sends them."""
    runs.write_json(
        folder / runs.METRICS,
        {"splits": {"test": {"accuracy": 0.75, "loss": 0.5}}, "params": 7, "macs": None},
    )
    with tracking.opened([name], folder, {"settings": {"model": "x"}}) as loggers:
        for row in ROWS:
            loggers(row)
        loggers.finish(folder)


def test_csv_is_written_after_every_epoch(tmp_path):
    with tracking.opened(["csv"], tmp_path, {}) as loggers:
        for number, row in enumerate(ROWS, 1):
            loggers(row)
            assert curves(tmp_path) == ROWS[:number]


def test_tensorboard_has_the_rows_and_the_figures_of_the_file(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    send("tensorboard", tmp_path)
    send("tensorboard", tmp_path)  # again: it begins anew
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("train_loss", "validation_loss", "learning_rate"):
        found = events.Scalars(name)
        assert [event.step for event in found] == [1, 2]
        assert [event.value for event in found] == pytest.approx([row[name] for row in ROWS])
    assert events.Scalars("test_accuracy")[0].value == 0.75


def test_a_logger_that_fails_is_named_and_the_training_goes_on(capsys):
    rows = []

    class Broken:
        def epoch(self, number, row):
            raise ConnectionError("no route to host")

        def close(self, figures):
            raise AssertionError("was left out")

    class Works(Broken):
        def epoch(self, number, row):
            rows.append(number)

        def close(self, figures):
            rows.append("closed")

    loggers = Loggers({"broken": Broken(), "works": Works()})
    loggers({"train_loss": 1.0})
    loggers({"train_loss": 0.5})
    loggers.close()
    assert rows == [1, 2, "closed"]
    assert capsys.readouterr().out.count("logger broken stopped (no route to host)") == 1


def test_a_continued_training_sends_its_earlier_epochs_again(npy_data, tmp_path, monkeypatch):
    """Killed after the first epoch: the record of the second attempt is whole."""

    class Spy:
        def __init__(self, folder, manifest):
            self.rows = attempts.setdefault(len(attempts), [])

        def epoch(self, number, row):
            self.rows.append((number, row["validation_loss"]))

        def close(self, figures):
            self.rows.append(sorted(figures))

    attempts: dict[int, list] = {}
    monkeypatch.setattr(tracking, "CsvLogger", Spy)
    with killed_at_first_checkpoint():
        run_train("--data", npy_data, "--out", tmp_path / "r")
    assert run_train("--data", npy_data, "--out", tmp_path / "r") == 0
    assert attempts[0] == [[]], "closed without figures"
    losses = [row["validation_loss"] for row in curves(tmp_path / "r")]
    assert [number for number, _ in attempts[1][:2]] == [1, 2]
    assert [loss for _, loss in attempts[1][:2]] == pytest.approx(losses)
    assert "test_accuracy" in attempts[1][2]


@pytest.mark.slow
def test_wandb_offline_keeps_everything_in_the_run_folder(npy_data, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run_train("--data", npy_data, "--out", tmp_path / "r", "--logger", "wandb") == 0
    (found,) = (tmp_path / "r").rglob("*.wandb")
    assert b"validation_loss" in found.read_bytes()


@pytest.mark.slow
def test_mlflow_has_the_rows_of_the_curves(npy_data, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "r"
    assert run_train("--data", npy_data, "--out", out, "--logger", "mlflow") == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("compress-workbench")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["model"] == "audiobot50"
    history = client.get_metric_history(run.info.run_id, "validation_loss")
    assert [m.step for m in history] == [1, 2]
    losses = [row["validation_loss"] for row in curves(out)]
    assert [m.value for m in history] == pytest.approx(losses)


def test_class_weights_of_the_wrong_number_are_refused(npy_data, tmp_path, capsys):
    given = ["--data", npy_data, "--out", tmp_path / "r", "--class-weights", "1,2,3"]
    assert run_train(*given) == 2
    assert "3 numbers, the data set has 5 classes" in capsys.readouterr().err
    assert not (tmp_path / "r").exists(), "before anything is written"


def test_loggers_refuse_by_inputerror(tmp_path):
    with pytest.raises(InputError, match="unknown logger"):
        tracking.check(["nonsense"])
