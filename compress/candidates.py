"""Candidates of a search: students of every family, drawn at random, scaled to a budget.

A family draws a shape (depth, kernels, strides, widths in proportion); the widths are then scaled
until parameters or multiply-accumulates reach the budget, counted without training. A shape that
spends one budget and leaves most of the other is drawn anew: it could not be the best use of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compress import registry
from compress.config import nearest
from compress.errors import InputError

Shape = Callable[[float], dict[str, Any]]
"""Scale of the widths -> arguments of the builder."""

_LEAST_USED = 0.5  # share of the budget that is left over more
_LEAST_REACHED = 0.9  # share of the budget that is spent first
_MOST_DRAWS = 100
_STEPS = 8  # of the bisection of a scale
_SMALLER_EVERY = 4  # every fourth candidate is drawn for a part of the budget
_SMALLEST_PART = 0.35
_WIDEST = 512


@dataclass(frozen=True)
class Budget:
    """Limits of a student: learnable parameters, multiply-accumulates of one window."""

    params: int
    macs: int

    def part(self, share: float) -> Budget:
        return Budget(int(share * self.params), int(share * self.macs))

    def shares(self, params: int, macs: int) -> tuple[float, float]:
        return params / self.params, macs / self.macs


@dataclass(frozen=True)
class Size:
    """What a student is built for."""

    classes: int = 5
    mels: int = 32
    frames: int = 96


@dataclass(frozen=True)
class Candidate:
    """A student: name of its builder and the arguments that differ from that builder's."""

    number: int
    family: str
    name: str
    arguments: Mapping[str, Any] = field(hash=False)
    params: int
    macs: int

    @property
    def label(self) -> str:
        return f"{self.family}-{self.number}"


@dataclass(frozen=True)
class Family:
    """builder: a registered student; draw: a generator -> a shape."""

    builder: str
    sentence: str
    draw: Callable[[np.random.Generator], Shape]


# --- shapes --------------------------------------------------------------------------------------


def _width(value: float) -> int:
    """A whole width: a multiple of 4 from 16 up, which integer kernels work on at once."""
    whole = round(value) if value < 16 else 4 * round(value / 4)
    return min(max(2, whole), _WIDEST)


def _growing(rng: np.random.Generator, count: int, low: float, high: float) -> list[float]:
    """Widths in proportion, the first 1, each ``low`` to ``high`` times the one before."""
    steps = rng.uniform(low, high, count - 1)
    return [1.0, *np.cumprod(steps).tolist()]


def _one_of(rng: np.random.Generator, *values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _draw_plain(rng: np.random.Generator) -> Shape:
    depth = _one_of(rng, 3, 3, 4)
    parts = _growing(rng, depth, 1.2, 2.2)
    kernels = [_one_of(rng, 3, 5, 7), *(_one_of(rng, 3, 3, 5) for _ in range(depth - 1))]
    head = _one_of(rng, [], [64], [80, 64])
    activation = _one_of(rng, "relu", "leaky_relu")
    return lambda scale: {
        "widths": [_width(scale * part) for part in parts],
        "kernels": kernels,
        "head": head,
        "activation": activation,
    }


def _draw_separable(rng: np.random.Generator) -> Shape:
    blocks = int(rng.integers(3, 7))
    downs = sorted(rng.choice(np.arange(1, blocks), size=_one_of(rng, 0, 1), replace=False))
    strides = [[1, 1] for _ in range(blocks)]
    for block in (0, *downs):
        strides[block] = _one_of(rng, [2, 2], [2, 2], [2, 1])
    growth = rng.uniform(1.3, 2.2)
    parts: list[float] = []
    for stride in strides:
        before = parts[-1] if parts else 1.3
        parts.append(before * growth if stride != [1, 1] else before)
    ratio = rng.uniform(1.5, 3.0)
    kernel, stem = _one_of(rng, 3, 5, 5, 7), _one_of(rng, 3, 5, 5)

    def arguments(scale: float) -> dict[str, Any]:
        widths = [_width(scale * part) for part in parts]
        return {
            "stem_width": _width(scale),
            "stem_kernel": stem,
            "widths": widths,
            "inner_widths": [_width(ratio * width) for width in widths],
            "kernels": [kernel] * blocks,
            "strides": strides,
            "skips": [stride == [1, 1] for stride in strides],
        }

    return arguments


def _draw_time_frequency(rng: np.random.Generator) -> Shape:
    depth = _one_of(rng, 2, 3, 3)
    parts = _growing(rng, depth, 1.0, 2.4)
    kernels = [_one_of(rng, 3, 5, 5, 7), *(_one_of(rng, 3, 3, 5) for _ in range(depth - 1))]
    strides = [[2, 2], *(_one_of(rng, [2, 2], [2, 1]) for _ in range(depth - 1))]
    row, ratio = rng.uniform(0.7, 1.6) * parts[-1], rng.uniform(1.5, 3.0)
    blocks = int(rng.integers(1, 4))
    time_kernel = _one_of(rng, 5, 9, 13, 15, 19, 23)

    def arguments(scale: float) -> dict[str, Any]:
        width = _width(scale * row)
        return {
            "widths": [_width(scale * part) for part in parts],
            "kernels": kernels,
            "strides": strides,
            "row_width": width,
            "inner_widths": [_width(ratio * width)] * blocks,
            "time_kernels": [time_kernel] * blocks,
        }

    return arguments


FAMILIES: dict[str, Family] = {
    "plain": Family("audiobot50", "strided plain convolutions and an MLP head", _draw_plain),
    "separable": Family("dsc50", "residual depthwise-separable blocks", _draw_separable),
    "time-frequency": Family(
        "tfnet50", "plain convolutions, then blocks along time alone", _draw_time_frequency
    ),
}


def check_families(names: Sequence[str]) -> tuple[str, ...]:
    """The families of these names, all where none is given; raises InputError for an unknown."""
    for name in names:
        if name not in FAMILIES:
            raise InputError(
                f"unknown family {name!r}{nearest(name, FAMILIES)} (known: {', '.join(FAMILIES)})"
            )
    return tuple(dict.fromkeys(names)) or tuple(FAMILIES)


# --- counting and scaling ------------------------------------------------------------------------


def count(
    name: str, arguments: Mapping[str, Any], size: Size, most_params: float = math.inf
) -> tuple[int, int]:
    """(parameters, MACs) of a student, built without memory for its weights.

    MACs, which take a pass through the network, are 0 where parameters are over ``most_params``.
    """
    import torch

    from compress import measure

    with torch.device("meta"):
        model = registry.build_student(
            name, classes=size.classes, mels=size.mels, frames=size.frames, **arguments
        )
        params = measure.count_params(model)
        if params > most_params:
            return params, 0
        return params, measure.count_macs(model, size.mels, size.frames)


def draw(
    families: Sequence[str], number: int, budget: Budget, size: Size, seed: int
) -> Iterator[Candidate]:
    """``number`` candidates, a function of (seed, place) each; registered students come first.

    Registered students of the families take part where they keep the budget and use half of it.
    Raises InputError where no shape of a family comes near the budget.
    """
    built_by = {FAMILIES[name].builder.rstrip("50"): name for name in families}
    place = 0
    for name in registry.STUDENTS:
        family = built_by.get(name.rstrip("50"))
        if family is None or place >= number:
            continue
        params, macs = count(name, {}, size)
        shares = budget.shares(params, macs)
        if max(shares) <= 1 and max(shares) >= _LEAST_USED:
            yield Candidate(place, family, name, {}, params, macs)
            place += 1
    while place < number:
        rng = np.random.default_rng([seed, place])
        family = families[place % len(families)]
        share = float(rng.uniform(_SMALLEST_PART, 1)) if place % _SMALLER_EVERY == 3 else 1.0
        yield _near(family, place, budget.part(share), size, rng)
        place += 1


def _near(
    family: str, place: int, budget: Budget, size: Size, rng: np.random.Generator
) -> Candidate:
    builder = FAMILIES[family].builder
    for _ in range(_MOST_DRAWS):
        found = _scaled(builder, FAMILIES[family].draw(rng), budget, size)
        if found is None:
            continue
        arguments, params, macs = found
        shares = budget.shares(params, macs)
        if max(shares) >= _LEAST_REACHED and min(shares) >= _LEAST_USED:
            return Candidate(place, family, builder, arguments, params, macs)
    raise InputError(
        f"no shape of the family {family} comes near {budget.params:,} parameters and "
        f"{budget.macs:,} MACs together; change --params or --macs, or leave it out with --family"
    )


def _scaled(
    builder: str, shape: Shape, budget: Budget, size: Size
) -> tuple[dict[str, Any], int, int] | None:
    """The widest arguments of a shape within the budget, with their counts; None: none is."""
    low, high = 1.0, float(_WIDEST)
    best = None
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        arguments = shape(middle)
        params, macs = count(builder, arguments, size, budget.params)
        if max(budget.shares(params, macs)) <= 1:
            best, low = (arguments, params, macs), middle
        else:
            high = middle
    return best
