"""Weights that take few values: an experiment for flash, with 8-bit arithmetic.

    int8 codes of a layer -> k-means -> int8 codebook of N entries + 4-bit indices in the file
    file: UINT4 indices -> Cast -> Gather(codebook) -> int8 kernel

onnxruntime computes Cast and Gather once, when it loads the file, and fuses as before: the file
shrinks, time and memory at run time do not. One codebook serves a layer; channels keep their own
scales. As with weights of 4 bits, the first and the last layer keep all their codes.

With N levels of one's own choice instead of 15 equal steps, see compress.int8.narrow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from compress.int8.graph import EditableGraph
from compress.int8.narrow import channel_axis

MOST_ENTRIES = 16  # what 4-bit indices can name
_OPSET, _IR_VERSION = 21, 10  # the first with UINT4
_CODES = np.arange(-128, 128)


def codebook(counts: np.ndarray, entries: int) -> np.ndarray:
    """The int8 entries with the least weighted squared error, ascending, at most ``entries``.

    counts: weight of each code from -128 to 127, (256,). In one dimension clusters are intervals,
    so that dynamic programming finds the optimum (Wang and Song 2011), which k-means from random
    starts would not. Entries are rounded to codes, and the error is that of the rounded ones.
    """
    used = np.flatnonzero(counts)
    if len(used) <= entries:
        return _CODES[used].astype(np.int8)
    codes, weight = _CODES[used].astype(np.float64), counts[used].astype(np.float64)
    sums = [np.concatenate([[0.0], np.cumsum(weight * codes**power)]) for power in range(3)]
    size = len(used)
    start, end = np.arange(size)[:, None], np.arange(1, size + 1)[None, :]
    inside = start < end
    total, first, second = (part[end] - part[start] for part in sums)
    centre = np.rint(np.divide(first, total, out=np.zeros_like(first), where=inside))
    cost = np.where(inside, second - 2 * centre * first + centre**2 * total, np.inf)
    # best[j]: least cost of the first j codes; cut[k][j]: where the last of k + 1 intervals starts
    best = np.concatenate([[0.0], cost[0]])
    cuts = []
    for _ in range(entries - 1):
        through = best[:-1, None] + cost  # (start, end)
        cuts.append(np.argmin(through, axis=0))
        best = np.concatenate([[np.inf], through.min(axis=0)])
    found, at = [], size
    for cut in reversed(cuts):
        begin = int(cut[at - 1])
        found.append(centre[begin, at - 1])
        at = begin
    found.append(centre[0, at - 1])
    return np.unique(found).astype(np.int8)


def cluster(model: Any, names: tuple[str, ...], entries: int) -> Any:
    """The QDQ model whose weights ``names`` take at most ``entries`` int8 values each."""
    graph = EditableGraph(model)
    for name, table in tables(model, names, entries).items():
        graph.arrays[name] = table[graph.arrays[name].astype(int) + 128]
    return graph.write()


def tables(model: Any, names: Collection[str], entries: int) -> dict[str, np.ndarray]:
    """weight -> the entry of its codebook that each code from -128 to 127 becomes, (256,) int8.

    A code's error counts as its channel's scale squared, so that what is least is the squared
    error of the weights themselves.
    """
    graph = EditableGraph(model)
    found = {}
    for node in graph.nodes:
        name = node.input[0]
        if node.op_type != "DequantizeLinear" or name not in names:
            continue
        codes, stored = graph.arrays[name], graph.array(node, 1)
        assert stored is not None
        scale = np.atleast_1d(stored).astype(np.float64)
        shape = [1] * codes.ndim
        shape[channel_axis(node, codes.ndim)] = -1
        weight = np.broadcast_to((scale**2).reshape(shape), codes.shape)
        counts = np.bincount(codes.ravel().astype(int) + 128, weight.ravel(), minlength=256)
        book = codebook(counts, entries)
        distance = np.abs(_CODES[:, None] - book.astype(int)[None, :])
        found[name] = book[distance.argmin(axis=1)]  # of two as near, the smaller
    return found


def pack(model: Any, names: tuple[str, ...]) -> Any:
    """The same function with the weights ``names`` stored as codebooks and 4-bit indices."""
    import ml_dtypes
    from onnx import TensorProto, helper

    graph = EditableGraph(model)
    graph.require(_OPSET, _IR_VERSION)
    for node in [n for n in graph.nodes if n.op_type == "DequantizeLinear"]:
        name = node.input[0]
        if name not in names:
            continue
        book, indices = np.unique(graph.arrays[name], return_inverse=True)
        graph.arrays[name] = indices.reshape(graph.arrays[name].shape).astype(ml_dtypes.uint4)
        graph.arrays[f"{name}.book"] = book
        node.input[0] = f"{name}.8"
        cast = helper.make_node("Cast", [name], [f"{name}.32"], to=TensorProto.INT32)
        gather = helper.make_node("Gather", [f"{name}.book", f"{name}.32"], [f"{name}.8"])
        graph.insert_before(node, cast)
        graph.insert_before(node, gather)
    return graph.write()


def entries_of(model: Any, names: tuple[str, ...]) -> Mapping[str, int]:
    """How many values each of the weights takes, for the record."""
    graph = EditableGraph(model)
    return {name: len(np.unique(graph.arrays[name])) for name in names}
