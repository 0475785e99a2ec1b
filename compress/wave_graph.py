"""A network file with the front end before it: one ONNX file from samples to float logits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from compress.artefacts.wave_front_end import DECIBELS, METADATA_KEY, front_end_nodes
from compress.errors import InputError
from compress.frontend import FrontEnd
from compress.int8.interface import METADATA_KEY as INTERFACE_KEY
from compress.int8.interface import Interface

WAVEFORM, LOGITS = "waveform", "logits"
_LEAST_OPSET = 18
_INT8_TYPES = {"uint8": np.uint8, "int8": np.int8}


def with_front_end(network: Any, frontend: FrontEnd, source: Any) -> Any:
    """(batch, samples) float32 in -1..1 -> logits (batch, classes) float32, as a ModelProto.

    network: ModelProto of one input (batch, 1, mels, frames), dB or 8-bit codes, from ``source``.
    """
    import onnx
    from onnx import TensorProto, helper

    opset = next((i.version for i in network.opset_import if i.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        raise InputError(f"{source}: is of opset {opset}; {_LEAST_OPSET} or newer is needed")
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    taken = {entry.name for entry in (*graph.input, *graph.initializer, *graph.value_info)}
    taken |= {name for node in graph.node for name in node.output}
    if WAVEFORM in taken or any(name.startswith("front_end_") for name in taken):
        raise InputError(f"{source}: has a front end inside already")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    interface = Interface.from_metadata(metadata, source)
    front, numbers = front_end_nodes(frontend, WAVEFORM)
    back: list[Any] = []
    given = DECIBELS
    if interface is not None:
        front_more, numbers_more, given = _encoding(interface)
        back, numbers_back = _decoding(interface, graph)
        front += front_more
        numbers += numbers_more + numbers_back
    old_input, classes = graph.input[0].name, _classes(graph)
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == old_input:
                node.input[at] = given
    body = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*front, *body, *back])
    graph.initializer.extend(numbers)
    samples = frontend.clip_samples
    graph.input.append(
        helper.make_tensor_value_info(WAVEFORM, TensorProto.FLOAT, ["batch", samples])
    )
    if interface is not None:
        del graph.output[:]
        shape: list[str | int | None] = ["batch", classes]
        graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, shape))
    kept = {k: v for k, v in metadata.items() if k != INTERFACE_KEY}
    helper.set_model_props(model, kept | {METADATA_KEY: json.dumps(frontend.to_dict())})
    onnx.checker.check_model(model, full_check=True)
    return model


def with_decibels(model: Any, frontend: FrontEnd) -> Any:
    """The same model with the front end's dB as a second output, to be looked at."""
    import onnx
    from onnx import TensorProto, helper

    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    shape: list[str | int | None] = ["batch", 1, frontend.mels, frontend.frames]
    open_model.graph.output.append(
        helper.make_tensor_value_info(DECIBELS, TensorProto.FLOAT, shape)
    )
    return open_model


def _classes(graph: Any) -> int:
    return int(graph.output[0].type.tensor_type.shape.dim[-1].dim_value)


def _encoding(interface: Interface) -> tuple[list[Any], list[Any], str]:
    """round(dB * gain + offset), saturated: nodes, numbers, name of the codes."""
    from onnx import TensorProto, helper, numpy_helper

    limits = np.iinfo(_INT8_TYPES[interface.kind])
    numbers = {
        "front_end_gain": np.asarray(interface.gain, dtype=np.float32)[:, None],
        "front_end_offset": np.asarray(interface.offset, dtype=np.float32)[:, None],
        "front_end_least_code": np.float32(limits.min),
        "front_end_most_code": np.float32(limits.max),
    }
    kind = TensorProto.INT8 if interface.kind == "int8" else TensorProto.UINT8
    names = [f"front_end_code_{i}" for i in range(5)]
    nodes = [
        helper.make_node("Mul", [DECIBELS, "front_end_gain"], [names[0]]),
        helper.make_node("Add", [names[0], "front_end_offset"], [names[1]]),
        helper.make_node("Round", [names[1]], [names[2]]),
        helper.make_node("Clip", [names[2], "front_end_least_code", "front_end_most_code"],
                         [names[3]]),
        helper.make_node("Cast", [names[3]], [names[4]], to=kind),
    ]  # fmt: skip
    for node in nodes:
        node.name = f"front_end/{node.output[0]}"
    return nodes, [numpy_helper.from_array(np.asarray(v), k) for k, v in numbers.items()], names[4]


def _decoding(interface: Interface, graph: Any) -> tuple[list[Any], list[Any]]:
    """(code - zero point) * scale behind the network's output; renames that where it is LOGITS."""
    from onnx import TensorProto, helper, numpy_helper

    codes = graph.output[0].name
    if codes == LOGITS:
        codes = "front_end_decode_codes"
        for node in graph.node:
            for names in (node.input, node.output):
                for at, name in enumerate(names):
                    if name == LOGITS:
                        names[at] = codes
        for value in list(graph.value_info):
            if value.name == LOGITS:
                graph.value_info.remove(value)
    numbers = {
        "front_end_decode_zero_point": np.float32(interface.output_zero_point),
        "front_end_decode_scale": np.float32(interface.output_scale),
    }
    steps = ["front_end_decode_float", "front_end_decode_steps"]
    nodes = [
        helper.make_node("Cast", [codes], [steps[0]], to=TensorProto.FLOAT),
        helper.make_node("Sub", [steps[0], "front_end_decode_zero_point"], [steps[1]]),
        helper.make_node("Mul", [steps[1], "front_end_decode_scale"], [LOGITS]),
    ]
    for node in nodes:
        node.name = f"front_end/{node.output[0]}"
    return nodes, [numpy_helper.from_array(np.asarray(v), k) for k, v in numbers.items()]
