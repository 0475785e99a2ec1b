"""A small ONNX graph that is being rewritten: nodes in order, stored arrays by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compress.errors import InputError

QUANTISING = ("QuantizeLinear", "DequantizeLinear")
WEIGHT_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class EditableGraph:
    """Nodes, stored arrays and who reads what. ``write`` gives a model with the changes."""

    def __init__(self, model: Any) -> None:
        import onnx
        from onnx import numpy_helper

        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)  # the one that was given stays as it is
        model = self.model
        self.nodes: list[Any] = list(model.graph.node)
        self.arrays: dict[str, np.ndarray] = {}
        for tensor in model.graph.initializer:
            self.arrays[tensor.name] = numpy_helper.to_array(tensor)
        self._constants_to_arrays()
        self._fold_stored()
        self._name_nodes()

    @property
    def inputs(self) -> list[str]:
        return [v.name for v in self.model.graph.input if v.name not in self.arrays]

    @property
    def outputs(self) -> list[str]:
        return [value.name for value in self.model.graph.output]

    def readers(self, tensor: str) -> list[Any]:
        return [node for node in self.nodes if tensor in node.input]

    def only_reader(self, tensor: str) -> Any | None:
        """The node that alone reads a tensor which is no output; else None."""
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def producer(self, tensor: str) -> Any | None:
        return next((node for node in self.nodes if tensor in node.output), None)

    def array(self, node: Any, position: int) -> np.ndarray | None:
        """The stored operand of a node, or None where it is absent or computed."""
        if position >= len(node.input):
            return None
        return self.arrays.get(node.input[position])

    def is_stored(self, tensor: str) -> bool:
        """Whether a tensor stands in the file or is computed from what does alone."""
        if tensor in self.arrays:
            return True
        producer = self.producer(tensor)
        return producer is not None and all(self.is_stored(name) for name in producer.input)

    def store(self, wanted: str, value: np.ndarray) -> str:
        """Keep an array under ``wanted`` or, where that is taken, a name like it."""
        name, number = wanted, 1
        while name in self.arrays:
            number += 1
            name = f"{wanted}.{number}"
        self.arrays[name] = value
        return name

    def replace_operand(self, node: Any, position: int, value: np.ndarray) -> None:
        """Another array for one operand of one node; other readers keep theirs."""
        while len(node.input) <= position:
            node.input.append("")
        old = node.input[position]
        if old and sum(list(n.input).count(old) for n in self.nodes) == 1:
            self.arrays[old] = value
        else:
            node.input[position] = self.store(old or f"{node.name}.operand{position}", value)

    def require(self, opset: int, ir_version: int) -> None:
        """Raise the versions that the file names to at least these, for newer types."""
        for entry in self.model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = max(entry.version, opset)
        self.model.ir_version = max(self.model.ir_version, ir_version)

    def bypass(self, node: Any) -> None:
        """Remove a node; who read its output reads its first input."""
        source, result = node.input[0], node.output[0]
        self.nodes = [n for n in self.nodes if n is not node]
        if result in self.outputs:
            producer = self.producer(source)
            if producer is None or self.readers(source):
                raise InputError(f"{node.name}: cannot be removed from the graph")
            producer.output[list(producer.output).index(source)] = result
            return
        for reader in self.readers(result):
            for position, name in enumerate(reader.input):
                if name == result:
                    reader.input[position] = source

    def insert_before(self, node: Any, new: Any) -> None:
        self.nodes.insert(next(i for i, n in enumerate(self.nodes) if n is node), new)

    def write(self) -> Any:
        """A model of the same ends and opset with the nodes and arrays that are used."""
        import onnx
        from onnx import numpy_helper

        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        used = {name for node in self.nodes for name in node.input} | set(self.outputs)
        del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
        result.graph.node.extend(self.nodes)
        for name, value in self.arrays.items():
            if name in used:
                result.graph.initializer.append(numpy_helper.from_array(value, name))
        kept = [value for value in result.graph.input if value.name not in self.arrays]
        del result.graph.input[:]
        result.graph.input.extend(kept)
        return result

    def _constants_to_arrays(self) -> None:
        from onnx import helper, numpy_helper

        for node in [n for n in self.nodes if n.op_type == "Constant" and not n.domain]:
            value = helper.get_attribute_value(node.attribute[0])
            kind = node.attribute[0].name
            if kind == "value":
                array = numpy_helper.to_array(value)
            elif kind in ("value_float", "value_floats"):
                array = np.asarray(value, dtype=np.float32)
            elif kind in ("value_int", "value_ints"):
                array = np.asarray(value, dtype=np.int64)
            else:
                continue
            self.arrays[node.output[0]] = array
            self.nodes = [n for n in self.nodes if n is not node]

    def _fold_stored(self) -> None:
        """What compress.int8.small_file writes: scales as products, short biases and scales."""
        from onnx import TensorProto

        for node in list(self.nodes):
            stored = [self.arrays[name] for name in node.input if name in self.arrays]
            if node.domain or len(stored) < len(node.input):
                continue
            readers = self.readers(node.output[0])
            if node.op_type == "Mul":
                scales = all(r.op_type in QUANTISING and r.input[1] == node.output[0]
                             for r in readers)  # fmt: skip
                if not scales or any(value.dtype != np.float32 for value in stored):
                    continue
                value = stored[0] * stored[1]
            elif node.op_type == "Cast" and stored[0].dtype == np.int16:
                if attributes(node)["to"] != TensorProto.INT32:
                    continue
                value = stored[0].astype(np.int32)
            elif node.op_type == "Cast" and stored[0].dtype == np.float16:
                if attributes(node)["to"] != TensorProto.FLOAT or not all(
                    r.op_type == "Mul" or (r.op_type in QUANTISING and r.input[1] == node.output[0])
                    for r in readers
                ):
                    continue
                value = stored[0].astype(np.float32)
            else:
                continue
            self.arrays[node.output[0]] = value
            self.nodes = [n for n in self.nodes if n is not node]

    def _name_nodes(self) -> None:
        taken: set[str] = set()
        for number, node in enumerate(self.nodes):
            unnamed = not node.name and node.op_type not in QUANTISING
            if unnamed or (node.name and node.name in taken):
                node.name = f"{node.op_type}_{number}"
            taken.add(node.name)


def attributes(node: Any) -> dict[str, Any]:
    """Plain values of a node's attributes; texts as str."""
    from onnx import helper

    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def subgraph_nodes(model: Any) -> Iterator[Any]:
    """Nodes of the main graph that hold a graph of their own (If, Loop, Scan)."""
    for node in model.graph.node:
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            yield node
