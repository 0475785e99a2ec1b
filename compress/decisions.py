"""A decision over several snippets: from class probabilities over time to a class over time.

    probabilities (n, classes) of windows at ascending times (n,) -> one of RULES -> (n, classes)

Every rule looks back only, as on a device. The class decided at a time is the largest of its row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MAJORITY, MEAN, HMM = "majority", "mean", "hmm"


@dataclass(frozen=True)
class Rule:
    """A rule and its one time, in seconds.

    majority: length of the past that votes. mean: time constant. hmm: mean dwell time of a scene.
    0 seconds: every window decides for itself.
    """

    name: str
    seconds: float

    def __call__(
        self,
        probabilities: np.ndarray,
        times: np.ndarray,
        prior: np.ndarray | None = None,
        window_seconds: float = 0.0,
    ) -> np.ndarray:
        """(n, classes) scores that sum to 1. prior, window_seconds: see :func:`hidden_markov`."""
        if self.seconds <= 0:
            return probabilities.copy()
        if self.name == HMM:
            return hidden_markov(probabilities, times, self.seconds, prior, window_seconds)
        return _RULES[self.name](probabilities, times, self.seconds)


def majority(probabilities: np.ndarray, times: np.ndarray, seconds: float) -> np.ndarray:
    """Share of the windows of the last ``seconds`` that vote for each class; ties by probability.

    The present window always votes.
    """
    n, classes = probabilities.shape
    votes = np.eye(classes)[probabilities.argmax(axis=1)]
    scores = np.empty((n, classes))
    first = 0
    for i in range(n):
        while first < i and times[i] - times[first] >= seconds - 1e-9:
            first += 1
        share = votes[first : i + 1].mean(axis=0)
        # a thousandth of a vote decides between equal shares and outvotes no window
        scores[i] = share + 1e-3 / n * probabilities[first : i + 1].mean(axis=0)
    return scores / scores.sum(axis=1, keepdims=True)


def exponential_mean(
    probabilities: np.ndarray, times: np.ndarray, constant_seconds: float
) -> np.ndarray:
    """Exponential mean over time: the past weighs exp(-dt / constant); 0 leaves all as it is."""
    smoothed = probabilities.copy()
    if constant_seconds > 0:
        for i in range(1, len(smoothed)):
            past = math.exp(-(times[i] - times[i - 1]) / constant_seconds)
            smoothed[i] = past * smoothed[i - 1] + (1 - past) * probabilities[i]
    return smoothed


def hidden_markov(
    probabilities: np.ndarray,
    times: np.ndarray,
    dwell_seconds: float,
    prior: np.ndarray | None = None,
    window_seconds: float = 0.0,
) -> np.ndarray:
    """Filtered probabilities of a hidden Markov model whose states are the classes.

    A scene lasts an exponential time of mean ``dwell_seconds``; the next one is another class,
    drawn by the prior. A window's likelihood is its probability over the prior (Bourlard and
    Morgan 1994). Windows that overlap tell the same thing twice, so their log-likelihood is
    weighted by the step over ``window_seconds`` where that is less than 1.

    prior: (classes,) shares of the classes in training; None: equal.
    """
    n, classes = probabilities.shape
    prior = np.full(classes, 1 / classes) if prior is None else np.asarray(prior, dtype=float)
    prior = np.maximum(prior, 1e-6) / np.maximum(prior, 1e-6).sum()
    leave = np.tile(prior, (classes, 1))
    np.fill_diagonal(leave, 0.0)
    leave /= leave.sum(axis=1, keepdims=True)
    log_likelihood = np.log(np.maximum(probabilities, 1e-12)) - np.log(prior)
    belief = np.empty((n, classes))
    before = prior
    for i in range(n):
        step = times[i] - times[i - 1] if i else math.inf
        if i:
            stay = math.exp(-step / dwell_seconds)
            before = stay * belief[i - 1] + (1 - stay) * belief[i - 1] @ leave
        weight = min(1.0, step / window_seconds) if window_seconds > 0 else 1.0
        scaled = np.log(np.maximum(before, 1e-300)) + weight * log_likelihood[i]
        scaled = np.exp(scaled - scaled.max())
        belief[i] = scaled / scaled.sum()
    return belief


_RULES: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    MAJORITY: majority,
    MEAN: exponential_mean,
}
RULES = (MAJORITY, MEAN, HMM)
