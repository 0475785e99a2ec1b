"""Folds: how they are dealt, trained one by one, gathered, lost and found again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_splits import drawn

from compress import children, cli, crossval, evaluate, fold_jobs, runs, train
from compress import recipe as recipes
from compress.config import CrossvalConfig, TrainConfig
from compress.data.splits import Split, make_split
from compress.errors import InputError
from compress.session import DECISIONS

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--student", "audiobot50", "--epochs", "1", "--batch-size", "64", "--workers", "1"]


def run_crossval(*arguments: str | Path) -> int:
    return cli.main(CrossvalConfig, crossval.run, "", [*SMALL, *map(str, arguments)])


# --- how folds are dealt -------------------------------------------------------------------------


def test_folds_part_what_is_not_test_and_the_test_is_that_of_the_plain_split():
    data = drawn(3000, 500)
    plain = make_split(data, seed=3)
    folds = [make_split(data, seed=3, fold=fold, folds=5) for fold in range(1, 6)]
    for split in folds:
        assert np.array_equal(split.test, plain.test)
        whole = np.sort(np.concatenate([split.train, split.validation, split.test]))
        assert np.array_equal(whole, np.arange(len(data)))
    together = np.sort(np.concatenate([split.validation for split in folds]))
    assert np.array_equal(together, np.setdiff1d(np.arange(len(data)), plain.test))


def test_folds_are_of_whole_recordings_and_alike_in_classes():
    data = drawn(3000, 500)
    counts = []
    for fold in range(1, 6):
        split = make_split(data, seed=0, fold=fold, folds=5)
        sides = [set(data.recording_ids[getattr(split, s)]) for s in ("train", "validation")]
        assert not sides[0] & sides[1]
        counts.append(np.bincount(data.labels[split.validation], minlength=len(data.class_names)))
    largest = max(np.bincount(data.recording_ids))
    assert (np.ptp(counts, axis=0) <= 2 * largest).all()
    assert (np.array(counts) > 0).all()


def test_a_dealt_fold_survives_its_file():
    split = make_split(drawn(3000, 500), seed=0, fold=2, folds=4)
    again = Split.from_json(json.loads(json.dumps(split.to_json())))
    assert (again.fold, again.folds, again.digest()) == (2, 4, split.digest())


def test_too_many_folds_name_the_class_that_lacks_recordings():
    with pytest.raises(InputError, match="fewer recordings outside the test than folds"):
        make_split(drawn(3000, 500), seed=0, fold=1, folds=100)


@pytest.mark.parametrize(
    ("fold", "folds", "words"), [(None, 3, "--fold 1 to 3"), (4, 3, "--fold 4")]
)
def test_a_fold_that_is_not_there(fold, folds, words):
    with pytest.raises(InputError, match=words):
        make_split(drawn(3000, 500), seed=0, fold=fold, folds=folds)


# --- one by one, as array jobs do, and gathered --------------------------------------------------


@pytest.fixture(scope="module")
def gathered(npy_data, tmp_path_factory):
    """(folder of runs, folder of the summary) of two folds trained one by one."""
    root = tmp_path_factory.mktemp("folds")
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    options = ["--data", npy_data, "--folds", 2, "--runs", root]
    for fold in (1, 2):
        assert run_crossval(*options, "--fold-index", fold) == 0
    assert run_crossval(*options, "--collect") == 0
    return root, next(root.glob("audiobot50-crossval-*"))


def test_the_summary_is_that_of_the_folds_own_files(gathered):
    _, folder = gathered
    summary = json.loads((folder / crossval.SUMMARY).read_text())
    accuracies, confusion = [], np.zeros((5, 5), int)
    for entry in summary["folds"]:
        run = runs.open_run(folder / entry["run"])
        assert runs.sha256_file(run.file(runs.ONNX)) == entry["sha256"]
        decisions = evaluate.load_decisions(run.file(DECISIONS))
        accuracies.append(decisions.correct.mean())
        np.add.at(confusion, (decisions.labels, decisions.probabilities.argmax(1)), 1)
    assert summary["test"]["accuracy"]["mean"] == pytest.approx(statistics.fmean(accuracies))
    assert summary["test"]["accuracy"]["deviation"] == pytest.approx(statistics.stdev(accuracies))
    assert summary["confusion"]["clips"] == confusion.tolist()
    rows = np.array(summary["confusion"]["percent"])
    np.testing.assert_allclose(rows, 100 * confusion / confusion.sum(1, keepdims=True))
    recall = [fold["test"]["recall"]["music"] for fold in summary["folds"]]
    assert summary["recall"]["music"]["mean"] == pytest.approx(statistics.fmean(recall))
    text = (folder / "crossval.md").read_text()
    assert f"{100 * statistics.fmean(accuracies):.1f} ±" in text and "49,733" in text
    assert (folder / "crossval.png").read_bytes().startswith(b"\x89PNG")


def test_a_fold_is_the_run_that_train_makes(gathered, npy_data, capsys):
    root, _ = gathered
    given = [*SMALL, "--data", npy_data, "--runs", root, "--folds", 2, "--fold", 2]
    assert cli.main(TrainConfig, train.run, "", list(map(str, given))) == 0
    assert "finished before" in capsys.readouterr().out


def test_verify_finds_every_fold_and_the_summary_again(gathered, tmp_path, capsys):
    from compress import verify
    from compress.config import VerifyConfig

    root = Path(shutil.copytree(gathered[0], tmp_path / "runs"))
    folder = next(root.glob("audiobot50-crossval-*"))
    assert cli.main(VerifyConfig, verify.run, "", [str(folder)]) == 0
    assert cli.main(VerifyConfig, verify.run, "", ["--runs", str(root), "--files-only"]) == 0
    assert "3 of 3 runs the same" in capsys.readouterr().out
    summary = json.loads((folder / crossval.SUMMARY).read_text())
    summary["test"]["accuracy"]["mean"] = 0.99
    summary["folds"][1]["test"]["loss"] = 0.01
    (folder / crossval.SUMMARY).write_text(json.dumps(summary))
    (folder.parent / Path(summary["folds"][0]["run"]).name / runs.ONNX).write_bytes(b"x")
    assert cli.main(VerifyConfig, verify.run, "", [str(folder), "--files-only"]) == 2
    assert "model.onnx" in capsys.readouterr().out
    file = folder.parent / Path(summary["folds"][0]["run"]).name / runs.ONNX
    shutil.copyfile(gathered[0] / file.relative_to(root), file)
    assert cli.main(VerifyConfig, verify.run, "", [str(folder), "--files-only"]) == 1
    printed = capsys.readouterr().out
    for words in ("test.accuracy.mean", "fold 2.test.loss", "crossval.md says"):
        assert f"{words}" in printed


def test_the_report_groups_the_folds(gathered):
    from compress import budgets, report

    entries, _ = report.gather(gathered[0], budgets.Budgets())
    (summary,) = report.summaries(entries)
    assert (summary.runs, summary.varied) == (2, "folds")


def test_all_folds_there_means_nothing_to_train(gathered, npy_data, capsys, monkeypatch):
    monkeypatch.setattr(fold_jobs, "run_fold", None)  # would fail if it were called
    root, _ = gathered
    assert run_crossval("--data", npy_data, "--folds", 2, "--runs", root) == 0
    assert "2 finished before" in capsys.readouterr().out


def test_folds_of_a_file_that_changed_are_not_the_result(npy_data, tmp_path, capsys):
    recipe = tmp_path / "mine.toml"
    given = ["--data", npy_data, "--folds", 2, "--runs", tmp_path / "runs", "--recipe", recipe]
    out = tmp_path / "folds"
    for rate in ("1e-3", "2e-3"):
        recipe.write_text(f'base = "audiobots"\nlearning_rate = {rate}\n')
        for fold in (1, 2):
            assert run_crossval(*given, "--out", out, "--fold-index", fold) == 0
        assert run_crossval(*given, "--out", out, "--collect") == 0
    recipe.write_text('base = "audiobots"\nlearning_rate = 3e-3\n')
    capsys.readouterr()
    assert run_crossval(*given, "--out", out, "--collect") == 2
    assert "fold 1 was trained with other options" in capsys.readouterr().err
    assert run_crossval(*given, "--fold-index", 1) == 0
    [named] = (tmp_path / "runs").glob("*-crossval-*")
    recipe.write_text('base = "audiobots"\nlearning_rate = 4e-3\n')
    assert run_crossval(*given, "--fold-index", 1) == 0
    assert len(list(named.parent.glob("*-crossval-*"))) == 2, "another recipe, another folder"


def test_folds_go_by_what_is_heard_and_not_by_the_name_of_a_front_end():
    recipe = recipes.load("audiobots")
    data = SimpleNamespace(content_hash="of these windows")

    def asked(**options):
        config = CrossvalConfig(student="dsc50", data="scenes:100", **options)
        return crossval._asked(config, data, recipe, {})

    usual = asked()
    assert asked(reference="clip") == usual == asked(frontend="default")
    assert asked(frontend="a.toml", reference="fixed") == asked(reference="fixed") != usual


def test_what_a_killed_command_left_is_cleared(gathered, npy_data, tmp_path):
    """It may die between the two steps of a write, or before it takes away the mark of a fold."""
    root = Path(shutil.copytree(gathered[0], tmp_path / "runs"))
    folder = next(root.glob("audiobot50-crossval-*"))
    left = [folder / f".{crossval.SUMMARY}.1234.tmp", folder / "folds" / ".fold-02.json.1234.tmp"]
    mark = fold_jobs.started_file(folder, 2)
    options = ["--data", npy_data, "--folds", 2, "--runs", root]
    for more in ([], ["--collect"]):
        for path in (*left, mark):
            path.write_text('{"host": "there", "process": 1234}')
        assert run_crossval(*options, *more) == 0
        assert not any(path.exists() for path in left)
        assert mark.exists() == bool(more), "--collect cannot know whether that one still runs"


def test_two_that_gather_at_once_exclude_each_other(gathered, npy_data, capsys):
    from filelock import FileLock

    root, folder = gathered
    with FileLock(folder / ".lock"):
        assert run_crossval("--data", npy_data, "--folds", 2, "--runs", root, "--collect") == 2
    assert "another process" in capsys.readouterr().err


def test_a_missing_fold_is_named(npy_data, tmp_path, capsys):
    assert run_crossval("--data", npy_data, "--runs", tmp_path, "--collect", "--folds", 2) == 2
    assert "fold 1, 2 of 2" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_a_changed_file_is_not_summarised(gathered, npy_data, capsys):
    root, folder = gathered
    entry = json.loads((folder / crossval.SUMMARY).read_text())["folds"][0]
    file = folder / entry["run"] / runs.ONNX
    before = file.read_bytes()
    try:
        file.write_bytes(before + b"\0")
        assert run_crossval("--data", npy_data, "--folds", 2, "--runs", root, "--collect") == 2
        assert "changed since this run was finished" in capsys.readouterr().err
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "dask"], "--scheduler"),
        (["--scheduler", "tcp://x:1"], "--engine"),
        (["--fold-index", "1", "--collect"], "exclude"),
        (["--validation-fold", "1"], "--validation-fold"),
        (["--fold-index", "9", "--folds", "3"], "1 to 3"),
        (["--recipe", "audiobot"], "audiobots"),
        (["--teacher", "resnet19"], "resnet18"),
        (["--fold", "2"], "--fold"),
    ],
)
def test_bad_options_get_one_line(arguments, words, npy_data, tmp_path, capsys):
    assert run_crossval("--data", npy_data, "--runs", tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


# --- processes that are lost ---------------------------------------------------------------------


def _end(fold, code, message="done", lost=()):
    return fold_jobs.FoldEnd(fold, code, message, lost)


def test_a_lost_fold_is_reported_and_run_again(tmp_path, monkeypatch, capsys):
    seen = []

    def run_fold(folder, options, fold, working_folder):
        seen.append(fold)
        return _end(fold, -9 if fold == 2 and seen.count(2) == 1 else 0)

    monkeypatch.setattr(fold_jobs, "run_fold", run_fold)
    fold_jobs.run_folds(tmp_path, tmp_path / "o", [1, 2, 3], jobs=1, engine="local",
                        scheduler=None, attempts=2)  # fmt: skip
    assert sorted(seen) == [1, 2, 2, 3]
    assert "fold 2    its process was killed; runs again" in capsys.readouterr().out


def test_a_fold_lost_too_often_is_an_error_and_a_refused_one_is_not_repeated(tmp_path, monkeypatch):
    code = {"now": -9}
    calls = []

    def run_fold(folder, options, fold, working_folder):
        calls.append(fold)
        return _end(fold, code["now"], "error: no such data")

    monkeypatch.setattr(fold_jobs, "run_fold", run_fold)
    options = {"jobs": 1, "engine": "local", "scheduler": None, "attempts": 2}
    with pytest.raises(InputError, match="lost 2 times"):
        fold_jobs.run_folds(tmp_path, tmp_path / "o", [1], **options)
    assert calls == [1, 1]
    code["now"] = 2
    with pytest.raises(InputError, match="fold 1: no such data"):
        fold_jobs.run_folds(tmp_path, tmp_path / "o", [1], **options)
    assert calls == [1, 1, 1]


def test_a_fold_that_another_process_still_trains_is_waited_for(tmp_path, monkeypatch, capsys):
    """As on a cluster whose driver was killed: its workers go on."""
    pauses, there = [], tmp_path / "ended"
    script = "import os, sys; there = os.path.exists(sys.argv[1]); print('done' if there else "
    script += f"'error: runs/x: {fold_jobs._HELD}; wait'); sys.exit(0 if there else 2)"
    start = subprocess.Popen

    def popen(command, **more):
        return start([sys.executable, "-c", script, str(there)], **more)

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 7:
            there.touch()

    monkeypatch.setattr(children.subprocess, "Popen", popen)
    monkeypatch.setattr(fold_jobs.time, "sleep", sleep)
    fold_jobs.run_folds(tmp_path, tmp_path / "o", [1], jobs=1, engine="local",
                        scheduler=None, attempts=1)  # fmt: skip
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    printed = capsys.readouterr().out
    assert printed.count("fold 1    is held by another process; waiting for it") == 1
    assert "s for another process" in printed and "fold 1    done" in printed


def test_a_scheduler_that_does_not_answer_is_one_line(npy_data, tmp_path, capsys, monkeypatch):
    distributed = pytest.importorskip("distributed")

    def refuse(address, timeout):
        raise OSError(f"Timed out trying to connect to {address}")

    monkeypatch.setattr(distributed, "Client", refuse)
    given = ["--data", npy_data, "--runs", tmp_path, "--engine", "dask", "--scheduler", "tcp://x:1"]
    assert run_crossval(*given) == 2
    error = capsys.readouterr().err
    assert "no dask scheduler answers" in error and error.count("\n") == 1


@pytest.mark.parametrize(("engine", "extra"), [("dask", "cluster"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_is_refused_before_any_data(
    engine, extra, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(fold_jobs.importlib.util, "find_spec", lambda name: None)
    given = ["--engine", engine, "--scheduler", "x:1", "--data", "nowhere", "--runs", tmp_path]
    assert run_crossval(*given) == 2
    assert f"pip install '.[{extra}]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing half-written"


@pytest.mark.parametrize("script", ["crossval.slurm", "crossval.lsf"])
def test_submit_scripts_name_the_fold(script, tmp_path):
    """What the scheduler runs, with a stand-in for python that prints its arguments."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    variables = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_CPUS_PER_TASK": "2", "LSB_JOBINDEX": "7",
                 "LSB_DJOB_NUMPROC": "2", "CROSSVAL": "--student dsc50"}  # fmt: skip
    given = ["--student", "dsc50"] if script.endswith("slurm") else []
    command = ["bash", str(ROOT / "examples" / script), *given]
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wanted = "-m compress.crossval --student dsc50 --threads 2 --fold-index 7"
    assert done.stdout.strip() == wanted


def _command(npy_data: Path, root: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "compress.crossval", *SMALL, "--data", str(npy_data),
            "--folds", "2", "--runs", str(root), *more]  # fmt: skip


def _started(root: Path, seconds: float = 120) -> Path:
    """The mark of the first fold that trains."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for mark in root.glob("*crossval*/folds/*.started.json"):
            return mark
        time.sleep(0.05)
    raise AssertionError("no fold was started")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["crossval.slurm", "crossval.lsf"])
def test_array_jobs_train_and_gather(script, npy_data, tmp_path):
    options = _command(npy_data, tmp_path)[3:]
    for index in ("1", "2"):
        environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT),
                       "SLURM_ARRAY_TASK_ID": index, "LSB_JOBINDEX": index,
                       "CROSSVAL": " ".join(options)}  # fmt: skip
        given = options if script.endswith("slurm") else []
        subprocess.run(["bash", str(ROOT / "examples" / script), *given], env=environment,
                       check=True, timeout=300)  # fmt: skip
    done = subprocess.run(_command(npy_data, tmp_path, "--collect"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 folds, mean" in done.stdout


@pytest.mark.slow
def test_a_killed_process_is_replaced(npy_data, tmp_path):
    process = subprocess.Popen(
        _command(npy_data, tmp_path, "--jobs", "2"), stdout=subprocess.PIPE, text=True
    )
    mark = _started(tmp_path)
    time.sleep(0.3)
    os.kill(runs.read_json(mark)["process"], signal.SIGKILL)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "its process was killed; runs again" in out and "2 folds, mean" in out


def _gone(process: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rsplit(")", 1)[1].split()[0] == "Z"


def _written_since(begun: float, root: Path, pattern: str) -> list[Path]:
    found = []
    for path in root.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > begun:
                found.append(path)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_killed_with_and_without_its_folds_it_ends_with_the_same_files(npy_data, tmp_path):
    """Real command lines; the process of the command or of its folds is killed, in turn."""
    # Sums of floats depend on the threads, so they are the same in all.
    more = ("--jobs", "2", "--threads", "1", "--attempts", "1")
    alone, killed = _command(npy_data, tmp_path / "alone", *more), tmp_path / "killed"
    subprocess.run(alone, stdout=subprocess.DEVNULL, check=True)
    command = _command(npy_data, killed, *more)
    processes: set[int] = set()
    for whose, written in (
        ("command", "*crossval*/folds/*.started.json"),
        ("folds", "*/manifest.json"),
        ("command", "*/weights.safetensors"),
        ("folds", "*/model.onnx"),
        ("command", "*crossval*/folds/fold-0?.json"),
    ):
        begun, until = time.time(), time.monotonic() + 300
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not _written_since(begun, killed, written):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        folds = set()
        for mark in _written_since(begun, killed, "*crossval*/folds/*.started.json"):
            with contextlib.suppress(InputError):  # taken away meanwhile: this fold has ended
                folds.add(runs.read_json(mark)["process"])
        processes |= folds
        if whose == "command":
            process.kill()
        else:
            for fold in folds:
                os.kill(fold, signal.SIGKILL)
        assert process.wait(300) == (-signal.SIGKILL if whose == "command" else 2)
    until = time.monotonic() + 60
    while not all(map(_gone, processes)):
        assert time.monotonic() < until, "the process of a fold goes on without its parent"
        time.sleep(0.1)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for pattern in ("*/crossval.json", "*/crossval.md", "*/model.onnx", "*/weights.safetensors"):
        expected = {p.relative_to(tmp_path / "alone"): p.read_bytes()
                    for p in (tmp_path / "alone").glob(pattern)}  # fmt: skip
        assert expected == {p.relative_to(killed): p.read_bytes() for p in killed.glob(pattern)}
    left = [path for path in killed.rglob("*") if path.name.endswith((".tmp", ".started.json"))]
    assert left == []


@pytest.mark.slow
def test_a_lost_dask_worker_is_reported_and_its_fold_is_run_again(npy_data, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        process = subprocess.Popen(
            _command(npy_data, tmp_path, "--engine", "dask", "--scheduler",
                     cluster.scheduler_address), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        mark = _started(tmp_path)
        child = runs.read_json(mark)["process"]
        time.sleep(0.3)
        status = Path(f"/proc/{child}/status").read_text()
        worker = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid"))
        os.kill(int(worker), signal.SIGKILL)
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert f"lost process {child} on" in out and "it was run again" in out
    assert "2 folds, mean" in out


def test_official_folds_are_the_folds(tmp_path, monkeypatch):
    """Each is the test once, whatever --folds says; the ordinary run is that of --fold K."""
    import dataclasses

    from test_fit import small_set

    import compress.data
    from compress import session

    data = dataclasses.replace(small_set(60), folds=np.arange(60) // 5 % 2 + 1)
    monkeypatch.setattr(session, "open_chosen", lambda options: data)
    monkeypatch.setattr(compress.data, "open_chosen", lambda options: data)
    for fold in (1, 2):
        assert run_crossval("--runs", tmp_path, "--fold-index", fold) == 0
    assert run_crossval("--runs", tmp_path, "--collect") == 0
    (file,) = tmp_path.glob("*-crossval-*/crossval.json")
    summary = json.loads(file.read_text())
    assert summary["official_folds"] and [f["fold"] for f in summary["folds"]] == [1, 2]
    assert sum(map(sum, summary["confusion"]["clips"])) == 60, "every clip is tested once"
    for entry in summary["folds"]:
        run = runs.open_run(file.parent / entry["run"])
        test = Split.from_json(runs.read_json(run.file(runs.SPLIT))).test
        assert set(data.folds[test]) == {entry["fold"]}


@pytest.mark.slow
def test_a_teacher_by_name_is_trained_in_each_fold(npy_data, tmp_path):
    given = ["--data", npy_data, "--runs", tmp_path, "--folds", 2, "--teacher", "test_resnet",
             "--teacher-epochs", 1]  # fmt: skip
    for fold in (1, 2):
        assert run_crossval(*given, "--fold-index", fold) == 0
    assert run_crossval(*given, "--collect") == 0
    assert len(list(tmp_path.glob("test-resnet-teacher-*"))) == 2
    (file,) = tmp_path.glob("*-crossval-*/crossval.json")
    assert json.loads(file.read_text())["stage"] == "distill"
