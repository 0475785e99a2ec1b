"""Losses of logits (B, classes) against label distributions (B, classes).

A row of zeros stands for a window without a label and costs nothing; the mean is over the others.
With class weights w (classes,) each term is multiplied by w_c and the sum divided by
sum_n sum_c w_c t_nc, so that the mean of hard labels is that of torch's weighted cross-entropy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class CrossEntropy(nn.Module):
    """-sum_c t_c log p_c, mean over the labelled windows. weights: (classes,), None: all 1."""

    def __init__(self, weights: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.weights = _on(self.weights, logits.device)
        return mean(targets * F.log_softmax(logits, dim=1), targets, self.weights)


class Focal(nn.Module):
    """-sum_c t_c (1 - p_c)^gamma log p_c, mean over the labelled windows (arXiv 1708.02002, eq. 4).

    gamma 0 is cross-entropy; the report tried gamma 2.
    """

    def __init__(self, gamma: float = 2.0, weights: torch.Tensor | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.weights = weights

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.weights = _on(self.weights, logits.device)
        log_p = F.log_softmax(logits, dim=1)
        terms = targets * (1 - log_p.exp()) ** self.gamma * log_p
        return mean(terms, targets, self.weights)


def mean(
    terms: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """-sum of (B, classes) terms over the labelled windows, or over their weights."""
    if weights is None:
        return -terms.sum(1).sum() / labelled(targets)
    total = (targets * weights).sum()
    return -(terms * weights).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)


def _on(weights: torch.Tensor | None, device: torch.device) -> torch.Tensor | None:
    return None if weights is None else weights.to(device)


def balanced_weights(counts: torch.Tensor) -> torch.Tensor:
    """Windows / (classes x windows of the class), (classes,); a class without windows gets 0.

    The rule of King and Zeng 2001 that scikit-learn calls 'balanced'. Classes that occur count.
    """
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, torch.zeros_like(weights)).float()


def labelled(targets: torch.Tensor) -> torch.Tensor:
    """Number of windows with a label, at least 1."""
    return (targets.sum(1) > 0).sum().clamp(min=1)
