"""Channels that can only go together, found by torch-pruning's dependency graph.

    residual sum:   stem -> + -> + -> head     one group: every layer that writes to the sum or
                       |_conv_|  |_conv_|      reads it loses the same channels

A group is what one layer gives out and everything coupled to it. Groups that end in the logits stay
whole. Whether what the graph says can be done is tried on a copy before anything is planned: layers
that the library does not see through are named, and the groups that touch them are left alone.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress import measure
from compress.errors import InputError
from compress.memory_format import in_memory_format
from compress.pruning.planning import (
    MACS,
    PARAMS,
    Counts,
    Dimension,
    LayerCount,
    Width,
    make_width,
)

OUT, IN, EACH = "out", "in", "each"
"""Sides of a layer: what it gives, what it reads, or both at once (depthwise, norms)."""

_MIXING = (nn.modules.conv._ConvNd, nn.Linear)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)


@dataclass(frozen=True)
class Slice:
    """The part of one layer that goes with the channels of a group.

    channels: positions in the layer; roots: the channel of the group that each goes with.
    """

    name: str
    layer: nn.Module
    side: str
    channels: Tensor
    roots: Tensor

    @property
    def dense(self) -> bool:
        """Whether the layer mixes channels: an ordinary convolution or linear layer."""
        return self.side != EACH

    def per_channel(self, values: Tensor) -> Tensor:
        """Sums over all but the layer's channels of ``values`` (shaped like its weight)."""
        if self.side == OUT or isinstance(self.layer, nn.modules.conv._ConvNd) and not self.dense:
            return values.flatten(1).sum(1)[self.channels]
        if self.side == EACH:
            return values[self.channels]
        groups = getattr(self.layer, "groups", 1)
        outputs, inputs = values.shape[:2]
        by_group = values.reshape(groups, outputs // groups, inputs, -1)
        return by_group.sum((1, 3)).flatten()[self.channels]  # (groups * inputs,) -> chosen


@dataclass(frozen=True)
class Group:
    """Coupled channels 0..width-1. blocks: see planning.Width."""

    name: str
    width: int
    blocks: int
    slices: tuple[Slice, ...]

    def gather(self, piece: Slice, values: Tensor) -> Tensor:
        """Values of a slice's channels, summed for each channel of the group: (width,)."""
        return torch.zeros(self.width).index_add_(0, piece.roots, values.float().cpu())


@dataclass
class Channels:
    """A network with its groups. The network is changed in place by :meth:`remove`."""

    model: nn.Module
    mels: int
    frames: int
    groups: list[Group]
    unsupported: list[str] = field(default_factory=list)
    graph: Any = None

    def widths(self, round_to: int) -> list[Width]:
        return [make_width(group.width, group.blocks, round_to) for group in self.groups]

    def counts(self) -> Counts:
        return _counts(self.model, self.groups, self.mels, self.frames)

    def remove(self, channels: Sequence[Sequence[int]]) -> None:
        """Take out these channels of each group; the groups do not hold afterwards."""
        for group, gone in zip(self.groups, channels, strict=True):
            if gone:
                root = group.slices[0].layer
                pruner = self.graph.get_pruner_of_module(root)
                self.graph.get_pruning_group(root, pruner.prune_out_channels, list(gone)).prune()


def find_channels(model: nn.Module, name: str, mels: int, frames: int) -> Channels:
    """The groups of a copy of ``model``, on the CPU and in eval mode, tried out.

    Raises InputError where the network cannot be traced, or where no group is left to prune.
    """
    tried = _trace(model, name, mels, frames)
    kept = list(range(len(tried.groups)))
    unsupported = list(tried.unsupported)
    if _try(tried, kept):
        # One group at a time, on a fresh copy each, to find those that cannot go.
        for number, group in enumerate(tried.groups):
            failure = _try(_trace(model, name, mels, frames), [number])
            if failure:
                unsupported.append(f"{group.name}: {failure}")
                kept.remove(number)
        failure = _try(_trace(model, name, mels, frames), kept)
        if failure:
            raise InputError(f"{name}: its groups of channels cannot be pruned together: {failure}")
    found = _trace(model, name, mels, frames)
    found.groups = [found.groups[number] for number in kept]
    found.unsupported = unsupported
    if not found.groups:
        reasons = "; ".join(found.unsupported[:3]) or "it has no hidden channels"
        raise InputError(f"{name}: nothing can be pruned ({reasons})")
    return found


def _trace(model: nn.Module, name: str, mels: int, frames: int) -> Channels:
    import torch_pruning

    work = copy.deepcopy(model).cpu().float().eval()
    work = in_memory_format(work, torch.contiguous_format)
    for parameter in work.parameters():
        parameter.requires_grad_(True)
    example = torch.zeros(1, 1, mels, frames)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph().build_dependency(work, (example,))
    except Exception as error:  # the library meets arbitrary networks and raises as it falls
        foreign = _foreign_layers(work)
        raise InputError(
            f"{name}: its layers cannot be traced for pruning "
            f"({', '.join(foreign) or _first_line(error)})"
        ) from None
    layer_names = {layer: key for key, layer in work.named_modules()}
    parameter_names = {parameter: key for key, parameter in work.named_parameters()}
    channels = Channels(work, mels, frames, [], graph=graph)
    visited: set[nn.Module] = set()
    for layer in list(graph.module2node):
        if not isinstance(layer, _MIXING) or layer in visited:
            continue
        raw = _library_group(graph, layer)
        if raw is None:
            named = _foreign_layers(work) or [f"{type(layer).__name__} at {layer_names[layer]}"]
            channels.unsupported.append(f"{', '.join(named)}: channels cannot be followed")
            continue
        visited.update(
            item.dep.target.module
            for item in raw.items
            if graph.is_out_channel_pruning_fn(item.dep.handler)
        )
        group, reason = _read_group(raw, layer_names, parameter_names)
        if reason:
            channels.unsupported.append(reason)
        elif any(piece.side == IN for piece in group.slices):
            channels.groups.append(group)  # without a reader, these channels are the logits
    channels.unsupported = list(dict.fromkeys(channels.unsupported))
    return channels


def _library_group(graph: Any, layer: nn.Module) -> Any:
    """All that is coupled to a layer's output, as the library tells; None where it gives up."""
    pruner = graph.get_pruner_of_module(layer)
    try:
        every = list(range(pruner.get_out_channels(layer)))
        return graph.get_pruning_group(layer, pruner.prune_out_channels, every)
    except Exception:  # it does arithmetic with indices that operators unknown to it leave empty
        return None


def _foreign_layers(model: nn.Module) -> list[str]:
    """Layers with weight matrices of a kind that is not pruned, as 'GRU at memory'."""
    return [
        f"{type(layer).__name__} at {name or 'the top'}"
        for name, layer in model.named_modules()
        if not isinstance(layer, (*_MIXING, *_NORMS))
        and any(sum(n > 1 for n in p.shape) > 1 for p in layer.parameters(recurse=False))
    ]


def _read_group(
    raw: Any, layer_names: dict[nn.Module, str], parameter_names: dict[nn.Parameter, str]
) -> tuple[Group, str]:
    """The group in our own terms, or a sentence that names what stands in the way."""
    slices, blocks = [], 1
    for number, item in enumerate(raw.items):
        layer, handler = item.dep.target.module, item.dep.handler
        if isinstance(layer, nn.Parameter):
            own = parameter_names[layer]
            if sum(size > 1 for size in layer.shape) > 1:
                owner = own.rpartition(".")[0]
                kind = next(
                    (type(m).__name__ for m, key in layer_names.items() if key == owner), "module"
                )
                return _NONE, f"{kind} at {owner or 'the top'}: its {own} has no known channels"
            continue
        if layer not in layer_names:
            continue
        name = layer_names[layer]
        roots = raw[number].root_idxs
        if any(root is None for root in roots):
            return _NONE, f"{type(layer).__name__} at {name}: its channels cannot be followed"
        if isinstance(layer, _MIXING):
            if getattr(layer, "transposed", False):
                return _NONE, f"{type(layer).__name__} at {name}: is not pruned"
            depthwise = getattr(layer, "groups", 1) == getattr(layer, "out_channels", 0) > 1
            reads = handler.__func__.__name__ == "prune_in_channels"
            side = EACH if depthwise else IN if reads else OUT
            if not depthwise:
                blocks = max(blocks, getattr(layer, "groups", 1))
        elif isinstance(layer, _NORMS):
            side = EACH
            blocks = max(blocks, getattr(layer, "num_groups", 1))
        elif any(True for _ in layer.parameters(recurse=False)):
            return _NONE, f"{type(layer).__name__} at {name}: is not pruned"
        else:
            continue
        slices.append(
            Slice(
                name,
                layer,
                side,
                torch.tensor(list(item.idxs), dtype=torch.long),
                torch.tensor(list(roots), dtype=torch.long),
            )
        )
    width = len(raw[0].idxs)
    if width % blocks:
        return _NONE, f"{slices[0].name}: {width} channels in {blocks} blocks"
    return Group(slices[0].name, width, blocks, tuple(slices)), ""


_NONE = Group("", 0, 1, ())


def _try(channels: Channels, numbers: Sequence[int]) -> str:
    """Prune these groups to half and run the network: '' where that works, else what failed."""
    wanted = set(numbers)
    gone: list[list[int]] = []
    for number, group in enumerate(channels.groups):
        per_block = group.width // group.blocks
        cut = range(per_block // 2) if number in wanted else ()
        gone.append([block * per_block + c for block in range(group.blocks) for c in cut])
    example = torch.zeros(2, 1, channels.mels, channels.frames)
    with torch.no_grad():
        expected = channels.model(example).shape
    entered: list[str] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, _, key=key: entered.append(f"{type(layer).__name__} at {key}")
        )
        for key, layer in channels.model.named_modules()
        if key
    ]
    try:
        channels.remove(gone)
        with torch.no_grad():
            given = channels.model(example).shape
    except Exception as error:  # arbitrary networks raise whatever their code meets
        return f"{entered[-1] if entered else 'the library'} ({_first_line(error)})"
    finally:
        for hook in hooks:
            hook.remove()
    return "" if given == expected else f"the logits change from {expected} to {given}"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] if str(error) else type(error).__name__


# --- counts as a function of widths ---------------------------------------------------------------


def _counts(model: nn.Module, groups: Sequence[Group], mels: int, frames: int) -> Counts:
    now = [group.width for group in groups]
    sides: dict[tuple[nn.Module, str], list[tuple[int, int]]] = {}
    for number, group in enumerate(groups):
        for piece in group.slices:
            per = len(piece.channels) // group.width
            sides.setdefault((piece.layer, piece.side), []).append((number, per))
    places = _places(model, mels, frames)
    layers = []
    for layer in dict.fromkeys(layer for layer, _ in sides):

        def dimension(side: str, size: int, layer: nn.Module = layer) -> Dimension:
            parts = tuple(sides.get((layer, side), ()))
            return Dimension(size - sum(per * now[g] for g, per in parts), parts)

        layers.append(_layer_count(layer, dimension, places.get(layer, 0)))
    counted = tuple(layers)
    totals = {PARAMS: measure.count_params(model), MACS: measure.count_macs(model, mels, frames)}
    rest = {
        kind: total - sum(layer.count(kind, now) for layer in counted)
        for kind, total in totals.items()
    }
    return Counts(counted, rest)


def _layer_count(
    layer: nn.Module, dimension: Callable[[str, int], Dimension], places: int
) -> LayerCount:
    if not isinstance(layer, _MIXING):
        numbers = sum(p.numel() for p in layer.parameters(recurse=False))
        own = getattr(layer, "weight", None)
        size = own.shape[0] if own is not None else 1
        return LayerCount(Dimension(0), dimension(EACH, size), params_per_output=numbers / size)
    weight: Any = layer.weight
    outputs, bias = weight.shape[0], float(layer.bias is not None)
    kernel = weight[0, 0].numel()
    groups = getattr(layer, "groups", 1)
    if groups == outputs > 1:
        return LayerCount(
            Dimension(0),
            dimension(EACH, outputs),
            params_per_output=kernel + bias,
            macs_per_output=float(kernel * places),
        )
    return LayerCount(
        dimension(IN, weight.shape[1] * groups),
        dimension(OUT, outputs),
        params_per_pair=kernel / groups,
        params_per_output=bias,
        macs_per_pair=kernel / groups * places,
    )


def _places(model: nn.Module, mels: int, frames: int) -> dict[nn.Module, int]:
    """Positions at which each convolution and linear layer is applied to one window."""
    found: dict[nn.Module, int] = {}

    def note(layer: Any, _: Any, output: Tensor) -> None:
        found[layer] = found.get(layer, 0) + output.numel() // layer.weight.shape[0]

    layers: Iterator[nn.Module] = (m for m in model.modules() if isinstance(m, _MIXING))
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 1, mels, frames))
    finally:
        for hook in hooks:
            hook.remove()
    return found
