"""What wrong decisions cost: the file, the arithmetic by hand, the report's column, predict."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
from conftest import CLASSES

from compress import cli, costs, predict, report
from compress.config import PredictConfig, ReportConfig
from compress.errors import InputError
from compress.evaluate import load_decisions
from compress.metrics import Decisions

TWO = """
[costs]
quiet = 1
alarm = {quiet = 10}
"""


def written(folder, text: str):
    path = folder / "prices.toml"
    path.write_text(text)
    return path


def test_rows_are_actual_and_columns_decided(tmp_path):
    found = costs.load(written(tmp_path, TWO))
    assert found.matrix(("quiet", "alarm")).tolist() == [[0, 1], [10, 0]]
    assert found.matrix(("alarm", "quiet")).tolist() == [[0, 10], [1, 0]]


def test_a_row_of_single_costs_and_any(tmp_path):
    text = '[costs]\na = {b = 4, any = 2}\nb = 1\nc = {any = 3, a = 0.5}\n'
    found = costs.load(written(tmp_path, text)).matrix(("a", "b", "c"))
    assert found.tolist() == [[0, 4, 2], [1, 0, 1], [0.5, 3, 0]]


def test_decision_by_hand():
    # An alarm that is missed costs 10, a false one 1: from a probability of 1/11 on it is decided.
    matrix = np.array([[0.0, 1.0], [10.0, 0.0]])
    probabilities = np.array([[0.92, 0.08], [0.90, 0.10], [0.5, 0.5], [10 / 11, 1 / 11]])
    assert costs.decide(probabilities, matrix).tolist() == [0, 1, 1, 0]
    decisions = Decisions(probabilities, np.array([0, 1, 1, 0]), np.arange(4), np.arange(4))
    shown, least = costs.of_decisions(decisions, matrix)
    assert shown == (0 + 10 + 10 + 0) / 4  # the even one is decided as the first class
    assert least == 0


def test_one_cost_for_every_error_is_the_most_probable_class():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), 500)
    matrix = 1 - np.eye(5)
    assert (costs.decide(probabilities, matrix) == probabilities.argmax(1)).all()
    assert (costs.decide(probabilities, 7 * matrix) == probabilities.argmax(1)).all()
    assert (costs.decide(probabilities, 0 * matrix) == probabilities.argmax(1)).all()


def test_it_lessens_the_expected_cost_of_calibrated_probabilities():
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.ones(5), 20_000)
    labels = (probabilities.cumsum(1) > generator.random((20_000, 1))).argmax(1)
    matrix = costs.load(costs.SHIPPED).matrix(CLASSES)
    decisions = Decisions(probabilities, labels, np.arange(20_000), np.arange(20_000))
    shown, least = costs.of_decisions(decisions, matrix)
    assert least < 0.97 * shown


def test_shipped_order_is_voice_then_safety_then_music():
    matrix = costs.load(costs.SHIPPED).matrix(CLASSES)
    missed = dict(zip(CLASSES, matrix.max(axis=1), strict=True))
    assert missed["human voice"] > missed["engine sounds"] == missed["alarm"] > missed["other"]
    assert missed["other"] > missed["music"] > 0 and (matrix.diagonal() == 0).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no table [costs]"),
        ("costs = 3", "has no table [costs]"),
        ("[costs]\na = -1\nb = 'x'", "at least 0; 'b', 'any': 'x' is not a number"),
        ("[costs]\na = {a = 1, any = 2}", "the right decision costs 1"),
        ("[costs]\na = inf", "finite"),
        ("[costs]\na = true", "not a number"),
        ("[prices]\na = 1\n[costs]\na = 1", "unknown table 'prices'"),
    ],
)
def test_faults_of_a_file_are_named(tmp_path, text, words):
    with pytest.raises(InputError, match="prices.toml") as caught:
        costs.load(written(tmp_path, text))
    assert words in str(caught.value)


def test_faults_against_the_classes_are_named(tmp_path):
    found = costs.load(written(tmp_path, TWO))
    with pytest.raises(InputError, match="no costs for 'voice'"):
        found.matrix(("quiet", "alarm", "voice"))
    with pytest.raises(InputError, match="'alarm' is no class; did you mean alarms"):
        costs.load(written(tmp_path, TWO + "alarms = 1")).matrix(("quiet", "alarms"))
    sparse = "[costs]\nquiet = 1\nalarm = {quiet = 1}\nvoice = 1"
    with pytest.raises(InputError, match="no cost for 'alarm' decided as 'voice'"):
        costs.load(written(tmp_path, sparse)).matrix(("quiet", "alarm", "voice"))


def test_report_has_the_cost_of_recorded_decisions(finished_run, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(finished_run, runs / "one")
    shutil.copytree(finished_run, runs / "changed")
    path = runs / "changed" / "test_decisions.npz"
    path.write_bytes(path.read_bytes() + b" ")
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(runs)]) == 0
    records = json.loads((runs / "report" / "report.json").read_text())
    by_folder = {record["artifact"].split("/")[-2]: record for record in records}
    decisions = load_decisions(finished_run / "test_decisions.npz")
    matrix = costs.load(costs.SHIPPED).matrix(CLASSES)
    shown, least = costs.of_decisions(decisions, matrix)
    by_hand = sum(
        matrix[label, row.argmax()]
        for label, row in zip(decisions.labels, decisions.probabilities, strict=True)
    )
    assert shown == pytest.approx(by_hand / len(decisions.labels))
    assert by_folder["one"]["expected_cost"] == pytest.approx(shown)
    assert by_folder["one"]["expected_cost_by_costs"] == pytest.approx(least)
    assert by_folder["changed"]["expected_cost"] is None
    page = (runs / "report" / "report.html").read_text()
    assert "expected cost" in page and "human voice 5" in page

    other = written(tmp_path, TWO)  # for other classes: no column
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(runs), "--costs", str(other)]) == 0
    assert "expected cost" not in (runs / "report" / "report.md").read_text()


def test_predict_decides_by_costs(finished_run, tmp_path, capsys):
    sound = tmp_path / "noise.wav"
    soundfile.write(sound, np.random.default_rng(0).normal(0, 0.1, 48_000), 16_000)
    arguments = [str(sound), "--model", str(finished_run), "--frontend", "default", "--json"]
    assert cli.main(PredictConfig, predict.run, "", arguments) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["costs"] is None
    wanted = "[costs]\n" + "".join(f'"{name}" = 0\n' for name in CLASSES[:4]) + "alarm = 1\n"
    prices = written(tmp_path, wanted)
    assert cli.main(PredictConfig, predict.run, "", [*arguments, "--costs", str(prices)]) == 0
    dear = json.loads(capsys.readouterr().out)
    assert {window["decision"] for window in dear["files"][0]["windows"]} == {"alarm"}
    assert len(dear["costs"]["sha256"]) == 64
    assert cli.main(PredictConfig, predict.run, "", [*arguments, "--costs", "default"]) == 0
    assert json.loads(capsys.readouterr().out)["costs"]["file"].endswith("costs.toml")
    assert cli.main(PredictConfig, predict.run, "", [*arguments, "--costs", "lost.toml"]) == 2
    assert "lost.toml: no such file" in capsys.readouterr().err
