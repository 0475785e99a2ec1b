"""Which channels go: whole chunks, the least important first, until a target is met.

Counts are products of widths, so they are computed from the widths alone and every plan costs
microseconds. Plain Python: nothing here knows of a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PARAMS, MACS = "params", "macs"


@dataclass(frozen=True)
class Dimension:
    """Channels on one side of a layer: a fixed number, and so many per channel of some groups."""

    fixed: int
    parts: tuple[tuple[int, int], ...] = ()  # (number of the group, channels per channel of it)

    def size(self, widths: Sequence[int]) -> int:
        return self.fixed + sum(per * widths[group] for group, per in self.parts)


@dataclass(frozen=True)
class LayerCount:
    """Counts of one layer: so many for each pair of input and output channel, and each output."""

    inputs: Dimension
    outputs: Dimension
    params_per_pair: float = 0.0
    params_per_output: float = 0.0
    macs_per_pair: float = 0.0
    macs_per_output: float = 0.0

    def count(self, kind: str, widths: Sequence[int]) -> float:
        outputs = self.outputs.size(widths)
        pairs = self.inputs.size(widths) * outputs
        if kind == PARAMS:
            return self.params_per_pair * pairs + self.params_per_output * outputs
        return self.macs_per_pair * pairs + self.macs_per_output * outputs


@dataclass(frozen=True)
class Counts:
    """Parameters and MACs of a network as a function of its groups' widths.

    rest: what no layer here accounts for, and no pruning changes.
    """

    layers: tuple[LayerCount, ...]
    rest: dict[str, float]

    def count(self, kind: str, widths: Sequence[int]) -> float:
        return self.rest[kind] + sum(layer.count(kind, widths) for layer in self.layers)


@dataclass(frozen=True)
class Width:
    """A group's channels: how many there are, and in what portions they may go.

    blocks: equal blocks (of a grouped convolution) that must lose the same number of channels.
    unit: channels in a portion, a multiple of ``blocks``; also the fewest that are kept.
    """

    now: int
    blocks: int
    unit: int

    @property
    def least(self) -> int:
        return min(self.now, self.unit)

    def portions(self) -> list[int]:
        """Sizes of the portions that can go, first to last: the first leaves a multiple."""
        free = self.now - self.least
        ragged = self.now % self.unit if self.now > self.unit else 0
        return ([ragged] if ragged else []) + [self.unit] * ((free - ragged) // self.unit)


def make_width(now: int, blocks: int, round_to: int) -> Width:
    return Width(now, blocks, math.lcm(blocks, round_to))


def reachable(widths: Sequence[Width], counts: Counts, kind: str) -> int:
    """The smallest count that any plan can reach."""
    return round(counts.count(kind, [width.least for width in widths]))


def plan(
    widths: Sequence[Width],
    scores: Sequence[Sequence[float]],
    counts: Counts,
    kind: str,
    target: float,
    per_cost: bool = False,
) -> list[int]:
    """Widths to keep, so that the count of ``kind`` is at most ``target``, and as near as it gets.

    scores: for each group the importance of each channel of a block (blocks already averaged).
    Portions go in the order of their mean importance over all groups, divided by what they cost
    with ``per_cost``. Portions that turn out not to be needed are given back, the most important
    first. The target must be reachable.
    """
    kept = [width.now for width in widths]
    portions = sorted(_portions(widths, scores, counts, kind, per_cost))
    gone: list[tuple[int, int]] = []
    for _, group, size in portions:
        if counts.count(kind, kept) <= target:
            break
        kept[group] -= size
        gone.append((group, size))
    blocked: set[int] = set()
    for group, size in reversed(gone):
        if group in blocked:
            continue
        kept[group] += size
        if counts.count(kind, kept) > target:
            kept[group] -= size
            blocked.add(group)
    return kept


def _portions(
    widths: Sequence[Width],
    scores: Sequence[Sequence[float]],
    counts: Counts,
    kind: str,
    per_cost: bool,
) -> list[tuple[tuple[float, int], int, int]]:
    """((importance, place within its group), group, channels), in no order.

    Channels of a group go in ascending order, so the importance of its portions ascends as well,
    and no portion is sorted before one that has to go first.
    """
    now = [width.now for width in widths]
    whole = counts.count(kind, now)
    found = []
    for group, width in enumerate(widths):
        ascending = sorted(scores[group])
        cost = 1.0
        sizes = width.portions()
        if per_cost and sizes:
            less = [*now]
            less[group] = width.least
            saved = whole - counts.count(kind, less)
            cost = max(saved, 1.0) / (width.now - width.least)
        start, mean = 0, -math.inf
        for place, size in enumerate(sizes):
            end = start + size // width.blocks
            mean = max(mean, sum(ascending[start:end]) / (end - start))
            found.append(((mean / cost, place), group, size))
            start = end
    return found


def channels_to_remove(score: Sequence[float], width: Width, kept: int) -> list[int]:
    """Numbers of the least important channels, the same in each block; earlier ones first."""
    per_block = width.now // width.blocks
    order = sorted(range(per_block), key=lambda channel: (score[channel], channel))
    gone = order[: (width.now - kept) // width.blocks]
    return sorted(block * per_block + channel for block in range(width.blocks) for channel in gone)
