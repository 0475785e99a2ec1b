"""The two networks of the AudioBots report (Oticon Audio Explorers 2023), and their shape in full.

    (B, 1, mels, frames) -> [convolution, activation, batch norm, Dropout2d] x blocks
                         -> global average -> linear, ReLU, ..., linear -> (B, classes)

Every block halves both axes. The activation stands before the batch norm, as in the report; only
the activation of the blocks varies there, the head always has ReLU. The ``-dsc`` variants are the
same networks with each convolution but the first made depthwise-separable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from students.layers import (
    activation_layer,
    check_common,
    check_lengths,
    check_widths,
    global_average_pool,
    initialise_convolutions,
)

# The original code passes a = 0.1 to kaiming_normal_ whatever the activation.
_KAIMING_NEGATIVE_SLOPE = 0.1
_STRIDE = 2


class AudioBot(nn.Module):
    """A stack of strided convolution blocks and an MLP head: (B, 1, mels, frames) -> (B, classes).

    ``widths`` and ``kernels`` hold one entry per block, ``head`` the hidden widths of the MLP.
    With ``separable`` each convolution but the first is a depthwise k x k and a pointwise 1 x 1
    convolution; the depthwise one then has no bias, because the pointwise bias absorbs it exactly.
    Raises ValueError on arguments that make no network.
    """

    def __init__(
        self,
        classes: int,
        mels: int,
        frames: int,
        widths: Sequence[int],
        kernels: Sequence[int],
        head: Sequence[int],
        activation: str,
        dropout: float,
        separable: bool = False,
    ) -> None:
        super().__init__()
        check_common(classes, mels, frames, dropout)
        check_lengths(widths=widths, kernels=kernels)
        check_widths(widths=widths, kernels=kernels, head=head)
        if any(kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"kernels {tuple(kernels)} must be odd, so that padding is even")
        self.arguments: dict[str, Any] = {
            "classes": classes,
            "mels": mels,
            "frames": frames,
            "widths": list(widths),
            "kernels": list(kernels),
            "head": list(head),
            "activation": activation,
            "dropout": dropout,
        }
        channels = (1, *widths)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    *_convolution(inputs, outputs, kernel, separable and index > 0),
                    activation_layer(activation),
                    nn.BatchNorm2d(outputs),
                    nn.Dropout2d(dropout),
                )
                for index, (inputs, outputs, kernel) in enumerate(
                    zip(channels[:-1], channels[1:], kernels, strict=True)
                )
            )
        )
        layers: list[nn.Module] = []
        features = widths[-1]
        for hidden in head:
            layers += [nn.Linear(features, hidden), nn.ReLU()]
            features = hidden
        self.head = nn.Sequential(*layers, nn.Linear(features, classes))
        initialise_convolutions(self.blocks, _KAIMING_NEGATIVE_SLOPE)

    def measured_arguments(self) -> dict[str, Any]:
        """``arguments`` with the widths that the layers have now, after pruning in place."""
        norms = [layer for layer in self.blocks.modules() if isinstance(layer, nn.BatchNorm2d)]
        linears = [layer for layer in self.head if isinstance(layer, nn.Linear)]
        return self.arguments | {
            "widths": [norm.num_features for norm in norms],
            "head": [linear.out_features for linear in linears[:-1]],
        }

    def forward(self, windows: Tensor) -> Tensor:
        features = self.blocks(windows)  # (B, widths[-1], mels', frames')
        return self.head(global_average_pool(features))  # (B, classes)


def _convolution(inputs: int, outputs: int, kernel: int, separable: bool) -> list[nn.Module]:
    padding = kernel // 2
    if not separable:
        return [nn.Conv2d(inputs, outputs, kernel, _STRIDE, padding)]
    return [
        nn.Conv2d(inputs, inputs, kernel, _STRIDE, padding, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1),
    ]


def audiobot500(
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    widths: Sequence[int] = (32, 64, 128, 256),
    kernels: Sequence[int] = (5, 5, 3, 3),
    head: Sequence[int] = (200, 128),
    activation: str = "relu",
    dropout: float = 0.08,
) -> AudioBot:
    """The report's AudioBot500: 499,853 parameters and 17.6 M MACs at 1x32x96 and 5 classes."""
    return AudioBot(classes, mels, frames, widths, kernels, head, activation, dropout)


def audiobot50(
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    widths: Sequence[int] = (24, 48, 64),
    kernels: Sequence[int] = (5, 3, 3),
    head: Sequence[int] = (80, 64),
    activation: str = "leaky_relu",
    dropout: float = 0.026,
) -> AudioBot:
    """The report's AudioBot50: 49,733 parameters and 3.8 M MACs at 1x32x96 and 5 classes."""
    return AudioBot(classes, mels, frames, widths, kernels, head, activation, dropout)


def audiobot500_dsc(
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    widths: Sequence[int] = (32, 64, 128, 256),
    kernels: Sequence[int] = (5, 5, 3, 3),
    head: Sequence[int] = (200, 128),
    activation: str = "relu",
    dropout: float = 0.08,
) -> AudioBot:
    """AudioBot500 with each convolution but the first made depthwise-separable."""
    return AudioBot(
        classes, mels, frames, widths, kernels, head, activation, dropout, separable=True
    )


def audiobot50_dsc(
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    widths: Sequence[int] = (24, 48, 64),
    kernels: Sequence[int] = (5, 3, 3),
    head: Sequence[int] = (80, 64),
    activation: str = "leaky_relu",
    dropout: float = 0.026,
) -> AudioBot:
    """AudioBot50 with each convolution but the first made depthwise-separable."""
    return AudioBot(
        classes, mels, frames, widths, kernels, head, activation, dropout, separable=True
    )
