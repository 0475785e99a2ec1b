"""An int8 run as a .tflite file: int8 codes in, int8 codes out, measured in LiteRT.

    int8 run -> signed codes -> operators in NHWC -> model.tflite -> accuracy, parity, NPU estimates

Accuracy is that of LiteRT's reference kernels, which round as TFLite Micro does on a chip. Parity
is with the int8 ONNX file in onnxruntime, code by code.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli, evaluate, metrics, runs
from compress.artefacts import tflite_file
from compress.config import DataOptions, ExportConfig
from compress.data.sets import SpectrogramSet
from compress.data.splits import Split
from compress.errors import InputError
from compress.exported_runs import export_writer, refuse_export
from compress.int8.coded import signed_codes
from compress.int8.interface import METADATA_KEY, Interface
from compress.parents import recorded_data
from compress.runs import Run, RunWriter
from compress.session import DECISIONS
from compress.summary import aligned, describe_difference
from compress.tflite import vela
from compress.tflite.convert import convert
from compress.tflite.flatbuffer import needs, serialise
from compress.tflite.interpreter import CodesNetwork, available

TFLITE = "model.tflite"
INTERFACE = "interface.json"
CLASSES_KEY = "compress.class_names"
_BATCH = 128
_LATENCY_RUNS = 200


def tflite_run(parent: Run, config: ExportConfig) -> tuple[Run, list[str]]:
    """The export of a quantised run, and the lines that say what was measured.

    A finished one of the same settings is returned as it is. Raises InputError for a float run,
    for what TFLite cannot take (with the layer), and where the extra is missing.
    """
    _check(parent, config)
    source = parent.file(runs.ONNX)
    model, interface = signed_codes(source)
    network = convert(model, source)
    options = DataOptions(data=config.data, cache=config.cache, workers=config.workers)
    data = recorded_data(parent, options)
    split = Split.from_json(runs.read_json(parent.file(runs.SPLIT)))
    content = serialise(
        network,
        f"{parent.name}: int8 log-mel codes (1, mels, frames, 1) to int8 codes of logits; what the "
        f"codes stand for is told in the metadata {METADATA_KEY}",
        {METADATA_KEY: interface.to_json(), CLASSES_KEY: json.dumps(list(parent.class_names))},
    )
    settings = {
        "vela": list(config.vela),
        "vela_optimise": config.vela_optimise if config.vela else None,
    }
    writer = export_writer(parent, "tflite", data, split, settings, config)
    with writer.locked():
        if writer.begin(config.force):
            cli.say(f"tflite    {parent.name}: finished before, {writer.folder}")
        else:
            _make(parent, config, writer, content, interface, data, split)
    written = runs.open_run(writer.folder)
    return written, lines_of(parent, written)


def _check(parent: Run, config: ExportConfig) -> None:
    """What can be refused before anything is read or made."""
    refuse_export(parent)
    if parent.manifest["stage"] != "quantize":
        raise InputError(
            f"{parent.folder}: holds a float network; make an int8 run of it first: "
            f"python -m compress.quantize --run {parent.folder}"
        )
    if not available():
        raise needs()
    if config.vela:
        vela.check()
    if int(parent.metrics().get("weight_bits", 8)) != 8:
        raise InputError(
            f"{parent.folder}: has weights of 4 bits, which TFLite's int8 operators do not take; "
            "quantise again with --weight-bits 8"
        )


def _make(
    parent: Run,
    config: ExportConfig,
    writer: RunWriter,
    content: bytes,
    interface: Interface,
    data: SpectrogramSet,
    split: Split,
) -> None:
    started = time.monotonic()
    folder = writer.folder
    with runs.atomic_path(folder / TFLITE) as temporary:
        temporary.write_bytes(content)
    runs.write_json(folder / runs.SPLIT, split.to_json())
    shape = [1, data.mels, data.frames, 1]
    runs.write_json(folder / INTERFACE, _described(interface, shape, parent.class_names))
    figures, decisions = _measure(parent, folder / TFLITE, interface, data, split)
    found = []
    for accelerator in dict.fromkeys(config.vela):
        found.append(vela.compile_for(folder / TFLITE, accelerator, config.vela_optimise))
    figures["vela"] = found
    evaluate.save_decisions(folder / DECISIONS, decisions)
    runs.write_json(folder / runs.METRICS, figures)
    made = [TFLITE, INTERFACE, runs.SPLIT, runs.METRICS, DECISIONS]
    writer.finish(made, seconds=round(time.monotonic() - started, 3))


def _described(interface: Interface, shape: list[int], names: tuple[str, ...]) -> dict[str, Any]:
    """interface.json: what a device feeds and what it gets, in words and numbers."""
    return {
        "input": "int8, (1, mels, frames, 1); code = clip(round(dB * gain[mel] + offset[mel]), "
        "-128, 127), dB as the front end gives it (manifest.json, data)",
        "input_shape": shape,
        "output": "int8, (1, classes); logit = (code - output_zero_point) * output_scale; the "
        "class is the one with the largest code",
        "class_names": list(names),
        **asdict(interface),
    }


# --- measuring -----------------------------------------------------------------------------------


def _measure(
    parent: Run, path: Path, interface: Interface, data: SpectrogramSet, split: Split
) -> tuple[dict[str, Any], metrics.Decisions]:
    """metrics.json of the .tflite file, compared with the int8 ONNX file that it was made of."""
    summary = tflite_file.read(path)
    kernels = {"reference": CodesNetwork(path), "fast": CodesNetwork(path, reference=False)}
    onnx = evaluate.onnx_predictor(parent.file(runs.ONNX))
    codes = {
        "validation": codes_of(kernels["reference"], interface, data, split.validation),
        "test": codes_of(kernels["reference"], interface, data, split.test),
    }
    fast = codes_of(kernels["fast"], interface, data, split.test)
    logits = evaluate.logits_of(onnx, data, split.test)
    expected = expected_codes(logits, interface)
    decisions = {
        side: evaluate.decisions_of(interface.decode(found), data, getattr(split, side))
        for side, found in codes.items()
    }
    recorded, base = evaluate.load_decisions(parent.file(DECISIONS)), parent.metrics()
    if not np.array_equal(recorded.clip_ids, decisions["test"].clip_ids):
        raise InputError(f"{parent.folder}/{DECISIONS}: decides other clips than the split has")
    latency = _latency_ms(kernels["fast"], interface, data)
    figures = {
        "artifact": path.name,
        "sha256": summary.sha256,
        "params": base["params"],
        "file_params": summary.file_params,
        "macs": summary.macs,
        "file_bytes": summary.file_bytes,
        "peak_activation_bytes": summary.peak_activation_bytes,
        "peak_layer": summary.peak_layer,
        "latency_ms": latency["median"],
        "latency": latency,
        "splits": {
            side: metrics.summarise(found, data.class_names) for side, found in decisions.items()
        },
        "kernels": "reference",
        "agreement": agreement(codes["test"], expected),
        "fast_kernels": {
            "agreement": agreement(fast, expected),
            "test": metrics.summarise(
                evaluate.decisions_of(interface.decode(fast), data, split.test), data.class_names
            ),
        },
        "differences": {
            "test": asdict(metrics.paired_difference(decisions["test"], recorded)),
        },
        "parent": {
            key: base[key] for key in ("sha256", "file_bytes", "file_params", "latency_ms")
        }
        | {"test": base["splits"]["test"]},
        "file_bytes_ratio": summary.file_bytes / base["file_bytes"],
    }
    return figures, decisions["test"]


def codes_of(
    network: CodesNetwork, interface: Interface, data: SpectrogramSet, windows: np.ndarray
) -> np.ndarray:
    """Output codes of some windows in their order, (n, classes) int8."""
    parts = []
    with cli.progress(len(windows), "LiteRT", "window") as bar:
        for start in range(0, len(windows), _BATCH):
            decibels = data.decibels(windows[start : start + _BATCH])[:, None]
            parts.append(network(interface.encode(decibels)))
            bar.update(len(decibels))
    return np.concatenate(parts)


def expected_codes(logits: np.ndarray, interface: Interface) -> np.ndarray:
    """The output codes that stand for what the int8 ONNX file gives, (n, classes)."""
    return np.rint(logits / np.float32(interface.output_scale)) + interface.output_zero_point


def agreement(codes: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Share of windows with the same decision, and how far the output codes lie apart."""
    apart = np.abs(codes.astype(np.int32) - expected.astype(np.int32))
    return {
        "top1": float((codes.argmax(1) == expected.argmax(1)).mean()),
        "largest_code_difference": int(apart.max()),
        "equal_codes": float((apart == 0).mean()),
        "windows": len(codes),
    }


def _latency_ms(
    network: CodesNetwork, interface: Interface, data: SpectrogramSet
) -> dict[str, Any]:
    """Median time of one window on one thread with LiteRT's fast kernels on this CPU."""
    generator = np.random.default_rng(0)
    decibels = generator.uniform(-80, 0, (1, 1, data.mels, data.frames)).astype(np.float32)
    call = network.timed(network.prepared(interface.encode(decibels))[0])
    for _ in range(10):
        call()
    times = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return {"median": statistics.median(times), "least": min(times), "runs": len(times)}


# --- what is printed -----------------------------------------------------------------------------


def lines_of(parent: Run, written: Run) -> list[str]:
    """The closing table and what has to be said plainly, from what was measured."""
    found = written.metrics()
    rows = [
        ("", "bytes", "weights in file", "test accuracy (95 % interval)", "latency"),
        _row("int8 ONNX", found["parent"], found["parent"]["test"]),
        _row("int8 TFLite", found, found["splits"]["test"]),
    ]
    difference = metrics.PairedDifference(**found["differences"]["test"])
    fast = found["fast_kernels"]
    lines = [
        aligned(rows, right=(1, 2, 4)),
        describe_difference("TFLite", "ONNX", difference),
        f"With LiteRT's reference kernels, which round as TFLite Micro does, {_words(found)}",
        f"With its fast kernels, which its latency is of, {_words(fast)}",
    ]
    added = found["file_params"] - found["parent"]["file_params"]
    if added:
        lines.append(
            f"{added:,} of the numbers in the file are zero biases, which TFLite demands."
        )
    for estimate in found["vela"]:
        lines += vela.lines(estimate)
    lines.append(
        f"It takes int8 codes of log-mel dB and gives int8 codes; {INTERFACE} says what they "
        "stand for."
    )
    return lines


def _row(name: str, figures: dict[str, Any], test: dict[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{figures['file_bytes']:,}",
        f"{figures['file_params']:,}",
        f"{100 * test['accuracy']:.1f} %  ({100 * test['accuracy_low']:.1f} to "
        f"{100 * test['accuracy_high']:.1f})",
        f"{figures['latency_ms']:.3f} ms",
    )


def _words(figures: dict[str, Any]) -> str:
    found = figures["agreement"]
    return (
        f"it decides as the int8 ONNX file on {100 * found['top1']:.2f} % of "
        f"{found['windows']:,} test windows; {100 * found['equal_codes']:.1f} % of the output "
        f"codes are equal, the largest difference is {found['largest_code_difference']}."
    )
