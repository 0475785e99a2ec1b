"""The int8 graph as a list of layers with all their numbers, channels last.

    int8 file -> int8 activations, coded ends -> one layer per operator -> numbers for the kernels

Views (flatten and the like) and everything that only quantises vanish. What the kernels do not have
is refused with the name of its layer.
"""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.artefacts import onnx_graph, onnx_memory
from compress.chip.arena import Lifetime
from compress.chip.fixed_point import (
    Encoding,
    Scaling,
    SumScaling,
    encoding_of,
    mean_factors,
    requantise,
    scaling_of,
    sum_scaling,
)
from compress.errors import InputError
from compress.int8 import static
from compress.int8.coded import signed_codes
from compress.int8.graph import QUANTISING, EditableGraph, attributes
from compress.int8.interface import METADATA_KEY, Interface
from compress.int8.prepare import ends_of
from compress.int8.reference import ELEMENT_WISE, Codes, element_wise

MOST_PATCH = 64  # SCENE_MOST_PATCH of the kernels
_VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_LOWEST, _HIGHEST = -128, 127


@dataclass(frozen=True)
class Map:
    """An activation: rows, columns, channels, and what its codes mean."""

    shape: tuple[int, int, int]
    scale: np.float32
    zero_point: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def codes(self, values: np.ndarray | None = None) -> Codes:
        values = np.zeros(0, np.int64) if values is None else values
        return Codes(values, np.asarray(self.scale), np.asarray(self.zero_point, np.int64))


@dataclass(frozen=True)
class Window:
    """Size, strides and padding before the map, along (rows, columns)."""

    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Layer:
    """One call of a kernel. inputs, output: names of activations. macs: multiply-accumulates."""

    name: str
    inputs: tuple[str, ...]
    output: str
    macs: int = 0


@dataclass(frozen=True)
class Weighted(Layer):
    """kernel: pointwise, convolution, first_convolution or depthwise. weights: int8 in the order
    of the kernel. biases: int32, with the input's zero point inside where the kernel wants it."""

    kernel: str = ""
    weights: np.ndarray | None = None
    biases: np.ndarray | None = None
    scaling: Scaling | None = None
    window: Window | None = None


@dataclass(frozen=True)
class Sum(Layer):
    scaling: SumScaling | None = None


@dataclass(frozen=True)
class Product(Layer):
    scaling: Scaling | None = None


@dataclass(frozen=True)
class GlobalMean(Layer):
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Pool(Layer):
    """scaling: of the mean, by number of counted values; None for the maximum."""

    window: Window | None = None
    scaling: Scaling | None = None
    padding_counts: bool = False


@dataclass(frozen=True)
class Lookup(Layer):
    """table: the result's code for each code from -128 on."""

    table: np.ndarray | None = None


@dataclass(frozen=True)
class Network:
    """layers in order; maps by name of activation; buffers in steps of the int8 graph; home: of
    each activation, the buffer that it lies in."""

    layers: tuple[Layer, ...]
    maps: dict[str, Map]
    input: str
    output: str
    interface: Interface
    encoding: Encoding
    buffers: tuple[Lifetime, ...]
    home: dict[str, str]
    model: Any  # the int8 graph that it was read from: int8 activations, coded ends

    @property
    def mels(self) -> int:
        return self.maps[self.input].shape[0]

    @property
    def frames(self) -> int:
        return self.maps[self.input].shape[1]

    @property
    def classes(self) -> int:
        return self.maps[self.output].size


def read_network(path: Path) -> Network:
    """The layers of an int8 file; raises InputError for what has no kernel in C."""
    import onnx

    model = _for_device(onnx.load(path), path)
    with tempfile.TemporaryDirectory(prefix="chip-") as folder:
        file = Path(folder) / "int8.onnx"
        static.save(model, file)
        graph = onnx_graph.load(file)
    return _Reader(path, model, graph).read()


def _for_device(model: Any, path: Path) -> Any:
    """The same integers with int8 activations and coded ends; refuses layers in float by name."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    coded = Interface.from_metadata(metadata, path) is not None
    _refuse_float(model, path, () if coded else ends_of(model, path).normalising)
    return signed_codes(path)[0]


def _refuse_float(model: Any, path: Path, normalising: tuple[str, ...]) -> None:
    graph = EditableGraph(model)
    ends = {*graph.inputs, *graph.outputs}
    operators = [n for n in graph.nodes if n.op_type not in (*QUANTISING, "Cast")]
    if not any(node.op_type == "DequantizeLinear" for node in graph.nodes):
        raise InputError(f"{path}: is no int8 file; python -m compress.quantize makes one")
    for node in operators:
        if node.name in normalising:
            continue
        moving = [name for name in node.input if name and name not in graph.arrays]
        sources = [graph.producer(name) for name in moving]
        readers = [reader.op_type for name in node.output for reader in graph.readers(name)]
        codes = all(source is not None and source.op_type == "DequantizeLinear"
                    for source in sources) and not ends & set(moving)  # fmt: skip
        if not codes or readers != ["QuantizeLinear"]:
            raise InputError(
                f"{path}: operator {node.op_type} in layer {_layer_name(graph, node)!r} computes "
                "in float; quantise every layer (without --keep-float) to export C"
            )


class _Reader:
    """Walks the graph once; every method raises InputError that names the layer."""

    def __init__(self, path: Path, model: Any, shapes: onnx_graph.Graph) -> None:
        self._path, self._model = path, model
        self._graph = EditableGraph(model)
        self._shapes = shapes
        self._maps: dict[str, Map] = {}
        self._layers: list[Layer] = []
        self._names: set[str] = set()

    def read(self) -> Network:
        graph = self._graph
        metadata = {entry.key: entry.value for entry in self._model.metadata_props}
        interface = Interface.from_metadata(metadata, self._path)
        assert interface is not None, METADATA_KEY
        if interface.step is not None:
            raise InputError(
                f"{self._path}: its input is normalised by two lines (a mixture), which the C code "
                "does not have; export a run with another normalisation"
            )
        start = graph.inputs[0]
        self._maps[start] = Map(self._channels_last(start), *self._meaning(start))
        for node in graph.nodes:
            if node.op_type not in (*QUANTISING, "Cast"):
                self._read_operator(node)
        end = graph.outputs[0]
        if end not in self._maps:
            raise InputError(f"{self._path}: its output {end!r} is not what a layer gives")
        memory = onnx_memory.buffers_of(self._shapes)
        try:
            encoding = encoding_of(interface, self._maps[start].shape[0])
        except ValueError as error:
            raise InputError(f"{self._path}: {error}") from None
        return Network(
            layers=tuple(self._layers),
            maps=self._maps,
            input=start,
            output=end,
            interface=interface,
            encoding=encoding,
            buffers=tuple(
                Lifetime(name, size, memory.born[name], memory.dies[name])
                for name, size in memory.sizes.items()
            ),
            home=memory.home,
            model=self._model,
        )

    # --- names, shapes and scales

    def _fault(self, node: Any, reason: str) -> InputError:
        return InputError(
            f"{self._path}: operator {node.op_type} in layer {_layer_name(self._graph, node)!r} "
            f"cannot be exported as C: {reason}"
        )

    def _new_name(self, node: Any) -> str:
        """``add`` and ``add.2`` of the exporter's ``node_add_100`` and ``node_add_186``."""
        wanted = _layer_name(self._graph, node)
        if wanted.startswith("node_"):
            wanted = re.sub(r"_\d+$", "", wanted.removeprefix("node_")).lower()
        name = wanted
        number = 1
        while name in self._names:
            number += 1
            name = f"{wanted}.{number}"
        self._names.add(name)
        return name

    def _channels_last(self, tensor: str) -> tuple[int, int, int]:
        shape = self._shapes.shapes[tensor]
        if len(shape) == 4 and shape[0] == 1:
            return shape[2], shape[3], shape[1]
        if len(shape) == 2 and shape[0] == 1:
            return 1, 1, shape[1]
        raise InputError(f"{self._path}: activation {tensor!r} has shape {shape}, which is no map")

    def _meaning(self, tensor: str) -> tuple[np.float32, int]:
        """Scale and zero point, from whichever node reads or gives the codes."""
        graph = self._graph
        producer = graph.producer(tensor)
        nodes = graph.readers(tensor) + ([producer] if producer is not None else [])
        for node in nodes:
            if node.op_type in QUANTISING:
                scale, zero_point = graph.array(node, 1), graph.array(node, 2)
                if scale is not None and scale.size == 1:
                    zero = 0 if zero_point is None else int(zero_point.reshape(()))
                    return np.float32(scale.reshape(())), zero
        raise InputError(f"{self._path}: the codes of {tensor!r} have no single scale")

    def _operands(self, node: Any) -> list[str]:
        """Activations that a node reads: names of their codes."""
        graph, found = self._graph, []
        for name in node.input:
            reader = graph.producer(name) if name else None
            if reader is not None and reader.op_type == "DequantizeLinear":
                source = reader.input[0]
                producer = graph.producer(source)
                stored = source in graph.arrays or (
                    producer is not None and producer.op_type == "Cast"
                )
                if not stored:
                    found.append(source)
        return found

    def _stored(self, node: Any, position: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(integers, their scales) of a stored operand; None where there is none."""
        graph = self._graph
        if position >= len(node.input) or not node.input[position]:
            return None
        reader = graph.producer(node.input[position])
        if reader is None or reader.op_type != "DequantizeLinear":
            raise self._fault(node, "its weights are not stored as integers")
        source = reader.input[0]
        producer = graph.producer(source)
        if producer is not None and producer.op_type == "Cast":
            source = producer.input[0]
        if source not in graph.arrays:
            raise self._fault(node, "its weights are computed")
        zero_point = graph.array(reader, 2)
        if zero_point is not None and zero_point.astype(np.int64).any():
            raise self._fault(node, "its weights have a zero point other than 0")
        scale = graph.array(reader, 1)
        assert scale is not None
        return graph.arrays[source].astype(np.int64), scale.astype(np.float32)

    # --- operators

    def _read_operator(self, node: Any) -> None:
        readers = {
            "Conv": self._convolution,
            "Gemm": self._linear,
            "MatMul": self._linear,
            "Add": self._sum,
            "Mul": self._product,
            "GlobalAveragePool": self._global_mean,
            "AveragePool": self._mean_pool,
            "MaxPool": self._max_pool,
            **dict.fromkeys(_VIEWS, self._view),
            **dict.fromkeys(ELEMENT_WISE, self._lookup),
        }
        if node.op_type not in readers:
            raise self._fault(node, "there is no kernel for it")
        result = self._graph.readers(node.output[0])[0].output[0]
        operands = self._operands(node)
        if node.op_type in ("Add", "Mul") and len(operands) != 2:
            raise self._fault(node, "one of its operands is a constant")
        result_map = Map(self._channels_last(result), *self._meaning(result))
        self._maps[result] = result_map
        readers[node.op_type](node, operands, result, attributes(node))

    def _convolution(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        x, y = self._maps[operands[0]], self._maps[result]
        stored = self._stored(node, 1)
        assert stored is not None
        weights, scales = stored
        if weights.ndim != 4:
            raise self._fault(node, "it is not two-dimensional")
        window = self._window(node, x, y, found, weights.shape[2:])
        groups, (outputs, per_group) = found.get("group", 1), weights.shape[:2]
        inputs = x.shape[2]
        plain = window.size == window.strides == (1, 1) and x.shape[:2] == y.shape[:2]
        biases = self._biases(node, outputs)
        if groups == inputs == outputs and inputs > 1:
            kernel = "depthwise"
            ordered = weights[:, 0].transpose(1, 2, 0)  # rows, columns, channels
        elif groups != 1:
            raise self._fault(node, f"{groups} groups of {per_group} inputs and "
                              f"{outputs // groups} outputs")  # fmt: skip
        elif plain:
            kernel, ordered = "pointwise", weights[:, :, 0, 0]
        elif inputs == 1 and -(-math.prod(window.size) // 4) * 4 <= MOST_PATCH:
            kernel = "first_convolution"
            rows = weights.reshape(outputs, -1)
            ordered = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
        else:
            kernel = "convolution"
            ordered = weights.transpose(0, 2, 3, 1)  # outputs, rows, columns, inputs
        if kernel in ("pointwise", "first_convolution"):
            biases = biases - x.zero_point * ordered.sum(1)
        macs = y.shape[0] * y.shape[1] * weights.size
        self._weighted(node, operands[0], result, kernel, ordered, biases, scales, window, macs)

    def _linear(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        x = self._maps[operands[0]]
        stored = self._stored(node, 1)
        assert stored is not None
        weights, scales = stored
        if len(operands) != 1 or weights.ndim != 2 or found.get("transA", 0):
            raise self._fault(node, "it is no linear layer with stored weights")
        if found.get("alpha", 1.0) != 1.0 or found.get("beta", 1.0) != 1.0:
            raise self._fault(node, "it scales its product (alpha, beta)")
        matrix = weights if found.get("transB", 0) else weights.T  # outputs, inputs
        rows, columns, channels = x.shape
        if rows * columns > 1:  # flattened channels first, while they lie channels last
            by_place = matrix.reshape(-1, channels, rows, columns).transpose(0, 2, 3, 1)
            matrix = by_place.reshape(len(matrix), -1)
        biases = self._biases(node, len(matrix)) - x.zero_point * matrix.sum(1)
        window = Window((1, 1))
        self._weighted(
            node, operands[0], result, "pointwise", matrix, biases, scales, window, matrix.size
        )

    def _biases(self, node: Any, outputs: int) -> np.ndarray:
        stored = self._stored(node, 2)
        return np.zeros(outputs, np.int64) if stored is None else stored[0].reshape(-1)

    def _weighted(
        self,
        node: Any,
        source: str,
        result: str,
        kernel: str,
        weights: np.ndarray,
        biases: np.ndarray,
        scales: np.ndarray,
        window: Window,
        macs: int,
    ) -> None:
        x, y = self._maps[source], self._maps[result]
        factors = (x.scale * scales) / y.scale
        by_output = weights.reshape(-1, weights.shape[-1]).T if kernel == "depthwise" else weights
        sums = np.abs(by_output.reshape(len(biases), -1)).sum(1)
        if (255 * sums + np.abs(biases)).max() >= 2**31:
            raise self._fault(node, "its sums do not fit 32 bits")
        if np.abs(weights).max(initial=0) > 128:
            raise self._fault(node, "its weights do not fit 8 bits")
        self._layers.append(
            Weighted(
                self._new_name(node),
                (source,),
                result,
                macs,
                kernel,
                weights.astype(np.int8),
                biases.astype(np.int32),
                scaling_of(np.broadcast_to(factors, biases.shape)),
                window,
            )
        )

    def _sum(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        a, b = (self._maps[name] for name in operands)
        y = self._maps[result]
        if a.shape != b.shape:
            raise self._fault(node, f"its operands have the shapes {a.shape} and {b.shape}")
        scaling = sum_scaling(a.codes(), b.codes(), float(y.scale), y.zero_point)
        self._layers.append(Sum(self._new_name(node), tuple(operands), result, 0, scaling))

    def _product(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        first, second = sorted(operands, key=lambda name: -self._maps[name].size)
        a, b = self._maps[first], self._maps[second]
        if a.shape != b.shape and b.shape != (1, 1, a.shape[2]):
            raise self._fault(node, f"its operands have the shapes {a.shape} and {b.shape}")
        scaling = scaling_of(np.reshape((a.scale * b.scale) / self._maps[result].scale, 1))
        self._layers.append(Product(self._new_name(node), (first, second), result, 0, scaling))

    def _global_mean(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        x, y = self._maps[operands[0]], self._maps[result]
        places = x.shape[0] * x.shape[1]
        scaling = scaling_of(np.reshape((x.scale / np.float32(places)) / y.scale, 1))
        self._layers.append(GlobalMean(self._new_name(node), tuple(operands), result, 0, scaling))

    def _mean_pool(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        x, y = self._maps[operands[0]], self._maps[result]
        window = self._window(node, x, y, found, found["kernel_shape"])
        counts = np.arange(math.prod(window.size) + 1)
        scaling = scaling_of(mean_factors(x.scale, counts, float(y.scale)))
        padding_counts = bool(found.get("count_include_pad", 0))
        self._layers.append(
            Pool(self._new_name(node), tuple(operands), result, 0, window, scaling, padding_counts)
        )

    def _max_pool(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        x, y = self._maps[operands[0]], self._maps[result]
        window = self._window(node, x, y, found, found["kernel_shape"])
        self._layers.append(
            Pool(self._new_name(node), tuple(operands), result, 0, window, None, False)
        )
        self._again(node, operands[0], result, result)

    def _view(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        x, y = self._maps[operands[0]], self._maps[result]
        if y.size != x.size:
            raise self._fault(node, "it changes the size")
        if x.shape != y.shape:
            if y.shape[:2] == (1, 1):  # flattened: a linear layer has to know the order
                self._maps[result] = Map(x.shape, y.scale, y.zero_point)
            elif x.size not in x.shape or y.size not in y.shape:
                raise self._fault(node, f"it makes {y.shape} of a map of {x.shape}")
        self._again(node, operands[0], operands[0], result)

    def _again(self, node: Any, before: str, source: str, result: str) -> None:
        """The same values in the scale of the result, where that is another."""
        x, y = self._maps[before], self._maps[result]
        if (x.scale, x.zero_point) == (y.scale, y.zero_point):
            return
        codes = np.arange(_LOWEST, _HIGHEST + 1) - x.zero_point
        table = requantise(codes, x.scale / y.scale) + y.zero_point
        self._tabulated(node, source, result, table)

    def _lookup(self, node: Any, operands: list[str], result: str, found: Any) -> None:
        x, y = self._maps[operands[0]], self._maps[result]
        codes = x.codes(np.arange(_LOWEST, _HIGHEST + 1))
        table = element_wise(node.op_type, found, codes, float(y.scale)) + y.zero_point
        self._maps[result] = Map(x.shape, y.scale, y.zero_point)
        self._tabulated(node, operands[0], result, table)

    def _tabulated(self, node: Any, source: str, result: str, table: np.ndarray) -> None:
        held = np.clip(table, _LOWEST, _HIGHEST).astype(np.int8)
        self._layers.append(Lookup(self._new_name(node), (source,), result, 0, held))

    def _window(self, node: Any, x: Map, y: Map, found: Any, size: Any) -> Window:
        if found.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise self._fault(node, f"auto_pad {found['auto_pad']}")
        if len(size) != 2:
            raise self._fault(node, "it is not two-dimensional")
        if any(step != 1 for step in found.get("dilations", ())):
            raise self._fault(node, "it is dilated")
        pads = found.get("pads", (0, 0, 0, 0))
        window = Window(tuple(size), tuple(found.get("strides", (1, 1))), tuple(pads[:2]))
        whole = [
            (x.shape[i] + pads[i] + pads[i + 2] - window.size[i]) // window.strides[i] + 1
            for i in (0, 1)
        ]
        if whole != list(y.shape[:2]):  # ceil_mode, with a window that hangs over the edge
            raise self._fault(node, f"its size is rounded up, {whole} to {list(y.shape[:2])}")
        if max(*window.size, *window.strides, *pads) > 255:
            raise self._fault(node, "its kernel, stride or padding is over 255")
        return window


def _layer_name(graph: EditableGraph, node: Any) -> str:
    """``blocks.0.depthwise.0`` of its weights' name, else the node's own name."""
    for name in node.input[1:2]:
        reader = graph.producer(name)
        while reader is not None and reader.op_type in ("DequantizeLinear", "Cast"):
            name = reader.input[0]
            reader = graph.producer(name)
        if name in graph.arrays and name.endswith((".weight", ".factor")):
            return name.removeprefix("network.").rpartition(".")[0] or node.name
    return node.name
