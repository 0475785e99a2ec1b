"""python -m compress.data PATH."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sounds
from conftest import command_that_comes_next

from compress import cli
from compress.config import DataConfig, DistillConfig
from compress.data.__main__ import run

ROOT = Path(__file__).parents[1]


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(DataConfig, run, "", [*arguments, "--workers", "1"])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_class_folders_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = sounds.class_folders(tmp_path / "set")
    sounds.write(root / "low" / "silent.wav", np.zeros(48_000, dtype=np.float32))
    sounds.write(root / "low" / "bad.wav", np.zeros(0, dtype=np.float32))
    code, text, _ = show(capsys, str(root))
    assert code == 0
    assert "set: layout class folders" in text
    assert "clips         9 in 2 classes" in text
    assert "recordings    9" in text
    assert "longest 3.000 s" in text
    assert "rounding      at most 0.0020 dB" in text
    assert "silent        1 clip, 3 windows" in text
    assert "1 file skipped: low/bad.wav: holds no sound" in text
    assert "content hash  " in text
    assert f"Next: python -m compress.distill --student dsc500 --data {root}" in text


def test_pauses_in_clips_are_named_with_what_leaves_them_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sounds.class_folders(tmp_path / "set")
    wave = np.concatenate([sounds.tone(300, 1.0), np.zeros(48_000, dtype=np.float32)])
    sounds.write(root / "low" / "bark.wav", wave)
    _, text, _ = show(capsys, str(root))
    assert "silent        0 clips, 3 windows; --drop-quiet 20 leaves out what lies between" in text
    _, text, _ = show(capsys, str(root), "--drop-quiet", "20")
    assert "silent        0 clips, 0 windows\n" in text and "left out, much quieter" in text
    assert "--drop-quiet 20" in text.splitlines()[-1]


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = sounds.esc50_layout(tmp_path / "esc")
    code, text, _ = show(capsys, str(root), "--json", "--fold", "2")
    found = json.loads(text)
    assert code == 0
    assert found["layout"] == "ESC-50"
    assert found["folds"] == {"1": 4, "2": 4, "3": 4, "4": 4, "5": 4}
    assert [row["name"] for row in found["classes"]] == ["dog", "rain"]
    assert [row["share"] for row in found["classes"]] == [0.5, 0.5]
    assert found["durations_seconds"]["total"] == pytest.approx(100.0)
    assert found["durations_seconds"]["median"] == pytest.approx(5.0)
    assert found["split"]["test"] == {"windows": 24, "clips": 4}
    assert found["values_db"]["rounding_error"] == 1 / 512
    assert len(found["content_hash"]) == 64
    assert found["next"].endswith("--fold 2")


def test_the_next_command_means_the_same_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sounds.class_folders(tmp_path / "my set")
    options = ["--data-seed", "3", "--folds", "2", "--fold", "1", "--reference", "fixed"]
    options += ["--drop-quiet", "20", "--strict", "--cache", str(tmp_path / "its cache")]
    code, text, _ = show(capsys, str(root), *options)
    assert code == 0
    assert command_that_comes_next(text, "distill", DistillConfig) == DistillConfig(
        data=str(root), data_seed=3, folds=2, fold=1, reference="fixed", drop_quiet=20.0,
        strict=True, cache=tmp_path / "its cache",
    )  # fmt: skip


def test_scenes_are_called_synthetic(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = show(capsys, "scenes:40")
    assert code == 0
    assert "scenes:40: layout scenes (synthetic)" in text
    assert "every clip 1.94 s" in text


def test_npy_pair_says_that_durations_are_unknown(
    npy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, _ = show(capsys, str(npy_data))
    assert code == 0
    assert "durations     not recorded: the set came as spectrograms" in text
    assert "human voice" in text and "20.00%" in text


def test_a_set_that_cannot_be_split_is_shown_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sounds.class_folders(tmp_path / "set", per_class=2)
    code, text, _ = show(capsys, str(root))
    assert code == 0
    assert "split         not possible" in text and "fewer recordings than splits need" in text
    assert "Next: add recordings" in text


def test_a_fold_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(sounds.esc50_layout(tmp_path / "esc"))
    for options, said in (
        (["--fold", "9"], "there is no fold 9; the official folds are 1, 2, 3, 4, 5"),
        (["--validation-fold", "7"], "no fold 7; the official folds are 1, 2, 3, 4, 5"),
        (["--fold", "2", "--folds", "4"], "has 5 official folds; leave out --folds 4"),
    ):
        code, out, err = show(capsys, root, *options)
        assert (code, out) == (2, "")
        assert said in err and err.count("\n") == 1
    _, text, _ = show(capsys, root, "--fold", "2", "--validation-fold", "3", "--data-seed", "1")
    next_line = text.splitlines()[-1]
    assert next_line.endswith("--data-seed 1 --fold 2 --validation-fold 3")
    assert "fold 3 is validation" in text and "--workers" not in next_line


def test_faults_are_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = show(capsys, str(tmp_path / "nowhere"))
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1


def test_module_runs_and_names_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compress.data"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert helped.returncode == 0
    assert "usage: python -m compress.data [-h]" in helped.stdout
    refused = subprocess.run(
        [*command, str(tmp_path / "none")], capture_output=True, text=True, cwd=ROOT
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")


def test_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, compress.data; compress.data.open_data; "
        "assert not {'torch', 'soundfile', 'soxr', 'scipy'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
