"""A QDQ graph in torch: what onnxruntime will compute, with gradients.

    standardised window -> [fake-quantise -> operator]* -> logits

The graph itself is executed, node by node, so nothing is quantised in one of the two and not in the
other, and fine-tuned weights go back into the very file they came from. Weights are rounded per
output channel with scales from their present extremes, biases as int32, activations per tensor with
ranges that follow an exponential mean of the batches' extremes until they are frozen. Rounding
passes gradients through (straight-through), saturation stops them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import InputError
from compress.int8.graph import QUANTISING, EditableGraph, attributes
from compress.int8.narrow import MOST as NARROW_MOST
from compress.int8.narrow import channel_axis, clip_shares
from compress.int8.prepare import Prepared
from compress.int8.scales import short_scale

_WEIGHT_MOST = 127
_ACTIVATION_MOST = 255
_LEAST_SCALE = 1e-12
_MOMENTUM = 0.01  # share of a new batch in the ranges
_BIAS_MOST = 2**30  # half of int32, so that a scale that shrinks a little still fits


class SimulatedNetwork(nn.Module):
    """A QDQ model as a module: standardised windows (B, 1, mels, frames) -> logits (B, classes).

    In training mode the ranges of activations move for the first ``range_steps`` calls. The
    weights named in ``narrow`` get 4 bits instead of 8 (see compress.int8.narrow), those in
    ``shared`` take the values of a table of codes each (see compress.int8.clustered.tables). Raises
    InputError for an operator that cannot be simulated, with its name.
    """

    steps_left: Tensor  # (), batches until the ranges stand still

    def __init__(
        self,
        prepared: Prepared,
        model: Any,
        range_steps: int = 0,
        narrow: Collection[str] = (),
        shared: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self._graph = EditableGraph(model)
        self._input, self._output = prepared.standardised, prepared.output
        self._nodes = [n for n in self._graph.nodes if n.name not in prepared.normalising]
        for node in self._nodes:
            if node.op_type not in _OPERATORS and node.op_type not in QUANTISING:
                raise InputError(
                    f"{prepared.path}: unsupported operator {node.op_type} in layer {node.name!r}: "
                    "it cannot be fine-tuned with fake quantisation; quantise without --qat"
                )
        self._attributes = {id(node): attributes(node) for node in self._nodes}
        self._keys: dict[str, str] = {}
        for name, value in self._graph.arrays.items():
            constant = torch.from_numpy(value.copy())
            self.register_buffer(f"constant{self._key(name)}", constant, persistent=False)
        self.weights = nn.ParameterDict()
        self.register_buffer("steps_left", torch.tensor(range_steps))
        self._bounds: dict[str, tuple[float, float]] = {}
        self._stored = _stored_tensors(self._graph)
        self._add_weights(prepared)
        self._narrow = set(narrow)
        self._shared = set(shared or ())
        for name, table in (shared or {}).items():
            values = torch.from_numpy(table.astype(np.float32))
            self.register_buffer(f"table{self._key(name)}", values, persistent=False)
        self._add_clips()
        self._add_ranges(prepared)

    # --- construction ----------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        """A name that torch takes for a parameter."""
        return self._keys.setdefault(name, f"{len(self._keys)}")

    def _constant(self, name: str) -> Tensor:
        return self.get_buffer(f"constant{self._key(name)}")

    def _range(self, scale_name: str) -> tuple[Tensor, Tensor]:
        key = self._key(scale_name)
        return self.get_buffer(f"low{key}"), self.get_buffer(f"high{key}")

    def _add_weights(self, prepared: Prepared) -> None:
        """Float values of every quantised array, taken from the float model."""
        floats = EditableGraph(prepared.model).arrays
        for node in self._nodes:
            name = node.input[0]
            if node.op_type != "DequantizeLinear" or name not in self._graph.arrays:
                continue
            value = floats.get(name)
            if value is None:  # a bias: its float value is the dequantised one, to half a step
                value = _dequantised(self._graph, node)
            self.weights[self._key(name)] = nn.Parameter(torch.from_numpy(value.copy()).float())
        for node in self._nodes:  # layers kept in float are trained too
            for name in node.input if node.op_type in ("Conv", "Gemm", "MatMul") else ():
                value = self._graph.arrays.get(name)
                if value is not None and value.dtype == np.float32:
                    self.weights[self._key(name)] = nn.Parameter(torch.from_numpy(value.copy()))

    def _add_clips(self) -> None:
        """Of the weights of 4 bits, the share of its largest weight that each channel keeps."""
        for node in self._nodes:
            name = node.input[0]
            if node.op_type == "DequantizeLinear" and name in self._narrow:
                value = self.weights[self._key(name)].detach().numpy()
                shares = torch.from_numpy(clip_shares(value, self._axis(node)))
                self.register_buffer(f"clip{self._key(name)}", shares)

    def _most(self, name: str) -> int:
        return NARROW_MOST if name in self._narrow else _WEIGHT_MOST

    def _add_ranges(self, prepared: Prepared) -> None:
        """Ranges by the name of their scale: tensors that share a scale share a range."""
        limits = _activation_limits(prepared)
        for node in self._nodes:
            if node.op_type != "QuantizeLinear":
                continue
            scale, zero = (self._graph.array(node, i) for i in (1, 2))
            assert scale is not None and zero is not None
            name = node.input[1]
            if name in self._bounds:
                continue
            low, high = -float(zero) * float(scale), (255 - float(zero)) * float(scale)
            self.register_buffer(f"low{self._key(name)}", torch.tensor(low))
            self.register_buffer(f"high{self._key(name)}", torch.tensor(high))
            # A ReLU whose clipping the range does: the range must not grow below 0.
            producer = self._graph.producer(node.input[0])
            writer = producer.name if producer is not None else ""
            bottom, top = limits.get(writer, (-np.inf, np.inf))
            self._bounds[name] = (0.0 if int(zero) == 0 else bottom, top)

    # --- execution -------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Tensor] = {self._input: x}
        for node in self._nodes:
            if node.op_type == "QuantizeLinear":
                values[node.output[0]] = self._quantised(node, values[node.input[0]])
            elif node.op_type == "DequantizeLinear":
                name = node.input[0]
                stored = name in self._graph.arrays
                values[node.output[0]] = self._weight(node) if stored else values[name]
            else:
                inputs = [self._operand(name, values) for name in node.input]
                run = _OPERATORS[node.op_type]
                values[node.output[0]] = run(inputs, self._attributes[id(node)])
        if self.training and self.steps_left > 0:
            self.steps_left -= 1
        return values[self._output]

    def _operand(self, name: str, values: dict[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        key = self._keys.get(name)
        if key is not None and key in self.weights:
            return self.weights[key]
        return self._constant(name)

    def _quantised(self, node: Any, x: Tensor) -> Tensor:
        if self.training and self.steps_left > 0:
            self._follow(node.input[1], x.detach())
        scale, zero = _scale_and_zero(*self._range(node.input[1]))
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, _ACTIVATION_MOST)

    def _follow(self, name: str, x: Tensor) -> None:
        bottom, top = self._bounds[name]
        low, high = self._range(name)
        low.lerp_(x.amin().clamp(min(bottom, 0.0), 0.0), _MOMENTUM)
        high.lerp_(x.amax().clamp(0.0, top), _MOMENTUM)

    def _weight(self, node: Any) -> Tensor:
        """A quantised weight, bias or constant operand, as the integers of the file give it."""
        name = node.input[0]
        value = self.weights[self._key(name)]
        kind = self._graph.arrays[name].dtype
        if kind == np.int32:
            scale = self._bias_scale(name)
            return value + ((value / scale).round() * scale - value).detach()
        if kind == np.uint8:  # a constant operand in an activation's type keeps its scale
            scale, zero = self._constant(node.input[1]), self._constant(node.input[2])
            return torch.fake_quantize_per_tensor_affine(
                value, scale, zero.int(), 0, _ACTIVATION_MOST
            )
        axis = self._axis(node)
        scale = self._weight_scale(node)
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        most = self._most(name)
        if name in self._shared:
            shape = [1] * value.ndim
            shape[axis] = -1
            steps = scale.reshape(shape)
            codes = (value / steps).round().clamp(-most, most).long() + 128
            shared = self.get_buffer(f"table{self._key(name)}")[codes] * steps
            return value + (shared - value).detach()
        return torch.fake_quantize_per_channel_affine(value, scale, zeros, axis, -most, most)

    def _axis(self, node: Any) -> int:
        return channel_axis(node, self._graph.arrays[node.input[0]].ndim)

    def _weight_scale(self, node: Any) -> Tensor:
        """One scale per output channel, large enough for the weights and for an int32 bias."""
        name = node.input[0]
        value = self.weights[self._key(name)].detach()
        others = [i for i in range(value.ndim) if i != self._axis(node)]
        most = value.abs().amax(others) if others else value.abs()
        if name in self._narrow:
            most = most * self.get_buffer(f"clip{self._key(name)}")
        scale = (most / self._most(name)).clamp(min=_LEAST_SCALE)
        bias, data = self._stored[name]
        if bias:
            least = self.weights[self._key(bias)].detach().abs() / _BIAS_MOST
            scale = torch.maximum(scale, least / self._activation_scale(data))
        scale = torch.from_numpy(short_scale(scale.cpu().numpy())).to(scale.device)
        return scale.expand(self._graph.arrays[node.input[1]].shape) if scale.ndim == 0 else scale

    def _activation_scale(self, scale_name: str) -> Tensor:
        return _scale_and_zero(*self._range(scale_name))[0]

    def _bias_scale(self, bias: str) -> Tensor:
        weight_node, data = self._stored[bias]
        return self._weight_scale(weight_node) * self._activation_scale(data)

    # --- back into the file ----------------------------------------------------------------------

    @torch.no_grad()
    def to_onnx(self) -> Any:
        """The QDQ model with the trained weights, scales and zero points."""
        arrays = self._graph.arrays
        result = dict(arrays)
        zeros: dict[str, str] = {}  # scale -> zero point: those of the file are shared otherwise
        for node in self._nodes:
            name = node.input[0]
            if node.op_type == "QuantizeLinear":
                scale, zero = _scale_and_zero(*self._range(node.input[1]))
                result[node.input[1]] = scale.numpy().astype(np.float32)
                zeros[node.input[1]] = f"zero{int(zero)}"
                result[f"zero{int(zero)}"] = zero.numpy().astype(np.uint8)
            elif name in arrays:
                value = self.weights[self._key(name)]
                if arrays[name].dtype == np.int8:
                    scale = self._weight_scale(node)
                    shape = [1] * value.ndim
                    shape[self._axis(node)] = -1
                    result[name] = _codes(self._weight(node), scale.reshape(shape), np.int8)
                    result[node.input[1]] = scale.numpy().astype(np.float32)
                elif arrays[name].dtype == np.int32:
                    scale = self._bias_scale(name)
                    result[name] = _codes(value, scale, np.int32)
                    result[node.input[1]] = scale.numpy().astype(np.float32)
                elif arrays[name].dtype == np.uint8:
                    scale, zero = self._constant(node.input[1]), self._constant(node.input[2])
                    codes = (self._weight(node) / scale).round() + zero
                    result[name] = codes.numpy().astype(np.uint8)
        for name, key in self._keys.items():
            if name in arrays and arrays[name].dtype == np.float32 and key in self.weights:
                result[name] = self.weights[key].detach().numpy().astype(np.float32)
        graph = EditableGraph(self._graph.model)
        graph.arrays = result
        for node in graph.nodes:
            if node.op_type in QUANTISING and node.input[1] in zeros:
                node.input[2] = zeros[node.input[1]]
        return graph.write()


def _codes(value: Tensor, scale: Tensor, kind: Any) -> np.ndarray:
    return (value.double() / scale.double()).round().numpy().astype(kind)


def _scale_and_zero(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 scale and zero point of a range that holds 0; 0 itself is exact."""
    scale = ((high - low) / _ACTIVATION_MOST).clamp(min=_LEAST_SCALE)
    zero = (-low / scale).round().clamp(0, _ACTIVATION_MOST)
    return scale.detach(), zero.to(torch.int32).detach()


def _dequantised(graph: EditableGraph, node: Any) -> np.ndarray:
    value, scale, zero = (graph.array(node, position) for position in range(3))
    assert value is not None and scale is not None
    shift = 0 if zero is None else zero.astype(np.float64)
    return ((value.astype(np.float64) - shift) * scale).astype(np.float32)


def _stored_tensors(graph: EditableGraph) -> dict[str, Any]:
    """weight -> (its bias or "", scale of its layer's data); bias -> (weight's node, scale)."""
    found: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op_type not in ("Conv", "Gemm", "MatMul", "ConvTranspose"):
            continue
        sources: list[Any] = [graph.producer(name) if name else None for name in node.input]
        if any(s is None or s.op_type != "DequantizeLinear" for s in sources[:2]):
            continue
        data, weight = sources[:2]
        bias = sources[2] if len(sources) > 2 else None
        for source in (data, weight):
            if source.input[0] in graph.arrays:
                found[source.input[0]] = ("", data.input[1])
        if bias is not None and bias.input[0] in graph.arrays:
            found[weight.input[0]] = (bias.input[0], data.input[1])
            found[bias.input[0]] = (weight, data.input[1])
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear" and node.input[0] in graph.arrays:
            found.setdefault(node.input[0], ("", ""))
    return found


def _activation_limits(prepared: Prepared) -> dict[str, tuple[float, float]]:
    """Operator whose output a clipping operator alone reads -> the limits of that clipping."""
    graph = EditableGraph(prepared.model)
    limits: dict[str, tuple[float, float]] = {}
    for node in graph.nodes:
        if node.op_type not in ("Relu", "Clip"):
            continue
        source = graph.producer(node.input[0])
        if source is None or graph.only_reader(node.input[0]) is None:
            continue  # another reader needs what the clipping would cut
        bounds = (0.0, np.inf)
        if node.op_type == "Clip":
            low, high = (graph.array(node, i) for i in (1, 2))
            bounds = (
                -np.inf if low is None else float(low),
                np.inf if high is None else float(high),
            )
        limits[source.name] = bounds
    return limits


# --- operators -----------------------------------------------------------------------------------

Operands = list[Any]  # tensors; None for an optional operand that is left out


def _pads(found: dict[str, Any], name: str = "pads") -> list[int]:
    """ONNX (top, left, bottom, right) in torch's order (left, right, top, bottom)."""
    pads = found.get(name, (0, 0, 0, 0))
    return [pads[1], pads[3], pads[0], pads[2]]


def _conv(inputs: Operands, found: dict[str, Any]) -> Tensor:
    x, weight = inputs[:2]
    if found.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise InputError("unsupported operator Conv with automatic padding; export it again")
    pads = found.get("pads", (0, 0, 0, 0))
    padding = tuple(pads[:2])
    if tuple(pads[2:]) != padding:
        x, padding = functional.pad(x, _pads(found)), (0, 0)
    return functional.conv2d(
        x,
        weight,
        inputs[2] if len(inputs) > 2 else None,
        tuple(found.get("strides", (1, 1))),
        padding,
        tuple(found.get("dilations", (1, 1))),
        found.get("group", 1),
    )


def _gemm(inputs: Operands, found: dict[str, Any]) -> Tensor:
    a, b = inputs[:2]
    a = a.T if found.get("transA", 0) else a
    b = b.T if found.get("transB", 0) else b
    result = found.get("alpha", 1.0) * (a @ b)
    if len(inputs) > 2 and inputs[2] is not None:
        result = result + found.get("beta", 1.0) * inputs[2]
    return result


def _max_pool(inputs: Operands, found: dict[str, Any]) -> Tensor:
    x = functional.pad(inputs[0], _pads(found), value=float("-inf"))
    return functional.max_pool2d(
        x,
        tuple(found["kernel_shape"]),
        tuple(found.get("strides", (1, 1))),
        0,
        tuple(found.get("dilations", (1, 1))),
        bool(found.get("ceil_mode", 0)),
    )


def _average_pool(inputs: Operands, found: dict[str, Any]) -> Tensor:
    pads = found.get("pads", (0, 0, 0, 0))
    if tuple(pads[:2]) != tuple(pads[2:]):
        raise InputError("unsupported operator AveragePool with uneven padding")
    return functional.avg_pool2d(
        inputs[0],
        tuple(found["kernel_shape"]),
        tuple(found.get("strides", (1, 1))),
        tuple(pads[:2]),
        bool(found.get("ceil_mode", 0)),
        bool(found.get("count_include_pad", 0)),
    )


def _reshape(inputs: Operands, found: dict[str, Any]) -> Tensor:
    x, shape = inputs
    sizes = [int(size) for size in shape]
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(sizes)])


def _axes(inputs: Operands, found: dict[str, Any]) -> list[int]:
    axes = inputs[1] if len(inputs) > 1 and inputs[1] is not None else found.get("axes", ())
    return [int(axis) for axis in axes]


def _squeeze(inputs: Operands, found: dict[str, Any]) -> Tensor:
    return inputs[0].squeeze(tuple(_axes(inputs, found)))


def _unsqueeze(inputs: Operands, found: dict[str, Any]) -> Tensor:
    result = inputs[0]
    for axis in sorted(_axes(inputs, found)):
        result = result.unsqueeze(axis)
    return result


def _mean(inputs: Operands, found: dict[str, Any]) -> Tensor:
    return inputs[0].mean(_axes(inputs, found), keepdim=bool(found.get("keepdims", 1)))


def _clip(inputs: Operands, found: dict[str, Any]) -> Tensor:
    low, high = ([*inputs, None, None])[1:3]
    return inputs[0].clamp(
        None if low is None else float(low), None if high is None else float(high)
    )


_OPERATORS: dict[str, Callable[[Operands, dict[str, Any]], Tensor]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": lambda x, a: x[0] @ x[1],
    "Add": lambda x, a: x[0] + x[1],
    "Sub": lambda x, a: x[0] - x[1],
    "Mul": lambda x, a: x[0] * x[1],
    "Div": lambda x, a: x[0] / x[1],
    "Relu": lambda x, a: functional.relu(x[0]),
    "LeakyRelu": lambda x, a: functional.leaky_relu(x[0], a.get("alpha", 0.01)),
    "Elu": lambda x, a: functional.elu(x[0], a.get("alpha", 1.0)),
    "Sigmoid": lambda x, a: torch.sigmoid(x[0]),
    "Tanh": lambda x, a: torch.tanh(x[0]),
    "HardSigmoid": lambda x, a: (x[0] * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda x, a: functional.hardswish(x[0]),
    "Erf": lambda x, a: torch.erf(x[0]),
    "Softmax": lambda x, a: torch.softmax(x[0], a.get("axis", -1)),
    "Clip": _clip,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda x, a: x[0].mean((2, 3), keepdim=True),
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Flatten": lambda x, a: x[0].flatten(a.get("axis", 1)),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
    "Concat": lambda x, a: torch.cat([v for v in x if v is not None], a["axis"]),
}
