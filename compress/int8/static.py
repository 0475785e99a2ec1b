"""Post-training quantisation by onnxruntime: ranges from training windows, QDQ file, its variants.

    Prepared + windows -> calibration (once) -> quantise(layers kept float) -> QDQ model
                       -> with_signed_activations (microcontrollers) -> with_coded_ends (8-bit ends)

Weights are symmetric per output channel, activations asymmetric per tensor, biases int32 with scale
input x weight. The normalisation of the input stays in float before the first QuantizeLinear: the
padding of the first convolution is 0 behind it, so it cannot move into the weights exactly. With
coded ends it moves into the meaning of the codes (see compress.int8.interface), which is exact.

A model is always made with uint8 activations, which x86 kernels want. The signed one is the same
model: every activation zero point 128 lower, hence the same integers everywhere.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.int8.graph import QUANTISING, EditableGraph, attributes
from compress.int8.interface import METADATA_KEY, Interface
from compress.int8.prepare import Prepared
from compress.int8.scales import round_weight_scales
from compress.runs import atomic_path

CALIBRATIONS = ("minmax", "percentile", "entropy")
_BATCH = 32

# Operators that onnxruntime, CMSIS-NN and TFLite have in int8. The others stay in float between
# DequantizeLinear and QuantizeLinear, and are named.
INT8_OPERATORS = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
    "Transpose", "Concat", "Pad",
)  # fmt: skip


class StaticQuantiser:
    """One calibration, any number of models from it: layers can be left in float one by one.

    windows: (n, 1, mels, frames) dB. Raises InputError where the file cannot be calibrated.
    """

    def __init__(self, prepared: Prepared, windows: np.ndarray, calibration: str) -> None:
        self.prepared = prepared
        self._windows = windows
        self._calibration = calibration
        self._folder = tempfile.TemporaryDirectory(prefix="calibration-")

    def __enter__(self) -> StaticQuantiser:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def quantise(self, keep_float: Collection[str] = ()) -> Any:
        """The QDQ model with uint8 activations and float ends, as a ModelProto."""
        import onnx
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        methods = {
            "minmax": CalibrationMethod.MinMax,
            "percentile": CalibrationMethod.Percentile,
            "entropy": CalibrationMethod.Entropy,
        }
        prepared = self.prepared
        floats = [name for layer in prepared.layers if layer.name in keep_float
                  for name in layer.nodes]  # fmt: skip
        folder = Path(self._folder.name)
        source, result = folder / "float.onnx", folder / "quantised.onnx"
        onnx.save_model(prepared.model, source)
        reader = _Windows(prepared.input, self._windows, _batch_of(prepared.model))
        try:
            with _quiet():
                quantize_static(
                    source,
                    result,
                    reader,
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(INT8_OPERATORS),
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=[*prepared.normalising, *floats],
                    calibrate_method=methods[self._calibration],
                    extra_options={"CalibStridedMinMax": 1},
                    calibration_cache_path=folder / "ranges.json",
                )
        except Exception as error:  # onnxruntime raises many kinds, for what it does not support
            raise InputError(
                f"{prepared.path}: onnxruntime cannot quantise this file "
                f"({_first_line(error)}{_named_layer(prepared, str(error))})"
            ) from None
        model = compacted(onnx.load(result), {prepared.standardised})
        return round_weight_scales(model, EditableGraph(prepared.model).arrays)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _named_layer(prepared: Prepared, text: str) -> str:
    for node in prepared.model.graph.node:
        if node.name in text or any(name in text for name in node.output if len(name) > 2):
            return f"; operator {node.op_type} in layer {node.name!r}"
    return ""


def _batch_of(model: Any) -> int:
    """The batch that the graph is fixed to, or the default."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return dims[0].dim_value or _BATCH if dims else _BATCH


class _Windows:
    """onnxruntime's calibration reader: batches of windows, in slices that it asks for."""

    def __init__(self, name: str, windows: np.ndarray, batch: int) -> None:
        self._name = name
        self._batches = [
            windows[start : start + batch]
            for start in range(0, len(windows), batch)
            if batch == _BATCH or start + batch <= len(windows)
        ]
        self._at, self._end = 0, len(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._at, self._end = start_index, end_index

    def get_next(self) -> dict[str, np.ndarray] | None:
        if self._at >= self._end:
            return None
        self._at += 1
        return {self._name: self._batches[self._at - 1]}

    def __iter__(self) -> _Windows:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = self.get_next()
        if batch is None:
            raise StopIteration
        return batch


@contextlib.contextmanager
def _quiet():
    """The quantiser advises on steps that were done before it; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


# --- a small file --------------------------------------------------------------------------------

_DEFAULTS = {
    "auto_pad": "NOTSET",
    "group": 1,
    "alpha": 1.0,
    "beta": 1.0,
    "transA": 0,
    "ceil_mode": 0,
    "count_include_pad": 0,
    "storage_order": 0,
}


def compacted(model: Any, kept: Collection[str] = ()) -> Any:
    """The same model in fewer bytes: a network of 50,000 weights is a third names otherwise.

    Zero points that are 0 for whole channels are left out (they are optional), equal ones are
    shared, tensors between operators get short names. Operators, weights and
    tensors in ``kept`` keep theirs.
    """
    graph = EditableGraph(model)
    for node in graph.nodes:
        if node.op_type in QUANTISING:
            node.ClearField("name")
            weight, zero_point = graph.array(node, 0), graph.array(node, 2)
            if weight is not None and zero_point is not None and not zero_point.any():
                reader = graph.only_reader(node.output[0])
                # onnxruntime's integer Gemm wants them written out.
                if reader is not None and reader.op_type == "Conv" and weight.dtype != np.uint8:
                    del node.input[2:]
                if all(a.i == 1 for a in node.attribute if a.name == "axis") and weight.ndim == 1:
                    del node.attribute[:]
        else:
            _drop_defaults(node)
        del node.metadata_props[:]
        node.ClearField("doc_string")
    names = _short_names(graph, {*graph.inputs, *graph.outputs, *kept})
    for node in graph.nodes:
        for listed in (node.input, node.output):
            for position, name in enumerate(listed):
                listed[position] = names.get(name, name)
    graph.arrays = {names.get(name, name): value for name, value in graph.arrays.items()}
    result = graph.write()
    del result.metadata_props[:]
    result.ClearField("doc_string")
    result.graph.ClearField("doc_string")
    return result


def _drop_defaults(node: Any) -> None:
    found = attributes(node)
    rank = len(found.get("kernel_shape", (0, 0)))
    defaults = _DEFAULTS | {
        "dilations": [1] * rank,
        "strides": [1] * rank,
        "pads": [0] * 2 * rank,
    }
    kept = [
        a for a in node.attribute if a.name not in defaults or found[a.name] != defaults[a.name]
    ]
    if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MaxPool", "AveragePool"):
        del node.attribute[:]
        node.attribute.extend(kept)


def _short_names(graph: EditableGraph, fixed: set[str]) -> dict[str, str]:
    """Old name -> new name of every tensor not in ``fixed``; equal zero points get one name."""
    names: dict[str, str] = {}
    zero_points: dict[bytes, str] = {}
    for node in graph.nodes:
        quantising = node.op_type in QUANTISING
        for position, name in enumerate(node.input):
            value = graph.arrays.get(name)
            if value is None or name in names:
                continue
            if not quantising:
                names[name] = name
            elif position == 0:
                bias = value.dtype == np.int32
                names[name] = f"b{len(names)}" if bias else name.removesuffix("_quantized")
            elif position == 1:
                names[name] = f"s{len(names)}"
            else:
                content = value.dtype.str.encode() + bytes(str(value.shape), "ascii")
                content += value.tobytes()
                names[name] = zero_points.setdefault(content, f"z{len(zero_points)}")
        for name in node.output:
            if name and name not in fixed:
                names[name] = f"t{len(names)}"
    return names


# --- the same model with other types -------------------------------------------------------------


def with_signed_activations(model: Any) -> Any:
    """int8 activations: every uint8 array of the graph, all zero points among them, minus 128.

    Coded ends become int8 too.
    """
    from onnx import TensorProto

    graph = EditableGraph(model)
    for name, value in graph.arrays.items():
        if value.dtype == np.uint8:
            graph.arrays[name] = (value.astype(np.int16) - 128).astype(np.int8)
    result = graph.write()
    for value in (*result.graph.input, *result.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            value.type.tensor_type.elem_type = TensorProto.INT8
    for entry in result.metadata_props:
        if entry.key == METADATA_KEY:
            interface = Interface.from_metadata({METADATA_KEY: entry.value}, "the int8 file")
            assert interface is not None
            entry.value = interface.signed().to_json()
    return result


def with_coded_ends(model: Any, prepared: Prepared) -> Any:
    """The model without its first QuantizeLinear and last DequantizeLinear: 8-bit ends.

    Raises InputError where the first or the last layer is kept in float.
    """
    import onnx

    graph = EditableGraph(model)
    first = [n for n in graph.readers(prepared.standardised) if n.op_type == "QuantizeLinear"]
    last = graph.producer(prepared.output)
    if len(graph.readers(prepared.standardised)) != 1 or not first:
        raise InputError("--int8-io: the first layer is in float, so its input has no codes")
    if last is None or last.op_type != "DequantizeLinear":
        raise InputError("--int8-io: the last layer is in float, so its output has no codes")
    scale, zero_point = (graph.array(first[0], position) for position in (1, 2))
    output_scale, output_zero_point = (graph.array(last, position) for position in (1, 2))
    assert scale is not None and output_scale is not None
    assert zero_point is not None and output_zero_point is not None
    step = prepared.step
    if step is not None:
        step = replace(step, slope=tuple(value / float(scale) for value in step.slope))
    interface = Interface(
        str(zero_point.dtype),
        tuple((prepared.gain / float(scale)).tolist()),
        tuple((prepared.offset / float(scale) + int(zero_point)).tolist()),
        float(output_scale),
        int(output_zero_point),
        step,
    )
    graph.nodes = [
        node
        for node in graph.nodes
        if node.name not in prepared.normalising and node is not first[0] and node is not last
    ]
    kind = onnx.helper.np_dtype_to_tensor_dtype(zero_point.dtype)
    for value, tensor, name in (
        (graph.model.graph.input, first[0].output[0], "log_mel_codes"),
        (graph.model.graph.output, last.input[0], "logit_codes"),
    ):
        value[0].name = name
        value[0].type.tensor_type.elem_type = kind
        for node in graph.nodes:
            for names in (node.input, node.output):
                for position, found in enumerate(names):
                    if found == tensor:
                        names[position] = name
    result = graph.write()
    entry = result.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, interface.to_json()
    return result


def save(model: Any, path: Path) -> None:
    """Write a checked model whole or not at all."""
    import onnx

    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


# --- what became of each operator ----------------------------------------------------------------


def float_operators(model: Any, prepared: Prepared) -> list[tuple[str, str]]:
    """(operator, name) of everything that computes in float, the input's normalisation apart.

    An operator is in int8 where its data comes from DequantizeLinear and goes to QuantizeLinear
    (or to a reshape or output that does).
    """
    graph = EditableGraph(model)
    found = []
    for node in graph.nodes:
        if node.op_type in QUANTISING:
            continue
        if node.name in prepared.normalising or _only_moves(node):
            continue
        integer = node.op_type in INT8_OPERATORS and _reads_integers(graph, node)
        readers = [reader for name in node.output for reader in graph.readers(name)]
        if not integer or any(reader.op_type != "QuantizeLinear" for reader in readers):
            found.append((node.op_type, node.name))
    return found


def _only_moves(node: Any) -> bool:
    return node.op_type in ("Shape", "Gather", "Slice", "Constant", "Cast", "Expand", "Split")


def _reads_integers(graph: EditableGraph, node: Any) -> bool:
    for name in node.input:
        producer = graph.producer(name)
        floats = name in graph.arrays and graph.arrays[name].dtype == np.float32
        if floats or (producer is not None and producer.op_type != "DequantizeLinear"):
            return node.op_type == "Clip"
    return True
