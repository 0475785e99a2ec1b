"""Lets torchvision, and with it timm, be imported beside a torch that its extension does not fit.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled extension does not
load, and ``import torchvision`` then ends with ``operator torchvision::nms does not exist``,
although nothing here needs these operators. :func:`install` puts a finder in front of
``sys.meta_path`` that acts once, when torchvision is first imported: it tries to load the
extension, and only where that fails declares the schemas that torchvision registers against.
Declaring them beside an extension that loads would abort the process. Nothing imports torch early.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    "_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
# A library's definitions vanish with the object, so it is kept for the life of the process.
_declared: list[object] = []


class TorchvisionFinder(MetaPathFinder):
    """Prepares torch for the first import of torchvision; finds nothing itself."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname == "torchvision":
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(self)
            spec = PathFinder.find_spec(fullname)
            if spec is not None and spec.submodule_search_locations:
                _declare_missing_operators([Path(p) for p in spec.submodule_search_locations])
        return None


def _declare_missing_operators(folders: Sequence[Path]) -> None:
    import torch
    from torch import library

    for extension in (file for folder in folders for file in sorted(folder.glob("_C*.so"))):
        with contextlib.suppress(OSError, ImportError, RuntimeError):
            torch.ops.load_library(str(extension))
            return
    if hasattr(torch.ops.torchvision, "nms"):
        return
    declared = library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        declared.define(schema)
    _declared.append(declared)


def install() -> None:
    """Put the finder in place unless it is there or torchvision is imported already."""
    if "torchvision" in sys.modules:
        return
    if not any(isinstance(finder, TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchvisionFinder())
