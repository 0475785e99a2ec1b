"""Weights in the layout of the original project's Lightning modules give identical logits here."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from students.audiobot_original import convert_original

ACTIVATIONS = {"ReLU": nn.ReLU, "LeakyReLU": nn.LeakyReLU, "ELU": nn.ELU}


class OriginalLayout(nn.Module):
    """The original's registration of layers: as attributes first, then again in ``conv``.

    ``numbers`` are the N of convN and bnN; one of the original's versions skips 3.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        kernels: tuple[int, ...],
        head: tuple[int, ...],
        activation: str = "ReLU",
        dropout: float | None = 0.1,
        classes: int = 5,
        numbers: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.conv = self.ap = self.lin = None
        layers: list[nn.Module] = []
        inputs = 1
        numbers = numbers or tuple(range(1, len(widths) + 1))
        for number, width, kernel in zip(numbers, widths, kernels, strict=True):
            block = {
                f"conv{number}": nn.Conv2d(inputs, width, kernel, 2, kernel // 2),
                f"relu{number}": ACTIVATIONS[activation](),
                f"bn{number}": nn.BatchNorm2d(width),
            }
            if dropout is not None:
                block[f"drop{number}"] = nn.Dropout2d(dropout)
            for name, layer in block.items():
                setattr(self, name, layer)
            layers += block.values()
            inputs = width
        self.ap = nn.AdaptiveAvgPool2d(1)
        if head:
            linears: list[nn.Module] = []
            for hidden in head:
                linears += [nn.Linear(inputs, hidden), nn.ReLU()]
                inputs = hidden
            self.lin = nn.Sequential(*linears, nn.Linear(inputs, classes))
        else:
            self.lin = nn.Linear(inputs, classes)
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ap(self.conv(x))
        return self.lin(x.view(x.shape[0], -1))


def with_statistics(model: nn.Module) -> nn.Module:
    """Give the batch norms statistics and weights that a wrong assignment would show."""
    torch.manual_seed(1)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 1, 32, 96) * 2 + 0.5)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
    return model.eval()


def audiobot50_layout() -> nn.Module:
    return with_statistics(
        OriginalLayout((24, 48, 64), (5, 3, 3), (80, 64), "LeakyReLU", 0.026, numbers=(1, 2, 4))
    )


LAYOUTS = {
    "AudioBot500": {"widths": (32, 64, 128, 256), "kernels": (5, 5, 3, 3), "head": (200, 128)},
    "AudioBot50": {
        "widths": (24, 48, 64),
        "kernels": (5, 3, 3),
        "head": (80, 64),
        "activation": "LeakyReLU",
        "dropout": 0.026,
        "numbers": (1, 2, 4),
    },
    "an ELU of the sweeps": {
        "widths": (8, 16, 32, 64),
        "kernels": (5, 5, 5, 3),
        "head": (128, 64),
        "activation": "ELU",
    },
    "version 1, without dropout and with a bare lin": {
        "widths": (8, 16, 32, 64),
        "kernels": (5, 3, 3, 3),
        "head": (),
        "dropout": None,
    },
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("as_arrays", [False, True])
def test_logits_are_identical(name: str, as_arrays: bool) -> None:
    layout = LAYOUTS[name]
    original = with_statistics(OriginalLayout(**layout))
    state = original.state_dict()
    hyper = {"lr": 6.5e-4, "optimizer": "adam", "loss_function": "cross_entropy"}
    if "activation" in layout:
        hyper |= {"activation_function": layout["activation"], "dropout": layout.get("dropout", 0)}
    converted = convert_original(
        {key: value.numpy() if as_arrays else value for key, value in state.items()}, hyper
    )
    model = converted.build()
    windows = torch.randn(4, 1, 32, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(windows), original(windows), rtol=0, atol=1e-6)
    assert not model.training
    assert tuple(converted.arguments["widths"]) == layout["widths"]
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in original.parameters()
    )


def test_names_and_hyperparameters() -> None:
    converted = convert_original(
        audiobot50_layout().state_dict(),
        {"activation_function": "LeakyReLU", "dropout": "0.026"},
    )
    assert converted.student == "audiobot50"
    assert converted.arguments == {
        "classes": 5,
        "mels": 32,
        "frames": 96,
        "widths": [24, 48, 64],
        "kernels": [5, 3, 3],
        "head": [80, 64],
        "activation": "leaky_relu",
        "dropout": 0.026,
    }
    four_blocks = OriginalLayout(**LAYOUTS["AudioBot500"]).state_dict()
    converted = convert_original(four_blocks)
    assert (converted.student, converted.arguments["activation"]) == ("audiobot500", "relu")


def test_without_aliases_and_counters() -> None:
    original = audiobot50_layout()
    state = {
        key: value
        for key, value in original.state_dict().items()
        if key.startswith(("conv.", "lin.")) and "num_batches_tracked" not in key
    }
    model = convert_original(state, {"activation_function": "LeakyReLU"}).build()
    windows = torch.randn(2, 1, 32, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(windows), original(windows), rtol=0, atol=1e-6)


def drop(*keys: str):
    return lambda state: [state.pop(key) for key in keys]


def drop_layer(prefix: str):
    return lambda state: [state.pop(key) for key in list(state) if key.startswith(prefix)]


def put(key: str, value: object):
    return lambda state: state.update({key: value})


FAULTS = {
    "a missing weight": (drop("conv.4.weight"), "missing keys: conv.4.weight"),
    "two missing tensors": (
        drop("conv.4.bias", "conv.6.running_var"),
        "missing keys: conv.4.bias, conv.6.running_var",
    ),
    "a missing convolution": (drop_layer("conv.4."), "the convolution before conv.6"),
    "a missing batch norm": (drop_layer("conv.2."), "the batch norm before conv.4"),
    "a missing last norm": (drop_layer("conv.10."), "the batch norm after conv.8"),
    "no convolution": (drop_layer("conv"), "conv.0.weight"),
    "no head": (drop_layer("lin"), "lin.0.weight"),
    "a head without a bias": (drop("lin.2.bias"), "missing keys: lin.2.bias"),
    "an unexpected key": (put("decoder.weight", torch.zeros(2)), "unexpected keys: decoder.weight"),
    "statistics in the head": (put("lin.0.running_mean", torch.zeros(80)), "lin.0.running_mean"),
    "another input": (put("conv.0.weight", torch.zeros(24, 3, 5, 5)), "conv.0.weight has shape"),
    "a flat kernel": (put("conv.4.weight", torch.zeros(48, 24)), "conv.4.weight has shape"),
    "an even kernel": (put("conv.4.weight", torch.zeros(48, 24, 4, 4)), "kernel of 4x4"),
    "a short norm": (put("conv.6.running_mean", torch.zeros(47)), "conv.6.running_mean has shape"),
    "a head of another width": (put("lin.0.weight", torch.zeros(80, 63)), "(any, 64)"),
    "an alias of other numbers": (put("bn4.bias", torch.ones(64)), "bn4.bias should hold the same"),
    "too few aliases": (drop_layer("conv2."), "2 aliases"),
    "text for a tensor": (put("lin.0.bias", "zeros"), "lin.0.bias is no tensor"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_in_one_line(fault: str) -> None:
    damage, expected = FAULTS[fault]
    state = OrderedDict(audiobot50_layout().state_dict())
    damage(state)
    with pytest.raises(ValueError) as caught:
        convert_original(state)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hyper", "expected"),
    [
        ({"activation_function": "GELU"}, "GELU"),
        ({"dropout": "much"}, "much"),
        ({"dropout": 1.5}, "1.5"),
        ({"dropout": None}, "None"),
    ],
)
def test_faulty_hyperparameters(hyper: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        convert_original(audiobot50_layout().state_dict(), hyper)


def test_the_source_is_not_aliased() -> None:
    """Training the converted model must not write into arrays that a file may back."""
    state = {key: np.array(value) for key, value in audiobot50_layout().state_dict().items()}
    model = convert_original(state).build()
    with torch.no_grad():
        model.blocks[0][0].weight.zero_()
    assert np.any(state["conv.0.weight"])
