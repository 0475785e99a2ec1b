"""python -m compress.prune on small runs: what it writes, that it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_npy_pair

from compress import checkpoint, cli, distill, evaluate, fit, onnx_export, prune, runs, train
from compress.config import DistillConfig, PruneConfig, TrainConfig
from compress.layer_times import layer_times
from compress.pruned_runs import compare_layers, latency_stands, slow_layers
from compress.pruning import sparsity

SHORT = ["--epochs", "1", "--step-epochs", "1", "--steps", "2", "--threads", "1"]


def run_prune(*arguments: object) -> int:
    return cli.main(PruneConfig, prune.run, "", [*map(str, arguments), *SHORT])


@pytest.fixture(scope="module")
def taught(npy_data, tmp_path_factory) -> Path:
    """A folder of runs: an audiobot50 that was distilled, and its teacher."""
    root = tmp_path_factory.mktemp("taught")
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    arguments = ["--student", "audiobot50", "--teacher", "test_resnet", "--teacher-epochs", "1"]
    arguments += ["--data", str(npy_data), "--epochs", "1", "--batch-size", "32", "--workers", "1"]
    arguments += ["--runs", str(root), "--temperature", "3", "--threads", "1"]
    assert cli.main(DistillConfig, distill.run, "", arguments) == 0
    return root


@pytest.fixture(scope="module")
def student(taught) -> Path:
    return next(taught.glob("audiobot50-distilled-*"))


@pytest.fixture(scope="module")
def pruned(student, tmp_path_factory) -> tuple[Path, str]:
    """The student at 25,000 parameters: (run folder, what was printed)."""
    out = tmp_path_factory.mktemp("pruned") / "half"
    command = [sys.executable, "-m", "compress.prune", "--run", str(student), "--params", "25000"]
    done = subprocess.run(
        [*command, "--out", str(out), *SHORT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out, done.stdout


@pytest.fixture
def copied(taught, tmp_path) -> Path:
    """The student in a folder that a test may damage; its teacher stays where it is."""
    student = next(taught.glob("audiobot50-distilled-*"))
    return Path(shutil.copytree(student, tmp_path / "copy"))


def test_the_result_is_an_ordinary_run(pruned, student):
    out, _ = pruned
    run = runs.open_run(out)
    run.check_unchanged()
    parent = runs.open_run(student)
    assert run.complete and run.manifest["stage"] == "prune" and run.name == "audiobot50"
    assert run.manifest["parent"] == parent.reference()
    assert run.manifest["teachers"] == parent.manifest["teachers"]
    assert run.manifest["settings"]["temperature"] == 3.0
    assert not (out / runs.STEPS).exists()
    figures = run.metrics()
    assert 23_000 < figures["params"] <= 25_000
    assert figures["pruning"]["before"]["params"] == 49_733
    assert figures["pruning"]["before"]["sha256"] == runs.sha256_file(student / runs.ONNX)
    assert figures["agreement"]["top1"] == 1.0
    arguments = runs.read_json(out / runs.MODEL)["arguments"]
    assert all(width % 8 == 0 for width in (*arguments["widths"], *arguments["head"]))


def test_before_and_after_are_printed(pruned, student):
    out, printed = pruned
    figures = runs.open_run(out).metrics()
    for text in ("49,733", f"{figures['params']:,}", "3,789,120", f"{figures['macs']:,}",
                 f"{figures['file_bytes']:,}", f"{(student / runs.ONNX).stat().st_size:,}",
                 "latency", "in turns", "pruned minus parent", "step 2/2"):  # fmt: skip
        assert text in printed
    assert f"--run {out}" in printed.splitlines()[-1]


def test_curves_count_through_all_steps(pruned):
    rows = (pruned[0] / runs.CURVES).read_text().splitlines()
    head = rows[0].split(",")
    columns = [row.split(",") for row in rows[1:]]
    assert [row[head.index("epoch")] for row in columns] == ["1", "2"]
    assert [row[head.index("step")] for row in columns] == ["1", "2"]
    assert "train_distill_loss" in head


def test_it_reloads_to_the_logits_of_its_file(pruned):
    run = runs.open_run(pruned[0])
    model, normalisation = checkpoint.load(run)
    x = np.random.default_rng(0).uniform(-80, 0, (5, 1, 32, 96)).astype(np.float32)
    with torch.inference_mode():
        in_torch = onnx_export.Deployed(model, normalisation).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(in_torch, evaluate.onnx_predictor(run.file(runs.ONNX))(x), atol=1e-4)


def test_the_same_command_does_the_work_once(pruned, student, capsys):
    before = (pruned[0] / runs.MANIFEST).read_text()
    assert run_prune("--run", student, "--params", 25_000, "--out", pruned[0]) == 0
    assert "finished before" in capsys.readouterr().out
    assert (pruned[0] / runs.MANIFEST).read_text() == before


def test_it_is_pruned_again_and_trained_on(pruned, npy_data, tmp_path):
    again = tmp_path / "again"
    assert run_prune("--run", pruned[0], "--macs", "1.0e6", "--importance", "taylor",
                     "--out", again) == 0  # fmt: skip
    assert runs.open_run(again).metrics()["macs"] <= 1e6
    assert runs.open_run(again).manifest["parent"]["folder"] == str(pruned[0])
    arguments = ["--student", "audiobot50", "--weights", str(again), "--data", str(npy_data)]
    arguments += ["--epochs", "1", "--batch-size", "32", "--out", str(tmp_path / "on")]
    assert cli.main(TrainConfig, train.run, "", arguments) == 0
    trained = runs.open_run(tmp_path / "on").metrics()
    assert trained["params"] == runs.open_run(again).metrics()["params"]


@pytest.mark.parametrize("dies_in", [1, 2])
def test_a_killed_prune_continues_to_the_same_weights(
    dies_in, pruned, student, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    train_network, calls = fit.train_network, []

    def train_then_die(*arguments, **options):
        calls.append(1)
        if len(calls) == dies_in:
            raise Killed
        return train_network(*arguments, **options)

    out = tmp_path / "killed"
    options = ("--run", student, "--params", 25_000, "--out", out)
    monkeypatch.setattr(fit, "train_network", train_then_die)
    with pytest.raises(Killed):
        run_prune(*options)
    states = sorted(path.name for path in (out / runs.STEPS).iterdir())
    assert [f"pruned-{step}.pt" in states for step in (1, 2)] == [True, dies_in == 2]
    monkeypatch.undo()
    assert run_prune(*options) == 0
    assert runs.sha256_file(out / runs.ONNX) == runs.sha256_file(pruned[0] / runs.ONNX)


def test_random_importance_is_a_control_that_differs_by_seed(student, tmp_path):
    hashes = []
    for seed in (1, 2):
        out = tmp_path / str(seed)
        assert run_prune("--run", student, "--params", 25_000, "--importance", "random",
                         "--seed", seed, "--without-teacher", "--out", out) == 0  # fmt: skip
        hashes.append(runs.sha256_file(out / runs.WEIGHTS))
    assert hashes[0] != hashes[1]


def test_steps_may_be_longer_than_what_follows_where_every_epoch_has_a_view(student, tmp_path):
    """A teacher answers for the views of the recipe, of which the steps hear the first again."""
    given = ["--run", student, "--params", 40_000, "--steps", 1, "--step-epochs", 2]
    given += ["--recipe", "few", "--epochs", 1, "--out", tmp_path / "p"]
    assert run_prune(*given) == 0
    assert "distill_loss" in (tmp_path / "p" / runs.CURVES).read_text()


def test_a_run_without_teacher_is_tuned_on_labels(finished_run, tmp_path, capsys):
    out = tmp_path / "labels"
    assert run_prune("--run", finished_run, "--params", 30_000, "--out", out) == 0
    assert "labels alone" in capsys.readouterr().out
    run = runs.open_run(out)
    assert run.manifest["teachers"] == [] and "method" not in run.manifest["settings"]


def test_a_timm_student_is_pruned_and_reloads(npy_data, tmp_path):
    trained, out = tmp_path / "timm", tmp_path / "pruned"
    arguments = ["--student", "timm/test_resnet", "--data", str(npy_data), "--epochs", "1"]
    arguments += ["--batch-size", "32", "--out", str(trained), "--threads", "1"]
    assert cli.main(TrainConfig, train.run, "", arguments) == 0
    assert run_prune("--run", trained, "--params", 150_000, "--out", out) == 0
    model, _ = checkpoint.load(runs.open_run(out))
    assert 140_000 < sum(p.numel() for p in model.parameters()) <= 150_000
    assert "layer4.0.conv1" in model.arguments["pruned"]


def test_zeros_are_kept_and_what_they_are_worth_is_said(student, tmp_path, capsys):
    out = tmp_path / "sparse"
    assert run_prune("--run", student, "--sparsity", 0.6, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "zeros still count towards the budget" in printed and "latency" in printed
    run = runs.open_run(out)
    assert run.manifest["notes"] == [sparsity.NOTE]
    model, _ = checkpoint.load(run)
    assert sparsity.sparsity_of(model) == pytest.approx(0.6, abs=1e-3)
    figures = run.metrics()
    assert figures["params"] == figures["pruning"]["before"]["params"] == 49_733
    assert figures["pruning"]["latency"]["ratio"] > 0.5


# --- layers and their times -------------------------------------------------------------------


def test_layers_have_times_under_the_networks_names(student):
    layers = layer_times(student / runs.ONNX, 32, 96)
    assert [layer.name for layer in layers][:2] == ["blocks.0.0", "blocks.1.0"]
    assert sum(layer.macs for layer in layers) == 3_789_120
    times = [layer.microseconds for layer in layers]
    assert None not in times and max(times) > 0


def test_layers_that_stay_slow_are_named():
    def row(name, macs, times):
        return {"name": name, "macs": macs, "microseconds": times}

    layers = [
        row("faster", [100, 50], [10.0, 6.0]),
        row("as slow", [100, 50], [10.0, 10.0]),
        row("slower", [100, 50], [10.0, 12.0]),
        row("untouched", [100, 100], [10.0, 10.0]),
        row("unknown", [100, 50], [10.0, None]),
    ]
    assert [layer["name"] for layer in slow_layers(layers)] == ["slower", "as slow"]
    assert latency_stands(100, 60, 1.0) and not latency_stands(100, 60, 0.8)
    assert not latency_stands(100, 100, 1.0)


def test_layers_are_compared_by_name(student, pruned):
    rows = compare_layers(
        layer_times(student / runs.ONNX, 32, 96), layer_times(pruned[0] / runs.ONNX, 32, 96)
    )
    assert len(rows) == 6 and all(row["macs"][1] <= row["macs"][0] for row in rows)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--params", "100"], ["cannot be reached", "nearest is 1,613 parameters"]),
        (["--params", "50000"], ["has 49,733 parameters already"]),
        (["--macs", "1000"], ["cannot be reached", "MACs"]),
        (["--macs", "5e6"], ["3,789,120 MACs already"]),
        ([], ["one target", "--params", "--sparsity"]),
        (["--params", "20000", "--macs", "1e6"], ["one target", "given were 2"]),
        (["--sparsity", "1.5"], ["sparsity", "0.99"]),
        (["--params", "20000", "--importance", "magnitud"], ["did you mean magnitude"]),
        (["--params", "20000", "--teacher", "no/such"], ["no/such", "no such run folder"]),
        (["--params", "20000", "--teacher", "x", "--without-teacher"], ["exclude"]),
        (["--params", "20000", "--recipe", "finetun"], ["finetune"]),
    ],
)
def test_bad_options_get_one_line_and_exit_2(arguments, words, student, tmp_path, capsys):
    assert run_prune("--run", student, "--runs", tmp_path / "runs", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    for word in words:
        assert word in error
    assert not (tmp_path / "runs").exists(), "nothing half-written"


def refused(capsys, *arguments) -> str:
    assert run_prune(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_changed_parent_is_refused(copied, tmp_path, capsys):
    with (copied / runs.WEIGHTS).open("ab") as file:
        file.write(b"x")
    error = refused(capsys, "--run", copied, "--params", 25_000, "--runs", tmp_path / "r")
    assert "weights.safetensors changed" in error


def test_a_parent_that_was_made_again_is_refused_in_its_childs_folder(copied, tmp_path, capsys):
    out = tmp_path / "child"
    assert run_prune("--run", copied, "--params", 25_000, "--without-teacher", "--out", out) == 0
    run = runs.open_run(copied)
    model, normalisation = checkpoint.load(run)
    torch.nn.init.zeros_(model.head[0].bias)
    checkpoint.save(copied, "student", run.name, model, normalisation)
    artefacts = run.manifest["artefacts"] | {
        name: runs.sha256_file(copied / name) for name in (runs.WEIGHTS, runs.MODEL)
    }
    runs.write_json(copied / runs.MANIFEST, run.manifest | {"artefacts": artefacts})
    capsys.readouterr()
    error = refused(capsys, "--run", copied, "--params", 25_000, "--without-teacher", "--out", out)
    assert "holds another run" in error and "parent" in error


def test_a_missing_or_changed_teacher_is_named(copied, tmp_path, capsys):
    manifest = json.loads((copied / runs.MANIFEST).read_text())
    (teacher,) = manifest["teachers"]
    moved = teacher | {"folder": str(tmp_path / "gone")}
    (copied / runs.MANIFEST).write_text(json.dumps(manifest | {"teachers": [moved]}))
    options = ("--run", copied, "--params", 25_000, "--runs", tmp_path / "r")
    assert "'test_resnet' is missing" in refused(capsys, *options)
    changed = teacher | {"weights_sha256": "0" * 64}
    (copied / runs.MANIFEST).write_text(json.dumps(manifest | {"teachers": [changed]}))
    error = refused(capsys, *options)
    assert "changed since" in error and "--without-teacher" in error


def test_other_data_is_refused(student, tmp_path, capsys):
    other = write_npy_pair(tmp_path / "other", count=100, seed=5)
    error = refused(capsys, "--run", student, "--params", 25_000, "--data", other)
    assert "other data" in error


def test_no_run_no_pruning(tmp_path, capsys):
    assert "--run must be given" in refused(capsys, "--params", 100)
    assert "no such run folder" in refused(capsys, "--run", tmp_path / "no", "--params", 100)


def test_a_file_is_no_student_to_prune(student, npy_data, capsys):
    file = student / runs.ONNX
    options = ("--run", file, "--data", npy_data, "--params", 100)
    assert "channels are pruned from a run folder" in refused(capsys, *options)
