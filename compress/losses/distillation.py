"""Losses of student logits against teacher logits, both (B, classes), mean over the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class SoftTargets(nn.Module):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), reduction batchmean.

    The factor T^2 keeps the size of the gradient the same whatever the temperature
    (Hinton et al. 2015, arXiv 1503.02531, section 2).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        student = F.log_softmax(student_logits / self.temperature, dim=1)
        teacher = F.log_softmax(teacher_logits / self.temperature, dim=1)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return divergence * self.temperature**2
