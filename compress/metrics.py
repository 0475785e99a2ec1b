"""Figures of a classifier from its probabilities: numpy in, plain numbers out.

A *decision* is one clip: the mean of its windows' probabilities. Clips of one recording are not
independent, so intervals are widened by the design effect of the recordings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Z_95 = 1.959963984540054
_BINS = 15


@dataclass(frozen=True)
class Decisions:
    """One row per clip: probabilities (n, classes), labels, clip and recording ids (n,)."""

    probabilities: np.ndarray
    labels: np.ndarray
    clip_ids: np.ndarray
    recording_ids: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        return self.probabilities.argmax(1) == self.labels


def softmax(logits: np.ndarray) -> np.ndarray:
    """(n, classes) logits -> probabilities, float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def decide(
    logits: np.ndarray, labels: np.ndarray, clip_ids: np.ndarray, recording_ids: np.ndarray
) -> Decisions:
    """Mean probability over the windows of each clip; clips in ascending order of id."""
    probabilities = softmax(logits)
    clips, first, which, counts = np.unique(
        clip_ids, return_index=True, return_inverse=True, return_counts=True
    )
    sums = np.zeros((len(clips), probabilities.shape[1]))
    np.add.at(sums, which, probabilities)
    return Decisions(sums / counts[:, None], labels[first], clips, recording_ids[first])


def wilson(share: float, n: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share measured on ``n`` independent cases (Wilson 1927)."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def cluster_variance(values: np.ndarray, clusters: np.ndarray) -> float:
    """Variance of the mean of ``values`` when whole clusters were drawn (ratio estimator)."""
    _, which = np.unique(clusters, return_inverse=True)
    groups = which.max() + 1
    if groups < 2:
        return math.inf
    sums = np.bincount(which, weights=values - values.mean())
    return float(groups / (groups - 1) * np.square(sums).sum() / len(values) ** 2)


def effective_clips(right: np.ndarray, recordings: np.ndarray) -> float:
    """How many independent clips tell as much as these, of which some share a recording.

    right: per clip, 0 to 1. It is the number of clips over the design effect, the ratio of the
    variance of their mean over recordings to that of independent clips (Kish 1965), which is at
    least 1 here. Where all are right, or all wrong, nothing tells that ratio, and a recording
    counts as one clip.
    """
    share, n = float(right.mean()), len(right)
    binomial = share * (1 - share) / n
    if binomial == 0:
        return float(len(np.unique(recordings)))
    clustered = cluster_variance(right.astype(np.float64), recordings)
    return n / max(1.0, clustered / binomial) if math.isfinite(clustered) else 1.0


def accuracy_interval(correct: np.ndarray, recordings: np.ndarray) -> tuple[float, float]:
    """95 % interval of the accuracy: Wilson's, on the effective number of clips."""
    return wilson(float(correct.mean()), effective_clips(correct, recordings))


def difference_half_width(difference: np.ndarray, recordings: np.ndarray) -> float:
    """Half of the 95 % interval of the mean of ``difference``, per clip, clustered by recording.

    Where every clip differs alike (most often: not at all), their spread tells nothing; a recording
    counts as one clip then, and the half-width is Wilson's upper end of a share of 0.
    """
    variance = cluster_variance(difference, recordings)
    return Z_95 * math.sqrt(variance) if variance else wilson(0.0, len(np.unique(recordings)))[1]


def calibration_error(decisions: Decisions, bins: int = _BINS) -> float:
    """Expected calibration error over equal-width bins of confidence (Guo et al. 2017, eq. 5)."""
    confidence = decisions.probabilities.max(axis=1)
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=decisions.correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def confusion(decisions: Decisions) -> np.ndarray:
    """Counts (classes, classes): rows actual, columns decided."""
    classes = decisions.probabilities.shape[1]
    flat = decisions.labels * classes + decisions.probabilities.argmax(axis=1)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def summarise(decisions: Decisions, class_names: Sequence[str]) -> dict[str, Any]:
    """Everything that metrics.json records of one side of a split."""
    table = confusion(decisions)
    totals = table.sum(axis=1)
    low, high = accuracy_interval(decisions.correct, decisions.recording_ids)
    rows = np.arange(len(decisions.labels))
    likelihood = np.maximum(decisions.probabilities[rows, decisions.labels], 1e-12)
    return {
        "accuracy": float(decisions.correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": float(-np.log(likelihood).mean()),
        "recall": {
            name: (float(table[i, i] / totals[i]) if totals[i] else None)
            for i, name in enumerate(class_names)
        },
        "confusion": table.tolist(),
        "calibration_error": calibration_error(decisions),
        "clips": len(decisions.labels),
        "recordings": len(np.unique(decisions.recording_ids)),
    }


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of A minus accuracy of B on the same clips, with its 95 % interval.

    only_a, only_b: clips that only one decided rightly; p_value: exact McNemar test.
    """

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float


def paired_difference(a: Decisions, b: Decisions) -> PairedDifference:
    """Compare two classifiers clip by clip; the interval is clustered by recording."""
    if not np.array_equal(a.clip_ids, b.clip_ids):
        raise ValueError("the two classifiers decided different clips")
    right_a, right_b = a.correct, b.correct
    delta = right_a.astype(np.float64) - right_b
    half = difference_half_width(delta, a.recording_ids)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    mean = float(delta.mean())
    return PairedDifference(
        mean, max(-1.0, mean - half), min(1.0, mean + half), only_a, only_b, mcnemar(only_a, only_b)
    )


def pooled_difference(
    pairs: Sequence[tuple[Decisions, Decisions]],
) -> tuple[float, float, float]:
    """(accuracy of A minus accuracy of B, low, high of its 95 % interval) over several pairs.

    Pairs are of several seeds, say, each (A, B) on the same clips. Clips count once per pair; the
    interval is clustered by recording over all of them, since seeds err on the same recordings. It
    is for these seeds: their own spread is not in it.
    """
    if not pairs or any(not np.array_equal(a.clip_ids, b.clip_ids) for a, b in pairs):
        raise ValueError("the classifiers of a pair decided different clips")
    delta = np.concatenate([a.correct.astype(np.float64) - b.correct for a, b in pairs])
    recordings = np.concatenate([a.recording_ids for a, _ in pairs])
    half = difference_half_width(delta, recordings)
    mean = float(delta.mean())
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test: binomial with share 1/2 over the discordant clips."""
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)
