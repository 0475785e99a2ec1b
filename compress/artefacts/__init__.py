"""Readers of shipped files: figures from the file itself, one reader per format.

    model.onnx           weights, layers, MACs, peak activation bytes
    weights.safetensors  weights
    model.tflite         weights, layers, MACs, peak activation bytes
    model.ckpt, .pt      weights in the state_dict (Lightning or torch.save)

:func:`read` picks the reader by the file's ending. No reader imports torch, executes anything
from the file, or trusts a size that it declares.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artefacts.summary import FileSummary, Layer, sha256_of
from compress.errors import InputError

if TYPE_CHECKING:
    from compress.artefacts.lightning_file import LightningCheckpoint, TensorEntry, open_checkpoint

ENDINGS = (".onnx", ".tflite", ".safetensors", ".ckpt", ".pt", ".pth")
SHIPPED_ENDINGS = (".onnx", ".tflite", ".safetensors", ".ckpt")  # what a folder is searched for


def read(path: Path) -> FileSummary:
    """Figures of one file; raises InputError where it is missing, corrupt or of unknown kind."""
    ending = path.suffix.lower()
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if ending not in ENDINGS:
        raise InputError(f"{path}: {ending or 'no'} ending; readable are {', '.join(ENDINGS)}")
    if ending == ".onnx":
        from compress.artefacts import onnx_file

        return onnx_file.read(path)
    if ending == ".tflite":
        from compress.artefacts import tflite_file

        return tflite_file.read(path)
    if ending == ".safetensors":
        from compress.artefacts import safetensors_file

        return safetensors_file.read(path)
    from compress.artefacts import lightning_file

    return lightning_file.read(path)


__all__ = [
    "ENDINGS",
    "SHIPPED_ENDINGS",
    "FileSummary",
    "Layer",
    "LightningCheckpoint",
    "TensorEntry",
    "read",
    "open_checkpoint",
    "sha256_of",
]


def __getattr__(name: str) -> Any:
    """The checkpoint reader on first use: it needs numpy, which --help should not wait for."""
    if name not in ("LightningCheckpoint", "TensorEntry", "open_checkpoint"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("compress.artefacts.lightning_file"), name)
