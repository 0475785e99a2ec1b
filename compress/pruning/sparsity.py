"""Unstructured pruning: the smallest single weights become zero, and stay so while training.

The network keeps its shape. Zeros are stored like all other numbers, so they still count towards
the budget, and dense kernels multiply by them like by all other numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

NOTE = (
    "zeros still count towards the budget: the file stores them like all other weights, and dense "
    "kernels multiply by them, so parameters, bytes, MACs and latency do not fall; "
    "prune whole channels (--params, --macs) for that"
)


def prunable_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Weights of convolutions and linear layers by name; biases and norms are left alone."""
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            yield f"{name}.weight", cast(nn.Parameter, layer.weight)


def sparsity_of(model: nn.Module) -> float:
    """Share of zeros among the prunable weights."""
    weights = [weight for _, weight in prunable_weights(model)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


@torch.no_grad()
def set_zeros(model: nn.Module, share: float, scope: str) -> None:
    """Zero the smallest ``share`` of the weights in place, of each ``layer`` or ``global``ly."""
    weights = [weight for _, weight in prunable_weights(model)]
    if scope == "layer":
        for weight in weights:
            _zero_smallest([weight], share)
    else:
        _zero_smallest(weights, share)


def _zero_smallest(weights: list[nn.Parameter], share: float) -> None:
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    count = round(share * len(sizes))
    order = torch.argsort(sizes, stable=True)
    gone = torch.zeros(len(sizes), dtype=torch.bool)
    gone[order[:count]] = True
    start = 0
    for weight in weights:
        own = gone[start : start + weight.numel()].reshape(weight.shape)
        weight.data[own] = 0.0
        start += weight.numel()


def keep_zeros(model: nn.Module) -> None:
    """Give zeros no gradient from now on, so that an optimiser that starts afresh keeps them."""
    for _, weight in prunable_weights(model):
        kept = (weight.detach() != 0).to(weight.dtype)

        def masked(gradient: Tensor, kept: Tensor = kept) -> Tensor:
            return gradient * kept.to(gradient.device, gradient.dtype)

        weight.register_hook(masked)


def scheduled(share: float, start: float, step: int, steps: int) -> float:
    """Share of zeros after ``step`` of ``steps``: a cubic rise (Zhu and Gupta 2017, 1710.01878)."""
    return share + (start - share) * (1 - step / steps) ** 3
