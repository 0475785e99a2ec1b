"""The gate as a step of another project's workflow: its steps are run as GitHub would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import model_files
import pytest

from compress import artefacts

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
INSTALL, GATE = ACTION["runs"]["steps"]
# Standard library aside, what an environment with the gate's requirements alone can import.
ALLOWED = ("numpy", "onnx", "ml_dtypes", "google", "typing_extensions", "compress", "reports")


def environment(step: dict, tmp_path: Path, **inputs: str) -> dict[str, str]:
    """What a runner sets: the step's own variables from the inputs, and its folders."""
    given = {name: row.get("default", "") for name, row in ACTION["inputs"].items()} | inputs
    own = {}
    for name, value in step["env"].items():
        (wanted,) = re.fullmatch(r"\$\{\{ inputs\.([a-z]+) \}\}", value).groups()
        own[name] = given[wanted]
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
        **own,
    }


def run_step(step: dict, tmp_path: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    assert step["shell"] == "bash"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=tmp_path,
        env=environment(step, tmp_path, **inputs),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder of a runner on which the first step has been: a Python that finds the package."""
    python = tmp_path / "compress-gate" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path


def test_the_gate_step_gives_annotations_and_the_gates_exit_code(installed: Path) -> None:
    (installed / "models").mkdir()
    model_files.student(installed / "models" / "a b.onnx", 9)
    other = model_files.student(installed / "c.onnx", 8)
    (installed / "limits.toml").write_text("[fail]\nparams = 221\n")
    inputs = {"paths": f"models\n{other.name}  ", "budgets": "limits.toml", "why": "true"}
    done = run_step(GATE, installed, **inputs)
    assert done.returncode == 1, done.stderr
    assert "::error file=models/a b.onnx" in done.stdout and "ok     c.onnx" in done.stdout
    assert "params 221, of which" in done.stdout
    assert (installed / "outputs").read_text() == "exit-code=1\n"
    inputs = {"paths": "c.onnx", "budgets": "limits.toml", "format": "json", "out": "found.json"}
    assert run_step(GATE, installed, **inputs).returncode == 0
    # what it wrote serves as the base of the next one
    done = run_step(GATE, installed, paths="c.onnx", budgets="limits.toml", base="found.json")
    assert done.returncode == 0 and "the same file, nothing changed" in done.stdout


def test_paths_cannot_run_commands_or_pass_for_options(installed: Path) -> None:
    done = run_step(GATE, installed, paths="--help\n$(touch ran)\n`touch ran`")
    assert done.returncode == 2 and not (installed / "ran").exists()
    assert "usage:" not in done.stdout
    (installed / "outputs").unlink()
    assert run_step(GATE, installed, paths=" \n").returncode == 2
    assert (installed / "outputs").read_text() == "exit-code=2\n"


def test_the_callers_own_modules_are_not_imported(installed: Path) -> None:
    """A repository may hold folders and files that are named as the gate's own modules."""
    path = model_files.student(installed / "m.onnx", 8)
    for name in ("numpy.py", "json.py", "compress/__init__.py", "reports/__init__.py"):
        (installed / name).parent.mkdir(exist_ok=True)
        (installed / name).write_text("raise SystemExit(0)\n")
    done = run_step(GATE, installed, paths=path.name)
    assert done.returncode == 0 and "1 checked" in done.stdout, done.stderr


def test_installing_imports_none_of_the_callers_modules(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        'if [ "$3" = venv ]; then mkdir -p "$4/bin"; cp "$0" "$4/bin"; fi\n'
    )
    python.chmod(0o755)
    done = run_step(INSTALL, tmp_path, python=str(python))
    assert done.returncode == 0, done.stderr
    modules = [call for call in (tmp_path / "calls").read_text().splitlines() if "-m" in call]
    assert len(modules) == 3 and all(call.startswith("-P -m ") for call in modules)


def test_the_action_names_every_kind_of_file_that_it_reads() -> None:
    assert all(ending in ACTION["description"] for ending in artefacts.SHIPPED_ENDINGS)


def test_what_is_installed_are_the_packages_own_bounds() -> None:
    script = ROOT / ".ci" / "gate_requirements.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = done.stdout.split()
    assert len(found) == 2 and set(found) <= set(listed)
    assert "gate_requirements.py" in INSTALL["run"] and "--no-deps" in INSTALL["run"]


def test_the_gate_needs_nothing_else(tmp_path: Path) -> None:
    """Every other package is made impossible to import; files, runs and bases are gated all the
    same."""
    path = model_files.student(tmp_path / "m.onnx", 8)
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        f"        if top not in {ALLOWED!r} and top not in sys.stdlib_module_names:\n"
        "            raise ModuleNotFoundError(f'refused: {name}')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from compress import cli, gate\n"
        "from compress.config import GateConfig\n"
        "sys.exit(cli.main(GateConfig, gate.run, '', sys.argv[1:]))\n"
    )
    for extra in (["--format", "github"], ["--format", "json", "--out", str(tmp_path / "o.json")],
                  ["--base", str(tmp_path / "o.json"), "--why"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), *extra],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
