"""Metrics by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from compress.metrics import (
    Decisions,
    accuracy_interval,
    calibration_error,
    confusion,
    decide,
    mcnemar,
    paired_difference,
    pooled_difference,
    softmax,
    summarise,
    wilson,
)


def random_decisions(count: int = 300, seed: int = 0, skill: float = 2.0) -> Decisions:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, count)
    logits = generator.normal(size=(count, 4))
    logits[np.arange(count), labels] += skill
    ids = np.arange(count)
    return Decisions(softmax(logits), labels, ids, ids)


def test_wilson_by_hand():
    # 8 of 10: Wilson's interval is 0.4902 to 0.9433.
    low, high = wilson(0.8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(1.0, 80) == (pytest.approx(0.9542, abs=1e-4), pytest.approx(1.0))


def test_interval_is_wilsons_where_recordings_are_clips():
    correct = np.array([True] * 80 + [False] * 20)
    low, high = accuracy_interval(correct, np.arange(100))
    assert low == pytest.approx(wilson(0.8, 100)[0], abs=2e-3)
    assert high == pytest.approx(wilson(0.8, 100)[1], abs=2e-3)


def test_interval_widens_with_clips_that_stand_and_fall_together():
    correct = np.repeat(np.array([True] * 20 + [False] * 5), 4)
    recordings = np.repeat(np.arange(25), 4)
    low, high = accuracy_interval(correct, recordings)
    expected = wilson(0.8, 24)  # 25 recordings, with the small-sample factor 25/24
    assert (low, high) == (pytest.approx(expected[0], abs=1e-9), pytest.approx(expected[1]))
    assert high - low > 1.8 * np.diff(accuracy_interval(correct, np.arange(100)))[0]


def test_four_recordings_that_are_all_right_are_no_forty_clips():
    recordings = np.repeat(np.arange(4), 10)
    for right in (np.ones(40, bool), np.zeros(40, bool)):
        assert accuracy_interval(right, recordings) == wilson(float(right[0]), 4)
        assert accuracy_interval(right, np.arange(40)) == wilson(float(right[0]), 40)
    one_wrong = recordings > 0
    assert accuracy_interval(np.ones(40, bool), recordings)[0] > accuracy_interval(
        one_wrong, recordings)[0]  # fmt: skip


def test_a_clip_is_decided_by_the_mean_probability_of_its_windows():
    logits = np.log(np.array([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3]]))
    decisions = decide(logits, np.array([1, 1, 0]), np.array([9, 9, 4]), np.array([2, 2, 1]))
    assert decisions.clip_ids.tolist() == [4, 9]
    np.testing.assert_allclose(decisions.probabilities, [[0.7, 0.3], [0.35, 0.65]])
    assert decisions.labels.tolist() == [0, 1] and decisions.correct.tolist() == [True, True]


def test_confusion_has_rows_actual():
    probabilities = np.eye(3)[[0, 2, 2]]
    decisions = Decisions(probabilities, np.array([0, 1, 2]), np.arange(3), np.arange(3))
    assert confusion(decisions).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_summary_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    decisions = random_decisions()
    decided = decisions.probabilities.argmax(1)
    names = ["a", "b", "c", "d"]
    found = summarise(decisions, names)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(decisions.labels, decided))
    assert found["loss"] == pytest.approx(
        sklearn.log_loss(decisions.labels, decisions.probabilities)
    )
    recalls = sklearn.recall_score(decisions.labels, decided, average=None)
    assert list(found["recall"].values()) == pytest.approx(recalls.tolist())
    expected = sklearn.confusion_matrix(decisions.labels, decided)
    assert found["confusion"] == expected.tolist()


def test_a_class_without_clips_has_no_recall():
    decisions = Decisions(np.eye(3)[[0, 1]], np.array([0, 1]), np.arange(2), np.arange(2))
    assert summarise(decisions, ["x", "y", "z"])["recall"] == {"x": 1.0, "y": 1.0, "z": None}


def test_calibration_error_by_hand():
    # Confidence 0.8 with 3 of 4 right, confidence 1.0 with 1 of 1 right: 4/5 * 0.05.
    probabilities = np.array([[0.8, 0.2]] * 4 + [[1.0, 0.0]])
    labels = np.array([0, 0, 0, 1, 0])
    decisions = Decisions(probabilities, labels, np.arange(5), np.arange(5))
    assert calibration_error(decisions) == pytest.approx(0.8 * 0.05)


def test_paired_difference_by_hand():
    labels = np.zeros(10, dtype=int)
    ids = np.arange(10)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    a = Decisions(np.array([right] * 8 + [wrong] * 2), labels, ids, ids)
    b = Decisions(np.array([right] * 5 + [wrong] * 4 + [right]), labels, ids, ids)
    found = paired_difference(a, b)
    assert found.difference == pytest.approx(0.2)
    assert (found.only_a, found.only_b) == (3, 1)
    assert found.p_value == pytest.approx(10 / 16)
    assert found.low < 0.2 < found.high


def test_difference_pooled_over_seeds_by_hand():
    """Two seeds on four clips of two recordings: differences 1 0 0 0 and 1 0 0 -1."""
    labels, ids, recordings = np.zeros(4, int), np.arange(4), np.array([0, 0, 1, 1])

    def decided(*right: bool) -> Decisions:
        rows = np.array([[1.0, 0.0] if one else [0.0, 1.0] for one in right])
        return Decisions(rows, labels, ids, recordings)

    pairs = [(decided(1, 1, 0, 1), decided(0, 1, 0, 1)), (decided(1, 1, 1, 0), decided(0, 1, 1, 1))]
    mean, low, high = pooled_difference(pairs)
    # mean 1/8; recording sums of (difference - mean): 2 - 4/8 and -1 - 4/8; variance 2 * 4.5 / 64
    assert mean == pytest.approx(1 / 8)
    half = 1.959963984540054 * np.sqrt(2 * 4.5 / 64)
    assert (low, high) == (pytest.approx(1 / 8 - half), pytest.approx(1 / 8 + half))
    one = paired_difference(*pairs[0])
    assert pooled_difference(pairs[:1]) == pytest.approx((one.difference, one.low, one.high))
    with pytest.raises(ValueError, match="different clips"):
        pooled_difference([(random_decisions(10), random_decisions(12))])


def test_two_that_decide_alike_may_still_differ_on_other_recordings():
    """8 clips of 4 recordings, none decided otherwise: Wilson's end of 0 of 4, z^2 / (4 + z^2)."""
    labels, ids, recordings = np.zeros(8, int), np.arange(8), np.repeat(np.arange(4), 2)
    same = Decisions(np.tile([0.7, 0.3], (8, 1)), labels, ids, recordings)
    end = 1.959963984540054**2 / (4 + 1.959963984540054**2)
    found = paired_difference(same, same)
    assert (found.difference, found.low, found.high) == pytest.approx((0.0, -end, end))
    assert pooled_difference([(same, same)] * 3) == pytest.approx((0.0, -end, end))


def test_mcnemar_exact():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    scipy_stats = pytest.importorskip("scipy.stats")
    assert mcnemar(12, 5) == pytest.approx(scipy_stats.binomtest(5, 17).pvalue)


def test_pairing_different_clips_is_refused():
    a, b = random_decisions(10), random_decisions(12)
    with pytest.raises(ValueError, match="different clips"):
        paired_difference(a, b)
