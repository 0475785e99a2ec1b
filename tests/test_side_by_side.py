"""The page beside the report: its marks, its pictures, and the arithmetic of its gains."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from compress import evaluate, metrics, runs
from compress.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("side_by_side", ROOT / "docs" / "side_by_side.py")
page = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(page)


def test_every_part_has_its_place_on_the_page():
    text = page.PAGE.read_text(encoding="utf-8")
    marks = re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /(\w+) -->", text, re.S)
    assert {name for name, _, _ in marks} == set(page.PARTS)
    assert all(start == end and body.strip() for start, body, end in marks), "all are filled"
    assert page.put(text, "costs", "| new |").count("<!-- /costs -->") == 1
    with pytest.raises(InputError, match="has no marks"):
        page.put("nothing", "costs", "")


def test_pictures_are_there_and_small():
    text = page.PAGE.read_text(encoding="utf-8")
    shown = {ROOT / "docs" / name for name in re.findall(r"\]\((figures/[^)]+)\)", text)}
    assert shown == set(page.FIGURES.iterdir())
    sizes = [path.stat().st_size for path in shown]
    assert max(sizes) < 150_000 and sum(sizes) < 1_000_000


def test_commands_of_the_page_name_options_that_exist():
    """Every option of every command line of the page is one of that command's."""
    import subprocess
    import sys

    text = page.PAGE.read_text(encoding="utf-8")
    asked: dict[str, set[str]] = {}
    for line in re.findall(r"python -m compress\.(\w+)(.*)", text):
        asked.setdefault(line[0], set()).update(re.findall(r"--[a-z-]+", line[1].split("`")[0]))
    assert len(asked) >= 7
    for command, flags in asked.items():
        told = subprocess.run([sys.executable, "-m", f"compress.{command}", "--help"], cwd=ROOT,
                              capture_output=True, text=True, check=True).stdout  # fmt: skip
        assert not {flag for flag in flags if flag + " " not in told}, command


def run_that_decided(folder: Path, right: str, seed: int) -> SimpleNamespace:
    """A run whose clips, two of each recording, were decided rightly where ``right`` has a 1."""
    folder.mkdir()
    hits = np.array([int(mark) for mark in right])
    clips = np.arange(len(hits))
    told = metrics.Decisions(np.eye(2)[1 - hits], np.zeros_like(hits), clips, clips // 2)
    evaluate.save_decisions(folder / runs.DECISIONS, told)
    return SimpleNamespace(file=lambda name: folder / name, manifest={"seed": seed}, folder=folder)


def test_gains_by_hand(tmp_path):
    ours = [run_that_decided(tmp_path / f"a{i}", r, i) for i, r in enumerate(("1111", "1110"))]
    theirs = [run_that_decided(tmp_path / f"b{i}", r, i) for i, r in enumerate(("1100", "1100"))]
    # per clip 0, 0, 1, 1/2; recordings' sums 0 and 3/2 about their mean 3/4: variance 2 * 9/8 / 16
    half = 1.96 * math.sqrt(2 * 2 * 0.75**2 / 16)
    seeds = 12.706 * math.sqrt(0.03125) / math.sqrt(2)  # gains 1/2 and 1/4
    found = page.gain(ours, theirs)
    numbers = [float(n) for n in re.findall(r"[-+]\d+\.\d+", found)]
    expected = [0.375, 0.375 - half, 0.375 + half, 0.375 - seeds, 0.375 + seeds]
    np.testing.assert_allclose(numbers, 100 * np.array(expected), atol=0.02)
    assert page.gain(ours[:1], theirs).count("over") == 1, "one run has no spread over seeds"


def test_other_clips_are_refused(tmp_path):
    a = run_that_decided(tmp_path / "a", "11", 0)
    b = run_that_decided(tmp_path / "b", "1111", 0)
    with pytest.raises(InputError, match="other splits"):
        page.gain([a], [b])


def test_welch_by_hand():
    # variances 0.02 and 0.005 of two each: 0.0125 in all, 0.0125^2/(0.0001+0.00000625) = 1.47 -> 1
    half = page._welch([0.4, 0.6], [0.3, 0.4])
    assert half == pytest.approx(12.706 * math.sqrt(0.0125))
    assert page._welch([0.5], [0.3, 0.4]) is None


def test_the_reports_numbers_agree_with_one_another():
    told = page.REPORT
    assert sum(clips for clips, _ in told["classes"].values()) == 52_890
    for clips, share in told["classes"].values():
        assert 100 * clips / 52_890 == pytest.approx(share, abs=0.006)
    assert all(sum(row) == pytest.approx(100, abs=0.02) for row in told["confusion"])
