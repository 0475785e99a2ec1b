"""The gate on files, folders and runs: what it prints and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import model_files
import onnx
import pytest
import run_folders

from compress import artefacts, budgets, cli, gate
from compress.config import GateConfig
from compress.errors import InputError
from compress.verdicts import exit_code

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


def test_a_link_hides_no_model_and_a_circle_of_links_ends(
    tmp_path: Path, limits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models").mkdir()
    model_files.student(tmp_path / "elsewhere" / "big.onnx", 9)
    model_files.student(tmp_path / "models" / "small.onnx", 8)
    (tmp_path / "models" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "models")
    assert gated(tmp_path / "models", "--budgets", limits) == 1
    lines = capsys.readouterr().out
    assert lines.count("big.onnx") == 1 and lines.count("small.onnx") == 1


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
    assert "peak_activation_bytes 73,728" in out and "it stands at add; alive there: conv" in out

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
    path = model_files.student(tmp_path / "a\n::error::x##[stop-commands]y.onnx", 1)
    limits = tmp_path / "limits.toml"
    limits.write_text("[limits]\nparams = 100\n")
    assert gated(path, "--format", "github", "--budgets", limits) == 0
    printed = capsys.readouterr().out
    assert not any(line.startswith("::") for line in printed.splitlines())
    assert "stop-commands" in printed and "##[" not in printed, "an older form, anywhere in a line"


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
    monkeypatch.setattr(gate, "judge_students", lambda limits, base: iter(()))
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

    verdicts = list(gate.judge_students(budgets.Budgets({"params": 500_000, "macs": 17_700_000})))
    assert [v.subject for v in verdicts] == [f"student {name}" for name in registry.STUDENTS]
    assert exit_code(verdicts) == 0
    original = next(v for v in verdicts if v.subject == "student audiobot500")
    assert original.checks[0].value == 499_853
    tight = list(gate.judge_students(budgets.Budgets({"params": 499_852})))
    broken = [v for v in tight if any(c.broken for c in v.checks)]
    assert "student audiobot500" in [v.subject for v in broken]
    assert broken[0].checks[0].found.parts[0].value == 294_912


def test_limits_default_and_faults_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert budgets.load().limits == {"params": 500_000}
    (tmp_path / "budgets.toml").write_text("[limits]\nparams = 7\n")
    assert budgets.load().fail == {"params": 7}
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
    path = model_files.student(tmp_path / "m.onnx", 16)
    program = (
        "import sys; from compress import cli, gate; from compress.config import GateConfig; "
        "code = cli.main(GateConfig, gate.run, '', sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert time.monotonic() - started < 10  # 0.5 s here; machines of others may be busy


# --- warn and fail, runs, bases ------------------------------------------------------------------


def limits_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_warning_alone_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = limits_file(tmp_path / "l.toml", "[warn]\nparams = 200\n[fail]\nparams = 240\n")
    path = model_files.student(tmp_path / "m.onnx", 8)
    assert gated(path, "--budgets", limits) == 0
    out = capsys.readouterr().out
    assert "WARN " in out and "params 221 is over the warning level of 200 by 21 weights" in out
    assert "0 over budget, 1 warned" in out
    assert gated(path, "--budgets", limits, "--format", "github") == 0
    assert capsys.readouterr().out.startswith("::warning file=")
    assert gated(model_files.student(tmp_path / "m.onnx", 9), "--budgets", limits) == 1


def test_a_limit_that_no_processor_has_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = limits_file(tmp_path / "l.toml", "[fail.cortex-m4]\nparams = 5\nflash_bytes = 9\n")
    assert gated(model_files.student(tmp_path / "m.onnx", 8), "--budgets", file) == 2
    error = capsys.readouterr().err
    assert "[fail.cortex-m4] params is no figure of a processor" in error and one_line(error)
    assert "flash_bytes" not in error


def test_levels_are_checked_as_a_whole(tmp_path: Path) -> None:
    text = (
        "[warn]\nparams = 9\naccuracy = 0.7\n[fail]\nparams = 8\naccuracy = 0.8\n"
        "latency_ratio = true\naccuracy_drop = 3\n[fial]\n"
    )
    with pytest.raises(InputError) as error:
        budgets.load(limits_file(tmp_path / "l.toml", text))
    for fault in ("did you mean fail", "True is not a number", "3 is over 1"):
        assert fault in str(error.value)
    text = "[warn]\nparams = 9\naccuracy = 0.7\n[fail]\nparams = 8\naccuracy = 0.8\n"
    with pytest.raises(InputError, match="params: warns at 9 only.*accuracy: warns at 0.7 only"):
        budgets.load(limits_file(tmp_path / "l.toml", text))
    with pytest.raises(InputError, match="mean the same"):
        both = "[limits]\nparams = 9\n[fail]\nparams = 8\n"
        budgets.load(limits_file(tmp_path / "l.toml", both))


def test_figures_of_a_run_hold_only_for_the_file_that_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "[fail]\naccuracy = 0.9\nlatency_ratio = 1.0\n"
    limits = limits_file(tmp_path / "l.toml", text)
    run = run_folders.make(tmp_path / "runs", "a", accuracy=0.91)
    metrics = json.loads((run / "metrics.json").read_text()) | {"latency_ratio": {"ratio": 1.25}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert gated(run, "--budgets", limits) == 1
    out = capsys.readouterr().out
    assert "accuracy 89.80 % is under the least of 90.00 % by 0.20 points" in out
    assert "latency_ratio 1.25 is over the limit of 1 by 0.25" in out
    model_files.student(run / "model.onnx", 9)
    assert gated(run, "--budgets", limits) == 1
    out = capsys.readouterr().out
    for figure, least in (("accuracy", "least of 90.00 %"), ("latency_ratio", "limit of 1")):
        assert f"{figure} cannot be told, the {least} is not known to hold: the file is not" in out
    assert "is not the one that was measured; measure again" in out and "1 over budget" in out
    limits_file(limits, text.replace("fail", "warn"))
    assert gated(run, "--budgets", limits) == 0
    assert "2 figures not measured" in capsys.readouterr().out


def test_a_file_that_no_run_measured_passes_what_only_a_run_can_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = limits_file(tmp_path / "l.toml", "[fail]\naccuracy = 0.9\nlatency_ratio = 1.0\n")
    assert gated(model_files.student(tmp_path / "m.onnx", 8), "--budgets", limits) == 0
    out = capsys.readouterr().out
    for figure in ("accuracy", "latency_ratio"):
        assert f"{figure} not measured (no metrics.json tells of it)" in out


def test_a_changed_file_does_not_pass_as_no_worse_than_its_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = limits_file(tmp_path / "l.toml", "[fail]\naccuracy_drop = 0.03\n")
    run = run_folders.make(tmp_path / "runs", "a", accuracy=0.91)
    base = tmp_path / "base.json"
    assert gated(run, "--budgets", limits, "--format", "json", "--out", base) == 0
    model_files.student(run / "model.onnx", 9)
    capsys.readouterr()
    assert gated(run, "--budgets", limits, "--base", base) == 1
    assert "accuracy_drop cannot be told" in capsys.readouterr().out


def test_a_figure_that_the_file_should_tell_and_does_not_is_no_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = onnx.helper.make_node("Conv", ["log_mel_db", "w"], ["logits"], "big")
    path = model_files.save(
        tmp_path / "m.onnx", [node], [model_files.weight("w", 1, 1, 3, 3)],
        shape=("batch", 1, 32, "frames"),
    )  # fmt: skip
    limits = limits_file(tmp_path / "l.toml", "[fail]\nmacs = 9\npeak_activation_bytes = 9\n")
    assert gated(path, "--budgets", limits) == 1
    out = capsys.readouterr().out
    assert "macs cannot be told, the limit of 9 is not known to hold: MACs cannot be" in out
    assert "(big)" in out and "peak_activation_bytes cannot be told" in out
    assert gated(path, "--budgets", limits, "--format", "github") == 1
    assert "title=Cannot be told%3A macs::" in capsys.readouterr().out
    assert gated(path, "--budgets", limits, "--format", "junit") == 1
    assert capsys.readouterr().out.count("<failure message=") == 2
    assert gated(path, "--budgets", limits_file(limits, "[warn]\nmacs = 9\n")) == 0
    assert "macs not measured" in capsys.readouterr().out


def test_flash_is_that_of_int8_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights 72 + 8 biases of 4 bytes, linear in float: 40 + 5 of 4; 8 scales; 8 + 1 zero points,
    2 activation parameters: 5 bytes, weight zero points."""
    limits = limits_file(tmp_path / "l.toml", "[fail]\nflash_bytes = 100\n")
    plain = model_files.student(tmp_path / "float.onnx", 8)
    assert gated(plain, "--budgets", limits) == 0
    small = model_files.quantised(tmp_path / "int8.onnx", 8)
    by_hand = 72 + 8 * 4 + (40 + 5) * 4 + 8 * 4 + 8 + 4 + 1
    summary = artefacts.read(small)
    assert summary.quantised and summary.flash_bytes == by_hand
    capsys.readouterr()
    assert gated(small, "--budgets", limits, "--why") == 1
    out = capsys.readouterr().out
    assert f"flash_bytes {by_hand} is over the limit of 100" in out
    assert f"flash_bytes {by_hand}, of which" in out and "linear (l.w)" in out
    packed = model_files.quantised(tmp_path / "int4.onnx", 8, onnx.TensorProto.INT4)
    assert artefacts.read(packed).flash_bytes == by_hand - 36 - 4


def test_why_names_what_is_alive_at_the_peak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_files.student(tmp_path / "m.onnx", 8)
    limits = limits_file(tmp_path / "l.toml", "[fail]\nparams = 300\npeak_activation_bytes = 1e6")
    with pytest.raises(InputError, match="whole"):
        budgets.load(limits)
    limits_file(limits, "[fail]\nparams = 300\npeak_activation_bytes = 1_000_000\n")
    assert gated(path, "--budgets", limits, "--why") == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if "peak_activation_bytes 73,728 at add" in line)
    assert {line.split()[-2] for line in lines[at + 1 : at + 4]} >= {"conv", "depthwise"}
    alive = sum(int(line.split()[0].replace(",", "")) for line in lines[at + 1 : at + 4]
                if line.startswith("         "))  # fmt: skip
    assert alive == 73_728
    assert any("params 221, of which" in line for line in lines)


def test_a_base_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from compress import report
    from compress.config import ReportConfig

    root = tmp_path / "runs"
    run_folders.make(root, "a", name="dsc50", accuracy=0.92)
    run_folders.make(root, "gone", name="dsc500", accuracy=0.9)
    arguments = ["--runs", str(root), "--out", str(tmp_path / "base")]
    assert cli.main(ReportConfig, report.run, "", arguments) == 0
    base = tmp_path / "base" / "report.json"
    text = "[warn]\naccuracy_drop = 0.01\n[fail]\naccuracy_drop = 0.03\n"
    limits = limits_file(tmp_path / "l.toml", text)
    shutil.rmtree(root)
    # the same network under another name of its folder, smaller and a little worse
    run = run_folders.make(root, "b", name="dsc50", accuracy=0.9, width=6)
    new = run_folders.make(root, "n", name="dsc20", accuracy=0.9, width=7)
    capsys.readouterr()
    assert new.is_dir() and gated(root, "--budgets", limits, "--base", base) == 0
    out = capsys.readouterr().out
    assert "WARN " in out and "accuracy_drop 2.00 % is over the warning level" in out
    assert f"against {root}/a/model.onnx" in out
    assert "accuracy 92.00 -> 90.00 % (-2.00 points)" in out and "file_bytes" in out
    assert "new, not in --base" in out
    assert f"{root}/gone/model.onnx: in --base, not here" in out
    run_folders.make(root, "b", name="dsc50", accuracy=0.85, width=5)
    assert gated(run, "--budgets", limits, "--base", base) == 1
    for wrong in ("{", "[3]", "{}", '[{"name": "a"}]'):
        base.write_text(wrong)
        assert gated(run, "--budgets", limits, "--base", base) == 2
        error = capsys.readouterr().err
        assert str(base) in error and error.count("\n") == 1
    assert gated(run, "--base", tmp_path / "none.json") == 2


def test_machine_readable_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xml.etree import ElementTree

    limits = limits_file(tmp_path / "l.toml", "[warn]\nmacs = 1\n[fail]\nparams = 221\n")
    good = model_files.student(tmp_path / "good.onnx", 8)
    over = model_files.student(tmp_path / "a<b>&\x07.onnx", 9)
    bad = tmp_path / "bad.onnx"
    bad.write_text("no")
    files = (good, over, bad)
    assert gated(*files, "--budgets", limits, "--format", "junit") == 2
    suite = ElementTree.fromstring(capsys.readouterr().out).find("testsuite")
    assert suite is not None
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "0"}
    assert "warning: macs" in "".join(suite.itertext())

    out = tmp_path / "found.json"
    assert gated(*files[:2], "--budgets", limits, "--format", "json", "--out", out) == 1
    assert "FAIL" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["exit_code"] == 1
    assert [a["level"] for a in found["artefacts"]] == ["warn", "fail"]
    assert found["artefacts"][1]["figures"]["params"]["value"] == 248
    # what it wrote is a base for the next time
    model_files.student(good, 7)
    assert gated(good, "--budgets", limits, "--base", out, "--format", "json") == 0
    again = json.loads(capsys.readouterr().out)["artefacts"][0]
    assert again["changes"]["file_params"] == {"before": 221, "now": 194}
    assert gated(good, "--out", tmp_path / "x") == 2
    assert "--format" in capsys.readouterr().err


def one_line(error: str) -> bool:
    return error.startswith("error: ") and error.count("\n") == 1


def test_numbers_of_hundreds_of_digits_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_files.student(tmp_path / "m.onnx", 8)
    for figure, digits in (("params", 400), ("latency_ratio", 400), ("params", 5000)):
        limits = limits_file(tmp_path / "l.toml", f"[fail]\n{figure} = 1{'0' * digits}\n")
        assert gated(path, "--budgets", limits) == 2
        error = capsys.readouterr().err
        assert one_line(error) and str(limits) in error


@pytest.mark.parametrize(
    "wrong", ["NaN", "1.01", '"0.99"', "-1", f"1{'0' * 400}", f"1{'0' * 5000}"]
)
def test_an_impossible_accuracy_is_no_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    limits = limits_file(tmp_path / "l.toml", "[fail]\naccuracy = 0.9\naccuracy_drop = 0.1\n")
    run = run_folders.make(tmp_path / "runs", "a", accuracy=0.953)
    base = tmp_path / "base.json"
    assert gated(run, "--budgets", limits, "--format", "json", "--out", base) == 0
    capsys.readouterr()
    whole = base.read_text()
    base.write_text(whole.replace('"accuracy": 0.953', f'"accuracy": {wrong}'))
    assert base.read_text() != whole
    assert gated(run, "--budgets", limits, "--base", base) == 2
    assert one_line(capsys.readouterr().err)
    metrics = (run / "metrics.json").read_text()
    for key in ("accuracy", "accuracy_low"):
        value = json.loads(metrics)["splits"]["test"][key]
        (run / "metrics.json").write_text(
            metrics.replace(f'"{key}": {value}', f'"{key}": {wrong}')
        )
        assert gated(run, "--budgets", limits) == 2
        out = capsys.readouterr().out
        assert out.count("ERROR") == 1 and "metrics.json" in out and "measure again" in out


def test_a_latency_that_is_not_a_number_keeps_no_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = limits_file(tmp_path / "l.toml", "[fail]\nlatency_ratio = 1.0\n")
    run = run_folders.make(tmp_path / "runs", "a")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["latency_ratio"] = {"ratio": float("nan")}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert gated(run, "--budgets", limits) == 2
    assert "latency_ratio is 'nan'" in capsys.readouterr().out
    for least in ("accuracy", "latency_ratio"):
        assert budgets.FIGURES[least].breaks(float("nan"), 0.5)


@pytest.mark.parametrize("form", ["text", "github", "json", "junit"])
def test_names_that_are_not_utf_8_are_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    path = tmp_path / "m\udcff.onnx"
    model_files.student(path, 8)
    limits = limits_file(tmp_path / "l.toml", "[fail]\nparams = 1\n")
    assert gated(path, "--budgets", limits, "--format", form) == 1
    out = capfd.readouterr().out
    assert "params" in out and "udcff" in out
    if form == "json":
        assert json.loads(out)["artefacts"][0]["artifact"] == str(path)


def test_what_no_reader_foresaw_is_one_unreadable_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, odd = (model_files.student(tmp_path / f"{name}.onnx", 8) for name in ("good", "odd"))
    read = artefacts.read

    def fails(path: Path) -> artefacts.FileSummary:
        if path == odd:
            raise MemoryError("no room")
        return read(path)

    monkeypatch.setattr(artefacts, "read", fails)
    assert gated(odd, good) == 2
    out = capsys.readouterr().out
    assert f"ERROR  {odd}: cannot be read (MemoryError: no room)" in out and f"ok     {good}" in out


def test_a_front_end_of_terabytes_is_not_built(tmp_path: Path) -> None:
    path = model_files.student(tmp_path / "m.onnx", 8)
    model = onnx.load(path)
    wanted = {"window_samples": 1, "fft_size": 60_000_000, "mels": 9999, "frames": 96}
    model.metadata_props.add(key="compress.frontend", value=json.dumps(wanted))
    path.write_bytes(model.SerializeToString())
    assert artefacts.read(path).file_params == 221
