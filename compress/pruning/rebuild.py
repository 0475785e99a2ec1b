"""A network whose layers were pruned in place, as an ordinary network built with these widths."""

from __future__ import annotations

from typing import Any

from torch import nn

from compress import checkpoint
from compress.errors import InputError
from compress.registry import TIMM_PREFIX, arguments_of


def rebuild(model: nn.Module, family: str, name: str) -> nn.Module:
    """The builder's own network with the widths that ``model`` has now, and its weights.

    The state is loaded strictly. Raises InputError where the builder takes no such widths.
    """
    fresh = checkpoint.build(family, name, widths_of(model, family, name))
    try:
        fresh.load_state_dict(model.state_dict(), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name}: its builder cannot make the pruned network ({reason})") from None
    return fresh.train(model.training)


def widths_of(model: nn.Module, family: str, name: str) -> dict[str, Any]:
    """Builder arguments of the network as its layers are now."""
    if family == "teacher" or name.startswith(TIMM_PREFIX):
        from teachers.pruned_shapes import pruned_shapes

        unpruned = {key: value for key, value in arguments_of(model).items() if key != "pruned"}
        return unpruned | {"pruned": pruned_shapes(checkpoint.build(family, name, unpruned), model)}
    measured: Any = model.measured_arguments
    return dict(measured())
