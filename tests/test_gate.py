"""The gate on files, folders and runs: what it prints and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import model_files
import onnx
import pytest

from compress import budgets, cli, gate
from compress.config import GateConfig
from compress.errors import InputError

ROOT = Path(__file__).parents[1]


def gated(*arguments: object) -> int:
    return cli.main(GateConfig, gate.run, gate.__doc__, [str(a) for a in arguments])


@pytest.fixture
def limits(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text("[limits]\nparams = 221\n")  # what a student of width 8 has
    return path


def test_a_file_at_the_limit_passes(
    tmp_path: Path, limits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_files.student(tmp_path / "m.onnx", 8)
    assert gated(path, "--budgets", limits) == 0
    assert "params 221 of 221" in capsys.readouterr().out


def test_a_breach_names_file_figure_limit_and_layers(
    tmp_path: Path, limits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_files.student(tmp_path / "m.onnx", 9)
    assert gated(path, "--budgets", limits) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert str(path) in line
    assert "params 248 is over the limit of 221 by 27" in line
    assert "conv (c.w) 90, depthwise (d.w) 90, linear (l.w) 50" in line


def test_unreadable_files_end_with_2_and_the_others_are_still_judged(
    tmp_path: Path, limits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = model_files.student(tmp_path / "good.onnx", 9)
    bad = tmp_path / "bad.onnx"
    bad.write_text("no model")
    assert gated(bad, good, tmp_path / "missing.onnx", "--budgets", limits) == 2
    out = capsys.readouterr().out
    assert f"ERROR  {bad}: not an ONNX" in out
    assert f"FAIL   {good}" in out and "missing.onnx: no such file" in out
    assert "3 checked, 1 over budget, 2 unreadable" in out


def test_folders_are_searched_and_each_file_judged_once(
    tmp_path: Path, limits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_files.student(tmp_path / "models" / "deep" / "m.onnx", 8)
    (tmp_path / "models" / "notes.txt").write_text("")
    assert gated(tmp_path / "models", path, "--budgets", limits) == 0
    assert "1 checked" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert gated(tmp_path / "empty") == 2
    assert "no model files" in capsys.readouterr().err


def test_optional_limits_and_what_a_file_cannot_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text(
        "[limits]\nmacs = 100\nfile_bytes = 1_000_000\npeak_activation_bytes = 1_000\n"
    )
    path = model_files.student(tmp_path / "m.onnx", 8)
    assert gated(path, "--budgets", limits) == 1
    out = capsys.readouterr().out
    assert "macs 110,632 is over the limit of 100" in out and "conv (c.w) 55,296" in out
    assert "peak_activation_bytes 73,728" in out and "add at the peak" in out

    from safetensors.numpy import save_file

    save_file({"w": model_files.onnx.numpy_helper.to_array(model_files.weight("w", 3))},
              tmp_path / "w.safetensors")  # fmt: skip
    assert gated(tmp_path / "w.safetensors", "--budgets", limits) == 0
    out = capsys.readouterr().out
    assert "macs not measured" in out and "2 figures not measured" in out


def test_annotations_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[limits]\nparams = 1\n")
    path = model_files.student(tmp_path / "100%, a:b\n::error::x.onnx", 1)
    model = onnx.load(path)
    model.graph.node[2].name = "evil\n::warning::layer"
    path.write_bytes(model.SerializeToString())
    assert gated(path, "--budgets", limits, "--format", "github") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # one annotation and the closing line
    assert lines[0].startswith("::error file=")
    assert "100%25%2C a%3Ab%0A%3A%3Aerror%3A%3Ax.onnx,title=Over budget%3A params::" in lines[0]
    assert "evil%0A::warning::layer" in lines[0]

    assert gated(path, "--budgets", limits) == 1
    assert not any(line.startswith("::") for line in capsys.readouterr().out.splitlines())


def test_passing_names_cannot_start_an_annotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_files.student(tmp_path / "a\n::error::x.onnx", 1)
    assert gated(path, "--format", "github") == 0
    assert not any(line.startswith("::") for line in capsys.readouterr().out.splitlines())


def run_folder(runs: Path, name: str, stage: str, width: int) -> Path:
    path = model_files.student(runs / name / "model.onnx", width)
    (path.parent / "manifest.json").write_text(json.dumps({"stage": stage}))
    return path


def test_without_arguments_students_and_runs_but_no_teachers(
    tmp_path: Path,
    limits: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "judge_students", lambda limits: iter(()))
    runs = tmp_path / "runs"
    run_folder(runs, "small", "distill", 8)
    run_folder(runs, "large", "teach", 50)
    assert gated("--runs", runs, "--budgets", limits) == 0
    out = capsys.readouterr().out
    assert "large/model.onnx: not gated (a teacher" in out and "1 checked" in out
    large = run_folder(runs, "other", "prune", 50)
    assert gated("--runs", runs, "--budgets", limits) == 1
    # named, a teacher is gated as any file
    assert gated(runs / "large" / "model.onnx", "--budgets", limits) == 1
    # a manifest that cannot be read excuses nothing
    (large.parent / "manifest.json").write_text("{")
    assert gated("--runs", runs, "--budgets", limits) == 1


def test_every_registered_student_is_judged() -> None:
    from compress import registry

    verdicts = list(gate.judge_students(budgets.Budgets(macs=17_700_000)))
    assert [v.subject for v in verdicts] == [f"student {name}" for name in registry.STUDENTS]
    assert gate.exit_code(verdicts) == 0
    original = next(v for v in verdicts if v.subject == "student audiobot500")
    assert original.checks[0].value == 499_853
    tight = list(gate.judge_students(budgets.Budgets(params=499_852)))
    broken = [v for v in tight if any(c.broken for c in v.checks)]
    assert "student audiobot500" in [v.subject for v in broken]
    assert "294,912" in broken[0].checks[0].largest[0]


def test_limits_default_and_faults_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert budgets.load().limits == {"params": 500_000}
    (tmp_path / "budgets.toml").write_text("[limits]\nparams = 7\n")
    assert budgets.load().params == 7
    (tmp_path / "budgets.toml").write_text(
        '[limits]\nparms = 7\nmacs = "x"\nfile_bytes = -1\n[x]\n'
    )
    with pytest.raises(InputError) as error:
        budgets.load()
    for fault in (
        "did you mean params",
        "'x' is not a whole number",
        "-1 is negative",
        "table 'x'",
    ):
        assert fault in str(error.value)
    for text in ("", "[limits]\n", "limits = 3\n", "[limits\n"):
        (tmp_path / "budgets.toml").write_text(text)
        with pytest.raises(InputError):
            budgets.load()
    with pytest.raises(InputError, match="no such file"):
        budgets.load(tmp_path / "none.toml")


def test_the_repository_has_the_default_limit() -> None:
    assert budgets.load(ROOT / "budgets.toml").limits["params"] == 500_000


def test_files_are_gated_fast_and_without_torch(tmp_path: Path) -> None:
    path = model_files.student(tmp_path / "m.onnx", 64)
    program = (
        "import sys; from compress import cli, gate; from compress.config import GateConfig; "
        "code = cli.main(GateConfig, gate.run, '', sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert time.monotonic() - started < 10  # 0.5 s here; machines of others may be busy
