"""Everything a report says of a file is measured here, on that file, in onnxruntime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.sets import SpectrogramSet
from compress.errors import InputError
from compress.metrics import Decisions, decide
from compress.runs import atomic_path

Predictor = Callable[[np.ndarray], np.ndarray]
"""Spectrograms (B, 1, mels, frames) float32 dB -> logits (B, classes)."""

_BATCH = 128
_LATENCY_RUNS = 200
_LATENCY_SECONDS = 2.0


def onnx_session(path: Path, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; raises InputError for a file that it cannot run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: onnxruntime cannot run this file ({reason})") from None


def onnx_predictor(path: Path, threads: int = 0) -> Predictor:
    session = onnx_session(path, threads)
    name = session.get_inputs()[0].name

    def predict(decibels: np.ndarray) -> np.ndarray:
        return session.run(None, {name: decibels})[0]

    return predict


def logits_of(predict: Predictor, data: SpectrogramSet, windows: np.ndarray) -> np.ndarray:
    """Logits of some windows in their order, (n, classes) float32."""
    parts = [
        predict(data.decibels(windows[start : start + _BATCH])[:, None])
        for start in range(0, len(windows), _BATCH)
    ]
    return np.concatenate(parts)


def decisions_of(logits: np.ndarray, data: SpectrogramSet, windows: np.ndarray) -> Decisions:
    return decide(logits, data.labels[windows], data.clip_ids[windows], data.recording_ids[windows])


def agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Share of windows with the same decision, and the largest difference of any logit."""
    return {
        "top1": float((a.argmax(1) == b.argmax(1)).mean()),
        "largest_logit_difference": float(np.abs(a - b).max()),
        "windows": len(a),
    }


def latency_ms(path: Path, mels: int, frames: int) -> dict[str, float]:
    """Median time of batch 1 on one thread, in milliseconds, after a warm-up."""
    predict = onnx_predictor(path, threads=1)
    generator = np.random.default_rng(0)
    x = generator.uniform(-80, 0, (1, 1, mels, frames)).astype(np.float32)
    for _ in range(10):
        predict(x)
    times = []
    until = time.perf_counter() + _LATENCY_SECONDS
    while len(times) < _LATENCY_RUNS and (len(times) < 20 or time.perf_counter() < until):
        start = time.perf_counter()
        predict(x)
        times.append((time.perf_counter() - start) * 1e3)
    return {"median": statistics.median(times), "least": min(times), "runs": len(times)}


def save_decisions(path: Path, decisions: Decisions) -> None:
    """Decisions on the test split, so that another run can be compared clip by clip."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **vars(decisions))


def load_decisions(path: Path) -> Decisions:
    """Raises InputError where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Decisions(
                *(file[k] for k in ("probabilities", "labels", "clip_ids", "recording_ids"))
            )
    except Exception as error:
        raise InputError(f"{path}: test decisions cannot be read ({error})") from None
