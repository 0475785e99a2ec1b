"""Depthwise-separable students of our own design: ``dsc500`` and ``dsc50``, stacks of one block.

    (B, 1, mels, frames) -> stem: k x k convolution, stride 2, batch norm, ReLU
                         -> blocks -> global average -> dropout -> linear -> (B, classes)

    block:  x -> depthwise k x k, BN -> 1 x 1 to inner, BN, ReLU -> 1 x 1 to width, BN -> + -> ReLU
            |________________________________ skip ______________________________________|

The depthwise convolution works on the narrow side of the block, since it costs memory traffic and
hardly any arithmetic, and one of it serves two pointwise convolutions. Its kernel is 5 x 5, as in
the report's first layers: at equal budgets and on ESC-10 (validation within folds 2 to 5) that did
better than 3 x 3, while blocks with one pointwise convolution (MobileNetV1) of 5 x 5 came out the
same within the spread. Each batch norm directly follows a convolution, so it folds into it, and
ReLU is the only nonlinearity: both survive quantisation to 8 bits with weights per channel.
Convolutions have no bias of their own; folding gives them one.
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


class SeparableBlock(nn.Module):
    """Depthwise k x k and two pointwise convolutions: (B, inputs, h, w) -> (B, outputs, h', w').

    kernel: a side of the square, or (mels, frames).
    """

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: tuple[int, int],
        skip: bool,
    ) -> None:
        super().__init__()
        self.skip = skip
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2)
        self.depthwise = nn.Sequential(
            nn.Conv2d(inputs, inputs, size, stride, padding, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
        )
        self.expand = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.project = nn.Sequential(
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.activation = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        changed = self.project(self.expand(self.depthwise(features)))
        return self.activation(features + changed if self.skip else changed)


class SeparableNet(nn.Module):
    """Stem, :class:`SeparableBlock` stack, linear head: (B, 1, mels, frames) -> (B, classes).

    ``widths``, ``inner_widths``, ``kernels``, ``strides`` (mels, frames) and ``skips`` hold one
    entry per block. ``skips`` is explicit, because pruning can make the widths of a block equal
    that were not so in the network it came from. Raises ValueError on arguments that make no
    network: a skip over a stride or between unequal widths, even kernels, unequal lengths.
    """

    def __init__(
        self,
        classes: int,
        mels: int,
        frames: int,
        stem_width: int,
        stem_kernel: int,
        stem_stride: Sequence[int],
        widths: Sequence[int],
        inner_widths: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[Sequence[int]],
        skips: Sequence[bool],
        dropout: float,
    ) -> None:
        super().__init__()
        check_common(classes, mels, frames, dropout)
        check_lengths(
            widths=widths, inner_widths=inner_widths, kernels=kernels, strides=strides, skips=skips
        )
        check_widths(
            stem_width=[stem_width],
            widths=widths,
            inner_widths=inner_widths,
            kernels=[stem_kernel, *kernels],
            stem_stride=stem_stride,
            strides=[step for stride in strides for step in stride],
        )
        if any(kernel % 2 == 0 for kernel in (stem_kernel, *kernels)):
            raise ValueError(f"kernels {(stem_kernel, *kernels)} must be odd, so padding is even")
        if any(len(stride) != 2 for stride in (stem_stride, *strides)):
            raise ValueError(f"a stride is a pair (mels, frames); got {[stem_stride, *strides]}")
        channels = (stem_width, *widths)
        for index, skip in enumerate(skips):
            inputs, outputs, stride = channels[index], channels[index + 1], tuple(strides[index])
            if skip and (inputs != outputs or stride != (1, 1)):
                raise ValueError(
                    f"block {index} cannot skip: {inputs} to {outputs} channels, stride {stride}"
                )
        self.arguments: dict[str, Any] = {
            "classes": classes,
            "mels": mels,
            "frames": frames,
            "stem_width": stem_width,
            "stem_kernel": stem_kernel,
            "stem_stride": list(stem_stride),
            "widths": list(widths),
            "inner_widths": list(inner_widths),
            "kernels": list(kernels),
            "strides": [list(stride) for stride in strides],
            "skips": [bool(skip) for skip in skips],
            "dropout": dropout,
        }
        rows, columns = stem_stride
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem_width, stem_kernel, (rows, columns), stem_kernel // 2, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            *(
                SeparableBlock(inputs, inner, outputs, kernel, tuple(stride), bool(skip))
                for inputs, inner, outputs, kernel, stride, skip in zip(
                    channels[:-1], inner_widths, widths, kernels, strides, skips, strict=True
                )
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)
        initialise_convolutions(self)

    def measured_arguments(self) -> dict[str, Any]:
        """``arguments`` with the widths that the layers have now, after pruning in place."""
        blocks = [block for block in self.blocks if isinstance(block, SeparableBlock)]
        return self.arguments | {
            "stem_width": self.stem[0].out_channels,
            "widths": [block.project[0].out_channels for block in blocks],
            "inner_widths": [block.expand[0].out_channels for block in blocks],
        }

    def forward(self, windows: Tensor) -> Tensor:
        features = self.blocks(self.stem(windows))  # (B, widths[-1], mels', frames')
        return self.head(self.dropout(global_average_pool(features)))  # (B, classes)


_HALVE, _KEEP = (2, 2), (1, 1)


def dsc500(
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    stem_width: int = 32,
    stem_kernel: int = 5,
    stem_stride: Sequence[int] = _HALVE,
    widths: Sequence[int] = (48, 48, 136, 136, 136, 184, 184),
    inner_widths: Sequence[int] = (96, 96, 272, 272, 272, 368, 368),
    kernels: Sequence[int] = (5, 5, 5, 5, 5, 5, 5),
    strides: Sequence[Sequence[int]] = (_HALVE, _KEEP, _HALVE, _KEEP, _KEEP, _HALVE, _KEEP),
    skips: Sequence[bool] = (False, True, False, True, True, False, True),
    dropout: float = 0.1,
) -> SeparableNet:
    """At most 500,000 parameters and 17.6 M MACs at 1x32x96, with 5 and with 10 classes."""
    return SeparableNet(
        classes,
        mels,
        frames,
        stem_width,
        stem_kernel,
        stem_stride,
        widths,
        inner_widths,
        kernels,
        strides,
        skips,
        dropout,
    )


def dsc50(
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    stem_width: int = 16,
    stem_kernel: int = 5,
    stem_stride: Sequence[int] = _HALVE,
    widths: Sequence[int] = (32, 32, 56, 56, 56),
    inner_widths: Sequence[int] = (64, 64, 112, 112, 112),
    kernels: Sequence[int] = (5, 5, 5, 5, 5),
    strides: Sequence[Sequence[int]] = (_HALVE, _KEEP, _HALVE, _KEEP, _KEEP),
    skips: Sequence[bool] = (False, True, False, True, True),
    dropout: float = 0.05,
) -> SeparableNet:
    """At most 50,000 parameters and 3.8 M MACs at 1x32x96, with 5 and with 10 classes."""
    return SeparableNet(
        classes,
        mels,
        frames,
        stem_width,
        stem_kernel,
        stem_stride,
        widths,
        inner_widths,
        kernels,
        strides,
        skips,
        dropout,
    )
