"""What each channel of a group is worth: (width,) per group, larger is kept.

magnitude  squared weights of the filters that give the channel and of those that read it; each
           layer divided by its mean, then the mean over layers (Fang et al. 2023, arXiv 2301.12900)
bn-scale   |gamma| of the batch norms on the channel, likewise (Liu et al. 2017, arXiv 1708.06519);
           a group without batch norm gets its magnitudes
taylor     (sum of weight x gradient over all that reads the channel)^2, mean over batches: the
           first-order change of the loss when nobody reads it any more, which is what pruning does
           (Molchanov et al. 2019, arXiv 1906.10771, eq. 8)
random     uniform numbers from a seed: the control
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.pruning.groups import IN, Group

KINDS = ("magnitude", "bn-scale", "taylor", "random")


def magnitude(group: Group) -> Tensor:
    """Relative squared weights over convolutions and linear layers: mean 1 over the channels."""
    return _mean_of_relative(
        group.gather(piece, piece.per_channel(piece.layer.weight.detach().square()))
        for piece in group.slices
        if isinstance(piece.layer, (nn.modules.conv._ConvNd, nn.Linear))
    )


def bn_scale(group: Group) -> Tensor:
    """Relative |gamma|, mean 1 over the channels."""
    norms = [
        group.gather(piece, piece.per_channel(piece.layer.weight.detach().abs()))
        for piece in group.slices
        if isinstance(piece.layer, nn.modules.batchnorm._BatchNorm) and piece.layer.affine
    ]
    return _mean_of_relative(norms) if norms else magnitude(group)


def random(group: Group, generator: torch.Generator) -> Tensor:
    return torch.rand(group.width, generator=generator)


class Taylor:
    """Accumulates over batches; call :meth:`add` after each backward pass."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.sums = [torch.zeros(group.width) for group in groups]
        self.batches = 0

    def add(self) -> None:
        for group, total in zip(self.groups, self.sums, strict=True):
            change = torch.zeros(group.width)
            for piece in group.slices:
                weight: Any = piece.layer.weight
                if piece.side == IN and weight.grad is not None:
                    change += group.gather(piece, piece.per_channel(weight.detach() * weight.grad))
            total += change.square()
        self.batches += 1

    def scores(self) -> list[Tensor]:
        return [total / max(1, self.batches) for total in self.sums]


def score(
    kind: str,
    groups: Sequence[Group],
    seed: int,
    taylor: Callable[[Taylor], None] | None = None,
) -> list[list[float]]:
    """Importance of each channel, averaged over the blocks of a group (see planning.Width).

    taylor: runs the backward passes and calls ``add`` after each; needed for "taylor" alone.
    """
    if kind == "taylor":
        assert taylor is not None
        accumulated = Taylor(groups)
        taylor(accumulated)
        found = accumulated.scores()
    elif kind == "random":
        generator = torch.Generator().manual_seed(seed)
        found = [random(group, generator) for group in groups]
    else:
        found = [(magnitude if kind == "magnitude" else bn_scale)(group) for group in groups]
    return [
        values.reshape(group.blocks, -1).mean(0).tolist()
        for group, values in zip(groups, found, strict=True)
    ]


def _mean_of_relative(values: Iterable[Tensor]) -> Tensor:
    relative = [value / value.mean().clamp(min=1e-12) for value in values]
    return torch.stack(relative).mean(0)
