"""Load: memory and time at 10, 100 and 1000 thousand clips, and of many runs and files.

    python benchmarks/load.py [--clips 10000 100000 1000000] [--parts data report gate help]

data    a made-up set in the report's layout (float32, 32 x 96, four clips per recording) is read
        into a cache, split, measured, trained on for one epoch and evaluated; each step in a
        process of its own. The network is narrow, so that what grows with the clips is seen.
        A million clips take 25 GB below --folder while they are read, and 6 GB afterwards.
report  one real run, copied: the report of all of them
gate    one real file, copied: the gate of all of them
help    --help of every command

Memory is the largest resident set of a process, with all that it mapped from files, less what it
held when the libraries were loaded and the network was built; of workers it is all of theirs.
Seconds are wall time and, since machines are shared, processor time. Prints Markdown tables with
targets; --strict ends with exit code 1 where one is missed. Needs Linux (/proc).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

MELS, FRAMES = 32, 96
CLIPS_PER_RECORDING = 4
SHARES = (0.2747, 0.5169, 0.0912, 0.0834, 0.0338)  # of the report's classes
CHUNK = 8_192
NARROW = {"widths": (8, 8, 8), "head": (16, 16)}  # of audiobot50

MOST_MEMORY_MIB = 2_048
MOST_GROWTH = 1.5  # processor time per clip at the largest size, to that at the one before
MOST_SECONDS = {"report": 10.0, "gate": 5.0, "help": 1.0}


@dataclass(frozen=True)
class Figures:
    """seconds: wall; cpu: of all processes; base, peak: MiB resident; workers: MiB, all of them."""

    seconds: float
    cpu: float
    base: float = 0.0
    peak: float = 0.0
    workers: float = 0.0

    @property
    def memory(self) -> float:
        return self.peak - self.base + self.workers


# --- steps, each in a process of its own ---------------------------------------------------------


def resident_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def in_own_process(step: Callable[[Path], Callable[[], Any]], folder: Path) -> Figures:
    """``step(folder)`` prepares and gives what is measured."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(step, folder, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        found = None
    process.join()
    if found is None:
        raise SystemExit(f"{step.__name__}: ended with code {process.exitcode}")
    return found


def _measure(step: Callable[[Path], Callable[[], Any]], folder: Path, answer: Any) -> None:
    work = step(folder)
    base = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident set starts anew
    began, used = time.perf_counter(), cpu_seconds()
    work()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - used
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    workers = children * (os.cpu_count() or 1)
    answer.send(Figures(seconds, cpu, base, resident_mib("VmHWM"), workers))


def cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def read(folder: Path) -> Callable[[], Any]:
    from compress.data import open_data
    from compress.frontend import FrontEnd

    return lambda: open_data(str(folder / "pair"), frontend=FrontEnd(), cache=folder / "cache")


def split(folder: Path) -> Callable[[], Any]:
    from compress import runs
    from compress.data import Split, make_split

    def work() -> None:
        found = make_split(_opened(folder), seed=0)
        runs.write_json(folder / runs.SPLIT, found.to_json())
        assert Split.from_json(runs.read_json(folder / runs.SPLIT)).digest() == found.digest()

    return work


def statistics(folder: Path) -> Callable[[], Any]:
    data, sides = _opened(folder), _split(folder)
    from compress.material import measure_normalisation

    def work() -> None:
        found = measure_normalisation(data, sides.train)
        np.savez(folder / "normalisation.npz", mean=found.mean, deviation=found.deviation)

    return work


def epoch(folder: Path) -> Callable[[], Any]:
    """One epoch over all training windows with the report's augmentation, and validation."""
    from lightning_fabric import Fabric

    from compress import fit, recipe, registry
    from compress.material import Material
    from compress.tasks import LabelTask

    data, sides = _opened(folder), _split(folder)
    normalisation = _normalisation(folder)
    rules = replace(recipe.load("audiobots"), epochs=1, batch_size=("0:128",))
    model = registry.build_student("audiobot50", **NARROW)
    fabric = Fabric(accelerator="cpu", devices=1)

    def work() -> None:
        material = Material([(data, sides.train)], len(SHARES), normalisation,
                            rules.augmentation, seed=0)  # fmt: skip
        task = LabelTask(rules, material.class_counts)
        validation = (data, sides.validation, normalisation)
        fit.train_network(model, task, material, validation, rules, 0,
                          folder / "checkpoint.pt", fabric, "load")  # fmt: skip

    return work


def evaluation(folder: Path) -> Callable[[], Any]:
    """The file on validation and test in onnxruntime, the network on test in torch."""
    import torch

    from compress import onnx_export, registry
    from compress.session import measure_file

    data, sides = _opened(folder), _split(folder)
    normalisation = _normalisation(folder)
    model = registry.build_student("audiobot50", **NARROW).eval()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    path = folder / "model.onnx"
    onnx_export.to_onnx(model, normalisation, MELS, FRAMES, path)
    return lambda: measure_file(path, data, sides, model, normalisation)


def split_again(folder: Path) -> Callable[[], Any]:
    """As every later command does, with the windows' hashes at hand."""
    return split(folder)


STEPS = (read, split, split_again, statistics, epoch, evaluation)


def _opened(folder: Path) -> Any:
    from compress.data.sets import open_set

    (path,) = (folder / "cache" / "sets").glob("*/set.json")
    return open_set(path.parent)


def _split(folder: Path) -> Any:
    from compress import runs
    from compress.data import Split

    return Split.from_json(runs.read_json(folder / runs.SPLIT))


def _normalisation(folder: Path) -> Any:
    from compress.material import Normalisation

    with np.load(folder / "normalisation.npz") as found:
        return Normalisation(found["mean"], found["deviation"])


def write_pair(folder: Path, clips: int) -> None:
    """training.npy, training_labels.npy and training_recordings.npy, chunk by chunk."""
    folder.mkdir(parents=True)
    recordings = np.arange(clips) // CLIPS_PER_RECORDING
    drawn = np.random.default_rng(1).choice(len(SHARES), recordings[-1] + 1, p=SHARES)
    labels = drawn[recordings]
    np.save(folder / "training_labels.npy", labels)
    np.save(folder / "training_recordings.npy", recordings)
    with (folder / "training.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (clips, MELS, FRAMES)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, clips, CHUNK):
            generator = np.random.default_rng([2, start])
            chosen = labels[start : start + CHUNK]
            shape = (len(chosen), MELS, FRAMES)
            values = 6 * generator.standard_normal(shape, dtype=np.float32) - 50
            values += 8 * generator.standard_normal((*shape[:2], 1), dtype=np.float32)
            for label in range(len(SHARES)):
                values[chosen == label, 6 * label : 6 * label + 4] += 25
            np.clip(values, -80, 0, out=values)
            file.write(values.data)


def measure_sizes(folder: Path, sizes: Sequence[int]) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {step.__name__: [] for step in STEPS}
    for clips in sizes:
        with scratch(folder) as place:
            say(f"{clips:,} clips: writing the set")
            write_pair(place / "pair", clips)
            for step in STEPS:
                figures = in_own_process(step, place)
                say(f"{clips:,} clips: {step.__name__} {figures}")
                found[step.__name__].append(figures)
                if step is read:
                    shutil.rmtree(place / "pair")
    return found


# --- commands ------------------------------------------------------------------------------------


def command_time(arguments: Sequence[str], most_codes: int = 0, rounds: int = 3) -> Figures:
    """The fastest of some rounds of ``python -m compress.…``."""
    best = Figures(math.inf, math.inf)
    for _ in range(rounds):
        began, used = time.perf_counter(), cpu_seconds()
        done = subprocess.run(
            [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        seconds, cpu = time.perf_counter() - began, cpu_seconds() - used
        if done.returncode > most_codes:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr.decode().strip()}")
        best = Figures(min(best.seconds, seconds), min(best.cpu, cpu))
    return best


def real_run(folder: Path) -> Path:
    """dsc500, trained for one epoch on made-up clips: a run folder as any other."""
    write_pair(folder / "pair", 2_000)
    out = folder / "run"
    command_time(
        ["compress.train", "--student", "dsc500", "--data", str(folder / "pair"), "--epochs", "1",
         "--batch-size", "128", "--cache", str(folder / "cache"), "--out", str(out)],
        rounds=1,
    )  # fmt: skip
    return out


def copy_runs(run: Path, root: Path, count: int) -> None:
    """Copies that differ in seed, settings and accuracy, as those of a sweep over seeds do."""
    manifest = json.loads((run / "manifest.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    for number in range(count):
        place = root / f"run-{number:05d}"
        place.mkdir(parents=True)
        shutil.copy(run / "model.onnx", place)
        for name in ("weights.safetensors", "split.json", "curves.csv", "test_decisions.npz"):
            os.link(run / name, place / name)  # not read by the report, or small
        manifest["seed"] = manifest["settings"]["seed"] = number % 5
        manifest["settings"]["recipe"]["learning_rate"] = 1e-4 * (1 + number // 5)
        manifest["key"] = f"{number}"
        metrics["splits"]["test"]["accuracy"] = 0.5 + 0.4 * (number * 7_919 % count) / count
        (place / "manifest.json").write_text(json.dumps(manifest))
        (place / "metrics.json").write_text(json.dumps(metrics))


def help_times() -> dict[str, Figures]:
    from compress.__main__ import COMMANDS

    return {name: command_time([f"compress.{name}", "--help"]) for name in COMMANDS}


# --- what is printed -----------------------------------------------------------------------------


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder, prefix="load-") as place:
        yield Path(place)


def print_sizes(found: dict[str, list[Figures]], sizes: Sequence[int]) -> bool:
    """One row per step and size; returns whether memory and growth keep their targets."""
    print("| step | clips | seconds | processor seconds | us per clip | MiB beyond the model |")
    print("|---|---|---|---|---|---|")
    kept = True
    for name, rows in found.items():
        for clips, row in zip(sizes, rows, strict=True):
            each = 1e6 * row.cpu / clips
            print(f"| {name} | {clips:,} | {row.seconds:.1f} | {row.cpu:.1f} | {each:.1f} "
                  f"| {row.memory:.0f} |")  # fmt: skip
    print()
    largest = max(row.memory for rows in found.values() for row in rows)
    kept = verdict("most memory beyond the model", largest, MOST_MEMORY_MIB, "MiB")
    if len(sizes) > 1:
        for name, rows in found.items():
            growth = (rows[-1].cpu / sizes[-1]) / (rows[-2].cpu / sizes[-2])
            what = f"{name}: time per clip at {sizes[-1]:,} to that at {sizes[-2]:,}"
            kept &= verdict(what, growth, MOST_GROWTH, "times")
    return kept


def verdict(what: str, found: float, most: float, unit: str) -> bool:
    kept = found <= most
    print(f"- {what}: {found:,.2f} {unit}, at most {most:g}: {'kept' if kept else 'MISSED'}")
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("data", "report", "gate", "help")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--clips", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the data is made (the temporary folder)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 for a missed target")
    options = parser.parse_args()
    kept = True
    print(f"{os.cpu_count()} cores, {sys.platform}, Python {sys.version.split()[0]}\n")
    if "data" in options.parts:
        sizes = sorted(options.clips)
        kept &= print_sizes(measure_sizes(options.folder, sizes), sizes)
    if "report" in options.parts or "gate" in options.parts:
        with scratch(options.folder) as place:
            run = real_run(place)
            if "report" in options.parts:
                copy_runs(run, place / "runs", options.runs)
                took = command_time(["compress.report", "--runs", str(place / "runs")])
                what = f"report of {options.runs:,} runs (processor {took.cpu:.1f} s)"
                kept &= verdict(what, took.seconds, MOST_SECONDS["report"], "s")
            if "gate" in options.parts:
                (place / "files").mkdir()
                for number in range(options.files):
                    shutil.copy(run / "model.onnx", place / "files" / f"{number}.onnx")
                took = command_time(["compress.gate", str(place / "files")], most_codes=1)
                what = f"gate of {options.files:,} files (processor {took.cpu:.1f} s)"
                kept &= verdict(what, took.seconds, MOST_SECONDS["gate"], "s")
    if "help" in options.parts:
        for name, took in help_times().items():
            what = f"{name} --help (processor {took.cpu:.2f} s)"
            kept &= verdict(what, took.seconds, MOST_SECONDS["help"], "s")
    return 1 if options.strict and not kept else 0


if __name__ == "__main__":
    raise SystemExit(main())
