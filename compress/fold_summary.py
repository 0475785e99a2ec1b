"""Figures over folds from what each fold's file measured: means, spreads, one confusion matrix."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.errors import InputError
from compress.runs import Run

_FIGURES = ("accuracy", "loss")


def summarise(found: Mapping[int, Run], folder: Path) -> dict[str, Any]:
    """crossval.json: per fold and over folds, for the test and the validation side.

    Spread is the sample standard deviation over folds. ``confusion.clips`` are sums over folds,
    rows actual; ``confusion.percent`` is per row of these. Raises InputError for folds whose
    figures are not those of their file, or that are not of one data set.
    """
    runs = list(found.values())
    first = runs[0]
    metrics = {fold: _metrics(run) for fold, run in found.items()}
    if len({run.manifest["data"].get("content_hash") for run in runs}) > 1:
        raise InputError(f"{folder}: its folds were trained on different data; start anew")
    names = list(first.class_names)
    tests = [figures["splits"]["test"] for figures in metrics.values()]
    clips = [
        [sum(test["confusion"][i][j] for test in tests) for j in range(len(names))]
        for i in range(len(names))
    ]
    return {
        "student": first.name,
        "stage": first.manifest["stage"],
        "data": first.manifest["data"].get("name"),
        "synthetic": first.manifest["data"].get("synthetic"),
        "seed": first.manifest.get("seed"),
        "class_names": names,
        "official_folds": first.manifest.get("folds") is None,
        "params": _same(figures.get("params") for figures in metrics.values()),
        "macs": _same(figures.get("macs") for figures in metrics.values()),
        "folds": [
            {
                "fold": fold,
                "run": os.path.relpath(run.folder, folder),
                "artifact": metrics[fold]["artifact"],
                "sha256": metrics[fold]["sha256"],
                "epochs": metrics[fold].get("epochs"),
                **{
                    side: {key: metrics[fold]["splits"][side][key]
                           for key in (*_FIGURES, "recall", "clips")}
                    for side in ("test", "validation")
                },
            }
            for fold, run in found.items()
        ],  # fmt: skip
        **{
            side: {
                key: spread([figures["splits"][side][key] for figures in metrics.values()])
                for key in _FIGURES
            }
            for side in ("test", "validation")
        },
        "recall": {
            name: spread([t["recall"][name] for t in tests if t["recall"][name] is not None])
            for name in names
        },
        "confusion": {
            "clips": clips,
            "percent": [
                [100 * cell / sum(row) if sum(row) else 0.0 for cell in row] for row in clips
            ],
        },
    }


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, sample standard deviation (None for fewer than two), how many."""
    return {
        "mean": statistics.fmean(values) if values else None,
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "folds": len(values),
    }


def _metrics(run: Run) -> dict[str, Any]:
    from compress.runs import sha256_file

    found = run.metrics()
    if sha256_file(run.file(found["artifact"])) != found["sha256"]:
        raise InputError(f"{run.folder}: {found['artifact']} changed since it was measured")
    return found


def _same(values: Any) -> Any:
    found = set(values)
    return found.pop() if len(found) == 1 else None
