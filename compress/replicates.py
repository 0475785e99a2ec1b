"""What several runs of one network say together, over seeds and over the recordings of the test.

An accuracy measured on C clips with S seeds varies for two reasons: other recordings could have
been in the test, and another seed would have given another network. Both are estimated apart, the
first from the mean over seeds of every clip, clustered by recording, the second from the means of
the seeds by Student's t. Half-widths are added in squares (MOVER, Zou and Donner 2008), which
counts what both share twice and so errs on the wide side. With one seed the second is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.metrics import (
    Z_95,
    Decisions,
    cluster_variance,
    difference_half_width,
    effective_clips,
    wilson,
)


@dataclass(frozen=True)
class Outcome:
    """One value per test clip of one run: 1 where it was right, say. All arrays are (clips,)."""

    seed: int
    values: np.ndarray
    clip_ids: np.ndarray
    recording_ids: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean with the ends of its 95 % interval; ``seeds`` 1: the interval is over clips alone."""

    mean: float
    low: float
    high: float
    seeds: int
    clips: int


@dataclass(frozen=True)
class _Pooled:
    """values: mean over the runs of every clip, (clips,); by_seed: mean of every seed, (seeds,)."""

    values: np.ndarray
    clip_ids: np.ndarray
    recording_ids: np.ndarray
    by_seed: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.by_seed.mean())

    @property
    def half_over_seeds(self) -> float:
        """Half-width of the 95 % interval over seeds, 0 where there is one."""
        count = len(self.by_seed)
        if count < 2:
            return 0.0
        from scipy import stats

        return float(stats.t.ppf(0.975, count - 1) * self.by_seed.std(ddof=1) / math.sqrt(count))


def outcome(decisions: Decisions, seed: int) -> Outcome:
    """Whether each clip was decided rightly, 0 or 1."""
    right = decisions.correct.astype(np.float64)
    return Outcome(seed, right, decisions.clip_ids, decisions.recording_ids)


def accuracy(outcomes: Sequence[Outcome]) -> Estimate:
    """Accuracy of runs that differ by seed or fold; values are 0 or 1. Folds of a seed are pooled.

    The part over clips is Wilson's interval on the effective number of clips, as for a single run.
    """
    pooled = _pool(outcomes)
    share = float(pooled.values.mean())
    low, high = wilson(share, effective_clips(pooled.values, pooled.recording_ids))
    return _estimate(pooled, share - low, high - share, least=0.0, most=1.0)


def gain(pairs: Sequence[tuple[Outcome, Outcome]]) -> Estimate:
    """Accuracy of the first of each pair minus that of the second; pairs of one seed and clips.

    Raises ValueError where the two of a pair decided different clips.
    """
    differences = []
    for first, second in pairs:
        if not np.array_equal(first.clip_ids, second.clip_ids):
            raise ValueError("the two classifiers decided different clips")
        differences.append(
            Outcome(first.seed, first.values - second.values, first.clip_ids, first.recording_ids)
        )
    pooled = _pool(differences)
    half = difference_half_width(pooled.values, pooled.recording_ids)
    return _estimate(pooled, half, half, least=-1.0, most=1.0)


def error_ratio(runs: Sequence[Outcome], base: Sequence[Outcome]) -> Estimate | None:
    """Errors of ``runs`` over those of ``base`` on the same clips, interval by the delta method.

    None where the clips differ, or where either makes no error at all.
    """
    ours, theirs = _pool(runs), _pool(base)
    if not np.array_equal(ours.clip_ids, theirs.clip_ids):
        return None
    errors, base_errors = 1 - ours.mean, 1 - theirs.mean
    if errors <= 0 or base_errors <= 0:
        return None
    influence = (1 - ours.values) / errors - (1 - theirs.values) / base_errors
    halves = [
        Z_95 * math.sqrt(cluster_variance(influence, ours.recording_ids)),
        ours.half_over_seeds / errors,
        theirs.half_over_seeds / base_errors,
    ]
    half, ratio = math.hypot(*halves), errors / base_errors
    if not math.isfinite(half):
        return None
    seeds = min(len(ours.by_seed), len(theirs.by_seed))
    return Estimate(ratio, ratio * math.exp(-half), ratio * math.exp(half), seeds, len(ours.values))


def _pool(outcomes: Sequence[Outcome]) -> _Pooled:
    clips, first, which, counts = np.unique(
        np.concatenate([o.clip_ids for o in outcomes]),
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    values = np.concatenate([o.values for o in outcomes])
    recordings = np.concatenate([o.recording_ids for o in outcomes])
    seeds: dict[int, list[np.ndarray]] = {}
    for one in outcomes:
        seeds.setdefault(one.seed, []).append(one.values)
    return _Pooled(
        np.bincount(which, weights=values) / counts,
        clips,
        recordings[first],
        np.array([np.concatenate(parts).mean() for parts in seeds.values()]),
    )


def _estimate(
    pooled: _Pooled, below: float, above: float, *, least: float, most: float
) -> Estimate:
    over_seeds, mean = pooled.half_over_seeds, pooled.mean
    return Estimate(
        mean,
        max(least, mean - math.hypot(below, over_seeds)),
        min(most, mean + math.hypot(above, over_seeds)),
        len(pooled.by_seed),
        len(pooled.values),
    )
