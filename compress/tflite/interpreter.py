"""A .tflite file run by the LiteRT interpreter, window by window as on a device.

Two sets of kernels, which differ in how they round:

    reference   integers and fixed-point multipliers; TFLite Micro and CMSIS-NN compute the same
    fast        LiteRT's own choice for this CPU (XNNPACK), which rounds as onnxruntime does
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import InputError
from compress.tflite.flatbuffer import needs


def available() -> bool:
    """Whether the extra is installed, without loading it."""
    from importlib.util import find_spec

    return find_spec("ai_edge_litert") is not None


class CodesNetwork:
    """A file with one int8 input and output as a function of codes.

    Raises InputError where LiteRT is missing or cannot run the file.
    """

    def __init__(self, path: Path, reference: bool = True) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError:
            raise needs() from None
        kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.BUILTIN
        try:
            with _quiet():
                self._interpreter = Interpreter(
                    str(path), num_threads=1, experimental_op_resolver_type=kind
                )
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: LiteRT cannot run this file ({reason})") from None
        (start,), (end,) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        self._start, self._end = start["index"], end["index"]
        self.input_shape = tuple(int(n) for n in start["shape"])

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """(B, 1, mels, frames) int8 -> (B, classes) int8; one window after the other."""
        return np.concatenate([self.run(window) for window in self.prepared(codes)])

    def prepared(self, codes: np.ndarray) -> np.ndarray:
        """(B, 1, mels, frames) -> (B, 1, mels, frames, 1), windows as the file takes them."""
        return np.ascontiguousarray(codes.transpose(0, 2, 3, 1))[:, None]

    def run(self, window: np.ndarray) -> np.ndarray:
        """(1, mels, frames, 1) int8 -> (1, classes) int8."""
        self._interpreter.set_tensor(self._start, window)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._end)

    def timed(self, window: np.ndarray) -> Callable[[], Any]:
        """One run with its input ready, for a stopwatch."""
        self._interpreter.set_tensor(self._start, window)
        return self._interpreter.invoke


@contextlib.contextmanager
def _quiet():
    """LiteRT reports its choice of kernels on standard error; failures are raised all the same."""
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
