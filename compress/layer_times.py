"""Time of each layer of an ONNX file as onnxruntime runs it, beside its parameters and MACs."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.artefacts import onnx_file
from compress.artefacts.summary import Layer

_RUNS = 60
# Operators that layers with multiply-accumulates become in onnxruntime's optimised graph.
_COMPUTING = {
    *("Conv", "FusedConv", "ConvTranspose", "ConvInteger", "QLinearConv"),
    *("Gemm", "FusedGemm", "QGemm"),
    *("MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul"),
}
_UNFOLDED_NORM = "_bn_nchwc"  # a batch norm that onnxruntime runs as a 1x1 convolution


@dataclass(frozen=True)
class LayerTime:
    """One layer of a file. microseconds: median of one window, one thread; None: not told apart."""

    name: str
    params: int
    macs: int
    microseconds: float | None


def layer_times(path: Path, mels: int, frames: int) -> list[LayerTime]:
    """Layers with multiply-accumulates in graph order.

    onnxruntime renames what it fuses but keeps the order, so times are matched by order, and left
    out where the numbers of layers differ.
    """
    layers = [layer for layer in onnx_file.read(path).layers if layer.macs]
    times: Sequence[float | None] = _profile(path, mels, frames)
    if len(times) != len(layers):
        times = [None] * len(layers)
    return [
        LayerTime(layer_name(layer), layer.params, layer.macs or 0, microseconds)
        for layer, microseconds in zip(layers, times, strict=True)
    ]


def layer_name(layer: Layer) -> str:
    """The layer as the network calls it, where its weight tells, else the file's node."""
    weight = next((name for name in layer.weights if name.endswith(".weight")), "")
    return weight.removeprefix("network.").removesuffix(".weight") or layer.name


def _profile(path: Path, mels: int, frames: int) -> list[float]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "times")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        generator = np.random.default_rng(0)
        x = generator.uniform(-80, 0, (1, 1, mels, frames)).astype(np.float32)
        for _ in range(_RUNS):
            session.run(None, {name: x})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, list[float]] = {}
    for event in events:
        called = str(event.get("name", ""))
        if event.get("cat") == "Node" and called.endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            if operator in _COMPUTING and _UNFOLDED_NORM not in called:
                times.setdefault(called, []).append(float(event["dur"]))
    return [statistics.median(found) for found in times.values()]
