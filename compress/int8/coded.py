"""The form of an int8 file that a device takes: int8 activations and int8 codes at both ends.

    uint8 or int8 activations, float or 8-bit ends -> the same integers, int8 throughout

Whatever form compress.quantize gave a file, this is one network: zero points move by 128, and the
normalisation of the input moves into the meaning of its codes (compress.int8.interface).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.errors import InputError
from compress.int8 import static
from compress.int8.graph import QUANTISING, EditableGraph
from compress.int8.interface import METADATA_KEY, Interface
from compress.int8.prepare import Prepared, normalisation


def signed_codes(path: Path) -> tuple[Any, Interface]:
    """(model, what its codes stand for) of an int8 QDQ file.

    Raises InputError for a float file, and where the first or the last layer is in float.
    """
    import onnx

    from compress.artefacts import onnx_file

    onnx_file.read(path)  # refuses damaged files and data outside the folder, before it is loaded
    model = onnx.load(path)
    if not any(node.op_type in QUANTISING for node in model.graph.node):
        raise InputError(
            f"{path}: is a float file; python -m compress.quantize makes an int8 one of it"
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    interface = Interface.from_metadata(metadata, path)
    if interface is None:
        model = static.with_signed_activations(model)
        try:
            model = static.with_coded_ends(model, _prepared(model, path))
        except InputError as error:
            reason = str(error).removeprefix("--int8-io: ")
            raise InputError(f"{path}: {reason}; quantise it without --keep-float there") from None
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        interface = Interface.from_metadata(metadata, path)
    elif interface.kind == "uint8":
        model = static.with_signed_activations(model)
        interface = replace(
            interface,
            kind="int8",
            offset=tuple(value - 128 for value in interface.offset),
            output_zero_point=interface.output_zero_point - 128,
        )
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.elem_type = onnx.TensorProto.INT8
        for entry in model.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = interface.to_json()
    assert interface is not None
    return model, interface


def _prepared(model: Any, path: Path) -> Prepared:
    """What ``with_coded_ends`` has to know, read off the QDQ file itself."""
    graph = EditableGraph(model)
    names, standardised, gain, offset = normalisation(graph)
    return Prepared(
        path, model, graph.inputs[0], graph.outputs[0], names, standardised, gain, offset, ()
    )
