"""No command asks the network, except with --pretrained: the main ones run without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_npy_pair

TESTS = Path(__file__).parent

# One process for all commands: each would load torch anew.
PROGRAM = """
import importlib, os, sys
from pathlib import Path
from compress import cli, config
log = Path(os.environ["NETWORK_ATTEMPTS"])
attempts = lambda: len(log.read_text().splitlines()) if log.exists() else 0
for line in sys.stdin:
    name, *arguments = line.split()
    module = importlib.import_module(f"compress.{name}" + ".__main__" * (name == "data"))
    code = cli.main(getattr(config, f"{name.title()}Config"), module.run, "", arguments)
    print("ended", name, code, attempts(), flush=True)
"""


@pytest.fixture
def offline(tmp_path: Path):
    """Runs command lines without a network; returns what ended how, and what was tried."""
    attempts = tmp_path / "attempts.txt"
    environment = {
        **{k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"},
        "PYTHONPATH": os.pathsep.join([str(TESTS / "no_network"), str(TESTS.parent)]),
        "NETWORK_ATTEMPTS": str(attempts),
        "HF_HOME": str(tmp_path / "hub"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "OMP_NUM_THREADS": "1",
    }

    def run(*command: str, given: str = "") -> tuple[subprocess.CompletedProcess[str], list[str]]:
        attempts.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, *command], input=given, env=environment, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        tried = attempts.read_text().splitlines() if attempts.exists() else []
        return done, tried

    return run


def test_only_pretrained_asks_the_network(offline, tmp_path):
    data = write_npy_pair(tmp_path / "bands", 80)
    small = f"--data {data} --epochs 1 --batch-size 32 --workers 1"
    trained = tmp_path / "runs" / "trained"
    lines = [
        f"data {data}",
        f"train --student audiobot50 {small} --out {trained}",
        f"distill --student audiobot50 --teacher {trained} {small}",
        f"quantize --run {trained}",
        "report",
        f"gate {trained / 'model.onnx'}",
        f"teach --teacher test_resnet --pretrained {small}",
    ]
    done, tried = offline("-c", PROGRAM, given="\n".join(lines))
    assert done.returncode == 0, done.stderr
    ended = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ended ")]
    *others, (name, code, attempts) = ended
    assert others == [[line.split()[0], "0", "0"] for line in lines[:-1]], done.stdout + done.stderr
    assert (name, code) == ("teach", "2") and int(attempts) == len(tried) > 0
    assert "leave out --pretrained" in done.stderr
    assert all("huggingface" in attempt for attempt in tried), tried


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('198.51.100.1', 80), 1)",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import urllib.request as r; r.urlopen(\"http://example.invalid\")'], check=True)",
    ],
)
def test_the_watch_sees_processes_and_their_children(offline, program):
    done, tried = offline("-c", program)
    assert done.returncode and len(tried) == 1
    assert "no network here" in done.stderr
