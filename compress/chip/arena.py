"""Where each activation lies in one static array: no two that live at once overlap.

A lower bound on the array is the most bytes alive at one time. Greedy placements reach it for
chains and residual networks; where none does, a search over orders of placement goes on until it
does, or until its budget is spent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MOST_STEPS = 5_000  # of the search


@dataclass(frozen=True)
class Lifetime:
    """A buffer of ``size`` bytes, in use from step ``born`` to step ``dies``, both included."""

    name: str
    size: int
    born: int
    dies: int

    def meets(self, other: Lifetime) -> bool:
        return self.born <= other.dies and other.born <= self.dies


@dataclass(frozen=True)
class Plan:
    """offsets: name -> first byte. size: of the array. bound: no plan can be smaller."""

    offsets: dict[str, int]
    size: int
    bound: int


def plan(buffers: Sequence[Lifetime], alignment: int = 4) -> Plan:
    """The smallest array that was found. Offsets are multiples of ``alignment`` as long as that
    costs nothing: a target reads unaligned words too, only slower."""
    bound = least_size(buffers)
    found = [_best(buffers, bound, step) for step in dict.fromkeys((alignment, 1))]
    return min(found, key=lambda plan: plan.size)


def least_size(buffers: Sequence[Lifetime]) -> int:
    """The most bytes that are alive at one step."""
    steps = {buffer.born for buffer in buffers}
    return max(
        (sum(b.size for b in buffers if b.born <= step <= b.dies) for step in steps), default=0
    )


def _best(buffers: Sequence[Lifetime], bound: int, alignment: int) -> Plan:
    orders = (
        sorted(buffers, key=lambda b: (-b.size, b.born)),
        sorted(buffers, key=lambda b: (b.born, -b.size)),
        sorted(buffers, key=lambda b: (-b.size * (b.dies - b.born + 1), b.born)),
        sorted(buffers, key=lambda b: (-(b.dies - b.born), -b.size)),
    )
    plans = [_in_order(order, bound, alignment) for order in orders]
    best = min(plans, key=lambda plan: plan.size)
    return best if best.size <= bound else _search(buffers, best, alignment)


def _in_order(order: Sequence[Lifetime], bound: int, alignment: int) -> Plan:
    """Each buffer into the lowest gap between those placed before that it lives beside."""
    placed: list[tuple[Lifetime, int]] = []
    for buffer in order:
        placed.append((buffer, _gaps(buffer, placed, alignment)[0]))
    return _plan_of(placed, bound)


def _gaps(
    buffer: Lifetime, placed: Sequence[tuple[Lifetime, int]], alignment: int
) -> list[int]:
    """Offsets where the buffer fits just above another one or at the bottom, ascending."""
    beside = [(offset, offset + other.size) for other, offset in placed if buffer.meets(other)]
    starts = {0} | {-(-end // alignment) * alignment for _, end in beside}
    return sorted(
        start
        for start in starts
        if all(start + buffer.size <= low or start >= high for low, high in beside)
    )


def _plan_of(placed: Sequence[tuple[Lifetime, int]], bound: int) -> Plan:
    size = max((offset + buffer.size for buffer, offset in placed), default=0)
    return Plan({buffer.name: offset for buffer, offset in placed}, size, bound)


def _search(buffers: Sequence[Lifetime], best: Plan, alignment: int) -> Plan:
    """Depth first over which buffer comes next, at its lowest gap, cut where it is no better."""
    remaining = _MOST_STEPS
    placed: list[tuple[Lifetime, int]] = []

    def extend(left: tuple[Lifetime, ...]) -> None:
        nonlocal best, remaining
        if not left:
            best = _plan_of(placed, best.bound)
            return
        for buffer in left:
            if remaining <= 0 or best.size <= best.bound:
                return
            remaining -= 1
            offset = _gaps(buffer, placed, alignment)[0]
            if offset + buffer.size < best.size:
                placed.append((buffer, offset))
                extend(tuple(b for b in left if b is not buffer))
                placed.pop()

    extend(tuple(sorted(buffers, key=lambda b: -b.size)))
    return best
