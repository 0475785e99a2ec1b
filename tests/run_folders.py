"""Run folders as training commands leave them, fabricated around small real model files."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import model_files
import numpy as np

FIVE = ("other", "music", "human voice", "engine sounds", "alarm")
TEN = (
    "dog", "rooster", "rain", "sea waves", "crackling fire", "crying baby", "sneezing",
    "clock tick", "helicopter", "chainsaw",
)  # fmt: skip


def make(
    root: Path,
    folder: str,
    *,
    name: str = "dsc500",
    stage: str = "distill",
    data: str = "scenes:6000",
    synthetic: bool = True,
    classes: tuple[str, ...] = FIVE,
    accuracy: float = 0.92,
    params: int = 499_437,
    macs: int = 17_500_000,
    seed: int = 0,
    fold: int | None = None,
    epochs: int = 30,
    width: int = 8,
    settings: dict[str, Any] | None = None,
    status: str = "complete",
) -> Path:
    """A run folder below ``root`` with manifest, metrics, curves and model.onnx."""
    where = root / folder
    model = model_files.student(where / "model.onnx", width, len(classes))
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    generator = np.random.default_rng(seed)
    totals = np.linspace(300, 40, len(classes)).astype(int)
    confusion = np.zeros((len(classes), len(classes)), int)
    for row, total in enumerate(totals):
        share = np.full(len(classes), (1 - accuracy) / (len(classes) - 1))
        share *= generator.uniform(0.1, 2, len(classes))
        share[row] = accuracy
        confusion[row] = generator.multinomial(total, share / share.sum())
    test = {
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.012,
        "accuracy_high": min(1.0, accuracy + 0.011),
        "loss": 0.22,
        "recall": {
            n: float(confusion[i, i] / max(1, confusion[i].sum())) for i, n in enumerate(classes)
        },
        "confusion": confusion.tolist(),
        "calibration_error": 0.021,
        "clips": int(confusion.sum()),
        "recordings": 120,
    }
    metrics = {
        "artifact": "model.onnx",
        "sha256": digest,
        "params": params,
        "file_params": params - 900,
        "macs": macs,
        "file_bytes": 4 * params + 20_000,
        "peak_activation_bytes": 196_608,
        "latency_ms": 0.234,
        "splits": {"validation": test, "test": test},
    }
    manifest = {
        "schema": 1,
        "name": name,
        "model": name,
        "stage": stage,
        "status": status,
        "key": f"{folder}",
        "seed": seed,
        "fold": fold,
        "data": {
            "name": data,
            "content_hash": f"hash of {data}",
            "class_names": list(classes),
            "synthetic": synthetic,
        },
        "settings": {"seed": seed, "split": f"{fold}", "stage": stage, **(settings or {})},
        "teachers": [],
        "parent": None,
    }
    (where / "manifest.json").write_text(json.dumps(manifest))
    if status == "complete":
        (where / "metrics.json").write_text(json.dumps(metrics))
    rows = ["epoch,train_loss,validation_loss,validation_accuracy,learning_rate"]
    for epoch in range(1, epochs + 1):
        train = 1.5 * math.exp(-epoch / 7) + 0.05
        check = 1.3 * math.exp(-epoch / 6) + 0.2 + 0.006 * max(0, epoch - 20)
        rows.append(f"{epoch},{train},{check},{accuracy * (1 - math.exp(-epoch / 4))},0.001")
    (where / "curves.csv").write_text("\n".join(rows) + "\n")
    return where
