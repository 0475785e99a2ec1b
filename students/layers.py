"""What the families of students share: activations, initialisation, argument checks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


def activation_layer(name: str) -> nn.Module:
    """A fresh activation layer; raises ValueError that lists the choices."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def check_common(classes: int, mels: int, frames: int, dropout: float) -> None:
    """Raise ValueError unless the arguments that every student takes make sense."""
    if classes < 2:
        raise ValueError(f"classes is {classes}; a classifier needs at least 2")
    if mels < 1 or frames < 1:
        raise ValueError(f"a window of {mels} mel bands x {frames} frames is empty")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is {dropout}; it is a probability in [0, 1)")


def check_lengths(**named: Sequence[object]) -> int:
    """The common length of per-block arguments; raises ValueError naming all that disagree."""
    lengths = {name: len(values) for name, values in named.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"one entry per block is needed, at least one block: {listed}")
    return next(iter(lengths.values()))


def check_widths(**named: Sequence[int]) -> None:
    """Raise ValueError unless every width is a whole number of at least 1."""
    for name, widths in named.items():
        for width in widths:
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise ValueError(f"{name} holds {width!r}; a width is a whole number from 1 up")


def global_average_pool(features: Tensor) -> Tensor:
    """(B, C, mels', frames') -> (B, C). A mean, so that any window size is accepted."""
    return features.mean(dim=(2, 3))


def initialise_convolutions(module: nn.Module, negative_slope: float = 0.0) -> None:
    """Kaiming-normal weights (fan in) for every convolution under ``module``, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=negative_slope)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
