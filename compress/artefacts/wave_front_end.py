"""The log-mel front end as ONNX operators, and how its constants are known again in a file.

    waveform (batch, samples) -> Conv with windowed sines and cosines, stride = hop
        -> squares -> MatMul with the mel filters -> dB -> rounded to 1/256 dB
        -> (batch, 1, mels, frames)

The constants follow from a few settings and nothing in them is learned, so a file's budget of
weights leaves them out: the file's metadata names the settings, the numbers are computed again, and
only a stored tensor of just those numbers counts as front end.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.frontend import FLOOR_DB, FrontEnd, mel_filters

METADATA_KEY = "compress.frontend"
DECIBELS = "front_end_decibels"
_BASIS, _FILTERS = "front_end_basis", "front_end_filters"
_SMALLEST_POWER = 1e-20
_STEPS_PER_DB = 256  # CODES_PER_DB of compress.data.sets
_MOST_VALUES = 2**26
_NEAR = 1e-6  # of the largest value: sines of two machines differ in their last bit


def constants(frontend: FrontEnd) -> dict[str, np.ndarray]:
    """The large constants by name: float32.

    basis (2 bins, 1, window): Hann window times cosine, then times sine, of each bin that a mel
    band reads. filters (mels, 2 bins): the filter bank twice, for the two squares of a bin.
    """
    filters = mel_filters(frontend)
    used = np.flatnonzero(filters.any(axis=0))
    samples = np.arange(frontend.window_samples)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * samples / frontend.window_samples)
    angles = 2 * np.pi * (np.outer(used, samples) % frontend.fft_size) / frontend.fft_size
    basis = np.concatenate([np.cos(angles) * window, np.sin(angles) * window])
    return {
        _BASIS: basis[:, None].astype(np.float32),
        _FILTERS: np.tile(filters[:, used], 2).astype(np.float32),
    }


def front_end_constants(model: Any) -> tuple[set[str], int]:
    """Names of the stored tensors that are the front end which the file's metadata names.

    And how many mel bands it has; 0 where one of its tensors is missing or another.
    """
    from onnx import numpy_helper

    recorded = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA_KEY)
    if recorded is None:
        return set(), 0
    try:
        frontend = FrontEnd.from_dict(json.loads(recorded))
        rows = max(frontend.window_samples, frontend.mels)
        expected = constants(frontend) if rows * frontend.fft_size < _MOST_VALUES else {}
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, InputError):
        return set(), 0  # then all are weights
    found = set()
    for tensor in model.graph.initializer:
        wanted = expected.get(tensor.name)
        if wanted is None or tuple(tensor.dims) != wanted.shape or tensor.data_location:
            continue
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError):
            continue
        if values.dtype == np.float32 and np.allclose(
            values, wanted, rtol=0, atol=_NEAR * np.abs(wanted).max()
        ):
            found.add(tensor.name)
    return found, frontend.mels if expected and found == set(expected) else 0


def front_end_nodes(frontend: FrontEnd, waveform: str) -> tuple[list[Any], list[Any]]:
    """Nodes and initializers from the tensor ``waveform`` to the tensor DECIBELS; opset 18."""
    from onnx import helper, numpy_helper

    numbers: dict[str, np.ndarray] = dict(constants(frontend))
    nodes: list[Any] = []

    def constant(name: str, value: Any, kind: type = np.float32) -> str:
        numbers[f"front_end_{name}"] = np.asarray(value, dtype=kind)
        return f"front_end_{name}"

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = output if output == DECIBELS else f"front_end_{output}"
        nodes.append(helper.make_node(op, inputs, [name], name=f"front_end/{output}", **attributes))
        return name

    one_channel = constant("one_channel", [0, 1, -1], np.int64)
    channel = add("Reshape", [waveform, one_channel], "channel")
    parts = add("Conv", [channel, _BASIS], "spectrum", strides=[frontend.hop_samples])
    squares = add("Mul", [parts, parts], "squares")
    power = add("MatMul", [_FILTERS, squares], "mel_power")  # (batch, mels, frames)
    power = add("Max", [power, constant("smallest_power", _SMALLEST_POWER)], "positive_power")
    log = add("Log", [power], "log")
    level = add("Mul", [log, constant("ten_per_decade", 10 / math.log(10))], "level")
    if frontend.reference == "clip":
        loudest = add("ReduceMax", [level, constant("axes", [1, 2], np.int64)], "loudest")
        quietest = constant("quietest_reference", frontend.quietest_reference_db)
        reference = add("Max", [loudest, quietest], "reference")
    else:
        reference = constant("fixed_reference", frontend.fixed_reference_db)
    relative = add("Sub", [level, reference], "relative")
    floored = add("Max", [relative, constant("floor", FLOOR_DB)], "floored")
    # The network was trained and quantised on dB in steps of 1/256.
    steps = add("Mul", [floored, constant("steps_per_db", _STEPS_PER_DB)], "steps")
    whole = add("Round", [steps], "whole_steps")
    rounded = add("Mul", [whole, constant("db_per_step", 1 / _STEPS_PER_DB)], "rounded")
    shape = constant("window_shape", [0, 1, frontend.mels, frontend.frames], np.int64)
    add("Reshape", [rounded, shape], DECIBELS)
    return nodes, [numpy_helper.from_array(value, name) for name, value in numbers.items()]
