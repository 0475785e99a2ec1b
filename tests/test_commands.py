"""Train, teach and distill from the command line, on a set that is learnt in seconds."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sounds
import torch
from conftest import command_that_comes_next
from killing import killed_at_first_checkpoint
from safetensors.torch import save_file

from compress import (
    checkpoint,
    cli,
    distill,
    evaluate,
    onnx_export,
    prune,
    quantize,
    runs,
    teach,
    train,
)
from compress.config import DistillConfig, PruneConfig, QuantizeConfig, TeachConfig, TrainConfig
from compress.data.sets import find_set
from compress.errors import InputError
from compress.session import DECISIONS
from compress.starting import continued, original_student
from compress.student_runs import new_student
from compress.summary import report_command
from teachers import timm_teacher

TEACHER = "test_resnet"
SMALL = ["--epochs", "2", "--batch-size", "32", "--workers", "1"]


def run_train(*arguments: str | Path) -> int:
    return cli.main(TrainConfig, train.run, "", [*map(str, arguments), *SMALL])


def run_distill(*arguments: str | Path) -> int:
    given = [*map(str, arguments), *SMALL, "--teacher-epochs", "2"]
    return cli.main(DistillConfig, distill.run, "", given)


@pytest.fixture(scope="module")
def compared(npy_data, tmp_path_factory):
    """One distillation with its twin: (folder of runs, what was printed)."""
    root = tmp_path_factory.mktemp("compared")
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    command = [sys.executable, "-m", "compress.distill", "--student", "audiobot50", "--compare"]
    command += ["--teacher", TEACHER, "--teacher-epochs", "2", "--data", str(npy_data), *SMALL]
    done = subprocess.run(
        [*command, "--runs", str(root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "quiet when not a terminal"
    return root, done.stdout


def test_a_run_folder_holds_everything(finished_run):
    run = runs.open_run(finished_run)
    assert run.complete and run.manifest["stage"] == "train"
    for name in (runs.MODEL, runs.WEIGHTS, runs.ONNX, runs.SPLIT, runs.CURVES, runs.METRICS):
        assert runs.sha256_file(run.file(name)) == run.manifest["artefacts"][name]
    assert not (finished_run / runs.CHECKPOINT).exists()
    assert (finished_run / "curves.png").is_file()
    assert run.manifest["seed"] == 0 and run.manifest["versions"]["torch"]
    with (finished_run / runs.CURVES).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["validation_loss"]) > 0


def test_metrics_are_those_of_the_file(finished_run, npy_data):
    run = runs.open_run(finished_run)
    figures = run.metrics()
    assert figures["sha256"] == runs.sha256_file(run.file(runs.ONNX))
    assert figures["params"] == 49_733 and figures["macs"] == 3_789_120
    assert figures["file_bytes"] == run.file(runs.ONNX).stat().st_size
    split = json.loads(run.file(runs.SPLIT).read_text())
    test = np.concatenate([np.arange(a, b + 1) for a, b in split["test"]])
    spectrograms = np.load(npy_data / "training.npy")[test][:, None]
    labels = np.load(npy_data / "training_labels.npy")[test]
    logits = evaluate.onnx_predictor(run.file(runs.ONNX))(spectrograms)
    by_hand = float((logits.argmax(1) == labels).mean())
    assert figures["splits"]["test"]["accuracy"] == pytest.approx(by_hand)
    assert figures["agreement"]["top1"] == 1.0
    assert figures["agreement"]["largest_logit_difference"] < 1e-4


def test_the_run_reloads_to_the_same_logits(finished_run):
    run = runs.open_run(finished_run)
    model, normalisation = checkpoint.load(run)
    x = np.random.default_rng(0).uniform(-80, 0, (5, 1, 32, 96)).astype(np.float32)
    with torch.inference_mode():
        in_torch = onnx_export.Deployed(model, normalisation).eval()(torch.from_numpy(x)).numpy()
    in_file = evaluate.onnx_predictor(run.file(runs.ONNX))(x)
    np.testing.assert_allclose(in_torch, in_file, atol=1e-4)


def test_the_same_command_twice_does_the_work_once(finished_run, npy_data, capsys):
    before = (finished_run / runs.MANIFEST).read_text()
    options = ("--student", "audiobot50", "--data", npy_data)
    assert run_train(*options, "--out", finished_run) == 0
    assert "finished before" in capsys.readouterr().out
    assert (finished_run / runs.MANIFEST).read_text() == before


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(
    finished_run, npy_data, tmp_path
):
    options = ("--student", "audiobot50", "--data", npy_data)
    assert run_train(*options, "--out", tmp_path / "again") == 0
    assert run_train(*options, "--out", tmp_path / "other", "--seed", 1) == 0
    hashes = [
        runs.sha256_file(folder / runs.ONNX)
        for folder in (finished_run, tmp_path / "again", tmp_path / "other")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_another_run_in_the_folder_is_refused_and_left_alone(finished_run, npy_data, capsys):
    before = {p.name: p.read_bytes() for p in finished_run.iterdir() if p.is_file()}
    code = run_train("--student", "audiobot50", "--data", npy_data, "--out", finished_run,
                     "--learning-rate", "0.01")  # fmt: skip
    assert code == 2
    error = capsys.readouterr().err
    assert "holds another run" in error and "--force" in error and error.count("\n") == 1
    assert "(recipe learning_rate 0.0021, not 0.01)" in error, "what differs, and nothing else"
    assert run_train("--student", "audiobot50-dsc", "--data", npy_data, "--out", finished_run) == 2
    assert "(model 'audiobot50', not 'audiobot50-dsc')" in capsys.readouterr().err, "said once"
    assert {p.name: p.read_bytes() for p in finished_run.iterdir() if p.is_file()} == before


def test_a_killed_training_continues_to_the_same_weights(finished_run, npy_data, tmp_path):
    out = tmp_path / "killed"
    options = ("--student", "audiobot50", "--data", npy_data, "--out", out)
    with killed_at_first_checkpoint():
        run_train(*options)
    assert (out / runs.CHECKPOINT).is_file() and not runs.open_run(out).complete
    assert run_train(*options) == 0
    assert runs.sha256_file(out / runs.ONNX) == runs.sha256_file(finished_run / runs.ONNX)


def test_a_killed_training_with_averaged_weights_continues_to_the_same(npy_data, tmp_path):
    recipe = tmp_path / "mean.toml"
    recipe.write_text('epochs = 2\nbatch_size = 32\nweight_average = 0.9\nkeep = "last"\n')
    options = ("--student", "audiobot50", "--data", npy_data, "--recipe", recipe)
    assert run_train(*options, "--out", tmp_path / "whole") == 0
    with killed_at_first_checkpoint():
        run_train(*options, "--out", tmp_path / "killed")
    assert run_train(*options, "--out", tmp_path / "killed") == 0
    whole, killed = (tmp_path / name / runs.ONNX for name in ("whole", "killed"))
    assert runs.sha256_file(whole) == runs.sha256_file(killed)


def test_a_network_may_hear_the_validation_clips_in_the_end(npy_data, tmp_path, capsys):
    options = ("--data", npy_data, "--recipe", "few", "--epochs", "1", "--train-on-validation")
    assert run_train("--student", "audiobot50", *options, "--out", tmp_path / "all") == 0
    assert "validation, trained on," in capsys.readouterr().out
    run = runs.open_run(tmp_path / "all")
    sides = runs.read_json(run.file(runs.SPLIT))["windows"]
    assert run.metrics()["windows_per_epoch"] == sides["train"] + sides["validation"]
    assert run.metrics()["splits"]["test"]["clips"] == sides["test"]
    student = ("--student", "audiobot50", "--teacher", tmp_path / "all", "--data", npy_data)
    assert run_distill(*student, "--epochs", "1", "--out", tmp_path / "student") == 0
    assert f"{tmp_path / 'all'}: was trained on the validation clips too" in capsys.readouterr().out


def test_distillation_ends_with_a_table_and_the_difference(compared):
    root, printed = compared
    names = sorted(path.name for path in root.iterdir())
    kinds = ["audiobot50-distilled", "audiobot50-twin", "test-resnet-teacher"]
    assert [any(name.startswith(kind) for name in names) for kind in kinds] == [True] * 3
    for word in ("teacher", "student", "twin", "49,733", "student minus twin", "McNemar"):
        assert word in printed
    assert printed.splitlines()[-1].endswith(f"Next: python -m compress.report --runs {root}")


def test_a_run_does_not_write_among_the_files_of_somebody(npy_data, capsys):
    before = sorted(npy_data.iterdir())
    given = ["--student", "audiobot50", "--data", npy_data, "--out", npy_data]
    assert run_train(*given) == 2 and run_train(*given, "--force") == 2
    error = capsys.readouterr().err.splitlines()[0]
    assert "holds training.npy, which is of no run" in error
    assert [p for p in sorted(npy_data.iterdir()) if p.name[0] != "."] == before


def test_a_training_that_diverges_says_so_in_its_manifest(npy_data, tmp_path, capsys):
    lost = tmp_path / "lost"
    given = ["--student", "audiobot50", "--data", npy_data, "--learning-rate", "1e30"]
    for _ in range(2):  # the same command again tries again, to the same end
        assert run_train(*given, "--out", lost) == 2
        error = capsys.readouterr().err
        assert "the training loss is nan in epoch 1; use a lower" in error
        assert error.count("\n") == 1
    manifest = runs.read_json(lost / runs.MANIFEST)
    assert manifest["status"] == "failed" and f"error: {manifest['fault']}\n" == error
    assert run_distill("--data", npy_data, "--teacher", lost, "--runs", tmp_path) == 2
    assert "lost: this run failed (trained audiobot50: the" in capsys.readouterr().err
    usual = ["--student", "audiobot50", "--data", npy_data, "--out", lost]
    assert run_train(*usual) == 2 and "holds another run" in capsys.readouterr().err
    assert run_train(*usual, "--force") == 0
    assert runs.open_run(lost).complete and "fault" not in runs.open_run(lost).manifest


def test_the_report_that_comes_next_finds_the_run():
    runs_of, bare = Path("runs"), "python -m compress.report"
    assert report_command(runs_of / "x", runs_of) == bare
    assert report_command(Path("my runs/x"), Path("my runs")) == f"{bare} --runs 'my runs'"
    assert report_command(Path("/elsewhere/x"), runs_of) == f"{bare} --runs /elsewhere/x"


def test_the_printed_accuracy_is_that_of_the_recorded_decisions(compared):
    root, printed = compared
    run = runs.open_run(next(root.glob("audiobot50-distilled-*")))
    decisions = evaluate.load_decisions(run.file(DECISIONS))
    line = next(line for line in printed.splitlines() if line.startswith("student "))
    assert f"{100 * decisions.correct.mean():.1f} %" in line
    assert run.manifest["teachers"][0]["name"] == TEACHER
    curves = (run.folder / runs.CURVES).read_text().splitlines()[0]
    assert "train_label_loss" in curves and "train_distill_loss" in curves


def test_a_teacher_folder_and_an_ensemble_are_taken(compared, npy_data, tmp_path, capsys):
    root, _ = compared
    folder = next(root.glob("test-resnet-teacher-*"))
    assert run_distill("--student", "audiobot50", "--data", npy_data, "--teacher", folder,
                       "--teacher", folder, "--runs", tmp_path) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert sum(line.startswith("teacher ") for line in printed.splitlines()) == 2


def test_an_ensemble_is_the_mean_of_logits(compared, npy_data, tmp_path):
    """Two copies of one teacher teach what one does: the same weights come out."""
    root, _ = compared
    folder = next(root.glob("test-resnet-teacher-*"))
    hashes = []
    for count in (1, 2):
        out = tmp_path / str(count)
        teachers = ["--teacher", str(folder)] * count
        assert run_distill("--student", "audiobot50", "--data", npy_data, *teachers,
                           "--out", out) == 0  # fmt: skip
        hashes.append(runs.sha256_file(out / runs.ONNX))
    assert hashes[0] == hashes[1]


def test_students_with_seeds_of_their_own_teach(npy_data, tmp_path, capsys):
    """Two of one student are an ensemble; each is what compress.teach makes with that seed."""
    arguments = ["--data", npy_data, "--teacher-recipe", "audiobots", "--runs", tmp_path]
    names = ["--teacher", "audiobot50", "--teacher", "audiobot50:3"]
    assert run_distill("--student", "audiobot50-dsc", *arguments, *names) == 0
    taught = sorted(tmp_path.glob("audiobot50-teacher-*"))
    assert [runs.open_run(folder).manifest["seed"] for folder in taught] == [0, 3]
    (student,) = (runs.open_run(f) for f in tmp_path.glob("audiobot50-dsc-distilled-*"))
    assert len({teacher["weights_sha256"] for teacher in student.manifest["teachers"]}) == 2
    assert student.manifest["seed"] == 0
    rate = runs.open_run(taught[1]).manifest["settings"]["recipe"]["learning_rate"]
    assert rate == 2.1e-3, "the recipe's value for that student"
    alone = ["--teacher", "audiobot50:3", "--recipe", "audiobots", "--data", str(npy_data),
             "--epochs", "2", "--workers", "1", "--out", str(tmp_path / "alone")]  # fmt: skip
    capsys.readouterr()
    assert cli.main(TeachConfig, teach.run, "", alone) == 0
    following = command_that_comes_next(capsys.readouterr().out, "distill", DistillConfig)
    assert following.data == str(npy_data)
    assert following.teacher == (str(tmp_path / "alone"),) and following.epochs is None
    found = runs.open_run(tmp_path / "alone").model_hash()
    assert found == runs.open_run(taught[1]).model_hash()
    capsys.readouterr()
    assert run_distill(*arguments, "--teacher", "audiobot50", "--pretrained") == 2
    assert "timm has no weights of audiobot50" in capsys.readouterr().err


def test_several_teachers_hear_a_view_together_and_say_what_each_says_alone(
    npy_data, tmp_path, monkeypatch
):
    """A view is computed once for all that lack it, whatever the order of the teachers."""
    from compress import teaching

    shared = ["--data", npy_data, "--teacher-recipe", "audiobots", "--runs", tmp_path]
    names = ["audiobot50", "audiobot50:1", "audiobot50:2"]
    asked = []
    compute = teaching._logits

    def counted(session, teachers, material, view, *rest):
        asked.append((view, len(teachers)))
        return compute(session, teachers, material, view, *rest)

    def logits(cache, *teachers):
        asked.clear()
        more = [part for name in teachers for part in ("--teacher", name)]
        options = [*shared, "--cache", tmp_path / cache, "--student", "audiobot50-dsc", *more]
        assert run_distill(*options, "--out", tmp_path / f"student-{cache}", "--force") == 0
        found = (tmp_path / cache / "teacher-logits").glob("*/view-*.npy")
        return {(path.parent.name, path.name): np.load(path) for path in found}

    monkeypatch.setattr(teaching, "_logits", counted)
    alone = [logits(f"alone-{number}", name) for number, name in enumerate(names)]
    views = len(alone[0])
    assert asked == [(view, 1) for view in range(views)]
    together = logits("together", *names[:2])
    assert asked == [(view, 2) for view in range(views)]
    more = logits("together", *reversed(names))
    assert asked == [(view, 1) for view in range(views)], "two are there"
    assert together.keys() == (alone[0] | alone[1]).keys()
    wanted = alone[0] | alone[1] | alone[2]
    assert more.keys() == wanted.keys()
    for place, values in more.items():
        assert np.array_equal(values, wanted[place])
    logits("together", *names)
    assert asked == []


def test_a_teacher_computes_in_the_recipes_precision(compared, npy_data, tmp_path):
    """Under keys of their own lie its logits in float32, and rounded ones in bfloat16."""
    root, _ = compared
    folder = next(root.glob("test-resnet-teacher-*"))
    options = ["--student", "audiobot50", "--data", npy_data, "--teacher", folder]
    options += ["--cache", tmp_path / "cache", "--runs", tmp_path]
    stored = {}
    for precision in ("float32", "bfloat16"):
        assert run_distill(*options, "--precision", precision) == 0
        for path in (tmp_path / "cache" / "teacher-logits").glob("*/view-0000.npy"):
            stored.setdefault(path.parent.name, (precision, np.load(path)))
    by_precision = dict(stored.values())
    exact, rounded = by_precision["float32"], by_precision["bfloat16"]
    assert len(stored) == 2 and not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=0.05 * np.abs(exact).max())


def test_a_teacher_of_another_split_is_refused(compared, npy_data, tmp_path, capsys):
    root, _ = compared
    folder = next(root.glob("test-resnet-teacher-*"))
    assert run_distill("--student", "audiobot50", "--data", npy_data, "--teacher", folder,
                       "--data-seed", "1") == 2  # fmt: skip
    assert "another split" in capsys.readouterr().err
    # so is one that learnt from it, though its own data is other data
    student = shutil.copytree(next(root.glob("audiobot50-distilled-*")), tmp_path / "away")
    manifest = runs.read_json(student / runs.MANIFEST)
    manifest["data"]["content_hash"] = "of other data"
    runs.write_json(student / runs.MANIFEST, manifest)
    for option in ("--teacher", "--weights"):
        more = ["--without-teacher"] if option == "--weights" else []
        assert run_distill("--student", "audiobot50", "--data", npy_data, option, student, *more,
                           "--data-seed", "1", "--out", tmp_path / "no") == 2  # fmt: skip
        assert "learnt from" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_transfer_material_is_labelled_by_the_teacher(compared, tmp_path, capsys):
    """Unlabelled audio takes part in distillation; on spectrogram data it is refused by name."""
    sf = pytest.importorskip("soundfile")
    random = np.random.default_rng(0)
    data = tmp_path / "sounds"
    for label, tone in (("low", 200.0), ("high", 3000.0)):
        (data / label).mkdir(parents=True)
        for take in range(8):
            t = np.arange(32_000) / 16_000
            wave = 0.3 * np.sin(2 * np.pi * tone * t) + 0.05 * random.normal(size=len(t))
            sf.write(data / label / f"{take}.wav", wave, 16_000)
    extra = tmp_path / "extra"
    extra.mkdir()
    sf.write(extra / "x.wav", 0.1 * random.normal(size=80_000), 16_000)
    options = ["--student", "audiobot50", "--teacher", TEACHER, "--runs", tmp_path / "runs"]
    assert run_distill(*options, "--data", data, "--transfer", extra, "--compare") == 0
    assert "unlabelled windows" in capsys.readouterr().out
    made = {kind: next((tmp_path / "runs").glob(f"audiobot50-{kind}-*")) for kind in
            ("distilled", "twin")}  # fmt: skip
    figures = {kind: runs.open_run(folder).metrics() for kind, folder in made.items()}
    seen = {kind: found["epochs"] * found["windows_per_epoch"] for kind, found in figures.items()}
    assert figures["twin"]["windows_per_epoch"] < figures["distilled"]["windows_per_epoch"]
    assert seen["twin"] == pytest.approx(seen["distilled"], rel=0.25), "to whole epochs"
    shutil.copy(data / "low" / "0.wav", extra)
    shutil.copy(data / "high" / "1.wav", extra)
    again = [*options, "--data", data, "--transfer", extra]
    heard = [run_distill(*again, "--data-seed", seed) for seed in range(6)]
    assert 2 in heard, "in one of six splits one of these two is a test clip"
    assert "of its windows are the test of" in capsys.readouterr().err


def test_synthetic_transfer_and_a_teacher_of_more_scenes(tmp_path, capsys):
    """scenes:N as transfer are other clips; a teacher of the same seed has heard the test clips."""
    options = ["--student", "audiobot50", "--runs", tmp_path / "runs", "--data", "scenes:300"]
    more = ["--student", "audiobot50", "--data", "scenes:340"]
    assert run_train(*more, "--out", tmp_path / "same") == 0
    assert run_train(*more, "--data-seed", "1", "--out", tmp_path / "other") == 0
    assert run_distill(*options, "--teacher", tmp_path / "same") == 2
    assert "another --data-seed" in capsys.readouterr().err
    assert run_train(*options, "--weights", tmp_path / "same") == 2
    assert "another --data-seed" in capsys.readouterr().err
    teacher = ["--teacher", tmp_path / "other"]
    assert run_distill(*options, *teacher, "--transfer", "scenes:50") == 0
    printed = capsys.readouterr().out
    assert "transfer  scenes:50: 50 unlabelled windows" in printed
    of_teacher, of_student = (
        next(line for line in printed.splitlines() if line.startswith(role))
        for role in ("teacher  audiobot50", "student  audiobot50")
    )
    assert ") of scenes:340 " in of_teacher and "scenes" not in of_student.split(str(tmp_path))[0]
    (folder,) = (tmp_path / "runs").iterdir()
    settings = runs.open_run(folder).manifest["settings"]
    extra = find_set(settings["transfer"][0])
    ours = find_set(settings["data"])
    assert extra.scene_seed == 1_000_000 and ours.scene_seed == 0
    rows = {row.tobytes() for row in ours.read(slice(None))}
    assert not any(row.tobytes() in rows for row in extra.read(slice(None)))


def test_a_teacher_of_another_front_end_is_refused(tmp_path, capsys):
    options = ["--student", "audiobot50", "--data-seed", "1", "--reference", "fixed"]
    assert run_train(*options, "--data", "scenes:300", "--out", tmp_path / "fixed") == 0
    student = ["--student", "audiobot50", "--data", "scenes:300", "--runs", tmp_path / "runs"]
    assert run_distill(*student, "--teacher", tmp_path / "fixed") == 2
    assert "another front end (reference fixed, here clip)" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*"))


def test_transfer_scenes_need_a_front_end(npy_data, finished_run, capsys):
    assert run_distill("--student", "audiobot50", "--data", npy_data, "--teacher", finished_run,
                       "--transfer", "scenes:50") == 2  # fmt: skip
    assert "came as spectrograms" in capsys.readouterr().err


def test_weights_of_other_classes_are_the_start_but_for_the_head(finished_run, tmp_path):
    source, _ = checkpoint.load(runs.open_run(finished_run))
    model, parent = new_student(session_of(3), "audiobot50", finished_run)
    assert parent.folder == finished_run and model.arguments["classes"] == 3
    theirs = source.state_dict()
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, theirs[k].to(v))
               if v.shape == theirs[k].shape]  # fmt: skip
    assert not changed
    assert model(torch.randn(2, 1, 32, 96)).shape == (2, 3)
    with pytest.raises(InputError, match=r"holds audiobot50; asked for is dsc50"):
        new_student(session_of(3), "dsc50", finished_run)


def test_a_teacher_starts_from_a_file_or_from_an_earlier_run(npy_data, tmp_path, capsys):
    """As one pre-trains: timm's weights, then much sound, then one's own with other classes."""
    torch.manual_seed(1)
    state = timm_teacher.timm.create_model(TEACHER).state_dict()
    save_file(state, tmp_path / "timm.safetensors")

    def run_teach(out: str, *arguments: str | Path) -> int:
        given = ["--teacher", TEACHER, "--data", npy_data, "--epochs", "1", "--workers", "1"]
        given += ["--learning-rate", "1e-9", "--out", tmp_path / out, *arguments]
        return cli.main(TeachConfig, teach.run, "", [*map(str, given)])

    def late_weights(model: torch.nn.Module) -> torch.Tensor:
        return model.state_dict()["layer4.0.conv1.weight"]

    file = ["--weights", tmp_path / "timm.safetensors"]
    assert run_teach("first", *file) == 0
    first = runs.open_run(tmp_path / "first")
    learnt = late_weights(checkpoint.load(first)[0])
    torch.testing.assert_close(learnt, state["layer4.0.conv1.weight"], rtol=0, atol=1e-5)
    assert run_teach("second", "--weights", first.folder) == 0
    second = runs.open_run(tmp_path / "second")
    assert second.manifest["parent"] == first.reference()
    torch.testing.assert_close(
        late_weights(checkpoint.load(second)[0]), learnt, rtol=0, atol=1e-5
    )
    other_classes, _ = continued(session_of(3), TEACHER, first.folder)
    assert torch.equal(late_weights(other_classes), learnt)
    assert other_classes(torch.randn(1, 1, 32, 96)).shape == (1, 3)
    capsys.readouterr()
    assert run_teach("third", "--pretrained", *file) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert run_teach("fourth", "--weights", npy_data / "training.npy") == 2
    error = capsys.readouterr().err
    assert "holds no weights of test_resnet" in error and "\n" not in error.strip()
    assert not (tmp_path / "fourth").exists()


def session_of(classes: int) -> Any:
    names = tuple("abcdefgh"[:classes])
    data = SimpleNamespace(class_names=names, mels=32, frames=96, content_hash="another",
                           shares_scenes=lambda recorded: False,
                           is_otherwise_heard=lambda recorded: False)  # fmt: skip
    return SimpleNamespace(data=data, seed=0)


def test_lightning_weights_are_the_start(npy_data, tmp_path, capsys):
    """A checkpoint in the original project's layout gives its logits, and trains on."""
    from test_original_checkpoints import audiobot50_layout

    original = audiobot50_layout()
    file = tmp_path / "original.ckpt"
    parameters = {"activation_function": torch.nn.LeakyReLU(), "dropout": 0.026}
    torch.save({"state_dict": original.state_dict(), "hyper_parameters": parameters}, file)
    x = torch.randn(6, 1, 32, 96)
    loaded = original_student("audiobot50", file, 5)
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(x), original(x))
    options = ("--student", "audiobot50", "--data", npy_data, "--runs", tmp_path / "runs")
    assert run_train(*options, "--weights", file) == 0
    with torch.no_grad():
        next(original.parameters()).mul_(2)
    torch.save({"state_dict": original.state_dict(), "hyper_parameters": parameters}, file)
    assert run_train(*options, "--weights", file) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2, "other weights under the same path"
    capsys.readouterr()
    assert run_train("--student", "audiobot500", *options[2:], "--weights", file) == 2
    assert "holds audiobot50" in capsys.readouterr().err
    first = next((tmp_path / "runs").iterdir())
    shape = tmp_path / "narrow.json"
    narrow = {"family": "student", "name": "audiobot50", "arguments": {"widths": [8, 8, 8]}}
    shape.write_text(json.dumps(narrow))
    for start in (file, first):
        for asked, words in (
            (["--dropout", 0.5], "dropout 0.026, asked for is 0.5"),
            (["--student", shape], "widths [24, 48, 64], asked for is [8, 8, 8]"),
        ):
            assert run_train(*map(str, options), *asked, "--weights", start) == 2
            assert words in capsys.readouterr().err, "not trained as something else in silence"


def test_two_processes_train_together(npy_data, tmp_path):
    out = tmp_path / "two"
    command = [sys.executable, "-m", "compress.train", "--student", "audiobot50", "--device", "cpu"]
    command += ["--data", str(npy_data), "--out", str(out), "--devices", "2", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    run = runs.open_run(out)
    assert run.complete and run.manifest["processes"] == 2
    assert done.stdout.count("The student lies in") == 1
    assert run.metrics()["splits"]["test"]["clips"] == 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--student", "dsc5000"], ["dsc5000", "dsc500"]),
        (["--student", "timm/resnet1888"], ["resnet18"]),
        (["--teacher", "resnet19"], ["resnet18"]),
        (["--method", "kdd"], ["'kdd'", "kd"]),
        (["--recipe", "distil"], ["distill"]),
        (["--data", "nowhere/at/all"], ["nowhere/at/all", "no such folder"]),
        (["--temperature", "0"], ["temperature"]),
        (["--device", "tpu"], ["tpu", "cpu"]),
        (["--without-teacher", "--compare"], ["exclude"]),
        (["--epochs", "none", "--seed", "-1"], ["epochs", "seed"]),
        (["--teacher", "no/such/run"], ["no/such/run"]),
        (["--fold", "2"], ["no official folds"]),
    ],
)
def test_bad_options_get_one_line_and_exit_2(arguments, words, npy_data, tmp_path, capsys):
    given = ["--runs", str(tmp_path / "runs"), "--workers", "1"]
    if "--data" not in arguments:
        given += ["--data", str(npy_data)]
    if "--teacher" in arguments:
        given += ["--student", "audiobot50"]
    assert cli.main(DistillConfig, distill.run, "", [*given, *arguments]) == 2
    found = capsys.readouterr()
    assert found.err.startswith("error: ") and found.err.count("\n") == 1
    for word in words:
        assert word in found.err
    assert not (tmp_path / "runs").exists(), "nothing half-written"


@pytest.mark.parametrize(
    ("check", "options", "faults"),
    [
        (
            distill.check_options,
            DistillConfig(student="dcs500", method="kdd", teacher=("resnet10x",), recipe="dist",
                          teacher_map="1y"),
            ["student 'dcs500'", "loss 'kdd'", "'resnet10x'", "recipe 'dist'", "'1y' is no size"],
        ),
        (
            distill.check_options,
            DistillConfig(without_teacher=True, compare=True, student="nil"),
            ["--without-teacher and --compare", "student 'nil'"],
        ),
        (
            train.check_options,
            TrainConfig(student="nil", recipe="none"),
            ["student 'nil'", "recipe 'none'"],
        ),
        (
            teach.check_options,
            TeachConfig(teacher="nil", recipe="none", teacher_map="0"),
            ["'nil'", "recipe 'none'", "'0' is no size"],
        ),
        (
            prune.check_options,
            PruneConfig(teacher=("a",), without_teacher=True, recipe="none"),
            ["--run must be given", "give one target", "--teacher and", "recipe 'none'"],
        ),
        (
            quantize.check_options,
            QuantizeConfig(qat=True, auto=True, clusters=4, weight_bits="4"),
            ["--run must be given", "--qat and --auto", "--clusters and"],
        ),
    ],
)  # fmt: skip
def test_all_faults_of_a_command_are_said_at_once(check, options, faults):
    with pytest.raises(InputError) as refusal:
        check(options)
    told = str(refusal.value)
    assert "\n" not in told
    assert [fault for fault in faults if told.count(fault) != 1] == []


def test_a_folder_being_written_is_refused(finished_run, npy_data, capsys):
    from filelock import FileLock

    with FileLock(finished_run / ".lock"):
        code = run_train("--student", "audiobot50", "--data", npy_data, "--out", finished_run)
    assert code == 2
    assert "another process is writing" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["truncated", "rubbish"])
def test_a_corrupt_checkpoint_is_named(what, npy_data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    options = ("--student", "audiobot50", "--data", npy_data, "--out", out)

    def stop(*arguments):
        raise InputError("stopped before the export")

    monkeypatch.setattr(onnx_export, "to_onnx", stop)
    assert run_train(*options) == 2
    assert "stopped before the export" in capsys.readouterr().err
    saved = (out / runs.CHECKPOINT).read_bytes()
    (out / runs.CHECKPOINT).write_bytes(saved[: len(saved) // 2] if what == "truncated" else b"x")
    monkeypatch.undo()
    assert run_train(*options) == 2
    error = capsys.readouterr().err
    assert runs.CHECKPOINT in error and "delete it" in error and error.count("\n") == 1


def test_a_full_disk_is_one_line_and_leaves_earlier_runs(
    finished_run, npy_data, tmp_path, capsys, monkeypatch
):
    import errno

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "weights"))

    monkeypatch.setattr(checkpoint, "save", full)
    out = tmp_path / "full"
    assert run_train("--student", "audiobot50", "--data", npy_data, "--out", out) == 2
    error = capsys.readouterr().err
    assert "disk is full" in error and error.count("\n") == 1
    assert not runs.open_run(out).complete
    monkeypatch.undo()
    assert run_train("--student", "audiobot50", "--data", npy_data, "--out", out) == 0
    assert runs.sha256_file(out / runs.ONNX) == runs.sha256_file(finished_run / runs.ONNX)


def test_teach_writes_a_run_that_distill_takes(compared, npy_data, tmp_path, capsys):
    arguments = ["--teacher", TEACHER, "--data", str(npy_data), "--out", str(tmp_path / "t")]
    assert cli.main(TeachConfig, teach.run, "", [*arguments, *SMALL]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"--teacher {tmp_path / 't'}" in last
    assert runs.open_run(tmp_path / "t").manifest["stage"] == "teach"


def test_a_start_that_heard_the_test_clips_otherwise_is_refused(tmp_path, capsys):
    """The same recordings with all windows, or with another reference, are not other data."""
    data = sounds.esc50_layout(tmp_path / "esc")
    usual = ["--student", "audiobot50", "--data", data, "--runs", tmp_path / "runs"]
    assert run_train(*usual, "--fold", "2", "--out", tmp_path / "start") == 0
    start = ["--weights", tmp_path / "start"]
    capsys.readouterr()
    for heard in (["--drop-quiet", "0.001"], ["--reference", "fixed"]):
        assert run_train(*usual, *start, *heard, "--fold", "1") == 2
        assert "another split of esc" in capsys.readouterr().err
        assert run_train(*usual, *start, *heard, "--fold", "2") == 0
