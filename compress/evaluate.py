"""Everything a report says of a file is measured here, on that file, in onnxruntime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress import metrics
from compress.artefacts import onnx_file
from compress.data.sets import SpectrogramSet
from compress.data.splits import Split
from compress.errors import InputError
from compress.int8.interface import Interface
from compress.metrics import Decisions, decide
from compress.runs import atomic_path

Predictor = Callable[[np.ndarray], np.ndarray]
"""Spectrograms (B, 1, mels, frames) float32 dB -> logits (B, classes)."""

SIDES = ("validation", "test")
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
    """The file as a function of dB, whether its ends are float or 8-bit codes."""
    session = onnx_session(path, threads)
    name, batch = session.get_inputs()[0].name, session.get_inputs()[0].shape[0]
    interface = Interface.from_metadata(session.get_modelmeta().custom_metadata_map, path)

    def predict(decibels: np.ndarray) -> np.ndarray:
        x = interface.encode(decibels) if interface else decibels
        if isinstance(batch, int) and batch != len(x):
            found = _in_fixed_batches(session, name, x, batch)
        else:
            found = session.run(None, {name: x})[0]
        return interface.decode(found) if interface else found

    return predict


def _in_fixed_batches(session: Any, name: str, x: np.ndarray, batch: int) -> np.ndarray:
    """Logits of a file that takes just ``batch`` windows at once; the last ones are repeated."""
    parts = []
    for start in range(0, len(x), batch):
        piece = x[start : start + batch]
        full = np.concatenate([piece, np.repeat(piece[-1:], batch - len(piece), axis=0)])
        parts.append(session.run(None, {name: full})[0][: len(piece)])
    return np.concatenate(parts)


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


@dataclass(frozen=True)
class Measured:
    """What a file is worth, without the network that it came from.

    figures: the part of metrics.json that the file alone decides. logits, decisions: by side.
    """

    figures: dict[str, Any]
    logits: dict[str, np.ndarray]
    decisions: dict[str, Decisions]


def measure_onnx(path: Path, data: SpectrogramSet, split: Split) -> Measured:
    """Accuracy on validation and test, counts, bytes and latency of one file."""
    summary = onnx_file.read(path)
    predict = onnx_predictor(path)
    logits = {side: logits_of(predict, data, getattr(split, side)) for side in SIDES}
    decisions = {side: decisions_of(logits[side], data, getattr(split, side)) for side in SIDES}
    latency = latency_ms(path, data.mels, data.frames)
    figures = {
        "artifact": path.name,
        "sha256": summary.sha256,
        "file_params": summary.file_params,
        "macs": summary.macs,
        "file_bytes": summary.file_bytes,
        "peak_activation_bytes": summary.peak_activation_bytes,
        "peak_layer": summary.known_as(summary.peak_layer) if summary.peak_layer else None,
        "flash_bytes": summary.flash_bytes if summary.quantised else None,
        "latency_ms": latency["median"],
        "latency": latency,
        "splits": {side: metrics.summarise(decisions[side], data.class_names) for side in SIDES},
    }
    return Measured(figures, logits, decisions)


def latency_ms(path: Path, mels: int, frames: int) -> dict[str, float]:
    """Median time of batch 1 on one thread, in milliseconds, after a warm-up."""
    (times,) = _times([path], mels, frames)
    return {"median": statistics.median(times), "least": min(times), "runs": len(times)}


def latency_ratio(path: Path, base: Path, mels: int, frames: int) -> dict[str, float]:
    """Time of ``path`` over that of ``base``: one process, one thread, run by run in turns.

    The ratio is the median over neighbouring runs, so that it holds while the machine's speed
    changes; low and high are its quartiles.
    """
    times, base_times = _times([path, base], mels, frames)
    ratios = sorted(a / b for a, b in zip(times, base_times, strict=True))
    return {
        "ratio": statistics.median(ratios),
        "low": ratios[len(ratios) // 4],
        "high": ratios[3 * len(ratios) // 4],
        "median_ms": statistics.median(times),
        "base_median_ms": statistics.median(base_times),
        "runs": len(times),
    }


def _times(paths: Sequence[Path], mels: int, frames: int) -> list[list[float]]:
    """Milliseconds of single runs of each file, taken in turns; encoding of codes is not timed."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-80, 0, (1, 1, mels, frames)).astype(np.float32)
    calls = [_call(path, x) for path in paths]
    for _ in range(10):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in paths]
    until = time.perf_counter() + _LATENCY_SECONDS * len(paths)
    while len(times[0]) < _LATENCY_RUNS and (len(times[0]) < 20 or time.perf_counter() < until):
        for found, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            found.append((time.perf_counter() - start) * 1e3)
    return times


def _call(path: Path, x: np.ndarray) -> Callable[[], Any]:
    """One run of a file on one thread, its input ready."""
    session = onnx_session(path, threads=1)
    described = session.get_inputs()[0]
    interface = Interface.from_metadata(session.get_modelmeta().custom_metadata_map, path)
    batch = described.shape[0] if isinstance(described.shape[0], int) else 1
    given = np.repeat(interface.encode(x) if interface else x, batch, axis=0)
    return lambda: session.run(None, {described.name: given})


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
