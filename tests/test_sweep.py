"""Sweeps: the space, one study for several processes, and what becomes of the best trial."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compress import (
    chosen_student,
    cli,
    recipe,
    search_space,
    study,
    sweep,
    toml_text,
    train,
)
from compress.config import SweepConfig, TrainConfig
from compress.errors import InputError
from compress.search_space import Choices, Range

optuna = pytest.importorskip("optuna")
pytest.importorskip("sklearn")
SMALL = ["--student", "audiobot50", "--epochs", "1", "--batch-size", "64", "--workers", "1"]


def run_sweep(*arguments: str | Path) -> int:
    return cli.main(SweepConfig, sweep.run, "", [*SMALL, *map(str, arguments)])


def test_the_default_space_is_the_reports():
    space = search_space.load("report")
    assert space["learning_rate"] == Range(5e-5, 1e-2, log=True)
    assert space["dropout"] == Range(0.0, 0.6)
    assert space["label_loss"] == Choices(("cross_entropy", "focal"))
    assert set(space["activation"].values) == {"relu", "leaky_relu", "elu"}


@pytest.mark.parametrize("name", search_space.names())
def test_every_space_loads(name):
    assert search_space.load(name)


def test_a_space_lists_all_its_faults(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        "[learning_rat]\nlow=1\nhigh=2\n[dropout]\nlow=0.5\nhigh=0.1\n"
        "[learning_rate]\nlow=0.0\nhigh=1.0\nlog=true\n[epochs]\nchoices=[0]\n"
    )
    with pytest.raises(InputError) as caught:
        search_space.load(str(file))
    for words in ("learning_rat: not a value", "low 0.5 is over high 0.1", "log needs", "epochs"):
        assert words in str(caught.value)


def open_study(folder: Path, sampler: str = "random", warmup: int | None = None):
    folder.mkdir(exist_ok=True)
    return study.Study(folder, {"dropout": Range(0.0, 0.6)}, sampler, 3, warmup)


def values_of(found) -> list[float]:
    return [trial.params["dropout"] for trial in found.trials()]


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_the_same_seed_tries_the_same_values_also_after_a_break(sampler, tmp_path):
    whole, broken = open_study(tmp_path / "a", sampler), open_study(tmp_path / "b", sampler)
    whole.run(12, lambda trial: trial.params["dropout"])
    broken.run(5, lambda trial: trial.params["dropout"])
    open_study(tmp_path / "b", sampler).run(12, lambda trial: trial.params["dropout"])
    assert values_of(whole) == values_of(broken)
    assert len(set(values_of(whole))) == 12 or sampler == "gp"


def test_hopeless_trials_are_stopped(tmp_path):
    found = open_study(tmp_path / "s", warmup=2)

    def objective(trial):
        good = trial.number < 5
        for epoch in range(1, 6):
            trial.report(1.0 if good else 2.0, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 1.0

    found.run(7, objective)
    assert [t.state.name for t in found.trials()] == ["COMPLETE"] * 5 + ["PRUNED"] * 2
    assert len(found.trials()[5].intermediate_values) == 3, "after two epochs of grace"


def test_a_refused_trial_counts_and_is_not_repeated(tmp_path):
    found = open_study(tmp_path / "s")

    def objective(trial):
        if trial.number == 1:
            raise InputError("the training loss is nan")
        return 1.0

    found.run(3, objective)
    assert [t.state.name for t in found.trials()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.rows_of(found)[1]["fault"] == "the training loss is nan"


def test_a_trial_that_nobody_holds_is_tried_again_with_its_values(tmp_path, capsys):
    found = open_study(tmp_path / "s")
    found.run(1, lambda trial: 1.0)
    with found._next(2) as trial:
        lost = dict(trial.params)  # the lock goes, the journal still says that it runs
    found.run(3, lambda trial: 1.0)
    assert "trial 1   was lost" in capsys.readouterr().out
    repeated = next(t for t in found.trials() if t.user_attrs.get(study.REPEATS) == 1)
    assert repeated.params == lost and repeated.state.name == "COMPLETE"
    assert len(found.finished()) == 3


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_what_is_lost_changes_neither_numbers_nor_values(sampler, tmp_path):
    """Lost before it had values, lost with them, and its repeat lost too."""
    whole, broken = open_study(tmp_path / "a", sampler), open_study(tmp_path / "b", sampler)
    whole.run(12, lambda trial: trial.params["dropout"])
    broken.run(2, lambda trial: trial.params["dropout"])
    broken.optuna.ask()  # killed before anything was drawn
    broken.run(3, lambda trial: trial.params["dropout"])
    for _ in range(2):
        with broken._next(12):
            pass
    broken.run(12, lambda trial: trial.params["dropout"])
    rows = [study.rows_of(found) for found in (whole, broken)]
    assert [row.pop("lost") for row in rows[1]] == [0, 0, 1, 2, *[0] * 8]
    assert [row.pop("lost") for row in rows[0]] == [0] * 12
    assert rows[0] == rows[1]
    assert [row["number"] for row in rows[1]] == list(range(12))


def test_a_trial_given_up_twice_is_repeated_once(tmp_path, monkeypatch):
    """Killed between lining the values up and closing the lost trial."""
    found = open_study(tmp_path / "s")
    with found._next(2) as trial:
        pass
    storage = found.optuna._storage
    with monkeypatch.context() as patch:
        patch.setattr(storage, "set_trial_state_values", lambda *given: None)
        found._reclaim()
    found._reclaim()
    waiting = [t for t in found.trials() if t.state.name == "WAITING"]
    assert [t.system_attrs["fixed_params"] for t in waiting] == [trial.params]


def test_a_torn_line_of_the_journal_is_cut_before_the_next(tmp_path):
    """A full disk leaves the beginning of a line; what follows must not be written behind it."""
    open_study(tmp_path / "s").run(2, lambda trial: 1.0)
    with (tmp_path / "s" / study.JOURNAL).open("a") as file:
        file.write('{"op_code":4,"worker')
    open_study(tmp_path / "s").run(3, lambda trial: 1.0)
    found = open_study(tmp_path / "s")
    assert [t.state.name for t in found.trials()] == ["COMPLETE"] * 3


def test_a_trial_that_another_process_holds_is_left_alone(tmp_path):
    found, other = open_study(tmp_path / "s"), open_study(tmp_path / "s")
    with other._next(2) as held:
        with found._next(2) as mine:
            assert mine.number != held.number
        with found._next(2) as none:
            pass
    assert none is None or none.number != held.number


@pytest.fixture(scope="module")
def swept(npy_data, tmp_path_factory):
    """(folder of the study, what was printed) of five trials of one epoch."""
    root = tmp_path_factory.mktemp("swept")
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    assert run_sweep("--data", npy_data, "--out", root / "s", "--trials", 5, "--keep-hopeless") == 0
    return root / "s"


def test_the_command_that_comes_next_trains_on_the_same(tmp_path):
    """As a user gives the options, and as that command's own parser takes them."""
    from compress.config import DistillConfig

    config = SweepConfig(
        student="dsc50", data="my sounds", data_seed=3, teacher=("audiobot50:1", "runs/T"),
        temperature=4.0, strict=True, seed=2, epochs=5, trials=9, out=tmp_path,
    )  # fmt: skip
    words = shlex.split(sweep.following(config, tmp_path))
    assert words[:3] == ["python", "-m", "compress.distill"]
    seen = []
    assert cli.main(DistillConfig, lambda found: seen.append(found) or 0, "", words[3:]) == 0
    [found] = seen
    for name in ("student", "data", "data_seed", "teacher", "temperature", "strict", "seed"):
        assert getattr(found, name) == getattr(config, name), name
    assert found.recipe == str(tmp_path / sweep.BEST) and found.epochs is None


def test_a_trial_is_judged_by_the_weights_that_its_recipe_keeps(npy_data, tmp_path):
    mine = tmp_path / "last.toml"
    mine.write_text('base = "audiobots"\nkeep = "last"\nlearning_rate = 0.02\n')
    given = ["--data", npy_data, "--recipe", mine, "--epochs", 4, "--trials", 2]
    assert run_sweep(*given, "--out", tmp_path / "s", "--space", "narrow", "--keep-hopeless") == 0
    trials = json.loads((tmp_path / "s" / sweep.RESULT).read_text())["trials"]
    assert [trial["best_epoch"] for trial in trials] == [4, 4]


def test_the_best_trial_becomes_a_recipe_that_train_takes(swept, npy_data, tmp_path, capsys):
    result = json.loads((swept / sweep.RESULT).read_text())
    best = min(result["trials"], key=lambda row: row["validation_loss"])
    assert result["best"] == best and len(result["trials"]) == 5
    found = recipe.load(str(swept / sweep.BEST))
    for name, value in best["values"].items():
        assert getattr(found, name) == value
    given = ["--student", "audiobot50", "--recipe", swept / sweep.BEST, "--data", npy_data,
             "--out", tmp_path / "run", "--workers", "1"]  # fmt: skip
    assert cli.main(TrainConfig, train.run, "", list(map(str, given))) == 0
    row = (tmp_path / "run" / "curves.csv").read_text().splitlines()
    loss = dict(zip(row[0].split(","), row[1].split(","), strict=True))["validation_loss"]
    assert float(loss) == pytest.approx(best["validation_loss"], rel=1e-6), "the same training"


def test_pictures_and_page(swept):
    for name in ("parallel.png", "importance.png"):
        assert (swept / name).read_bytes().startswith(b"\x89PNG")
    page = (swept / "sweep.html").read_text()
    assert page.count("<svg") == 2 and "http-equiv" in page and "Best: trial" in page
    assert "<script" not in page
    shares = json.loads((swept / sweep.RESULT).read_text())["importances"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_same_command_tries_nothing_again(swept, npy_data, capsys):
    before = json.loads((swept / sweep.RESULT).read_text())
    assert run_sweep("--data", npy_data, "--out", swept, "--trials", 5) == 0
    assert "5 finished before" in capsys.readouterr().out
    assert json.loads((swept / sweep.RESULT).read_text()) == before


def test_verify_finds_the_study_again_and_names_what_was_changed(swept, tmp_path, capsys):
    import shutil

    from compress import verify
    from compress.config import VerifyConfig

    def verified(folder: Path) -> tuple[int, str]:
        code = cli.main(VerifyConfig, verify.run, "", [str(folder)])
        return code, capsys.readouterr().out

    before = (swept / study.JOURNAL).read_bytes()
    code, printed = verified(swept)
    assert code == 0, printed
    assert "losses of the trials" in printed and before == (swept / study.JOURNAL).read_bytes()
    copy = Path(shutil.copytree(swept, tmp_path / "copy"))
    result = json.loads((copy / sweep.RESULT).read_text())
    result["best"]["validation_loss"] = 0.001
    result["trials"][1]["values"]["dropout"] = 0.5
    (copy / sweep.RESULT).write_text(json.dumps(result))
    text = (copy / sweep.BEST).read_text()
    (copy / sweep.BEST).write_text(text.replace("dropout = ", "dropout = 0.0 # "))
    code, printed = verified(copy)
    assert code == 1
    for words in ("best.validation_loss", "trial 1.values.dropout", "best.toml dropout"):
        assert f"{words}: recorded" in printed
    (copy / study.JOURNAL).write_text('{"op_code": 99}\n')
    code, printed = verified(copy)
    assert code == 2 and "is no journal of a study" in printed
    (copy / study.JOURNAL).unlink()
    assert verified(copy)[0] == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["--student", "audiobot500"], "study of audiobot50"),
        (["--data-seed", "1"], "split"),
        (["--normalise", "mixture"], "normalise None, not mixture"),
    ],
)
def test_a_study_of_something_else_is_refused_by_name(changed, words, swept, npy_data, capsys):
    assert run_sweep("--data", npy_data, "--out", swept, *changed) == 2
    error = capsys.readouterr().err
    assert words in error and "--out" in error and error.count("\n") == 1


def test_what_lies_behind_a_name_makes_another_study(tmp_path):
    """Teachers trained otherwise, or a file of a student that changed, under the same names."""

    def identity(**changed: Any) -> dict[str, Any]:
        config = SweepConfig(**{"student": "audiobot50", **changed})
        return chosen_student.identity(config, chosen_student.check(config)[1])

    assert identity() == {}, "studies of an earlier version are still found"
    taught = [{}, {"teacher_epochs": 1}, {"teacher_map": "2x6"}, {"pretrained": True}]
    found = [identity(teacher=("test_resnet",), **more) for more in taught]
    assert all(found.count(one) == 1 for one in found)
    shape = tmp_path / "small.json"
    for widths in ([8, 8, 8], [8, 8, 16]):
        arguments = {"family": "student", "name": "audiobot50", "arguments": {"widths": widths}}
        shape.write_text(json.dumps(arguments))
        found.append(identity(student=str(shape)))
    assert found[-1] != found[-2]


def test_a_study_of_the_other_normalisation_is_refused_either_way(tmp_path):
    band = {"student": "audiobot50", "data": "x"}
    study.claim(tmp_path, band | {"normalise": "mixture"})
    with pytest.raises(InputError, match="normalise mixture, not None"):
        study.claim(tmp_path, band)


def test_values_of_toml_text_are_read_again(tmp_path):
    import tomllib

    values = {"a": 1, "b": 1e-5, "c": 'x "y" \\ \x7f\n', "d": ["1", "2"], "e": True, "f": 2.0}
    assert tomllib.loads(toml_text.dumps(values | {"none": None})) == values


@pytest.mark.slow
def test_two_processes_lose_no_trial_when_one_is_killed(npy_data, tmp_path):
    out = tmp_path / "s"
    command = [sys.executable, "-m", "compress.sweep", *SMALL, "--data", str(npy_data)]
    command += ["--out", str(out), "--trials", "12", "--threads", "1", "--epochs", "6"]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while time.monotonic() < until:  # kill one in the middle of a trial of its own
        if (out / study.JOURNAL).is_file() and (out / "study.log").read_text().count('"op_code":4'):
            break
        time.sleep(0.1)
    time.sleep(1.5)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    printed, _ = other.communicate(timeout=300)
    assert other.returncode == 0
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "12 finished before" in done.stdout
    rows = json.loads((out / sweep.RESULT).read_text())["trials"]
    assert len(rows) == 12 and all(row["state"] in ("complete", "pruned") for row in rows)
    values = [tuple(row["values"].values()) for row in rows]
    assert len(set(values)) == 12, "each tried once, none twice"


@pytest.mark.slow
def test_a_sweep_under_a_teacher(npy_data, tmp_path, capsys):
    from compress import distill
    from compress.config import DistillConfig

    given = ["--data", npy_data, "--teacher", "test_resnet", "--teacher-epochs", 1]
    assert run_sweep(*given, "--runs", tmp_path, "--trials", 3, "--space", "narrow") == 0
    assert "compress.distill" in capsys.readouterr().out
    (best,) = tmp_path.glob("*-sweep-*/best.toml")
    assert len(list(tmp_path.glob("test-resnet-teacher-*"))) == 1, "one teacher for all trials"
    given[-1] = 2
    assert run_sweep(*given, "--out", best.parent, "--trials", 4, "--space", "narrow") == 2
    given = ["--student", "audiobot50", *given, "--recipe", best, "--runs", tmp_path]
    assert cli.main(DistillConfig, distill.run, "", [*map(str, given), "--workers", "1"]) == 0
