"""What augmentation costs, as a share of a training step.

    python benchmarks/augmentation.py [--student audiobot500] [--batch 64] [--rounds 7]

One process, in turns: a training step (forward, backward, fused Adam, channels-last, as in
compress.fit) and a view of as many windows, prepared by the thousand as compress.material does it.
The cost of a change is that of a view in which every window undergoes it, less that of a plain
view; a recipe's is with the recipe's own probabilities. Prints microseconds per window and the
ratio to the step, medians over the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compress import fit, recipe, registry
from compress.data.sets import SpectrogramSet, encode_db
from compress.frontend import FrontEnd
from compress.material import CHUNK, Material, measure_normalisation
from compress.recipe import Augmentation

CLASSES = 5


def made_up_clips(folder: Path, windows: int) -> SpectrogramSet:
    """Noise in clips of six overlapping windows: speed does not depend on what they show."""
    clips = windows // 6
    generator = np.random.default_rng(0)
    long = generator.uniform(-90, 0, (clips, 32, 96 + 5 * 31)).clip(-80, 0).astype(np.float32)
    cut = np.stack([long[:, :, 31 * i : 31 * i + 96] for i in range(6)], axis=1)
    path = folder / "spectrograms.npy"
    np.save(path, encode_db(cut.reshape(-1, 32, 96)))
    owners = np.repeat(np.arange(clips), 6)
    return SpectrogramSet(
        name="made up",
        codes=np.load(path, mmap_mode="r"),
        labels=owners % CLASSES,
        class_names=tuple("abcde"),
        recording_ids=owners,
        clip_ids=owners,
        folds=None,
        frontend=FrontEnd(),
        synthetic=True,
        content_hash="",
    )


def step_time(student: str, batch: int) -> Callable[[int], float]:
    """Seconds per window of one training step."""
    model = registry.build_student(student).train().to(memory_format=torch.channels_last)
    optimiser = fit.make_optimiser(model, recipe.load("audiobots"))
    x, y = torch.randn(batch, 1, 32, 96), torch.randint(0, CLASSES, (batch,))

    def run(round_: int, steps: int = 10) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
        return (time.perf_counter() - start) / (steps * batch)

    return run


def view_time(data: SpectrogramSet, augmentation: Augmentation) -> Callable[[int], float]:
    """Seconds per window of one view of CHUNK windows."""
    windows = np.arange(len(data))
    normalisation = measure_normalisation(data, windows[:2048])
    material = Material([(data, windows)], CLASSES, normalisation, augmentation, seed=0)

    def run(round_: int) -> float:
        positions = material.order(0, round_)[:CHUNK]
        start = time.perf_counter()
        material.view(positions, round_)
        return (time.perf_counter() - start) / len(positions)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", default="audiobot500")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    every = [
        spec.name
        for spec in dataclasses.fields(Augmentation)
        if spec.name.endswith("_probability")
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = made_up_clips(Path(folder), 12_000)
        ways = {"training step": step_time(options.student, options.batch)}
        ways["plain view"] = view_time(data, Augmentation())
        for name in every:
            changed = Augmentation(**{name: 1.0})
            ways[name.removesuffix("_probability")] = view_time(data, changed)
        for name in recipe.names():
            ways[f"recipe {name}"] = view_time(data, recipe.load(name).augmentation)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for round_ in range(options.rounds + 1):
            for name, way in ways.items():
                seconds = way(round_)
                if round_:
                    times[name].append(seconds)
    print(f"{options.student}, batch {options.batch}, {options.threads} threads, ", end="")
    print(f"torch {torch.__version__}; median of {options.rounds} rounds, per window")
    step, plain = times.pop("training step"), times.pop("plain view")
    print(f"{'training step':<24} {1e6 * statistics.median(step):8.1f} us")
    ratio = statistics.median(p / s for p, s in zip(plain, step, strict=True))
    print(f"{'plain view':<24} {1e6 * statistics.median(plain):8.1f} us {ratio:8.1%} of a step")
    for name, found in times.items():
        extra = [f - p for f, p in zip(found, plain, strict=True)]
        ratio = statistics.median(e / s for e, s in zip(extra, step, strict=True))
        print(f"{name:<24} {1e6 * statistics.median(extra):8.1f} us {ratio:8.1%} of a step more")


if __name__ == "__main__":
    main()
