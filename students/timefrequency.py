"""Students that tell frequency from time: ``tfnet500`` and ``tfnet50``.

    (B, 1, mels, frames) -> plain convolutions, batch norm, ReLU: a map of few bands
                         -> one convolution over all bands that are left: (B, width, 1, frames')
                         -> blocks along time, each a sum with its input
                         -> mean over time -> dropout -> linear -> (B, classes)

    block:  x -> depthwise 1 x k, BN -> 1 x 1 to inner, BN, ReLU -> 1 x 1 to width, BN -> + -> ReLU
            |________________________________ skip ____________________________________|

A network of the report's shape at 50,000 parameters sees a third of a second at once, and averages
over bands as over time. Here frequency ends in a convolution with a weight for every band (what is
loud *where* matters), after which a row of frames costs so little that kernels can be long: every
value before the mean has seen most of the window. Plain convolutions in front train fast, since
half of a depthwise network's step is the backward pass of its large maps.

Batch norms follow convolutions and ReLU is the only nonlinearity, as in ``students.separable``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from students.layers import (
    check_common,
    check_lengths,
    check_widths,
    global_average_pool,
    initialise_convolutions,
)
from students.separable import SeparableBlock


class TimeFrequencyNet(nn.Module):
    """Plain convolutions, all bands into one row, blocks along time, linear head.

    (B, 1, mels, frames) -> (B, classes). ``widths``, ``kernels`` (odd, square) and ``strides``
    (mels, frames) hold one entry per plain convolution, ``inner_widths`` and ``time_kernels`` (odd,
    frames) one per block along time, ``row_width`` is the width of all of these. The weights over
    bands fit one number of ``mels``; ``frames`` may be any. Raises ValueError on arguments that
    make no network.
    """

    def __init__(
        self,
        classes: int,
        mels: int,
        frames: int,
        widths: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[Sequence[int]],
        row_width: int,
        inner_widths: Sequence[int],
        time_kernels: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        check_common(classes, mels, frames, dropout)
        check_lengths(widths=widths, kernels=kernels, strides=strides)
        check_lengths(inner_widths=inner_widths, time_kernels=time_kernels)
        check_widths(
            widths=widths,
            row_width=[row_width],
            inner_widths=inner_widths,
            kernels=kernels,
            time_kernels=time_kernels,
            strides=[step for stride in strides for step in stride],
        )
        if any(kernel % 2 == 0 for kernel in (*kernels, *time_kernels)):
            raise ValueError(f"kernels {(*kernels, *time_kernels)} must be odd, so padding is even")
        if any(len(stride) != 2 for stride in strides):
            raise ValueError(f"a stride is a pair (mels, frames); got {list(strides)}")
        self.arguments: dict[str, Any] = {
            "classes": classes,
            "mels": mels,
            "frames": frames,
            "widths": list(widths),
            "kernels": list(kernels),
            "strides": [list(stride) for stride in strides],
            "row_width": row_width,
            "inner_widths": list(inner_widths),
            "time_kernels": list(time_kernels),
            "dropout": dropout,
        }
        channels, bands = (1, *widths), mels
        stages = []
        for inputs, outputs, kernel, stride in zip(
            channels[:-1], widths, kernels, strides, strict=True
        ):
            step = (stride[0], stride[1])
            stages.append(_convolution(inputs, outputs, kernel, step, kernel // 2))
            bands = -(-bands // stride[0])
        self.stages = nn.Sequential(*stages)
        self.row = _convolution(widths[-1], row_width, (bands, 1), (1, 1), 0)
        self.blocks = nn.Sequential(
            *(
                SeparableBlock(row_width, inner, row_width, (1, kernel), (1, 1), skip=True)
                for inner, kernel in zip(inner_widths, time_kernels, strict=True)
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(row_width, classes)
        initialise_convolutions(self)

    def measured_arguments(self) -> dict[str, Any]:
        """``arguments`` with the widths that the layers have now, after pruning in place."""
        stages = [stage for stage in self.stages if isinstance(stage, nn.Sequential)]
        blocks = [block for block in self.blocks if isinstance(block, SeparableBlock)]
        return self.arguments | {
            "widths": [stage[0].out_channels for stage in stages],
            "row_width": self.row[0].out_channels,
            "inner_widths": [block.expand[0].out_channels for block in blocks],
        }

    def forward(self, windows: Tensor) -> Tensor:
        row = self.row(self.stages(windows))  # (B, row_width, 1, frames')
        return self.head(self.dropout(global_average_pool(self.blocks(row))))  # (B, classes)


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: tuple[int, int],
    padding: int,
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


_HALVE, _HALVE_BANDS = (2, 2), (2, 1)


def tfnet500(
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    widths: Sequence[int] = (30, 56, 88),
    kernels: Sequence[int] = (5, 3, 3),
    strides: Sequence[Sequence[int]] = (_HALVE, _HALVE, _HALVE_BANDS),
    row_width: int = 168,
    inner_widths: Sequence[int] = (336, 336, 336),
    time_kernels: Sequence[int] = (15, 15, 15),
    dropout: float = 0.1,
) -> TimeFrequencyNet:
    """At most 500,000 parameters and 17.6 M MACs at 1x32x96, with 5 and with 10 classes."""
    return TimeFrequencyNet(
        classes,
        mels,
        frames,
        widths,
        kernels,
        strides,
        row_width,
        inner_widths,
        time_kernels,
        dropout,
    )


def tfnet50(
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    widths: Sequence[int] = (20, 40, 40),
    kernels: Sequence[int] = (5, 3, 3),
    strides: Sequence[Sequence[int]] = (_HALVE, _HALVE, _HALVE_BANDS),
    row_width: int = 46,
    inner_widths: Sequence[int] = (92, 92),
    time_kernels: Sequence[int] = (15, 15),
    dropout: float = 0.05,
) -> TimeFrequencyNet:
    """At most 50,000 parameters and 3.8 M MACs at 1x32x96, with 5 and with 10 classes."""
    return TimeFrequencyNet(
        classes,
        mels,
        frames,
        widths,
        kernels,
        strides,
        row_width,
        inner_widths,
        time_kernels,
        dropout,
    )
