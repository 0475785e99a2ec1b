"""Data sets: one reader per layout, all giving one :class:`~compress.data.sets.SpectrogramSet`.

    open.py            recognises what a path holds and calls the reader of that layout
    scenes.py          built-in synthetic scenes
    npy_pair.py        training.npy and training_labels.npy
    audio_folder.py    class folders of audio
    esc50.py           ESC-50's layout, official folds
    fsd50k.py          FSD50K's layout, mapped to five classes
    transfer.py        unlabelled material for distillation
    audio.py, clips.py sound files to windows, in worker processes
    five.py            names of other vocabularies mapped to the report's five classes
    splits.py          training, validation and test by recording
    inspect.py         what a folder holds (python -m compress.data PATH)

Names are imported on first use, so that this package costs nothing to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.data.open import open_chosen, open_data
    from compress.data.splits import Split, make_split
    from compress.data.transfer import open_transfer

__all__ = ["Split", "make_split", "open_chosen", "open_data", "open_transfer"]

_HOMES = {
    "open_chosen": "compress.data.open",
    "open_data": "compress.data.open",
    "open_transfer": "compress.data.transfer",
    "Split": "compress.data.splits",
    "make_split": "compress.data.splits",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
