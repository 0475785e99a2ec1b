"""Any classifier of timm on log-mel windows: one channel, and resolution kept for small inputs.

    (B, 1, mels, frames) -> timm network with fewer strides -> (B, classes)

timm's networks expect about 224x224 and shrink it 32 times; a 32x96 window would end as a 1x3 map,
or as two by six patches of a transformer. The adaptation looks at no names:

- A network that fixes its input size when built (transformers mostly) is built for mels x frames.
  If its last map is smaller than asked for, its patches are halved until it is large enough. One
  that never shrinks after its patches is asked for twice that size, since those few patches are all
  that it will ever see. timm resamples pretrained patch and position embeddings to fit. The few
  without a patch size (levit) stay as timm builds them.
- In every other network one silent window is sent through, and each convolution or pooling that
  shrinks it is noted. Layers that shrink a map of one size form a level, so that parallel branches
  stay alike. While the last map is too small along an axis, one level has its stride along that
  axis halved: the first level that only pools, and if there is none (or none that can be relaxed),
  the first of all. Kernels keep their shape, hence pretrained weights still fit.

With the defaults the last map of 32x96 has at least 2x6 places, which is a total stride of 16.
"""

from __future__ import annotations

import contextlib
import difflib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from teachers import torchvision_shim
from teachers.pruned_shapes import apply_shapes

torchvision_shim.install()

import timm  # noqa: E402
from timm.models import get_pretrained_cfg, load_state_dict, split_model_name_tag  # noqa: E402

_AXES = (0, 1)  # mels, frames
_REACHABLE_WITHIN_SECONDS = 5.0
_UNREADABLE = (  # what loading a file of other tensors, or of none, raises
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


class PretrainedUnavailable(Exception):
    """Pretrained weights cannot be had. The message is one line and says what to do instead."""


def build(
    name: str,
    classes: int = 5,
    mels: int = 32,
    frames: int = 96,
    pretrained: bool = False,
    smallest_map: Sequence[int] = (2, 6),
    pruned: Mapping[str, Any] | None = None,
    weights: Path | None = None,
) -> nn.Module:
    """The timm classifier ``name``, (B, 1, mels, frames) float32 -> logits (B, classes).

    ``smallest_map`` is the least size (mels', frames') of the last feature map. ``pretrained``
    loads timm's weights for ``name`` (those of the input layer are summed over the colours, the
    head is new), ``weights`` the same from a file of timm's: .safetensors, or a .pth of tensors
    alone. ``pruned`` holds the sizes that pruning left (see teachers.pruned_shapes). The module's
    ``arguments`` rebuild the same structure, without weights.

    Raises ValueError for an unknown name (with the nearest ones), for a window so small that the
    network cannot keep ``smallest_map``, and for sizes that do not fit; PretrainedUnavailable where
    weights cannot be had, or the file holds others.
    """
    check_name(name)
    if classes < 2:
        raise ValueError(f"classes is {classes}; a classifier needs at least 2")
    target = (min(smallest_map[0], mels), min(smallest_map[1], frames))
    options: dict[str, Any] = {"in_chans": 1, "num_classes": classes}
    fixed_size = _fixes_input_size(name)
    if fixed_size:
        options |= _options_for_size(name, options, (mels, frames), target)
    model: Any
    if weights is not None:
        model = _from_file(name, weights, options)
    elif pretrained:
        model = _pretrained(name, options)
    else:
        model = timm.create_model(name, **options)
    if not fixed_size:
        _relax_strides(model, name, (mels, frames), target)
    model.arguments = {
        "name": name,
        "classes": classes,
        "mels": mels,
        "frames": frames,
        "smallest_map": list(smallest_map),
    }
    if pruned:
        apply_shapes(model, pruned)
        model.arguments["pruned"] = dict(pruned)
    return model


def check_name(name: str) -> None:
    """Raise ValueError, with the nearest names, unless timm has a model called ``name``."""
    architecture, tag = split_model_name_tag(name)
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        advice = (
            f"the nearest are {', '.join(nearest)}" if nearest else "timm.list_models() has all"
        )
        raise ValueError(f"timm has no model {name!r}; {advice}")
    try:
        get_pretrained_cfg(name)
    except RuntimeError:
        raise ValueError(f"timm has {architecture!r}, but no weights called {tag!r}") from None


def final_map(model: nn.Module, mels: int, frames: int) -> tuple[int, int]:
    """Size (mels', frames') of the last feature map for a window of mels x frames."""
    return _probe(model, (mels, frames)).final_map


# --- networks that fix their input size -------------------------------------------------------


def _fixes_input_size(name: str) -> bool:
    config = get_pretrained_cfg(name)
    return bool(config is not None and config.fixed_input_size)


def _options_for_size(
    name: str, options: dict[str, Any], size: tuple[int, int], target: tuple[int, int]
) -> dict[str, Any]:
    """The ``img_size``, and ``patch_size`` where it must shrink, that keep ``target``."""
    chosen: dict[str, Any] = {"img_size": size}
    while True:
        try:
            model = timm.create_model(name, **options, **chosen)
            kept = final_map(model, *size)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"timm's {name} cannot be built for windows of {size[0]}x{size[1]}: {reason}"
            ) from error
        patch = _patch_size(model)
        if patch is None:
            return chosen
        shrinks_no_more = kept == tuple(s // p for s, p in zip(size, patch, strict=True))
        wanted = tuple(t * 2 for t in target) if shrinks_no_more else target
        if all(kept[axis] >= min(wanted[axis], size[axis]) for axis in _AXES) or min(patch) == 1:
            return chosen
        chosen["patch_size"] = max(patch) // 2


def _patch_size(model: nn.Module) -> tuple[int, int] | None:
    size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


# --- networks for any input size --------------------------------------------------------------


@dataclass(frozen=True)
class _Shrinking:
    """One call of a strided layer: the layer and the size (mels', frames') that it was given."""

    layer: nn.Module
    given: tuple[int, int]
    returned: tuple[int, int]

    def shrinks(self, axis: int) -> bool:
        return _stride(self.layer)[axis] > 1 and self.returned[axis] < self.given[axis]

    @property
    def pools(self) -> bool:
        return not any(True for _ in self.layer.parameters(recurse=False))


@dataclass(frozen=True)
class _Trace:
    shrinkings: tuple[_Shrinking, ...]
    final_map: tuple[int, int]


def _relax_strides(
    model: nn.Module, name: str, size: tuple[int, int], target: tuple[int, int]
) -> None:
    """Halve strides in place, level by level, until the last map has at least ``target`` places."""
    while True:
        trace = _probe(model, size)
        short = [axis for axis in _AXES if trace.final_map[axis] < target[axis]]
        if not short:
            return
        for axis in short:
            level = _level_to_relax(trace, axis)
            if not level:
                raise ValueError(
                    f"timm's {name} leaves {trace.final_map[0]}x{trace.final_map[1]} places of a "
                    f"window of {size[0]}x{size[1]}, and nothing is left to relax; "
                    f"at least {target[0]}x{target[1]} are wanted"
                )
            for layer in level:
                _halve_stride(layer, axis)


def _level_to_relax(trace: _Trace, axis: int) -> list[nn.Module]:
    """The layers, in order, whose stride along ``axis`` is to be halved next."""
    levels: dict[int, list[_Shrinking]] = {}
    for shrinking in trace.shrinkings:
        if shrinking.shrinks(axis):
            levels.setdefault(shrinking.given[axis], []).append(shrinking)
    if not levels:
        return []
    only_pools = [level for level in levels.values() if all(one.pools for one in level)]
    first = (only_pools or list(levels.values()))[0]
    return list(dict.fromkeys(one.layer for one in first))


def _probe(model: nn.Module, size: tuple[int, int]) -> _Trace:
    """Send one silent window through the network without changing its state."""
    shrinkings: list[_Shrinking] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0] if inputs else None
        if (
            isinstance(given, Tensor)
            and isinstance(output, Tensor)
            and given.ndim == 4 == output.ndim
        ):
            shrinkings.append(_Shrinking(layer, _places(given), _places(output)))

    hooks = [layer.register_forward_hook(note) for layer in model.modules() if _has_stride(layer)]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            network: Any = model
            features = network.forward_features(torch.zeros(1, 1, *size))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return _Trace(tuple(shrinkings), _map_size(model, features, size))


def _places(feature_map: Tensor) -> tuple[int, int]:
    return (feature_map.shape[2], feature_map.shape[3])


def _map_size(model: nn.Module, features: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """(mels', frames') of what ``forward_features`` gave: a map in either layout, or tokens."""
    if features.ndim == 4:
        channels_last = features.shape[1] != model.num_features == features.shape[3]
        rows, columns, _ = features.shape[1:]
        return (rows, columns) if channels_last else _places(features)
    if features.ndim == 3:
        tokens = features.shape[1] - getattr(model, "num_prefix_tokens", 0)
        rows = max(1, round((tokens * size[0] / size[1]) ** 0.5))
        return (rows, tokens // rows)
    return (1, 1)


def _has_stride(layer: nn.Module) -> bool:
    """Whether ``layer`` is itself a convolution or pooling with a stride over two axes."""
    stride = getattr(layer, "stride", None)
    if isinstance(layer, nn.Conv2d):
        return True
    pools = "pool" in type(layer).__name__.lower()
    return pools and stride is not None and not any(True for _ in layer.children())


def _stride(layer: nn.Module) -> tuple[int, int]:
    stride: Any = layer.stride
    return (stride, stride) if isinstance(stride, int) else (int(stride[0]), int(stride[1]))


def _halve_stride(layer: Any, axis: int) -> None:
    """Halve the stride along ``axis``, and pad a layer that tiled its input, so it covers it."""
    stride = list(_stride(layer))
    stride[axis] = stride[axis] // 2 if stride[axis] % 2 == 0 else 1
    layer.stride = tuple(stride)
    padding = getattr(layer, "padding", None)
    kernel = getattr(layer, "kernel_size", None)
    if padding is None or isinstance(padding, str) or kernel is None:
        return
    paddings = [padding] * 2 if isinstance(padding, int) else list(padding)
    kernels = [kernel] * 2 if isinstance(kernel, int) else list(kernel)
    if len(paddings) == 2:
        paddings[axis] = max(paddings[axis], (kernels[axis] - stride[axis]) // 2)
        layer.padding = tuple(paddings)


# --- pretrained weights -----------------------------------------------------------------------


def _pretrained(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        with contextlib.nullcontext() if _hub_is_reachable() else _cached_files_only():
            return timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PretrainedUnavailable(
            f"no pretrained weights for {name} can be had ({reason}); give them as a file "
            "(compress.teach --weights), or leave out --pretrained to start from random weights"
        ) from error


def _from_file(name: str, file: Path, options: dict[str, Any]) -> nn.Module:
    """timm adapts what it loads and passes over what it does not know, so it is checked here that
    no layer but the head kept the values that it was drawn with."""
    if not file.is_file():
        raise PretrainedUnavailable(f"{file}: no such file")
    try:
        state = load_state_dict(str(file), weights_only=True)
        with torch.random.fork_rng(devices=[]):
            drawn = timm.create_model(name, **options)
        model = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **options
        )
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PretrainedUnavailable(
            f"{file}: holds no weights of {name} ({reason}); give a .safetensors or .pth file that "
            "timm saved of this network"
        ) from error
    head = set(_head_parameters(model))
    before = dict(drawn.named_parameters())
    left = [
        key
        for key, value in model.named_parameters()
        if value.ndim > 1 and key not in head and torch.equal(value, before[key])
    ]
    if left:
        raise PretrainedUnavailable(
            f"{file}: has no weights of {name} for {left[0]}"
            + (f" and {len(left) - 1} other layers" if len(left) > 1 else "")
            + "; give a file that timm saved of this network"
        )
    return model


def _head_parameters(model: Any) -> list[str]:
    names = model.pretrained_cfg.get("classifier") or ()
    starts = tuple(f"{n}." for n in ((names,) if isinstance(names, str) else names))
    return [key for key, _ in model.named_parameters() if key.startswith(starts)]


def _hub_is_reachable() -> bool:
    """Ask once, briefly: the hub's own client tries for about a minute before it gives up."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_REACHABLE_WITHIN_SECONDS)
    except Exception:  # its client library, and with it the exception, differs by version
        return False
    return True


@contextlib.contextmanager
def _cached_files_only() -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
