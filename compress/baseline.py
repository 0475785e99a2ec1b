"""Fit classifiers without a network on statistics of the mel bands, on the split of the networks.

Each is a run folder whose model.npz holds arrays; its figures stand in the report's table.
"""

from __future__ import annotations

import statistics as medians
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import BaselineConfig
from compress.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from compress.data.sets import SpectrogramSet
    from compress.data.splits import Split
    from compress.runs import Run, RunWriter

MODEL_FILE = "model.npz"
_LATENCY_RUNS = 50


def run(config: BaselineConfig) -> int:
    from compress import baselines, registry

    names = config.baseline or tuple(registry.BASELINES)
    rows = {
        name: registry.lookup(registry.BASELINES, "baseline", name) for name in dict.fromkeys(names)
    }
    if config.out is not None and len(rows) > 1:
        raise InputError("--out: names one run folder; choose one with --baseline")
    baselines.fitting()

    from compress.session import read_data
    from compress.summary import report_command, table

    data, split = read_data(config)
    synthetic = " (synthetic)" if data.synthetic and "synthetic" not in data.name else ""
    cli.say(
        f"data      {data.name}{synthetic}: {len(data):,} windows, {len(data.class_names)} "
        f"classes; {len(split.train):,} train, {len(split.validation):,} validation, "
        f"{len(split.test):,} test; {split.description}"
    )
    features: dict[str, np.ndarray] = {}
    made = [_baseline_run(name, row, config, data, split, features) for name, row in rows.items()]
    cli.say()
    cli.say(table([("baseline", one) for one in made]))
    last = made[-1].folder
    cli.say(f"The runs lie in {last.parent}. Next: {report_command(last, config.runs)}")
    return 0


def _baseline_run(
    name: str,
    row: Any,
    config: BaselineConfig,
    data: SpectrogramSet,
    split: Split,
    features: dict[str, np.ndarray],
) -> Run:
    """The finished run of one baseline; ``features`` are those of the sides, once they are read."""
    from compress import baselines, runs
    from compress.session import data_name

    settings = {
        "stage": "baseline",
        "model": name,
        "statistics": list(baselines.STATISTICS),
        "method": row.sentence,
        "landmarks": baselines.NYSTROEM_LANDMARKS,
        "trees": [baselines.FOREST_TREES, baselines.FOREST_LEAST_LEAF],
        "data": data.content_hash,
        "split": split.digest(),
        "seed": config.seed,
    }
    key = runs.digest(settings)
    parts = [name, "baseline", data_name(data, split), f"s{config.seed}", key[:6]]
    manifest = {
        "name": name,
        "stage": "baseline",
        "model": name,
        "key": key,
        "settings": settings,
        "seed": config.seed,
        "fold": split.fold,
        "device": "cpu",
        "processes": 1,
        "data": data.describe(),
        "parent": None,
        "teachers": [],
    }
    writer = runs.RunWriter(config.out or config.runs / "-".join(parts), manifest)
    with writer.locked():
        if writer.begin(config.force):
            cli.say(f"baseline  {name}: finished before, {writer.folder}")
        else:
            if not features:
                features |= _read_features(data, split)
            _make(name, row, config.seed, data, split, features, writer)
    return runs.open_run(writer.folder)


def _read_features(data: SpectrogramSet, split: Split) -> dict[str, np.ndarray]:
    from compress import baselines

    sides = {"train": split.train, "validation": split.validation}
    with cli.progress(sum(map(len, sides.values())), "band statistics", "window") as bar:
        return {
            side: baselines.statistics_of(data, windows, bar.update)
            for side, windows in sides.items()
        }


def _make(
    name: str,
    row: Any,
    seed: int,
    data: SpectrogramSet,
    split: Split,
    features: dict[str, np.ndarray],
    writer: RunWriter,
) -> None:
    from compress import baselines, evaluate, metrics, runs

    started = time.monotonic()
    folder = writer.folder
    runs.write_json(folder / runs.SPLIT, split.to_json())
    training = baselines.Training(
        features["train"],
        data.labels[split.train],
        features["validation"],
        data.labels[split.validation],
        len(data.class_names),
        seed,
    )
    arrays = row.load()(training)
    fitted = time.monotonic() - started
    path = folder / MODEL_FILE
    baselines.save(path, name, arrays)
    predict = baselines.predictor(path)
    decisions = {}
    for side in evaluate.SIDES:
        windows = getattr(split, side)
        decisions[side] = evaluate.decisions_of(
            evaluate.logits_of(predict, data, windows), data, windows
        )
    evaluate.save_decisions(folder / runs.DECISIONS, decisions["test"])
    numbers = baselines.count_numbers(arrays)
    figures: dict[str, Any] = {
        "artifact": MODEL_FILE,
        "sha256": runs.sha256_file(path),
        "params": numbers,
        "file_params": numbers,
        "macs": None,
        "file_bytes": path.stat().st_size,
        "peak_activation_bytes": None,
        "latency_ms": _latency_ms(predict, data, split),
        "splits": {
            side: metrics.summarise(found, data.class_names) for side, found in decisions.items()
        },
        "seconds": round(fitted, 3),
    }
    runs.write_json(folder / runs.METRICS, figures)
    writer.finish(
        [MODEL_FILE, runs.SPLIT, runs.METRICS, runs.DECISIONS],
        seconds=round(time.monotonic() - started, 3),
    )
    found = figures["splits"]["validation"]["accuracy"]
    cli.say(
        f"baseline  {name}: fitted in {cli.duration(fitted)}, validation {100 * found:.1f} % "
        f"({Path(folder, MODEL_FILE)})"
    )


def _latency_ms(predict: Any, data: SpectrogramSet, split: Split) -> float:
    """Median time of one window in numpy, statistics included, in milliseconds."""
    window = data.decibels(split.test[:1])[:, None]
    times = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        predict(window)
        times.append((time.perf_counter() - start) * 1e3)
    return medians.median(times[5:])


if __name__ == "__main__":
    raise SystemExit(cli.main(BaselineConfig, run, __doc__))
