"""Every reader on a few damaged files; python -m tests.fuzz runs as many as one likes."""

from __future__ import annotations

import fuzz
import pytest

# Children are forked, which may wait for ever for a lock of a thread that other tests started: run
# this module in a process of its own.
pytestmark = pytest.mark.slow

INPUTS, MANY = 20, 8_000


def assert_no_finding(outcome: fuzz.Outcome) -> None:
    found = [f"{f.what} (--only {f.number}, {f.count} times)" for f in outcome.findings.values()]
    assert not found, f"{outcome.reader}: {'; '.join(found)}"
    assert outcome.results + outcome.refusals == outcome.inputs


@pytest.fixture(scope="module", autouse=True)
def libraries():
    fuzz._load_libraries()


@pytest.mark.parametrize("name", fuzz.READERS)
def test_damaged_files_give_a_result_or_a_line(name):
    outcome = fuzz.fuzz(name, INPUTS)
    assert outcome.inputs == INPUTS
    assert_no_finding(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.READERS)
def test_many_damaged_files_give_a_result_or_a_line(name):
    """Over 150,000 inputs over all readers."""
    assert_no_finding(fuzz.fuzz(name, round(MANY * fuzz.READERS[name].share), seed=1))


def test_a_reader_that_fails_is_a_finding(monkeypatch):
    def read(path, scratch):
        raise KeyError("not refused in a line")

    broken = fuzz.Reader(lambda scratch: [(".x", b"seed")], read, fuzz.mutate_bytes, share=1.0)
    monkeypatch.setitem(fuzz.READERS, "broken", broken)
    (finding,) = fuzz.fuzz("broken", 5).findings.values()
    assert finding.count == 5 and "KeyError" in finding.what
