"""Every reader on a few damaged files; python -m tests.fuzz runs as many as one likes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fuzz
import pytest

INPUTS, MANY = 20, 8_000


def assert_no_finding(outcome: fuzz.Outcome) -> None:
    found = [f"{f.what} (--only {f.number}, {f.count} times)" for f in outcome.findings.values()]
    assert not found, f"{outcome.reader}: {'; '.join(found)}"
    assert outcome.results + outcome.refusals == outcome.inputs


@pytest.mark.parametrize("name", fuzz.READERS)
def test_damaged_files_give_a_result_or_a_line(name):
    outcome = fuzz.fuzz(name, INPUTS, seconds=60.0)  # the machine may be busy with other tests
    assert outcome.inputs == INPUTS
    assert_no_finding(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.READERS)
def test_many_damaged_files_give_a_result_or_a_line(name):
    """Over 150,000 inputs over all readers."""
    assert_no_finding(fuzz.fuzz(name, round(MANY * fuzz.READERS[name].share), seed=1))


def _seeds(scratch: Path) -> list[tuple[str, bytes]]:
    return [(".x", b"seed")]


def _fails(path: Path, scratch: Path) -> None:
    raise KeyError("not refused in a line")


def _dies(path: Path, scratch: Path) -> None:
    if path.read_bytes() != b"seed":
        os.abort()


def _hangs(path: Path, scratch: Path) -> None:
    if path.read_bytes() != b"seed":
        time.sleep(60)


def _writes_outside(path: Path, scratch: Path) -> None:
    (scratch.parent / "outside").write_text("x")


def _takes_memory(path: Path, scratch: Path) -> None:
    if path.read_bytes() != b"seed":
        bytes(200 * 2**20)


@pytest.mark.parametrize(
    ("read", "inputs", "count", "words"),
    [
        (_fails, 5, 5, "KeyError"),
        (_dies, 3, 2, "ended with -6"),
        (_hangs, 2, 1, "took over"),
        (_writes_outside, 3, 3, "writes "),
        (_takes_memory, 3, 2, "MemoryError"),
    ],
)
def test_what_a_reader_must_not_do_is_a_finding(read, inputs, count, words, monkeypatch):
    monkeypatch.setitem(fuzz.READERS, "broken", fuzz.Reader(_seeds, read, fuzz.mutate_bytes))
    outcome = fuzz.fuzz("broken", inputs, seconds=1.0, memory_mib=100)
    (finding,) = outcome.findings.values()
    assert (finding.count, outcome.inputs) == (count, inputs) and words in finding.what
