"""Parameters and multiply-accumulates of a network in memory.

The same figures of a file are read from the file itself, by compress.artefacts.
"""

from __future__ import annotations

import torch
from torch import nn

from compress.registry import arguments_of
from compress.subjects import Contribution, Value


def count_params(model: nn.Module) -> int:
    """Learnable parameters, each tensor once."""
    return sum(p.numel() for p in model.parameters())


def counted(model: nn.Module) -> dict[str, Value]:
    """Parameters and MACs of a network in memory, as the gate's figures."""
    named = {key: value.numel() for key, value in model.named_parameters()}
    ranked = sorted(named.items(), key=lambda item: item[1], reverse=True)
    parts = tuple(Contribution(key, count) for key, count in ranked)
    size = {"mels": 32, "frames": 96} | arguments_of(model)
    return {
        "params": Value(count_params(model), parts=parts),
        "macs": Value(count_macs(model, size["mels"], size["frames"])),
    }


def count_macs(model: nn.Module, mels: int, frames: int) -> int:
    """Multiply-accumulates of all convolutions and matrix products for one window.

    Half of the operations that torch's own flop counter sees in one forward pass. Biases, batch
    norm, activations and pooling do not count.
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, mels, frames, device=device))
    model.train(training)
    return counter.get_total_flops() // 2
