"""Commands in processes of their own that are killed, and what has to be true afterwards.

A process is killed by SIGKILL, which nothing can catch: either at a moment, or just before the
n-th time that it touches a file (opens one to write, renames, removes, makes a folder). The second
way finds the moments between two steps of a write, which are short.

Processes are forked off a server that has the libraries loaded, so that a kill costs a second
(see ``forking``).
A command is added to ``CASES`` in one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forking import context

NEVER = 0
SECONDS_LIMIT = 900.0  # a fold starts a process of its own, and the machine may be busy
_RUN = ("run/model.onnx", "run/weights.safetensors", "run/split.json", "run/test_decisions.npz",
        "run/model.json")  # fmt: skip
_INT8 = ("run/model.onnx", "run/split.json", "run/test_decisions.npz", "run/quantisation.json")
_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


class Killed(BaseException):
    """Nothing in the project catches it."""


@contextlib.contextmanager
def killed_at_first_checkpoint() -> Iterator[None]:
    """What trains within, in this process, dies right after its first checkpoint is written."""
    from compress import fit

    save = fit._save

    def save_then_die(*arguments: Any) -> None:
        save(*arguments)
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fit, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        patch.setattr(fit, "_save", save_then_die)
        yield


@dataclass(frozen=True)
class Case:
    """A command line, and the files below its place that are the same however it went.

    {place} is a folder of its own, {data} a data set; {teacher}, {student} and {int8} are finished
    runs. again: what the command says where all is there already.
    """

    line: str
    same: tuple[str, ...]
    again: str = "finished before"
    more: str = "--out {place}/run --device cpu --threads 1 --workers 1"


CASES = {
    "data": Case("data scenes:24", ("cache/sets/*/*",), again="", more="--workers 1"),
    "teach": Case("teach --teacher test_resnet --data {data} --epochs 2 --batch-size 64", _RUN),
    "train": Case("train --student audiobot50 --data {data} --epochs 2 --batch-size 64", _RUN),
    "distill": Case(
        "distill --student audiobot50 --teacher {teacher} --data {data} --epochs 2 --batch-size 64",
        (*_RUN, "cache/teacher-logits/*/*"),
    ),
    "prune": Case(
        "prune --run {student} --params 30000 --steps 2 --step-epochs 1 --epochs 1 "
        "--batch-size 64 --data {data}",
        _RUN,
    ),
    "quantize": Case("quantize --run {student} --samples 32 --data {data}", _INT8),
    "quantize-qat": Case(
        "quantize --run {student} --samples 32 --data {data} --qat --epochs 1", _INT8
    ),
    "ensemble": Case(
        "ensemble --member {student} --member {teacher} --data {data}",
        ("run/model.onnx", "run/weights.safetensors", "run/test_decisions.npz", "run/model.json"),
    ),
    "export": Case(
        "export --run {int8} --format c --data {data}",
        ("run/*.c", "run/*.h", "run/test_decisions.npz", "run/split.json"),
        more="--out {place}/run --workers 1",
    ),
    "crossval": Case(
        "crossval --student audiobot50 --data {data} --folds 2 --epochs 2 --batch-size 64 "
        "--runs {place}/runs",
        ("run/crossval.json", "run/crossval.md", "runs/*/model.onnx", "runs/*/weights.safetensors",
         "runs/*/test_decisions.npz"),
    ),
    "sweep": Case(
        "sweep --student audiobot50 --data {data} --trials 4 --epochs 2 --batch-size 64 "
        "--warmup-epochs 0",
        ("run/best.toml", "run/sweep.json", "run/sweep.html"),
    ),
}


@dataclass(frozen=True)
class Ended:
    """How a process ended. code: exit code, -9 where it was killed; touched: times it touched
    files below its place; seconds: how long it took."""

    code: int
    printed: str
    touched: int
    seconds: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def argv_of(case: Case, place: Path, **inputs: Path) -> list[str]:
    return f"{case.line} {case.more}".format(place=place, **inputs).split()


def run(argv: list[str], place: Path, at_touch: int = NEVER, after: float | None = None) -> Ended:
    """Run a command with its cache in ``place``; kill it at a touch of a file, or after seconds."""
    place.mkdir(parents=True, exist_ok=True)
    log, count = place / "printed.txt", place / "touched.txt"
    count.write_text("0")
    log.write_text("")
    process = context.Process(target=_child, args=(argv, place, at_touch, log, count))
    started = time.monotonic()
    process.start()
    process.join(SECONDS_LIMIT if after is None else after)
    if process.is_alive():
        process.kill()
        process.join()
        assert after is not None, f"{argv} took more than {SECONDS_LIMIT} s"
    seconds = time.monotonic() - started
    return Ended(process.exitcode or 0, log.read_text(), int(count.read_text() or 0), seconds)


def _child(argv: list[str], place: Path, at_touch: int, log: Path, count: Path) -> None:
    os.environ["COMPRESS_CACHE"] = str(place / "cache")
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    import importlib

    import torch

    from compress import cli, config, evaluate, fit

    torch.set_num_threads(1)
    fit._SECONDS_BETWEEN_CHECKPOINTS = 0.0
    evaluate._LATENCY_RUNS = 1
    evaluate._LATENCY_SECONDS = 0.0
    module = importlib.import_module(
        "compress.data.__main__" if argv[0] == "data" else f"compress.{argv[0]}"
    )
    wanted = f"{argv[0].capitalize()}Config"
    touched = _count_touches(place, at_touch)
    code = cli.main(getattr(config, wanted), module.run, "", argv[1:])
    count.write_text(str(touched[0]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _count_touches(place: Path, at_touch: int) -> list[int]:
    """Count what this process does to files below ``place``; die before the wanted one."""
    touched = [0]
    within = str(place)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags is not None and flags & (os.O_WRONLY | os.O_RDWR)
            if not writes and not (isinstance(mode, str) and set(mode) & set("wax+")):
                return
        elif event in _EVENTS:
            path = arguments[0]
        else:
            return
        if within in str(path):
            touched[0] += 1
            if touched[0] == at_touch:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return touched


def hashes(place: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Name -> SHA-256 of the files of a case; every pattern has to find something."""
    found: dict[str, str] = {}
    for pattern in patterns:
        files = [path for path in sorted(place.glob(pattern)) if path.is_file()]
        assert files, f"{place}: nothing is called {pattern}"
        found |= {
            str(path.relative_to(place)): hashlib.sha256(_without_times(path)).hexdigest()
            for path in files
        }
    return found


def _without_times(path: Path) -> bytes:
    """The content of a file, without how it went: how long it took, how often it was lost."""
    if path.name not in ("quantisation.json", "sweep.json"):
        return path.read_bytes()
    value = json.loads(path.read_text())
    for part in (*value.values(), *value.get("trials", ())):
        if isinstance(part, dict):
            part.pop("seconds", None)
            part.pop("lost", None)
    return json.dumps(value, sort_keys=True).encode()


def assert_whole(place: Path) -> None:
    """Every file under its own name can be read to its end, at whatever moment the kill came."""
    from safetensors.numpy import load_file

    for path in place.rglob("*"):
        if not path.is_file() or path.name.startswith(".") or ".partial" in str(path):
            continue  # temporary files, and sets that are being built
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=False)
            for name in getattr(loaded, "files", ()):
                assert loaded[name] is not None
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".onnx":
            import onnx

            onnx.checker.check_model(str(path))


def assert_nothing_left(place: Path) -> None:
    """No temporary file and no trace of the training is left beside what was finished."""
    left = [
        str(path.relative_to(place))
        for path in place.rglob("*")
        if path.name.endswith((".tmp", ".partial"))
        or path.name in ("checkpoint.pt", "steps")
        or path.name.startswith("shard-")
    ]
    assert left == []


@contextlib.contextmanager
def limit_of_file_size(size: int) -> Iterator[None]:
    """No file may grow over ``size`` bytes meanwhile, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
