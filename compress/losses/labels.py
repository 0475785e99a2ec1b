"""Losses of logits (B, classes) against label distributions (B, classes).

A row of zeros stands for a window without a label and costs nothing; the mean is over the others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class CrossEntropy(nn.Module):
    """-sum_c t_c log p_c, mean over the labelled windows."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        per_window = -(targets * F.log_softmax(logits, dim=1)).sum(1)
        return per_window.sum() / labelled(targets)


class Focal(nn.Module):
    """-sum_c t_c (1 - p_c)^gamma log p_c, mean over the labelled windows (arXiv 1708.02002, eq. 4).

    gamma 0 is cross-entropy; the report tried gamma 2.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log_p = F.log_softmax(logits, dim=1)
        per_window = -(targets * (1 - log_p.exp()) ** self.gamma * log_p).sum(1)
        return per_window.sum() / labelled(targets)


def labelled(targets: torch.Tensor) -> torch.Tensor:
    """Number of windows with a label, at least 1."""
    return (targets.sum(1) > 0).sum().clamp(min=1)
