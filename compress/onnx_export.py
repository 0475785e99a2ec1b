"""The network as an ONNX file with the normalisation inside, checked against the network.

    log_mel_db (batch, 1, mels, frames) -> Sub, Mul per band -> network -> logits (batch, classes)
                                        \> Clip, Sub, Mul: the step from silence (mixture)

Batch norm behind a convolution is folded by the exporter; dropout is gone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from compress.frontend import FLOOR_DB
from compress.material import KNEE_DB, Normalisation
from compress.memory_format import in_memory_format
from compress.runs import atomic_path

INPUT = "log_mel_db"
OUTPUT = "logits"
OPSET = 18


class Deployed(nn.Module):
    """Normalisation and network: what the file computes."""

    mean: torch.Tensor  # (1, 1, mels, 1)
    gain: torch.Tensor
    step_slope: torch.Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        mean = torch.from_numpy(normalisation.mean.copy())[None, None, :, None]
        gain = 1.0 / torch.from_numpy(normalisation.deviation.copy())[None, None, :, None]
        self.register_buffer("mean", mean)
        self.register_buffer("gain", gain)
        slope = normalisation.step_slope
        self.has_step = slope is not None
        if slope is not None:
            self.register_buffer("step_slope", torch.from_numpy(slope)[None, None, :, None])

    def forward(self, log_mel_db: torch.Tensor) -> torch.Tensor:
        if not self.has_step:
            return self.network((log_mel_db - self.mean) * self.gain)
        sound = log_mel_db.clamp(min=KNEE_DB)
        quiet = log_mel_db.clamp(FLOOR_DB, KNEE_DB)
        x = (sound - self.mean) * self.gain + (quiet - KNEE_DB) * self.step_slope
        return self.network(x)


def to_onnx(
    network: nn.Module, normalisation: Normalisation, mels: int, frames: int, path: Path
) -> None:
    """Write one self-contained ONNX file (opset 18, dynamic batch) whole or not at all."""
    import onnx

    deployed = in_memory_format(
        Deployed(network, normalisation).cpu().eval(), torch.contiguous_format
    )
    example = torch.zeros(2, 1, mels, frames)
    with _quiet():
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None  # what dynamo=True gives
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet():
    """The exporter talks to the terminal about its own steps; errors are raised all the same."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
