"""Training steps: launched one operation after the other, or on a CUDA device as recorded graphs.

A GPU computes a step of these networks faster than Python launches its some hundred operations. A
CUDA graph launches them all at once: recorded at the first batch of a size, replayed for each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from compress.material import Batch

_WARM_UP = 3
"""Steps before a batch size is recorded, taken back: libraries choose and allocate in them."""

Terms = dict[str, torch.Tensor]


class PlainSteps:
    """Trains on one batch after the other; gives every term of the loss, without a gradient.

    task: see compress.fit.Task. average: the mean of the weights that each step moves, with its
    decay, if any (see compress.fit.weight_average).
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: Any,
        task: Callable[[torch.Tensor, Batch], Terms],
        fabric: Any,
        bfloat16: bool = False,
        average: AveragedModel | None = None,
        decay: float = 0.0,
    ) -> None:
        self.model = model
        self.optimiser = optimiser
        self.task = task
        self.fabric = fabric
        self.bfloat16 = bfloat16
        self.average = average
        self.decay = decay

    def __call__(self, batch: Batch) -> Terms:
        return self.compute(batch)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """What the steps of an epoch, and the making of its batches, have to run in."""
        yield

    def compute(self, batch: Batch) -> Terms:
        """The step itself: on a CUDA device nothing here waits for the device."""
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(batch.x)
        terms = self.task(logits.float(), batch)
        self.fabric.backward(terms["loss"])
        self.optimiser.step()
        if self.average is not None and batch.x.is_cuda:
            follow(self.average, self.model, self.decay)
        elif self.average is not None:
            self.average.update_parameters(self.model)
        return {name: value.detach() for name, value in terms.items()}


class GraphedSteps(PlainSteps):
    """The same steps on a CUDA device, each batch size recorded once and replayed from then on.

    Whatever decides a step must lie on the device: rates of learning as tensors
    (:func:`rates_on_device`), the mean of the weights by :func:`follow`, and what a task needs of a
    view at one place of the memory, if it has a ``prepare(view, device)``. Every step is a replay,
    the first too, so that a training that was interrupted goes on with the same numbers. Raises
    ValueError where a tensor of the state lies elsewhere: its value would be recorded, not read.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if any(not tensor.is_cuda for tensor in self._state()):
            raise ValueError("a recorded step needs network, moments and mean on the CUDA device")
        self._stream = torch.cuda.Stream()
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, Batch, Terms]] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def __call__(self, batch: Batch) -> Terms:
        if (prepare := getattr(self.task, "prepare", None)) is not None:
            prepare(batch.view, batch.x.device)
        size = len(batch.x)
        if size not in self._recorded:
            self._recorded[size] = self._record(batch)
        graph, held, terms = self._recorded[size]
        held.x.copy_(batch.x)
        held.targets.copy_(batch.targets)
        held.positions.copy_(batch.positions)
        held.view = batch.view
        graph.replay()
        return terms

    def _record(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, Terms]:
        held = Batch(batch.x.clone(), batch.targets.clone(), batch.positions.clone(), batch.view)
        with self._taken_back(held.x.device):
            for _ in range(_WARM_UP):
                self.compute(held)
        return self._capture(held)

    def _capture(self, held: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, Terms]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            terms = self.compute(held)
        return graph, held, terms

    @contextlib.contextmanager
    def _taken_back(self, device: torch.device) -> Iterator[None]:
        """Weights, statistics, the optimiser's moments and random numbers as they were before."""
        before = [(tensor, tensor.clone()) for tensor in self._state()]
        known = {tensor.data_ptr() for tensor, _ in before}
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
            for tensor in self._state():  # moments that came into being meanwhile begin at 0
                if tensor.data_ptr() not in known:
                    tensor.zero_()

    def _state(self) -> list[torch.Tensor]:
        networks = [self.model] if self.average is None else [self.model, self.average]
        found = [tensor for network in networks for tensor in network.state_dict().values()]
        for moments in self.optimiser.state.values():
            found += [value for value in moments.values() if isinstance(value, torch.Tensor)]
        return found


def rates_on_device(optimiser: Any, device: torch.device) -> None:
    """Learning rates as tensors of the device, which a recorded step reads each time."""
    for group in optimiser.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
        group["capturable"] = True


def set_rate(optimiser: Any, rate: float) -> None:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


@torch.no_grad()
def follow(average: AveragedModel, model: nn.Module, decay: float) -> None:
    """``average.update_parameters(model)`` of compress.fit.weight_average, without asking the
    device how many steps there were."""
    n = average.n_averaged
    share = 1 - ((1 + n) / (10 + n)).clamp(max=decay)
    share = torch.where(n == 0, torch.ones_like(share), share)
    pairs = [
        *zip(average.module.parameters(), model.parameters(), strict=True),
        *zip(average.module.buffers(), model.buffers(), strict=True),
    ]
    means = [mean for mean, _ in pairs if mean.is_floating_point()]
    now = [value for mean, value in pairs if mean.is_floating_point()]
    moves = torch._foreach_sub(now, means)
    torch._foreach_mul_(moves, share)
    torch._foreach_add_(means, moves)
    counters = [pair for pair in pairs if not pair[0].is_floating_point()]
    if counters:
        torch._foreach_copy_([mean for mean, _ in counters], [value for _, value in counters])
    average.n_averaged += 1
