"""The form of an int8 file that a device takes: int8 activations and int8 codes at both ends.

    uint8 or int8 activations, float or 8-bit ends -> the same integers, int8 throughout

Whatever form compress.quantize gave a file, this is one network: zero points move by 128, and the
normalisation of the input moves into the meaning of its codes (compress.int8.interface).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.errors import InputError
from compress.int8 import static
from compress.int8.graph import QUANTISING
from compress.int8.interface import Interface
from compress.int8.prepare import ends_of


def signed_codes(path: Path) -> tuple[Any, Interface]:
    """(model, what its codes stand for) of an int8 QDQ file.

    Raises InputError for a float file, where the first or the last layer is in float, and where
    silence has a code of its own.
    """
    import onnx

    from compress.artefacts import onnx_file

    onnx_file.read(path)  # refuses damaged files and data outside the folder, before it is loaded
    model = onnx.load(path)
    if not any(node.op_type in QUANTISING for node in model.graph.node):
        raise InputError(
            f"{path}: is a float file; python -m compress.quantize makes an int8 one of it"
        )
    model = static.with_signed_activations(model)
    interface = _interface(model, path)
    if interface is None:
        try:
            model = static.with_coded_ends(model, ends_of(model, path))
        except InputError as error:
            reason = str(error).removeprefix("--int8-io: ")
            raise InputError(f"{path}: {reason}; quantise it without --keep-float there") from None
        interface = _interface(model, path)
    assert interface is not None
    if interface.step is not None:
        raise InputError(
            f"{path}: its input treats silence apart (--normalise mixture), which no chip format "
            "here can encode; train with --normalise band to export it"
        )
    return model, interface


def _interface(model: Any, path: Path) -> Interface | None:
    return Interface.from_metadata({e.key: e.value for e in model.metadata_props}, path)
