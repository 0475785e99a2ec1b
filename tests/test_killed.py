"""Killed at any moment, the same command goes on and ends with the same files."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import forking
import killing
import pytest

from compress import cli, evaluate, quantize, runs, teach, train
from compress.config import QuantizeConfig, TeachConfig, TrainConfig

AT_TOUCHES, AT_MOMENTS = 4, 2  # kills of each command in the slow test, in one folder in turn


@pytest.fixture(scope="module")
def inputs(npy_data, finished_run, tmp_path_factory) -> dict[str, Path]:
    """A data set, a teacher and a student that the commands start from."""
    out = tmp_path_factory.mktemp("inputs") / "teacher"
    arguments = ["--teacher", "test_resnet", "--data", str(npy_data), "--epochs", "1"]
    arguments += ["--out", str(out), "--workers", "1"]
    assert cli.main(TeachConfig, teach.run, "", arguments) == 0
    int8 = out.parent / "int8"
    given = ["--run", str(finished_run), "--out", str(int8), "--samples", "32"]
    assert cli.main(QuantizeConfig, quantize.run, "", given) == 0
    return {"data": npy_data, "teacher": out, "student": finished_run, "int8": int8}


@pytest.fixture(scope="module", autouse=True)
def server():
    """Kills at moments are shares of a time that loading libraries is no part of."""
    forking.warm_up()


def undisturbed(name: str, inputs: dict[str, Path], place: Path) -> tuple[dict, killing.Ended]:
    case = killing.CASES[name]
    ended = killing.run(killing.argv_of(case, place, **inputs), place)
    assert ended.code == 0, ended.printed
    killing.assert_nothing_left(place)
    return killing.hashes(place, case.same), ended


def finish(name: str, inputs: dict[str, Path], place: Path) -> dict[str, str]:
    case = killing.CASES[name]
    ended = killing.run(killing.argv_of(case, place, **inputs), place)
    assert ended.code == 0, ended.printed
    killing.assert_whole(place)
    killing.assert_nothing_left(place)
    again = killing.run(killing.argv_of(case, place, **inputs), place)
    assert again.code == 0 and case.again in again.printed
    return killing.hashes(place, case.same)


@pytest.mark.parametrize(("name", "share"), [("data", 0.9), ("train", 0.5)])
def test_a_killed_command_goes_on(name, share, npy_data, tmp_path):
    inputs = {"data": npy_data}
    expected, whole = undisturbed(name, inputs, tmp_path / "undisturbed")
    place = tmp_path / "killed"
    argv = killing.argv_of(killing.CASES[name], place, **inputs)
    assert killing.run(argv, place, at_touch=max(1, round(share * whole.touched))).killed
    killing.assert_whole(place)
    assert finish(name, inputs, place) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", killing.CASES)
def test_killed_again_and_again_it_ends_with_the_same_files(name, inputs, tmp_path):
    """At least 30 kills over all commands: at touches of files and at moments, each drawn anew."""
    draw = random.Random(f"killed {name}")
    expected, whole = undisturbed(name, inputs, tmp_path / "undisturbed")
    argv = killing.argv_of(killing.CASES[name], tmp_path / "killed", **inputs)
    kills = [("touch", draw.randint(1, whole.touched)) for _ in range(AT_TOUCHES)]
    kills += [("moment", draw.uniform(0.1, 0.9) * whole.seconds) for _ in range(AT_MOMENTS)]
    draw.shuffle(kills)
    killed = 0
    for kind, when in kills:
        if kind == "touch":
            ended = killing.run(argv, tmp_path / "killed", at_touch=int(when))
        else:
            ended = killing.run(argv, tmp_path / "killed", after=when)
        assert ended.killed or ended.code == 0, ended.printed
        if not ended.killed:  # it came to its end before: start over
            assert finish(name, inputs, tmp_path / "killed") == expected
            for number in range(1, 100):
                if not (tmp_path / f"done{number}").exists():
                    (tmp_path / "killed").rename(tmp_path / f"done{number}")
                    break
            ended = killing.run(argv, tmp_path / "killed", at_touch=draw.randint(1, whole.touched))
        killed += ended.killed
        killing.assert_whole(tmp_path / "killed")
    assert killed == AT_TOUCHES + AT_MOMENTS
    assert finish(name, inputs, tmp_path / "killed") == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", killing.CASES)
def test_killed_at_the_last_touches_of_files(name, inputs, tmp_path):
    """Where the result is put in place and the progress is thrown away, one touch after another."""
    expected, whole = undisturbed(name, inputs, tmp_path / "undisturbed")
    for before_end in range(4):
        place = tmp_path / f"killed{before_end}"
        argv = killing.argv_of(killing.CASES[name], place, **inputs)
        assert killing.run(argv, place, at_touch=whole.touched - before_end).killed
        killing.assert_whole(place)
        assert finish(name, inputs, place) == expected


@pytest.mark.slow
def test_data_workers_end_with_a_killed_command(tmp_path):
    """A real command line with two workers, killed by the moment; no worker goes on."""
    command = [sys.executable, "-m", "compress.data", "scenes:1500", "--workers", "2"]
    command += ["--cache", str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("cache/sets/*.partial/shard-*.npz")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()  # returns once the last process that holds standard error has ended
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("shard-*.npz")}
    assert made
    time.sleep(1.0)
    assert {path.name for path in tmp_path.rglob("shard-*.npz")} == set(made)


# --- side by side --------------------------------------------------------------------------------


def side_by_side(name: str, inputs: dict[str, Path], place: Path) -> list[tuple[int, str]]:
    """(exit code, what was printed) of two processes that were given one command at once."""
    case = killing.CASES[name]
    place.mkdir(parents=True)
    argv, started = killing.argv_of(case, place, **inputs), []
    for number in range(2):
        log, count = place.parent / f"printed{number}.txt", place.parent / f"touched{number}.txt"
        arguments = (argv, place, killing.NEVER, log, count)
        started.append((forking.context.Process(target=killing._child, args=arguments), log))
        started[-1][0].start()
    for process, _ in started:
        process.join(killing.SECONDS_LIMIT)
        assert process.exitcode is not None
    return [(process.exitcode or 0, log.read_text()) for process, log in started]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "data" else pytest.mark.slow)
        for name in killing.CASES
    ],
)
def test_two_commands_at_once_tear_no_file(name, tmp_path, request):
    """On one run folder, one cache, one study: each waits, shares, or says that another writes."""
    inputs = {} if name == "data" else request.getfixturevalue("inputs")
    ended = side_by_side(name, inputs, tmp_path / "both")
    assert any(code == 0 for code, _ in ended), ended
    for code, printed in ended:
        assert code in (0, 2) and "Traceback" not in printed, printed
        if code == 2:
            assert "another process" in printed.splitlines()[-1], printed
    killing.assert_whole(tmp_path / "both")
    expected, _ = undisturbed(name, inputs, tmp_path / "alone")
    assert finish(name, inputs, tmp_path / "both") == expected


# --- disks that give no more ---------------------------------------------------------------------


@pytest.fixture
def quick_latency(monkeypatch):
    monkeypatch.setattr(evaluate, "_LATENCY_RUNS", 1)
    monkeypatch.setattr(evaluate, "_LATENCY_SECONDS", 0.0)


def _train(data: Path, *more: object) -> int:
    """What made ``finished_run``, elsewhere."""
    given = ["--student", "audiobot50", "--data", data, "--epochs", "2", "--batch-size", "32"]
    given += ["--workers", "1", *more]
    return cli.main(TrainConfig, train.run, "", [str(argument) for argument in given])


@pytest.mark.slow
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(1_000, id="manifest"),
        pytest.param(60_000, id="checkpoint"),
        pytest.param(900_000, id="enough for this run"),
    ],
)
@pytest.mark.usefixtures("quick_latency")
def test_a_full_disk_is_one_line_and_the_command_goes_on_later(
    size, npy_data, finished_run, tmp_path, capsys
):
    out = tmp_path / "run"
    earlier = runs.open_run(finished_run)
    if size == 900_000:
        with killing.limit_of_file_size(size):
            assert _train(npy_data, "--out", out) == 0
        return
    with killing.limit_of_file_size(size):
        assert _train(npy_data, "--out", out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert "larger than this place allows" in error
    earlier.check_unchanged()
    assert _train(npy_data, "--out", out) == 0
    assert runs.open_run(out).model_hash() == earlier.model_hash()
    killing.assert_nothing_left(out)


@pytest.mark.usefixtures("quick_latency")
def test_a_full_disk_while_data_is_prepared(npy_data, tmp_path, capsys):
    with killing.limit_of_file_size(100_000):
        assert _train(npy_data, "--cache", tmp_path / "cache", "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick_latency")
def test_a_run_folder_that_is_lost_meanwhile_is_one_line(npy_data, tmp_path, capsys, monkeypatch):
    from compress import onnx_export

    out, real = tmp_path / "run", onnx_export.to_onnx

    def lose(*arguments):
        shutil.rmtree(out)
        return real(*arguments)

    monkeypatch.setattr(onnx_export, "to_onnx", lose)
    assert _train(npy_data, "--out", out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "removed" in error and "again" in error


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("room", [2_990_000, 2_900_000, 2_500_000, 1_500_000])
def test_a_disk_that_runs_full(room, inputs, small_disk):
    """Wherever the disk runs full, one line says so; with room again, the command ends well."""
    (small_disk / "filler").write_bytes(bytes(room))
    argv = killing.argv_of(killing.CASES["train"], small_disk / "place", **inputs)
    ended = killing.run(argv, small_disk / "place")
    assert ended.code == 2, ended.printed
    assert "the disk is full" in ended.printed and "Traceback" not in ended.printed
    (small_disk / "filler").unlink()
    ended = killing.run(argv, small_disk / "place")
    assert ended.code == 0, ended.printed
    killing.assert_nothing_left(small_disk / "place")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in killing.CASES if name != "data"])
def test_a_read_only_disk(name, inputs, small_disk):
    (small_disk / "place").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    place = small_disk.parent / "elsewhere"
    argv = killing.argv_of(killing.CASES[name], small_disk / "place", **inputs)
    ended = killing.run(argv, place)
    assert ended.code == 2, ended.printed
    assert "read-only" in ended.printed and "Traceback" not in ended.printed


def test_a_place_that_cannot_be_written_is_one_line(npy_data, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert _train(npy_data, "--out", tmp_path / "file" / "run") == 2
    assert _train(npy_data, "--cache", tmp_path / "file" / "cache", "--out", tmp_path / "r") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)
