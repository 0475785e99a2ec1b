"""How a network differs in its sizes from the same network unpruned, as plain numbers.

timm's builders take no channel widths. What pruning changed is recorded layer by layer and applied
to a fresh build, which then has the same structure exactly:

    {"layer1.0.conv1": {"attributes": {"out_channels": 24}, "tensors": {"weight": [24, 32, 3, 3]}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

Shapes = dict[str, dict[str, dict[str, Any]]]


def pruned_shapes(original: nn.Module, pruned: nn.Module) -> Shapes:
    """Whole-number attributes and tensor shapes of ``pruned`` that ``original`` has otherwise."""
    before = dict(original.named_modules())
    found: Shapes = {}
    for name, layer in pruned.named_modules():
        old = before[name]
        attributes = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in vars(layer).items()
            if _is_size(value) and key in vars(old) and vars(old)[key] != value
        }
        others = _own_tensors(old)
        tensors = {
            key: list(value.shape)
            for key, value in _own_tensors(layer).items()
            if value.shape != others[key].shape
        }
        if attributes or tensors:
            found[name] = {"attributes": attributes, "tensors": tensors}
    return found


def apply_shapes(model: nn.Module, shapes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Give the layers of a fresh ``model`` the recorded sizes; of each tensor the head is kept.

    Raises ValueError where a layer or tensor is not there, or would have to grow.
    """
    layers = dict(model.named_modules())
    for name, change in shapes.items():
        if name not in layers:
            raise ValueError(f"pruned: the network has no layer {name!r}")
        layer = layers[name]
        for key, value in change["attributes"].items():
            if not _is_size(getattr(layer, key, None)):
                raise ValueError(f"pruned: layer {name!r} has no size {key!r}")
            setattr(layer, key, tuple(value) if isinstance(value, list) else value)
        own = _own_tensors(layer)
        for key, shape in change["tensors"].items():
            if key not in own:
                raise ValueError(f"pruned: layer {name!r} has no tensor {key!r}")
            smaller = _head(own[key], shape, f"{name}.{key}")
            if isinstance(own[key], nn.Parameter):
                smaller = nn.Parameter(smaller, requires_grad=own[key].requires_grad)
            setattr(layer, key, smaller)


def _head(tensor: Tensor, shape: list[int], name: str) -> Tensor:
    if len(shape) != tensor.ndim or any(
        not 1 <= new <= old for new, old in zip(shape, tensor.shape, strict=True)
    ):
        raise ValueError(f"pruned: {name} of shape {list(tensor.shape)} cannot become {shape}")
    return tensor.detach()[tuple(slice(size) for size in shape)].clone()


def _own_tensors(layer: nn.Module) -> dict[str, Tensor]:
    return dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))


def _is_size(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_is_size(item) for item in value)
    return isinstance(value, int) and not isinstance(value, bool)
