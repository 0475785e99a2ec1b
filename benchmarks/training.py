"""Training speed: this workbench against a bare loop, and against loading as in the original.

    python benchmarks/training.py [--student audiobot500] [--batch 8 32 128] [--seconds 6]
    python benchmarks/training.py --device cuda          # on a GPU, with one way more

Five ways to train one student, taken in turn in one process on the same windows:

    ours       compress.fit on int16 codes from a memory-mapped file, with the report's augmentation
    bfloat16   the same with --precision bfloat16
    distilled  ours under a teacher whose logits are stored, one set per view
    bare       a PyTorch loop over float tensors in memory, standardised before, not augmented
    original   a Dataset item by item, a DataLoader with one worker, augmentation batch by batch in
               numpy, as the AudioBots project did
    launched   on a GPU: ours with every operation launched by itself, where "ours" replays a step
               as one recorded graph (see compress.steps)

Prints windows per second (median of the rounds), their ratios, what a distilled epoch costs in
plain ones, and the share of the machine's matrix-product peak (measured in the same run) that our
training reaches.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compress import fit, measure, recipe, registry
from compress.data.sets import SpectrogramSet, encode_db
from compress.losses.distillation import SoftTargets
from compress.material import Batch, Material, measure_normalisation
from compress.steps import GraphedSteps, PlainSteps, rates_on_device
from compress.tasks import DistillTask, LabelTask

CLASSES = 5
VIEWS = 6


def made_up_set(folder: Path, count: int) -> SpectrogramSet:
    """Random spectrograms in a memory-mapped file: speed does not depend on what they show."""
    generator = np.random.default_rng(0)
    path = folder / "spectrograms.npy"
    np.save(path, encode_db(generator.uniform(-80, 0, (count, 32, 96)).astype(np.float32)))
    numbers = np.arange(count)
    return SpectrogramSet(
        name="made up",
        codes=np.load(path, mmap_mode="r"),
        labels=numbers % CLASSES,
        class_names=tuple("abcde"),
        recording_ids=numbers,
        clip_ids=numbers,
        folds=None,
        frontend=None,
        synthetic=True,
        content_hash="",
    )


def ours(
    data: SpectrogramSet,
    student: str,
    device: torch.device,
    bfloat16: bool = False,
    distilled: bool = False,
    graphs: bool = True,
) -> Callable[[int, int, float], float]:
    from lightning_fabric import Fabric

    rules = recipe.load("audiobots")
    windows = np.arange(len(data))
    normalisation = measure_normalisation(data, windows)
    material = Material(
        [(data, windows)], CLASSES, normalisation, rules.augmentation, seed=0, device=device
    )
    fabric = Fabric(accelerator=device.type, devices=1)
    model = registry.build_student(student).to(memory_format=torch.channels_last)
    model, optimiser = fabric.setup(model, fit.make_optimiser(model, rules))
    task: fit.Task = LabelTask(rules, material.class_counts)
    if distilled:
        logits = torch.randn(VIEWS, len(data), CLASSES)
        task = DistillTask(rules, SoftTargets(2.0), 0.1, 0.9, logits, material.class_counts)
    if device.type == "cuda":
        rates_on_device(optimiser, device)
    kind = GraphedSteps if graphs and device.type == "cuda" else PlainSteps
    steps = kind(model, optimiser, task, fabric, bfloat16)

    def run(batch: int, round_: int, seconds: float) -> float:
        until = time.perf_counter() + seconds
        seen = 0

        def some() -> Iterator[Batch]:
            nonlocal seen
            for piece in material.batches(round_, 0, batch, view=round_ % VIEWS):
                yield piece
                seen += len(piece.x)
                if time.perf_counter() > until:
                    return

        start = time.perf_counter()
        while time.perf_counter() < until:
            fit.train_epoch(steps, some())
        return seen / (time.perf_counter() - start)

    return run


def bfloat16(data: SpectrogramSet, student: str, device: torch.device):
    return ours(data, student, device, bfloat16=True)


def distilled(data: SpectrogramSet, student: str, device: torch.device):
    return ours(data, student, device, distilled=True)


def launched(data: SpectrogramSet, student: str, device: torch.device):
    return ours(data, student, device, graphs=False)


def step(model: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor):
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimiser.step()


def bare(
    data: SpectrogramSet, student: str, device: torch.device
) -> Callable[[int, int, float], float]:
    x = torch.from_numpy(data.decibels(np.arange(len(data))))[:, None]
    x = (x - x.mean((0, 1, 3), keepdim=True)) / x.std((0, 1, 3), keepdim=True)
    x, y = x.to(device), torch.from_numpy(data.labels).to(device)
    model = registry.build_student(student).train().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=6.5e-4)

    def run(batch: int, round_: int, seconds: float) -> float:
        start = time.perf_counter()
        seen = 0
        while time.perf_counter() - start < seconds:
            order = torch.randperm(len(x), device=device)
            for at in range(0, len(order), batch):
                rows = order[at : at + batch]
                step(model, optimiser, x[rows], y[rows])
                seen += len(rows)
                if time.perf_counter() - start > seconds:
                    break
            wait(device)
        return seen / (time.perf_counter() - start)

    return run


class ItemByItem(torch.utils.data.Dataset):
    def __init__(self, data: SpectrogramSet) -> None:
        values = data.decibels(np.arange(len(data)))
        self.values = (values - values.mean((0, 2))[None, :, None]) / values.std((0, 2))[:, None]
        self.labels = data.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.values[index])[None], int(self.labels[index])


def augment_batch(x: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """The report's four changes, each drawn once for a whole batch."""
    values = x.numpy()[:, 0]
    frames = values.shape[2]
    if random.random() < 0.2:
        values = np.roll(values, random.integers(-frames // 10, frames // 10 + 1), axis=2)
    if random.random() < 0.2:
        values = np.roll(values, random.integers(-3, 4), axis=1)
    if random.random() < 0.2:
        rate = random.uniform(0.8, 1.2)
        at = np.clip(np.arange(frames) * rate, 0, frames - 1)
        flat = values.reshape(-1, frames)
        stretched = np.stack([np.interp(at, np.arange(frames), row) for row in flat])
        values = stretched.reshape(values.shape)
    if random.random() < 0.2:
        values = values + random.normal(size=values.shape) * random.uniform(0.01, 0.1)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[:, None]


def original(
    data: SpectrogramSet, student: str, device: torch.device
) -> Callable[[int, int, float], float]:
    items = ItemByItem(data)
    model = registry.build_student(student).train().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=6.5e-4)
    random = np.random.default_rng(0)

    def run(batch: int, round_: int, seconds: float) -> float:
        loader = torch.utils.data.DataLoader(items, batch, shuffle=True, num_workers=1)
        batches = iter(loader)
        first = next(batches)
        start = time.perf_counter()
        seen = 0
        while time.perf_counter() - start < seconds:
            x, y = first
            step(model, optimiser, augment_batch(x, random).to(device), y.to(device))
            seen += len(y)
            try:
                first = next(batches)
            except StopIteration:
                batches = iter(loader)
                first = next(batches)
        wait(device)
        return seen / (time.perf_counter() - start)

    return run


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_flops(device: torch.device, seconds: float = 2.0) -> float:
    """Operations per second of a large float32 matrix product, the best of several."""
    size = 1536 if device.type == "cpu" else 8192
    a, b = torch.randn(2, size, size, device=device).unbind(0)
    best = 0.0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", default="audiobot500")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--seconds", type=float, default=4.0, help="per way, batch and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before the first round")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        device = torch.device(options.device)
        data = made_up_set(Path(folder), 12_000)
        chosen = [ours, bfloat16, distilled, bare, original]
        if device.type == "cuda":
            chosen.append(launched)
        ways = {way.__name__: way(data, options.student, device) for way in chosen}
        macs = measure.count_macs(registry.build_student(options.student), 32, 96)
        where = f"{torch.get_num_threads()} threads"
        if device.type == "cuda":
            where = torch.cuda.get_device_name(device)
        print(f"{options.student}, {where}, torch {torch.__version__}")
        print("batch     ours  bfloat16  distilled     bare  original  ours/bare  ", end="")
        print("ours/original  bfloat16/original  distilled epoch  share of peak", end="")
        print("  launched  ours/launched" if "launched" in ways else "")
        for batch in options.batch:
            speeds: dict[str, list[float]] = {name: [] for name in ways}
            for way in ways.values():
                way(batch, 0, options.warm_up)
            peaks = []
            for round_ in range(options.rounds):
                for name, way in ways.items():
                    speeds[name].append(way(batch, round_, options.seconds))
                peaks.append(peak_flops(device, 0.5))
            middle = {name: statistics.median(found) for name, found in speeds.items()}
            ratios = {
                (a, b): statistics.median(x / y for x, y in zip(speeds[a], speeds[b], strict=True))
                for a, b in (
                    ("ours", "bare"),
                    ("ours", "original"),
                    ("bfloat16", "original"),
                    ("ours", "distilled"),
                )
            }
            share = middle["ours"] * macs * 2 * 3 / statistics.median(peaks)
            print(
                f"{batch:5d} {middle['ours']:8.0f} {middle['bfloat16']:9.0f} "
                f"{middle['distilled']:10.0f} {middle['bare']:8.0f} {middle['original']:9.0f} "
                f"{ratios['ours', 'bare']:10.2f} {ratios['ours', 'original']:14.2f} "
                f"{ratios['bfloat16', 'original']:18.2f} {ratios['ours', 'distilled']:16.2f} "
                f"{share:14.2f}"
                + (
                    f" {middle['launched']:9.0f} {middle['ours'] / middle['launched']:14.2f}"
                    if "launched" in ways
                    else ""
                )
            )


if __name__ == "__main__":
    main()
