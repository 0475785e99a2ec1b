"""Ensembles: one file of several networks, its figures, and what it teaches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command_that_comes_next

from compress import (
    budgets,
    checkpoint,
    cli,
    distill,
    ensemble,
    evaluate,
    gate,
    prune,
    quantize,
    runs,
    train,
    verify,
)
from compress.config import (
    DistillConfig,
    EnsembleConfig,
    PruneConfig,
    QuantizeConfig,
    TrainConfig,
    VerifyConfig,
)
from compress.ensembles import Ensemble, rebuild
from compress.metrics import softmax

SMALL = ["--epochs", "1", "--batch-size", "64", "--workers", "1"]


def call(config, command, *arguments: object) -> int:
    return cli.main(config, command.run, "", list(map(str, arguments)))


@pytest.fixture(scope="module")
def members(finished_run, npy_data, tmp_path_factory) -> list[Path]:
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    other = tmp_path_factory.mktemp("member") / "audiobot50"
    assert call(TrainConfig, train, "--student", "audiobot50", "--data", npy_data, "--seed", 5,
                "--out", other, *SMALL) == 0  # fmt: skip
    return [finished_run, other]


@pytest.fixture(scope="module", params=["probabilities", "logits"])
def combined(request, members, tmp_path_factory):
    """(how, run of the ensemble of both members)."""
    out = tmp_path_factory.mktemp(request.param) / "both"
    given = [word for member in members for word in ("--member", member)]
    assert call(EnsembleConfig, ensemble, *given, "--combine", request.param, "--out", out) == 0
    return request.param, runs.open_run(out)


def test_by_hand():
    """Two members that give fixed logits over two classes."""

    class Fixed(torch.nn.Module):
        def __init__(self, *logits):
            super().__init__()
            self.logits = torch.tensor([logits])

        def forward(self, x):
            return self.logits.expand(len(x), -1)

    pair = [Fixed(np.log(3.0), 0.0), Fixed(0.0, 0.0)]  # probabilities 3/4 1/4 and 1/2 1/2
    x = torch.zeros(2, 1, 4, 4)
    by_mean = Ensemble(pair, "probabilities", [{}, {}])(x)
    np.testing.assert_allclose(by_mean.exp(), [[0.625, 0.375]] * 2, rtol=1e-6)
    by_logits = Ensemble(pair, "logits", [{}, {}])(x)
    np.testing.assert_allclose(by_logits, [[np.log(3.0) / 2, 0.0]] * 2, rtol=1e-6)


def test_the_file_is_the_mean_of_the_members_files(combined, members):
    how, run = combined
    x = np.random.default_rng(0).uniform(-80, 0, (7, 1, 32, 96)).astype(np.float32)
    found = evaluate.onnx_predictor(run.file(runs.ONNX))(x)
    each = [evaluate.onnx_predictor(folder / runs.ONNX)(x) for folder in members]
    if how == "logits":
        np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-4)
    else:
        wanted = np.mean([softmax(logits) for logits in each], axis=0)
        np.testing.assert_allclose(softmax(found), wanted, atol=1e-5)


def test_parameters_are_the_sum_and_the_gate_sees_them(combined, members):
    _, run = combined
    found = run.metrics()
    each = [runs.open_run(folder).metrics() for folder in members]
    for figure in ("params", "file_params", "macs"):
        assert found[figure] == sum(one[figure] for one in each), figure
    assert found["sha256"] == runs.sha256_file(run.file(runs.ONNX))
    assert found["agreement"]["top1"] == 1.0
    verdict = gate.judge_file(run.file(runs.ONNX), budgets.Budgets({"params": 60_000}))
    assert verdict.checks[0].value == found["file_params"] and verdict.checks[0].broken


def test_it_is_verified_with_its_members(combined, capsys):
    _, run = combined
    assert call(VerifyConfig, verify, run.folder) == 0
    assert "not recomputed" not in capsys.readouterr().out


def test_the_run_reloads_and_says_what_it_is(combined, members):
    how, run = combined
    model, _ = checkpoint.load(run)
    assert isinstance(model, Ensemble) and model.combine == how
    recorded = [member["weights_sha256"] for member in run.manifest["members"]]
    assert recorded == [runs.open_run(folder).model_hash() for folder in members]
    again = rebuild(model.arguments)
    again.load_state_dict(model.state_dict())
    x = torch.randn(3, 1, 32, 96)
    with torch.inference_mode():
        assert torch.equal(again.eval()(x), model(x))


def test_an_ensemble_teaches_as_its_members_do(combined, members, npy_data, tmp_path):
    """The mean of logits is what several --teacher are: the student learns under the same loss."""
    how, run = combined
    if how != "logits":
        pytest.skip("several --teacher are a mean of logits")
    given = ["--student", "audiobot50", "--data", npy_data, *SMALL]
    assert call(DistillConfig, distill, *given, "--teacher", run.folder, "--out",
                tmp_path / "a") == 0  # fmt: skip
    student = runs.open_run(tmp_path / "a")
    assert student.manifest["teachers"][0]["name"] == "2x audiobot50"
    several = [word for member in members for word in ("--teacher", member)]
    assert call(DistillConfig, distill, *given, *several, "--out", tmp_path / "b") == 0
    curves = [(tmp_path / name / runs.CURVES).read_text().splitlines() for name in "ab"]
    heads, rows = zip(*((c[0], c[1].split(",")[:4]) for c in curves), strict=True)
    assert heads[0] == heads[1] and "train_distill_loss" in heads[0]
    # Adam makes much of the last bits of a gradient, so losses are compared, not weights
    np.testing.assert_allclose(np.float64(rows[0]), np.float64(rows[1]), rtol=1e-3)


def test_its_hash_is_that_of_its_file(combined):
    """The same weights teach otherwise by another mean; stored logits must not be mixed up."""
    _, run = combined
    assert run.model_hash() == runs.sha256_file(run.file(runs.ONNX))


def test_the_same_ensemble_is_made_once(combined, members, capsys):
    how, run = combined
    before = (run.folder / runs.MANIFEST).read_text()
    given = [word for member in members for word in ("--member", member)]
    assert call(EnsembleConfig, ensemble, *given, "--combine", how, "--out", run.folder) == 0
    assert (run.folder / runs.MANIFEST).read_text() == before
    printed = capsys.readouterr().out
    assert "ensemble minus the member that validation likes best" in printed
    following = command_that_comes_next(printed, "distill", DistillConfig)
    assert following.teacher == (str(run.folder),) and following.data == "PATH", "not the default"


def test_the_command_that_follows_hears_as_the_members_did(tmp_path, capsys):
    frontend = tmp_path / "frontend.toml"
    frontend.write_text('sample_rate_hz = 8000\nreference = "fixed"\n')
    given = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        assert call(TrainConfig, train, "--student", "audiobot50", "--data", "scenes:200",
                    "--frontend", frontend, "--seed", seed, "--out", out, *SMALL) == 0  # fmt: skip
        given += ["--member", out]
    assert call(EnsembleConfig, ensemble, *given, "--out", tmp_path / "both") == 0
    following = command_that_comes_next(capsys.readouterr().out, "distill", DistillConfig)
    assert (following.data, following.frontend) == ("scenes:200", str(tmp_path / "both"))


def test_an_ensemble_is_quantised_as_one_file_but_not_pruned(combined, tmp_path, capsys):
    how, run = combined
    assert call(PruneConfig, prune, "--run", run.folder, "--params", 50_000, "--out",
                tmp_path / "p") == 2  # fmt: skip
    assert "is an ensemble" in capsys.readouterr().err
    if how == "logits":
        assert call(QuantizeConfig, quantize, "--run", run.folder, "--out", tmp_path / "q") == 0
        found = runs.open_run(tmp_path / "q").metrics()
        assert found["agreement"]["top1"] > 0.9 and found["file_bytes_ratio"] < 0.6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--member"),
        (["--member", "RUN"], "two or more"),
        (["--member", "RUN", "--member", "RUN"], "twice"),
        (["--student", "audiobot5"], "audiobot50"),
        (["--student", "audiobot50", "--member", "RUN"], "either"),
    ],
)
def test_bad_members_get_one_line(arguments, words, members, tmp_path, capsys):
    given = [members[0] if word == "RUN" else word for word in arguments]
    assert call(EnsembleConfig, ensemble, *given, "--runs", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_members_of_another_split_are_refused(members, npy_data, tmp_path, capsys):
    other = tmp_path / "other"
    assert call(TrainConfig, train, "--student", "audiobot50", "--data", npy_data, "--data-seed", 1,
                "--out", other, *SMALL) == 0  # fmt: skip
    assert call(EnsembleConfig, ensemble, "--member", members[0], "--member", other, "--out",
                tmp_path / "e") == 2  # fmt: skip
    assert "another split" in capsys.readouterr().err


@pytest.mark.slow
def test_members_are_trained_by_seed(npy_data, tmp_path, capsys):
    assert call(EnsembleConfig, ensemble, "--student", "audiobot50", "--seeds", 2, "--data",
                npy_data, "--runs", tmp_path, *SMALL) == 0  # fmt: skip
    (found,) = tmp_path.glob("2x-audiobot50-ensemble-*")
    seeds = [runs.open_run(Path(m["folder"])).manifest["seed"]
             for m in runs.open_run(found).manifest["members"]]  # fmt: skip
    assert seeds == [0, 1]
