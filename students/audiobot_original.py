"""Weights of the original AudioBots project (its Lightning modules) as an ``AudioBot`` here.

The original's ``state_dict`` holds each layer twice: as ``convN`` and ``bnN`` (attributes, N as its
author numbered them) and as ``conv.N`` (position N in the nn.Sequential of convolution, activation,
batch norm and, in later versions, dropout). The head is ``lin.N`` (linear, ReLU, linear, ...), in
the first version a bare ``lin``. ``hyper_parameters`` holds ``activation_function`` and ``dropout``
among others; the first versions saved none and were ReLU throughout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from students.audiobot import AudioBot, audiobot50, audiobot500

_CONVOLUTION = ("weight", "bias")
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_KNOWN_KEY = re.compile(
    r"(?P<layer>conv\.(?P<conv>\d+)|lin(?:\.(?P<lin>\d+))?|conv(?P<conv_alias>\d+)"
    r"|bn(?P<bn_alias>\d+))"
    r"\.(?P<tensor>weight|bias|running_mean|running_var|num_batches_tracked)"
)
_ACTIVATION_NAMES = {"relu": "relu", "leakyrelu": "leaky_relu", "elu": "elu"}
_DEFAULT_ACTIVATION = "relu"
_DEFAULT_DROPOUT = 0.08


@dataclass(frozen=True)
class OriginalModel:
    """An original checkpoint in the terms of this project.

    ``student`` is the name of the builder, ``arguments`` its keyword arguments, ``state_dict`` fits
    the module that it then builds, strictly. :meth:`build` does all of it.
    """

    student: str
    arguments: dict[str, Any]
    state_dict: dict[str, Tensor]

    def build(self) -> AudioBot:
        """The module with the original's weights, in eval mode; its logits equal the original's."""
        builder = {"audiobot500": audiobot500, "audiobot50": audiobot50}[self.student]
        model = builder(**self.arguments)
        model.load_state_dict(self.state_dict, strict=True)
        return model.eval()


def convert_original(
    state_dict: Mapping[str, Any],
    hyper_parameters: Mapping[str, Any] | None = None,
    mels: int = 32,
    frames: int = 96,
) -> OriginalModel:
    """Convert an original ``state_dict`` (names to tensors or arrays) and its hyperparameters.

    Widths, kernels and the head are read off the tensors. Aliases must hold the same numbers as the
    layers that they name. Raises ValueError, in one line, that names every missing, unexpected or
    ill-shaped key of the first stage that fails.
    """
    tensors = {str(name): _as_tensor(name, value) for name, value in state_dict.items()}
    layers = _group(tensors)
    convolutions, norms = _pair_blocks(layers)
    linears = _linears(layers)
    _check_shapes(tensors, convolutions, norms, linears)
    _check_aliases(tensors, layers, convolutions, norms)

    state: dict[str, Tensor] = {}
    for index, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        for tensor in _CONVOLUTION:
            state[f"blocks.{index}.0.{tensor}"] = tensors[f"{convolution}.{tensor}"]
        for tensor in _BATCH_NORM:
            state[f"blocks.{index}.2.{tensor}"] = tensors[f"{norm}.{tensor}"]
        # Only a cumulative average would use the count; checkpoints stripped of it are complete.
        state[f"blocks.{index}.2.num_batches_tracked"] = tensors.get(
            f"{norm}.num_batches_tracked", torch.tensor(0)
        ).to(torch.int64)
    for index, linear in enumerate(linears):
        for tensor in _CONVOLUTION:
            state[f"head.{2 * index}.{tensor}"] = tensors[f"{linear}.{tensor}"]

    arguments: dict[str, Any] = {
        "classes": tensors[f"{linears[-1]}.weight"].shape[0],
        "mels": mels,
        "frames": frames,
        "widths": [tensors[f"{name}.weight"].shape[0] for name in convolutions],
        "kernels": [tensors[f"{name}.weight"].shape[2] for name in convolutions],
        "head": [tensors[f"{name}.weight"].shape[0] for name in linears[:-1]],
        **_hyper_parameters(hyper_parameters or {}),
    }
    student = "audiobot50" if len(convolutions) == 3 else "audiobot500"
    return OriginalModel(student, arguments, state)


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    try:
        return torch.from_numpy(np.array(value))
    except TypeError:
        raise ValueError(f"{name} is no tensor but {type(value).__name__}") from None


def _group(tensors: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Layer name -> names of its tensors; refuses keys that the original never has."""
    layers: dict[str, set[str]] = {}
    unexpected = []
    for key in tensors:
        match = _KNOWN_KEY.fullmatch(key)
        if match is None:
            unexpected.append(key)
        else:
            layers.setdefault(match["layer"], set()).add(match["tensor"])
    if unexpected:
        raise ValueError(f"unexpected keys: {', '.join(sorted(unexpected))}")
    return layers


def _numbered(layers: Mapping[str, set[str]], prefix: str) -> list[str]:
    """Layers called prefix + number, in order of the number."""
    names = [name for name in layers if re.fullmatch(re.escape(prefix) + r"\d+", name)]
    return sorted(names, key=lambda name: int(name[len(prefix) :]))


def _pair_blocks(layers: Mapping[str, set[str]]) -> tuple[list[str], list[str]]:
    """Names of the convolutions and of the batch norms, one of each per block, in order."""
    names = _numbered(layers, "conv.")
    norms = [name for name in names if layers[name] - set(_CONVOLUTION)]
    convolutions = [name for name in names if name not in norms]
    if not convolutions:
        raise ValueError("missing keys: conv.0.weight, conv.0.bias (no convolution was found)")
    missing = [f"{n}.{t}" for n in convolutions for t in _CONVOLUTION if t not in layers[n]]
    missing += [f"{n}.{t}" for n in norms for t in _BATCH_NORM if t not in layers[n]]
    if missing:
        raise ValueError(f"missing keys: {', '.join(missing)}")
    expected_norm = False
    for name in names:
        if (name in norms) != expected_norm:
            wanted = "the batch norm" if expected_norm else "the convolution"
            raise ValueError(f"missing keys: those of {wanted} before {name}")
        expected_norm = not expected_norm
    if expected_norm:
        raise ValueError(f"missing keys: those of the batch norm after {names[-1]}")
    return convolutions, norms


def _linears(layers: Mapping[str, set[str]]) -> list[str]:
    names = _numbered(layers, "lin.") or (["lin"] if "lin" in layers else [])
    if not names:
        raise ValueError("missing keys: lin.0.weight, lin.0.bias (no head was found)")
    if "lin" in layers and names != ["lin"]:
        raise ValueError("unexpected keys: a bare lin beside numbered lin layers")
    missing = [f"{n}.{t}" for n in names for t in _CONVOLUTION if t not in layers[n]]
    if missing:
        raise ValueError(f"missing keys: {', '.join(missing)}")
    unexpected = [f"{n}.{t}" for n in names for t in layers[n] - set(_CONVOLUTION)]
    if unexpected:
        raise ValueError(f"unexpected keys: {', '.join(sorted(unexpected))}")
    return names


def _check_shapes(
    tensors: Mapping[str, Tensor],
    convolutions: list[str],
    norms: list[str],
    linears: list[str],
) -> None:
    faults = []

    def expect(key: str, *shape: int | None) -> None:
        found = tuple(tensors[key].shape)
        if len(found) != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, found, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            faults.append(f"{key} has shape {found}, expected ({wanted})")

    channels = 1
    for convolution, norm in zip(convolutions, norms, strict=True):
        weight = f"{convolution}.weight"
        expect(weight, None, channels, None, None)
        if tensors[weight].ndim != 4:
            break
        channels, _, height, width = tensors[weight].shape
        if height != width or height % 2 == 0:
            faults.append(f"{weight} has a kernel of {height}x{width}, expected odd and square")
        expect(f"{convolution}.bias", channels)
        for tensor in _BATCH_NORM:
            expect(f"{norm}.{tensor}", channels)
    features = channels
    for linear in linears:
        weight = f"{linear}.weight"
        expect(weight, None, features)
        if tensors[weight].ndim != 2:
            break
        features = tensors[weight].shape[0]
        expect(f"{linear}.bias", features)
    if faults:
        raise ValueError(f"ill-shaped: {'; '.join(faults)}")


def _check_aliases(
    tensors: Mapping[str, Tensor],
    layers: Mapping[str, set[str]],
    convolutions: list[str],
    norms: list[str],
) -> None:
    """Aliases are numbered with gaps in some versions, so they go with the layers by order."""
    for prefix, targets in (("conv", convolutions), ("bn", norms)):
        aliases = _numbered(layers, prefix)
        if not aliases:
            continue
        if len(aliases) != len(targets):
            raise ValueError(
                f"{len(aliases)} aliases {', '.join(aliases)} "
                f"for {len(targets)} layers {', '.join(targets)}"
            )
        for alias, target in zip(aliases, targets, strict=True):
            for tensor in sorted(layers[alias]):
                twin = tensors.get(f"{target}.{tensor}")
                if twin is None or not torch.equal(tensors[f"{alias}.{tensor}"], twin):
                    raise ValueError(
                        f"{alias}.{tensor} should hold the same numbers as {target}.{tensor}"
                    )


def _hyper_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    name = str(values.get("activation_function", values.get("activation", _DEFAULT_ACTIVATION)))
    activation = _ACTIVATION_NAMES.get(name.lower().replace("_", ""))
    if activation is None:
        raise ValueError(
            f"hyperparameter activation is {name!r}; known are ReLU, LeakyReLU and ELU"
        )
    raw = values.get("dropout", _DEFAULT_DROPOUT)
    try:
        dropout = float(raw)
    except (TypeError, ValueError):
        raise ValueError(f"hyperparameter dropout is {raw!r}, expected a number") from None
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"hyperparameter dropout is {dropout}, expected within [0, 1)")
    return {"activation": activation, "dropout": dropout}
