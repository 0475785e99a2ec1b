"""Training steps: launched one operation after the other, or on a CUDA device as recorded graphs.

A GPU computes a step of these networks faster than Python launches its some hundred operations. A
CUDA graph launches them all at once: recorded at the first batch of a size, replayed for each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from compress.material import Batch

_WARM_UP = 3
"""Steps before a batch size is recorded, taken back: libraries choose and allocate in them."""

Terms = dict[str, torch.Tensor]


class Steps(Protocol):
    """Trains on one batch; gives every term of its loss, without a gradient."""

    def __call__(self, batch: Batch) -> Terms: ...


class PlainSteps:
    """Forward pass, backward pass, optimiser and, where there is one, the mean of the weights.

    task: see compress.fit.Task. One that has ``prepare(view, device)`` is told before each batch
    which view it belongs to, so that what it needs of it lies on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: Any,
        task: Callable[[torch.Tensor, Batch], Terms],
        fabric: Any,
        bfloat16: bool = False,
        after: Callable[[], Any] = lambda: None,
    ) -> None:
        self.model = model
        self.optimiser = optimiser
        self.task = task
        self.fabric = fabric
        self.bfloat16 = bfloat16
        self.after = after

    def prepare(self, batch: Batch) -> None:
        if (prepare := getattr(self.task, "prepare", None)) is not None:
            prepare(batch.view, batch.x.device)

    def __call__(self, batch: Batch) -> Terms:
        self.prepare(batch)
        return self.compute(batch)

    def compute(self, batch: Batch) -> Terms:
        """The step itself: on a CUDA device nothing here waits for the device."""
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(batch.x)
        terms = self.task(logits.float(), batch)
        self.fabric.backward(terms["loss"])
        self.optimiser.step()
        self.after()
        return {name: value.detach() for name, value in terms.items()}


class GraphedSteps:
    """The same steps on a CUDA device, each batch size recorded once and replayed from then on.

    Whatever decides a step must lie on the device: rates of learning as tensors
    (:func:`rates_on_device`), the mean of the weights by :func:`follow`. Every step is a replay,
    the first too, so that a training that was interrupted goes on with the same numbers.

    average: the mean of the weights that a step moves, if any. Raises ValueError where a tensor of
    the state lies elsewhere: its value would be recorded, not read.
    """

    def __init__(self, steps: PlainSteps, average: nn.Module | None = None) -> None:
        self.steps = steps
        self.average = average
        if any(not tensor.is_cuda for tensor in self._state()):
            raise ValueError("a recorded step needs network, moments and mean on the CUDA device")
        self.stream = torch.cuda.Stream()
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, Batch, Terms]] = {}

    def __call__(self, batch: Batch) -> Terms:
        self.steps.prepare(batch)
        size = len(batch.x)
        if size not in self._recorded:
            self._recorded[size] = self._record(batch)
        graph, held, terms = self._recorded[size]
        held.x.copy_(batch.x)
        held.targets.copy_(batch.targets)
        held.positions.copy_(batch.positions)
        graph.replay()
        return terms

    def _record(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch, Terms]:
        held = Batch(batch.x.clone(), batch.targets.clone(), batch.positions.clone(), batch.view)
        with self._taken_back():
            for _ in range(_WARM_UP):
                self.steps.compute(held)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            terms = self.steps.compute(held)
        return graph, held, terms

    @contextlib.contextmanager
    def _taken_back(self) -> Iterator[None]:
        """Weights, statistics, the optimiser's moments and random numbers as they were before."""
        random = torch.cuda.get_rng_state()
        before = [(tensor, tensor.clone()) for tensor in self._state()]
        known = {tensor.data_ptr() for tensor, _ in before}
        yield
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
            for tensor in self._state():  # moments that came into being meanwhile begin at 0
                if tensor.data_ptr() not in known:
                    tensor.zero_()
        torch.cuda.set_rng_state(random)

    def _state(self) -> list[torch.Tensor]:
        networks = [self.steps.model, *([self.average] if self.average else [])]
        found = [tensor for network in networks for tensor in network.state_dict().values()]
        for moments in self.steps.optimiser.state.values():
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
