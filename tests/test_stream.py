"""Decisions over several snippets: by hand, on streams, and from the command line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from test_fit import small_set

from compress import cli, runs, stream
from compress.config import StreamConfig
from compress.decisions import RULES, Rule, hidden_markov, majority
from compress.errors import InputError
from compress.scene_streams import Stream, draw_stream, follow


def test_majority_by_hand():
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.2, 0.8]])
    found = majority(p, np.arange(4.0), 3.0)
    assert found.argmax(1).tolist() == [0, 0, 1, 1], "one vote each: the surer one wins"
    np.testing.assert_allclose(found[3], [0, 1], atol=1e-3)
    assert majority(p, np.arange(4.0), 1.0).argmax(1).tolist() == [0, 1, 1, 1]


def test_hidden_markov_against_the_sum_over_all_paths():
    """Three windows, three classes: the filter equals enumeration of every path."""
    random = np.random.default_rng(1)
    p = random.dirichlet([1, 1, 1], 3)
    prior = np.array([0.5, 0.3, 0.2])
    stay = math.exp(-2.0 / 7.0)
    joint = np.zeros(3)
    for path in np.ndindex(3, 3, 3):
        weight = prior[path[0]]
        for a, b in zip(path[:-1], path[1:], strict=True):
            weight *= stay if a == b else (1 - stay) * prior[b] / (1 - prior[a])
        for at, state in enumerate(path):
            weight *= p[at, state] / prior[state]
        joint[path[-1]] += weight
    found = hidden_markov(p, np.array([0.0, 2.0, 4.0]), 7.0, prior)
    np.testing.assert_allclose(found[-1], joint / joint.sum(), rtol=1e-9)


def test_overlapping_windows_count_for_less():
    p = np.tile([[0.6, 0.4]], (4, 1))
    apart = hidden_markov(p, np.arange(4.0), 50.0)
    overlapping = hidden_markov(p, np.arange(4.0), 50.0, window_seconds=4.0)
    assert 0.6 < overlapping[-1, 0] < apart[-1, 0]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_looks_back_only_and_sums_to_one(name):
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(5), 40)
    times = np.cumsum(random.uniform(0.3, 2, 40))
    rule = Rule(name, 6.0)
    whole = rule(p, times, np.full(5, 0.2), 1.0)
    np.testing.assert_allclose(whole.sum(1), 1.0)
    np.testing.assert_allclose(
        rule(p[:17], times[:17], np.full(5, 0.2), 1.0).argmax(1), whole[:17].argmax(1)
    )
    assert np.array_equal(Rule(name, 0.0)(p, times), p)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_outvotes_a_lone_window_and_follows_a_change(name):
    p = np.tile([[0.8, 0.2]], (30, 1))
    p[10] = [0.3, 0.7]
    p[20:] = [0.2, 0.8]
    decided = Rule(name, 5.0)(p, np.arange(30.0)).argmax(1)
    assert decided[:20].sum() == 0 and decided[26:].all()


def test_figures_of_a_stream_by_hand():
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0])
    decided = np.array([0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1])
    made = Stream(np.arange(11), truth, np.array([0, 4, 9]), step_seconds=2.0)
    found = follow(made, decided)
    assert found["error"] == pytest.approx(6 / 11)
    assert found["error_at_delay"] == pytest.approx([2 / 3, 1 / 3, 1.0, 0.5, 0.0])
    assert found["delay_seconds"] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert found["scenes_at_delay"] == [3, 3, 2, 2, 1]
    assert found["delay"]["mean"] == pytest.approx((2.0 + 4.0) / 2)
    assert found["missed_scenes"] == pytest.approx(1 / 3)
    assert found["false_alarms_per_hour"] == pytest.approx(2 / (11 * 2 / 3600))


def test_a_stream_is_of_its_windows_and_repeats_with_the_seed():
    data = small_set(60)
    windows = np.arange(20, 60)
    made = draw_stream(data, windows, 2.0, 1.0, 20.0, seed=4)
    assert np.array_equal(data.labels[windows[made.windows]], made.truth)
    assert (np.diff(made.truth[made.starts]) != 0).all(), "the next scene is another class"
    assert made.hours == pytest.approx(1.0, abs=0.1)
    lengths = np.diff(np.append(made.starts, len(made.truth))) * made.step_seconds
    assert lengths.mean() == pytest.approx(20.0, rel=0.25)
    assert np.array_equal(made.windows, draw_stream(data, windows, 2.0, 1.0, 20.0, 4).windows)
    assert not np.array_equal(made.truth[:50], draw_stream(data, windows, 2.0, 1, 20, 5).truth[:50])


def test_one_class_makes_no_scenes():
    data = small_set(60)
    with pytest.raises(InputError, match="two or more classes"):
        draw_stream(data, np.flatnonzero(data.labels == 1), 2.0, 1.0, 20.0, 0)


def test_the_command_measures_the_run(finished_run, tmp_path, capsys):
    given = ["--run", str(finished_run), "--hours", "0.5", "--out", str(tmp_path)]
    assert cli.main(StreamConfig, stream.run, "", given) == 0
    printed = capsys.readouterr().out
    for words in ("one window", "majority", "mean", "hmm", "per hour", "--decision"):
        assert words in printed
    result = json.loads((tmp_path / stream.RESULT).read_text())
    assert result["sha256"] == runs.sha256_file(finished_run / runs.ONNX)
    assert (tmp_path / stream.PICTURE).read_bytes().startswith(b"\x89PNG")
    for row in result["chosen"]:
        rivals = [r for r in result["tried"] if r["rule"] == row["rule"] and r["seconds"]]
        assert row["validation"]["error"] == min(r["validation"]["error"] for r in rivals)
    first = (tmp_path / stream.RESULT).read_bytes()
    assert cli.main(StreamConfig, stream.run, "", given) == 0
    assert (tmp_path / stream.RESULT).read_bytes() == first


def test_without_a_run_it_says_so(capsys):
    assert cli.main(StreamConfig, stream.run, "", []) == 2
    assert "--run" in capsys.readouterr().err
