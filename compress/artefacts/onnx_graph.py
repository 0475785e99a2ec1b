"""An ONNX file as plain records: nodes in order, stored tensors, shapes at batch 1.

    bytes -> checked protobuf -> functions inlined -> Graph(nodes, stored, shapes)

Nothing is executed. Subgraphs of control flow are flattened behind their node, with every name
made unique, so that weights inside them are counted like all others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.artefacts.onnx_fold import fold
from compress.artefacts.summary import MOST_SETTINGS, read_whole
from compress.artefacts.wave_front_end import front_end_constants
from compress.errors import InputError

MOST_FILE_BYTES = 2 * 2**30  # protobuf's own limit
_MOST_NODES = 1_000_000  # after inlining of functions
_MOST_ROUNDS = 4  # of shape inference, with computed sizes folded in between
_KEPT_ELEMENTS = 1024  # larger tensors cannot be shapes, shape inference does not need their data

# Bits per element by TensorProto.DataType; strings have no fixed size.
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64,
    14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2,
    26: 2, 27: 6, 28: 6,
}  # fmt: skip
_FLOAT, _UINT8, _INT64, STRING = 1, 2, 7, 8
_MICROSOFT = "com.microsoft"
# Operators of onnxruntime's own domain that are known here; all others are strangers.
_OF_MICROSOFT = (
    "BiasGelu", "DequantizeLinear", "DynamicQuantizeMatMul", "FastGelu", "FusedConv", "FusedGemm",
    "FusedMatMul", "Gelu", "MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QLinearAdd",
    "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul",
    "QLinearSigmoid", "QLinearSoftmax", "QuantizeLinear", "QuickGelu",
)  # fmt: skip
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def element_bytes(data_type: int) -> float:
    """Bytes of one element; 0.5 for 4-bit types. Unknown types count as 4."""
    return _BITS.get(data_type, 32) / 8


@dataclass(frozen=True)
class Stored:
    """A tensor whose values stand in the file."""

    key: str
    name: str
    dims: tuple[int, ...]
    data_type: int
    place: tuple[str, int] | None  # file and offset of external data: one place, one weight

    @property
    def elements(self) -> int:
        return math.prod(self.dims)


@dataclass(frozen=True)
class Node:
    """One operator. Inputs and outputs are unique keys; an absent optional input is ''.

    op: its type; where it is of another domain with that, "my.ops.Pad". Those of onnxruntime's own
    domain that are known here go by their type alone.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    nested: bool  # inside a subgraph of control flow
    has_subgraph: bool


@dataclass
class Graph:
    """A checked model. Keys of the main graph are its tensor names."""

    path: Path
    sha256: str
    file_bytes: int
    nodes: list[Node] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)
    inputs: dict[str, tuple[int | None, ...] | None] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)  # of the main graph and of subgraphs
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)  # TensorProto.DataType
    front_end: set[str] = field(default_factory=set)  # keys of stored front-end constants
    front_end_bands: int = 0  # mel bands of a front end whose constants are all in the file
    notes: list[str] = field(default_factory=list)


def load(path: Path) -> Graph:
    """Read and check an ONNX file; raises InputError where it is corrupt or refers outside."""
    import onnx
    from google.protobuf.message import DecodeError

    content = read_whole(path, MOST_FILE_BYTES)
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RecursionError):
        raise InputError(f"{path}: not an ONNX file, or a truncated one; export it again") from None
    if not model.HasField("graph") or model.ir_version <= 0 or not model.opset_import:
        raise InputError(f"{path}: not an ONNX model (no graph or no opset); export it again")
    if not _texts_are_text(model):
        raise InputError(f"{path}: holds names that are not UTF-8; the file is damaged")
    graph = Graph(path, hashlib.sha256(content).hexdigest(), len(content))
    _name_the_standard_domain_alike(model)
    model = _without_functions(model, path)
    external = _check_tensors(model.graph, path)
    graph.file_bytes += sum(external.values())
    _Flattener(graph).walk(model.graph, {}, "")
    graph.front_end, graph.front_end_bands = front_end_constants(model)
    _infer_shapes(model, graph)
    return graph


def _texts_are_text(message: Any) -> bool:
    """Whether every text field is UTF-8; protobuf hands out others as bytes."""
    for description, value in message.ListFields():
        if description.type == description.TYPE_MESSAGE:
            parts = value if description.is_repeated else [value]
            if not all(_texts_are_text(part) for part in parts):
                return False
        elif description.type == description.TYPE_STRING:
            parts = value if description.is_repeated else [value]
            if not all(isinstance(part, str) for part in parts):
                return False
    return True


def _name_the_standard_domain_alike(model: Any) -> None:
    """'ai.onnx' is another name of ''."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _all_nodes(nodes):
            if node.domain == "ai.onnx":
                node.domain = ""
    for holder in (model, *model.functions):
        imported = {entry.domain for entry in holder.opset_import}
        for entry in holder.opset_import:
            if entry.domain == "ai.onnx" and "" not in imported:
                entry.domain = ""


def _all_nodes(nodes: Any) -> Iterator[Any]:
    """Operators with those of their subgraphs."""
    for node in nodes:
        yield node
        for inner in _subgraphs(node):
            yield from _all_nodes(inner.node)


def _without_functions(model: Any, path: Path) -> Any:
    """The model with its local functions inlined, bounded against exponential nesting."""
    if not model.functions:
        return model
    import onnx.inliner

    for function in model.functions:
        if function.domain.startswith("ai.onnx") or function.domain in ("", _MICROSOFT):
            raise InputError(
                f"{path}: defines {function.name!r} of a standard domain anew, which runtimes "
                "ignore; give its functions a domain of their own"
            )
    bodies = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size_of(key: tuple[str, str, str], above: tuple[tuple[str, str, str], ...]) -> int:
        if key in above or len(above) > 64:
            raise InputError(f"{path}: function {key[1]!r} calls itself; the file is damaged")
        if key not in sizes:
            sizes[key] = expanded(bodies[key].node, (*above, key))
        return sizes[key]

    def expanded(nodes: Any, above: tuple[tuple[str, str, str], ...]) -> int:
        total = 0
        for node in nodes:
            called = (node.domain, node.op_type, node.overload)
            total += size_of(called, above) if called in bodies else 1
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    total += expanded(inner.node, above)
        return total

    if expanded(model.graph.node, ()) > _MOST_NODES:
        raise InputError(f"{path}: more than {_MOST_NODES:,} operators after inlining; refused")
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the C++ inliner raises bare RuntimeError and others
        raise InputError(f"{path}: its functions cannot be inlined ({error})") from None


def _kind(node: Any) -> str:
    known = not node.domain or (node.domain == _MICROSOFT and node.op_type in _OF_MICROSOFT)
    return str(node.op_type) if known else f"{node.domain}.{node.op_type}"


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(graph: Any) -> Iterator[Any]:
    """Every dense tensor stored in a graph and in its subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor.values
                yield attribute.sparse_tensor.indices
            yield from attribute.tensors
            for sparse in attribute.sparse_tensors:
                yield sparse.values
                yield sparse.indices
        for inner in _subgraphs(node):
            yield from _tensors(inner)


def _sparse_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.sparse_initializer
    for node in _all_nodes(graph.node):
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor
            yield from attribute.sparse_tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.sparse_initializer


def _check_tensors(graph: Any, path: Path) -> dict[Path, int]:
    """Compare declared with stored sizes; returns the external files and their bytes."""
    for sparse in _sparse_tensors(graph):
        many, rank = list(sparse.values.dims), len(sparse.dims)
        fits = list(sparse.indices.dims) in (many, [*many, rank]) and len(many) == 1
        if min(sparse.dims, default=0) < 0 or not fits or many[0] > math.prod(sparse.dims):
            name = sparse.values.name
            raise InputError(f"{path}: sparse tensor {name!r} has sizes that do not fit; damaged")
    external: dict[Path, int] = {}
    for tensor in _tensors(graph):
        if any(size < 0 for size in tensor.dims):
            raise InputError(f"{path}: tensor {tensor.name!r} has a negative size; file damaged")
        if tensor.data_location == tensor.EXTERNAL:
            where, size = _external_file(tensor, path)
            external[where] = size
            continue
        elements = math.prod(tensor.dims)
        if tensor.data_type == STRING:
            stored, wanted = len(tensor.string_data), elements
        elif tensor.HasField("raw_data"):
            bits = _BITS.get(tensor.data_type)
            if bits is None:
                raise InputError(f"{path}: tensor {tensor.name!r} has an unknown type; not read")
            stored, wanted = len(tensor.raw_data), math.ceil(elements * bits / 8)
        else:
            stored = sum(len(getattr(tensor, name)) for name in _TYPED_FIELDS)
            # 4-bit values are packed, complex ones take two numbers
            per_number = {21: 2, 22: 2, 23: 2, 25: 4, 26: 4}.get(tensor.data_type, 1)
            wanted = math.ceil(elements / per_number) * (2 if tensor.data_type in (14, 15) else 1)
            if stored == elements:  # some writers do not pack
                wanted = stored
        if stored != wanted:
            raise InputError(
                f"{path}: tensor {tensor.name!r} declares {elements:,} values and holds others; "
                "the file is damaged, export it again"
            )
    return external


def _external_file(tensor: Any, path: Path) -> tuple[Path, int]:
    """The file with a tensor's external data, checked to lie in the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    try:
        where = (folder / location).resolve()
        inside = bool(location) and where.is_relative_to(folder)
        size = where.stat().st_size if inside and where.is_file() else None
        offset, length = (int(entries.get(key, 0)) for key in ("offset", "length"))
    except (ValueError, OSError):
        raise InputError(
            f"{path}: external data of {tensor.name!r} is not described rightly"
        ) from None
    if not inside:
        raise InputError(
            f"{path}: external data of {tensor.name!r} points outside the model's folder "
            f"({location!r}); refused"
        )
    if size is None:
        raise InputError(f"{path}: its external data {location!r} is missing; put it beside it")
    bits = _BITS.get(tensor.data_type, 8)
    wanted = math.ceil(math.prod(tensor.dims) * bits / 8)
    if offset < 0 or length < 0 or offset + max(length, wanted) > size or 0 < length != wanted:
        raise InputError(
            f"{path}: its external data {location!r} is too short or does not fit {tensor.name!r}"
        )
    return where, size


class _Flattener:
    """Copies a protobuf graph into records and checks that every name is defined before use."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.scopes = 0
        self.defined: set[str] = set()

    def walk(self, proto: Any, outer: dict[str, str], scope: str) -> None:
        known = dict(outer)  # name -> unique key, of this graph and those around it

        def define(name: str) -> str:
            key = f"{scope}{name}"
            if key in self.defined:
                raise InputError(f"{self.graph.path}: defines {name!r} twice; the file is damaged")
            self.defined.add(key)
            known[name] = key
            return key

        for tensor in proto.initializer:
            self.store(define(tensor.name), tensor.name, tensor)
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            self.store(define(name), name, sparse.values, tuple(sparse.dims))
        for value in proto.input:
            if f"{scope}{value.name}" not in self.defined:  # else: the default of an input
                key = define(value.name)
                if not scope:
                    self.graph.inputs[key] = None
        for index, node in enumerate(proto.node):
            self.add(node, known, define, scope, index)
        for value in proto.output:
            if value.name not in known:
                raise InputError(
                    f"{self.graph.path}: nothing computes its output {value.name!r}; file damaged"
                )
            self.graph.outputs.append(known[value.name])

    def add(self, node: Any, known: dict[str, str], define: Any, scope: str, index: int) -> None:
        for name in node.input:
            if name and name not in known:
                raise InputError(
                    f"{self.graph.path}: operator {node.name or node.op_type!r} reads {name!r}, "
                    "which nothing computes before it; the file is damaged, export it again"
                )
        inputs = tuple(known[name] if name else "" for name in node.input)
        subgraphs = list(_subgraphs(node))
        for inner in subgraphs:
            self.scopes += 1
            self.walk(inner, known, f"{scope}{self.scopes}\0")
        outputs = tuple(define(name) if name else "" for name in node.output)
        if node.op_type == "Constant" and not node.domain:
            self.constant(node, outputs)
            return
        from onnx import helper

        attributes = {
            a.name: helper.get_attribute_value(a)
            for a in node.attribute
            if a.type in (a.INT, a.INTS, a.FLOAT, a.STRING)
        }
        kind = _kind(node)
        stranger = kind != node.op_type
        for attribute in node.attribute:  # weights that an operator keeps in an attribute
            name = f"{node.name or node.op_type}.{attribute.name}"
            inputs += tuple(
                self.store(self.unused(f"{scope}{name}#{index}"), name, tensor, dims)
                for tensor, dims in (
                    *((tensor, tuple(tensor.dims)) for tensor in (attribute.t, *attribute.tensors)),
                    *((sparse.values, tuple(sparse.dims))
                      for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors)),
                )
                if math.prod(dims) and tensor.data_type
            )  # fmt: skip
            lists = [(attribute.floats, _FLOAT), (attribute.ints, _INT64)]
            if stranger:  # a few whole numbers are settings; text may be a whole network
                lists += [(attribute.strings, _INT64), (attribute.s, _UINT8)]
            for numbers, data_type in lists:
                if len(numbers) > (0 if stranger and data_type == _FLOAT else MOST_SETTINGS):
                    key = self.unused(f"{scope}{name}#{index}")
                    self.graph.stored[key] = Stored(key, name, (len(numbers),), data_type, None)
                    inputs = (*inputs, key)
        self.graph.nodes.append(
            Node(
                node.name or f"{node.op_type}_{index}",
                kind,
                inputs,
                outputs,
                attributes,
                bool(scope),
                bool(subgraphs),
            )
        )

    def constant(self, node: Any, outputs: tuple[str, ...]) -> None:
        if len(outputs) != 1 or len(node.attribute) != 1:
            raise InputError(f"{self.graph.path}: a Constant without a value; the file is damaged")
        value, key = node.attribute[0], outputs[0]
        name = node.output[0]
        if value.name == "value":
            self.store(key, name, value.t)
        elif value.name == "sparse_value":
            self.store(key, name, value.sparse_tensor.values, tuple(value.sparse_tensor.dims))
        else:
            dims = {
                "value_float": (),
                "value_int": (),
                "value_string": (),
                "value_floats": (len(value.floats),),
                "value_ints": (len(value.ints),),
                "value_strings": (len(value.strings),),
            }.get(value.name)
            if dims is None:
                raise InputError(f"{self.graph.path}: a Constant without a value; file damaged")
            kind = 1 if "float" in value.name else 7 if "int" in value.name else STRING
            self.graph.stored[key] = Stored(key, name, dims, kind, None)

    def unused(self, key: str) -> str:
        """The key, or one like it where a tensor has its name already."""
        while key in self.graph.stored or key in self.defined:
            key += "\0"
        self.defined.add(key)
        return key

    def store(self, key: str, name: str, tensor: Any, dims: tuple[int, ...] | None = None) -> str:
        place = None
        if tensor.data_location == tensor.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            place = (entries.get("location", ""), int(entries.get("offset", 0)))
        dims = tuple(tensor.dims) if dims is None else dims
        self.graph.stored[key] = Stored(key, name, dims, tensor.data_type, place)
        return key


def _infer_shapes(model: Any, graph: Graph) -> None:
    """Fill ``graph.shapes`` and ``graph.types`` for batch 1, as far as the file tells."""
    from onnx import shape_inference

    proto = model.graph
    batch_names = set()
    for value in proto.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in graph.inputs or not dims:
            continue
        if not dims[0].HasField("dim_value") or dims[0].dim_value < 1:  # as onnxruntime takes it
            batch_names.add(dims[0].dim_param)
            dims[0].dim_value = 1
        elif dims[0].dim_value != 1:
            graph.notes.append(
                f"its batch is fixed at {dims[0].dim_value}: MACs and activation bytes are for that"
            )
    for value in proto.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in batch_names:
                dim.dim_value = 1
    for value in proto.output:
        value.type.tensor_type.ClearField("shape")
    del proto.value_info[:]
    for tensor in _tensors(proto):
        if math.prod(tensor.dims) > _KEPT_ELEMENTS and tensor.data_location != tensor.EXTERNAL:
            for name in ("raw_data", *_TYPED_FIELDS):
                tensor.ClearField(name)
    _use_standard_operators(proto)
    for _ in range(_MOST_ROUNDS):
        try:
            inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        except Exception as error:  # C++ raises several types; the weights can be counted anyway
            reason = " ".join(str(error).split())[:120]
            graph.notes.append(f"shapes cannot be inferred ({reason})")
            break
        _take_shapes(graph, (*proto.input, *inferred.value_info, *inferred.output))
        for tensor in proto.initializer:
            graph.shapes[tensor.name] = tuple(tensor.dims)
        computed = (name for node in proto.node for name in node.output if name)
        if all(name in graph.shapes for name in computed) or not fold(proto, graph.shapes):
            break
    for key, stored in graph.stored.items():
        graph.shapes[key] = stored.dims
        graph.types[key] = stored.data_type


def _take_shapes(graph: Graph, values: Any) -> None:
    """Note the types of some tensors, and the shapes of those whose sizes are all known."""
    for value in values:
        tensor_type = value.type.tensor_type
        graph.types[value.name] = tensor_type.elem_type
        if tensor_type.HasField("shape"):
            dims = tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in tensor_type.shape.dim
            )
            if value.name in graph.inputs:
                graph.inputs[value.name] = dims
            known = tuple(dim for dim in dims if dim is not None)
            if len(known) == len(dims) and min(known, default=0) >= 0:
                graph.shapes[value.name] = known


# Operators of onnxruntime's own domain that shape inference does not know, as standard ones with
# the same output shape: new operator, inputs to keep, attributes to keep.
_STANDARD = {
    "DynamicQuantizeMatMul": ("MatMul", (0, 1), ()),
    "MatMulIntegerToFloat": ("MatMul", (0, 1), ()),
    "QLinearAdd": ("Add", (0, 3), ()),
    "QLinearMul": ("Mul", (0, 3), ()),
    "QLinearLeakyRelu": ("Identity", (0,), ()),
    "QLinearSigmoid": ("Identity", (0,), ()),
    "QLinearSoftmax": ("Identity", (0,), ()),
    "Gelu": ("Identity", (0,), ()),
    "FastGelu": ("Identity", (0,), ()),
    "QuickGelu": ("Identity", (0,), ()),
    "BiasGelu": ("Identity", (0,), ()),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), ()),
    "QLinearAveragePool": (
        "AveragePool",
        (0,),
        ("kernel_shape", "strides", "pads", "auto_pad", "ceil_mode"),
    ),
    "FusedConv": (
        "Conv",
        (0, 1),
        ("kernel_shape", "strides", "pads", "auto_pad", "dilations", "group"),
    ),
    "FusedGemm": ("Gemm", (0, 1), ("transA", "transB")),
    "QGemm": ("Gemm", (0, 3), ("transA", "transB")),
    "QuantizeLinear": ("QuantizeLinear", (0, 1, 2), ("axis",)),
    "DequantizeLinear": ("DequantizeLinear", (0, 1, 2), ("axis",)),
}


def _use_standard_operators(proto: Any) -> None:
    for node in proto.node:
        if node.domain != _MICROSOFT:
            continue
        kept: tuple[int, ...]
        attributes: tuple[str, ...]
        if node.op_type == "MatMulNBits":
            size = {a.name: a.i for a in node.attribute}
            weight = proto.initializer.add()
            weight.name = f"{node.output[0]}#dense"
            weight.data_type = 1
            weight.dims.extend((max(size.get("K", 0), 0), max(size.get("N", 0), 0)))
            operator, kept, attributes = "MatMul", (0,), ()
            replaced = [node.input[0], weight.name]
        elif node.op_type in _STANDARD:
            operator, kept, attributes = _STANDARD[node.op_type]
            replaced = [node.input[i] for i in kept if i < len(node.input)]
        else:
            continue
        node.op_type, node.domain = operator, ""
        del node.input[:]
        node.input.extend(replaced)
        kept_attributes = [a for a in node.attribute if a.name in attributes]
        del node.attribute[:]
        node.attribute.extend(kept_attributes)
