"""Take channels out of a network until a count is met; the result is rebuilt by its builder."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from compress import checkpoint, measure
from compress.errors import InputError
from compress.pruning import importance
from compress.pruning.groups import Channels, find_channels
from compress.pruning.planning import MACS, PARAMS, channels_to_remove, plan, reachable
from compress.pruning.rebuild import rebuild
from compress.registry import arguments_of

Feed = Callable[[nn.Module, Callable[[], None]], None]
"""Runs backward passes through a network and calls the second argument after each."""

_ATTEMPTS = 8


@dataclass(frozen=True)
class Subject:
    """A network and what rebuilds it."""

    family: str
    name: str
    model: nn.Module
    mels: int
    frames: int

    def channels(self) -> Channels:
        return find_channels(self.model, self.name, self.mels, self.frames)

    def count(self, kind: str) -> int:
        if kind == PARAMS:
            return measure.count_params(self.model)
        return measure.count_macs(self.model, self.mels, self.frames)

    def save(self, path: Path) -> None:
        state = {"arguments": arguments_of(self.model), "state": self.model.state_dict()}
        content = io.BytesIO()
        torch.save(state, content)
        path.write_bytes(content.getbuffer())


def restore(path: Path, family: str, name: str, mels: int, frames: int) -> Subject:
    """What :meth:`Subject.save` wrote; raises InputError where it is damaged."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        arguments, state = found["arguments"], found["state"]
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read ({reason}); delete its folder to start again"
        ) from None
    model = checkpoint.build(family, name, arguments)
    checkpoint.load_strictly(model, state, path)
    return Subject(family, name, model, mels, frames)


@dataclass(frozen=True)
class Measure:
    """How channels are chosen: see compress.config.PruneConfig."""

    importance: str = "magnitude"
    round_to: int = 8
    seed: int = 0


def least(subject: Subject, kind: str, round_to: int) -> tuple[int, list[str]]:
    """The smallest count that pruning reaches, and what it has to leave alone."""
    channels = subject.channels()
    return reachable(channels.widths(round_to), channels.counts(), kind), channels.unsupported


def prune_to(
    subject: Subject, kind: str, target: float, how: Measure, feed: Feed | None = None
) -> Subject:
    """At most ``target`` of ``kind`` (params or macs), and as near to it as whole portions get.

    feed is needed for the importance "taylor" alone. Raises InputError where the target lies below
    what can be reached.
    """
    channels = subject.channels()
    widths, counts = channels.widths(how.round_to), channels.counts()

    def accumulate(taylor: importance.Taylor) -> None:
        assert feed is not None
        feed(channels.model, taylor.add)
        channels.model.zero_grad(set_to_none=True)

    scores = importance.score(how.importance, channels.groups, how.seed, accumulate)
    goal = target
    for _ in range(_ATTEMPTS):
        if reachable(widths, counts, kind) > goal:
            break
        # Taylor estimates are changes of one loss, so they are weighed against what they save.
        kept = plan(widths, scores, counts, kind, goal, per_cost=how.importance == "taylor")
        gone = [
            channels_to_remove(score, width, left)
            for score, width, left in zip(scores, widths, kept, strict=True)
        ]
        channels.remove(gone)
        smaller = Subject(
            subject.family,
            subject.name,
            rebuild(channels.model, subject.family, subject.name),
            subject.mels,
            subject.frames,
        )
        excess = smaller.count(kind) - target
        if excess <= 0:
            return smaller
        goal -= max(excess, 1)  # what the counts do not see, such as attention over tokens
        channels = subject.channels()
    floor = reachable(widths, counts, kind)
    raise InputError(
        f"{subject.name}: {UNITS[kind].format(target)} cannot be reached; with every width at its "
        f"least (--round-to {how.round_to}) it has {UNITS[kind].format(floor)}"
    )


UNITS = {PARAMS: "{:,.0f} parameters", MACS: "{:,.0f} MACs"}
