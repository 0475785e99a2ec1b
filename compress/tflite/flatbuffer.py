"""Operators as the bytes of a .tflite file, by the schema that LiteRT ships.

Constants are aligned to 16 bytes, as the schema demands and as a microcontroller that reads them
from flash needs; the builder of the flatbuffers package does not see to that by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.tflite.convert import Network, Quantisation, Tensor

IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ALIGNMENT = 16

# The version at which an operator took int8 (and per-channel weights): what a runtime checks.
_VERSIONS = {
    "ADD": 2, "AVERAGE_POOL_2D": 2, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4, "LEAKY_RELU": 2, "LOGISTIC": 2, "MAX_POOL_2D": 2, "MEAN": 2, "MUL": 2,
    "PAD": 2, "PADV2": 2, "QUANTIZE": 2, "RELU": 2, "RELU6": 2, "RESHAPE": 1, "TRANSPOSE": 2,
}  # fmt: skip
_OPTIONS = {
    "ADD": "AddOptions", "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions", "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions", "MEAN": "ReducerOptions", "MUL": "MulOptions",
    "PAD": "PadOptions", "PADV2": "PadV2Options", "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions", "TRANSPOSE": "TransposeOptions",
}  # fmt: skip
_FULLY_CONNECTED_PER_CHANNEL = 12


def needs() -> InputError:
    """What to say where the extra is not installed."""
    return InputError("--format tflite needs LiteRT; install it with: pip install '.[tflite]'")


def serialise(network: Network, description: str, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a .tflite file; the same network gives the same bytes.

    metadata: text entries beside the network, by name. Raises InputError without LiteRT.
    """
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise needs() from None

    class AlignedBuffer(schema.BufferT):
        def Pack(self, builder: Any) -> Any:
            data = None
            if self.data is not None:
                builder.StartVector(1, len(self.data), _ALIGNMENT)
                builder.head = builder.head - len(self.data)
                builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
                data = builder.EndVector()
            schema.BufferStart(builder)
            if data is not None:
                schema.BufferAddData(builder, data)
            return schema.BufferEnd(builder)

    def buffer(content: bytes | None) -> int:
        buffers.append(AlignedBuffer(data=content))
        return len(buffers) - 1

    buffers: list[Any] = []
    empty = buffer(None)  # the first one is empty by convention; activations refer to it
    tensors = [
        _tensor(schema, tensor, empty if tensor.data is None else buffer(_bytes(tensor.data)))
        for tensor in network.tensors
    ]
    codes: dict[tuple[str, int], int] = {}
    operators = []
    for operator in network.operators:
        key = operator.kind, _version(network, operator)
        options = _OPTIONS.get(operator.kind)
        operators.append(
            schema.OperatorT(
                opcodeIndex=codes.setdefault(key, len(codes)),
                inputs=np.array(operator.inputs, np.int32),
                outputs=np.array(operator.outputs, np.int32),
                builtinOptionsType=getattr(schema.BuiltinOptions, options) if options else 0,
                builtinOptions=_filled(schema, options, operator.options) if options else None,
            )
        )
    graph = schema.SubGraphT(
        tensors=tensors,
        inputs=np.array(network.inputs, np.int32),
        outputs=np.array(network.outputs, np.int32),
        operators=operators,
        name="main",
    )
    model = schema.ModelT(
        version=_SCHEMA_VERSION,
        operatorCodes=[
            schema.OperatorCodeT(
                deprecatedBuiltinCode=min(getattr(schema.BuiltinOperator, kind), 127),
                builtinCode=getattr(schema.BuiltinOperator, kind),
                version=version,
            )
            for kind, version in codes
        ],
        subgraphs=[graph],
        description=description,
        metadata=[
            schema.MetadataT(name=name, buffer=buffer(text.encode()))
            for name, text in metadata.items()
        ],
        buffers=buffers,
    )
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _bytes(data: np.ndarray) -> bytes:
    return data.astype(data.dtype.newbyteorder("<")).tobytes()


def _tensor(schema: Any, tensor: Tensor, buffer: int) -> Any:
    kinds = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}
    return schema.TensorT(
        shape=np.array(tensor.shape, np.int32),
        type=kinds[tensor.dtype.name],
        buffer=buffer,
        name=tensor.name,
        quantization=_quantisation(schema, tensor.quantisation),
        hasRank=True,
    )


def _quantisation(schema: Any, found: Quantisation | None) -> Any:
    if found is None:
        return None
    return schema.QuantizationParametersT(
        scale=found.scale.astype(np.float32),
        zeroPoint=np.full(found.scale.size, found.zero_point, np.int64),
        quantizedDimension=found.axis if found.scale.size > 1 else 0,
    )


def _version(network: Network, operator: Any) -> int:
    if operator.kind == "FULLY_CONNECTED":
        weight = network.tensors[operator.inputs[1]].quantisation
        if weight is not None and weight.scale.size > 1:
            return _FULLY_CONNECTED_PER_CHANNEL
    return _VERSIONS[operator.kind]


def _filled(schema: Any, name: str, values: Mapping[str, Any]) -> Any:
    options = getattr(schema, f"{name}T")()
    for key, value in values.items():
        if not hasattr(options, key):
            raise AttributeError(f"{name} has no {key}")
        setattr(options, key, getattr(schema.Padding, value) if key == "padding" else value)
    return options
