"""Small int8 graphs made by hand, in the form that compress.quantize writes with 8-bit ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.int8.interface import METADATA_KEY, Interface


class Qdq:
    """Operators one after another on int8 codes; ``save`` gives the file.

    Weights, scales and zero points come from the seed. Every method takes and gives the name of
    a tensor of codes.
    """

    def __init__(self, shape: tuple[int, int] = (8, 12), seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.meaning: dict[str, tuple[float, int]] = {"log_mel_codes": (0.05, -5)}
        self.channels: dict[str, int] = {"log_mel_codes": 1}
        self.input = "log_mel_codes"

    def operator(self, op: str, inputs: list[str], scale: float, channels: int,
                 zero_point: int | None = None, weights: dict[int, str] | None = None,
                 name: str = "", **found: Any) -> str:  # fmt: skip
        """DequantizeLinear -> op -> QuantizeLinear. weights: position -> dequantised tensor."""
        number = len(self.nodes)
        operands = []
        for source in inputs:
            operands.append(f"{source}.real{number}")
            self.nodes.append(
                helper.make_node("DequantizeLinear", [source, *self._scale(source)], operands[-1:])
            )
        operands += list((weights or {}).values())
        result = f"t{number}"
        zero = int(self.generator.integers(-60, 60)) if zero_point is None else zero_point
        self.meaning[result], self.channels[result] = (scale, zero), channels
        self.nodes += [
            helper.make_node(op, operands, [f"{result}.real"], name or f"{op}_{number}", **found),
            helper.make_node("QuantizeLinear", [f"{result}.real", *self._scale(result)], [result]),
        ]
        return result

    def _scale(self, tensor: str) -> list[str]:
        names = [f"{tensor}.scale", f"{tensor}.zero"]
        if not any(a.name == names[0] for a in self.arrays):
            scale, zero = self.meaning[tensor]
            self.store(names[0], np.float32(scale))
            self.store(names[1], np.int8(zero))
        return names

    def store(self, name: str, value: Any) -> str:
        self.arrays.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def stored(self, name: str, values: np.ndarray, scales: np.ndarray) -> str:
        self.store(name, values)
        self.store(f"{name}.scale", scales.astype(np.float32))
        node = helper.make_node(
            "DequantizeLinear", [name, f"{name}.scale"], [f"{name}.real"], axis=0
        )
        self.nodes.append(node)
        return f"{name}.real"

    def conv(self, source: str, outputs: int, kernel: tuple[int, int], *, group: int = 1,
             factor: float = 0.004, scale: float = 0.1, bias: bool = True,
             **found: Any) -> str:  # fmt: skip
        """``factor``: about that of the requantisation."""
        per_group = self.channels[source] // group
        values = self.generator.integers(-127, 128, (outputs, per_group, *kernel)).astype(np.int8)
        return self._weighted("Conv", source, values, outputs, factor, scale, bias,
                              group=group, kernel_shape=kernel, **found)  # fmt: skip

    def linear(self, source: str, inputs: int, outputs: int, factor: float = 0.004) -> str:
        values = self.generator.integers(-127, 128, (outputs, inputs)).astype(np.int8)
        return self._weighted("Gemm", source, values, outputs, factor, 0.1, True, transB=1)

    def _weighted(self, op: str, source: str, values: np.ndarray, outputs: int, factor: float,
                  scale: float, bias: bool, **found: Any) -> str:  # fmt: skip
        number = len(self.nodes)
        scales = factor * scale / self.meaning[source][0] * self.generator.uniform(0.5, 2, outputs)
        name = f"network.layer{number}"
        weights = {1: self.stored(f"{name}.weight", values, scales)}
        if bias:
            codes = self.generator.integers(-3000, 3000, outputs).astype(np.int32)
            weights[2] = self.stored(f"{name}.bias", codes, scales * self.meaning[source][0])
        return self.operator(op, [source], scale, outputs, weights=weights, **found)

    def classes(self, source: str, outputs: int = 4) -> str:
        """Global mean and a linear layer: what ends every network."""
        channels = self.channels[source]
        pooled = self.operator("GlobalAveragePool", [source], 0.05, channels)
        flat = self.operator("Flatten", [pooled], 0.05, channels, self.meaning[pooled][1], axis=1)
        return self.linear(flat, channels, outputs, 0.02)

    def save(self, path: Path, output: str, gain: float = 2.0) -> Path:
        mels, frames = self.shape
        scale, zero = self.meaning[output]
        interface = Interface(
            "int8",
            tuple(gain * (1 + 0.01 * mel) for mel in range(mels)),
            tuple(60.0 + mel for mel in range(mels)),
            float(np.float32(scale)),
            zero,
        )
        graph = helper.make_graph(
            self.nodes,
            "made",
            [helper.make_tensor_value_info(self.input, TensorProto.INT8,
                                           ["batch", 1, mels, frames])],
            [helper.make_tensor_value_info(output, TensorProto.INT8,
                                           ["batch", self.channels[output]])],
            self.arrays,
        )  # fmt: skip
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
        )
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, interface.to_json()
        path.write_bytes(model.SerializeToString())
        return path
