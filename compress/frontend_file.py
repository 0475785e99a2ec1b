"""The front end that ``--frontend`` names: the default, a TOML file of a device, or a run folder's.

    # frontend.toml
    sample_rate_hz = 24_000
    window_samples = 480
    hop_samples = 240
    fft_size = 512
    highest_hz = 12_000.0

What a file leaves out is as in :class:`compress.frontend.FrontEnd`, but ``fft_size`` grows to the
next power of two where the window is longer, and ``highest_hz`` is at most half the rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.config import DataOptions, nearest, read_toml
from compress.errors import InputError
from compress.frontend import FrontEnd, mel_edges_hz, mel_filters

DEFAULT = "default"

_MOST = {
    "sample_rate_hz": 1_000_000,
    "window_samples": 65_536,
    "hop_samples": 65_536,
    "fft_size": 65_536,
    "mels": 512,
    "frames": 16_384,
}
_MOST_SAMPLES = 2**24
"""So that a slip of the pen does not take all memory: of a setting, and of sound in a window."""
_LEAST_RATE_HZ = 1_000
_MOST_DB = 200.0
"""The least mel power is 1e-20; further away, every window is silence, or levels overflow in C."""


def chosen_front_end(options: DataOptions) -> tuple[FrontEnd, bool]:
    """(the front end of a command's options, whether ``--frontend`` said so).

    ``--reference`` goes before what the file or the run says of it. Raises InputError with all
    that is wrong with the file.
    """
    changes: dict[str, Any] = {} if options.reference is None else {"reference": options.reference}
    if options.frontend is None:
        return FrontEnd(**changes), False
    return named_front_end(options.frontend, **changes), True


def named_front_end(name: str, **changes: Any) -> FrontEnd:
    """``default``, or that of a run folder or a TOML file, with ``changes``; raises InputError."""
    if name == DEFAULT:
        return FrontEnd(**changes)
    path = Path(name).expanduser()
    if path.is_dir():
        return replace(_of_run(path), **changes)
    if not path.exists():
        raise InputError(
            f"--frontend {name}: no such TOML file or run folder; give one, or {DEFAULT!r}"
        )
    return read_front_end(path, **changes)


def read_front_end(path: Path, **changes: Any) -> FrontEnd:
    """The front end that a TOML file describes, some of its settings replaced by ``changes``.

    Raises InputError in one line for unknown names, wrong types and sizes, settings that do not
    fit each other, and bands so narrow that no bin of the FFT lies in them.
    """
    values = read_toml(path)
    faults = _faults(values)
    if faults:
        raise InputError(f"{path}: {'; '.join(faults)}")
    floats = {spec.name for spec in fields(FrontEnd) if isinstance(spec.default, float)}
    values = {k: float(v) if k in floats else v for k, v in values.items()}
    usual = FrontEnd()
    window = values.get("window_samples", usual.window_samples)
    rate = values.get("sample_rate_hz", usual.sample_rate_hz)
    values.setdefault("fft_size", max(usual.fft_size, 1 << (window - 1).bit_length()))
    values.setdefault("highest_hz", min(usual.highest_hz, rate / 2))
    try:
        frontend = FrontEnd(**values | changes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if frontend.clip_samples > _MOST_SAMPLES:
        raise InputError(
            f"{path}: a window of {frontend.frames} frames every {frontend.hop_samples} samples is "
            f"{frontend.clip_samples:,} samples long; at most {_MOST_SAMPLES:,} are taken"
        )
    _check_bands(path, frontend)
    return frontend


def options_to_hear_as(run_folder: Path, frontend: FrontEnd | None) -> dict[str, str]:
    """Data options with which a command hears through ``frontend``, which that run records."""
    if frontend is None or frontend == FrontEnd():
        return {}
    if frontend == FrontEnd(reference="fixed"):
        return {"reference": "fixed"}
    return {"frontend": str(run_folder)}


def words(recorded: Mapping[str, Any]) -> str:
    """What of a recorded front end is not as usual, but for what 0 dB is; '' for nothing."""
    try:
        frontend = FrontEnd.from_dict(recorded)
    except (InputError, TypeError, ValueError):
        return ""
    usual = FrontEnd()
    told = []
    if frontend.sample_rate_hz != usual.sample_rate_hz:
        told.append(f"{frontend.sample_rate_hz / 1000:g} kHz")
    if (frontend.lowest_hz, frontend.highest_hz) != (usual.lowest_hz, usual.highest_hz):
        lowest = f"{frontend.lowest_hz:g} Hz " if frontend.lowest_hz != usual.lowest_hz else ""
        told.append(f"{lowest}to {frontend.highest_hz / 1000:g} kHz")
    if (frontend.mels, frontend.frames) != (usual.mels, usual.frames):
        told.append(f"{frontend.mels} x {frontend.frames}")
    if _times_ms(frontend) != _times_ms(usual):
        told.append("{:g} ms every {:g} ms".format(*_times_ms(frontend)))
    return ", ".join(told)


def _times_ms(frontend: FrontEnd) -> tuple[float, float]:
    """How long a frame lasts, and from one to the next."""
    return 1000 * frontend.window_samples / frontend.sample_rate_hz, 1000 * frontend.hop_seconds


def _of_run(folder: Path) -> FrontEnd:
    from compress import runs

    found = runs.open_run(folder).frontend
    if found is None:
        raise InputError(
            f"--frontend {folder}: its data came as spectrograms, so its front end is unknown; "
            "describe it in a TOML file"
        )
    return found


def _faults(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the names, types and sizes of a file's settings."""
    specs = {spec.name: spec.default for spec in fields(FrontEnd)}
    faults = []
    for name, value in values.items():
        if name not in specs:
            faults.append(f"unknown setting {name!r}{nearest(name, specs)}")
        elif isinstance(specs[name], str):
            if not isinstance(value, str):
                faults.append(f"{name} is {value!r}; it must be text")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            faults.append(f"{name} is {value!r}; it must be a number")
        elif not math.isfinite(value):
            faults.append(f"{name} is {value!r}; it must be finite")
        elif isinstance(specs[name], int):
            least = _LEAST_RATE_HZ if name == "sample_rate_hz" else 1
            if not (isinstance(value, int) and least <= value <= _MOST[name]):
                faults.append(
                    f"{name} is {value!r}; it must be a whole number of {least} to {_MOST[name]}"
                )
        elif name.endswith("_db") and abs(value) > _MOST_DB:
            faults.append(f"{name} is {value!r}; it must be {-_MOST_DB:g} to {_MOST_DB:g} dB")
    return faults


def _check_bands(path: Path, frontend: FrontEnd) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):  # of bands that begin where they end
        empty = np.flatnonzero(~(mel_filters(frontend).sum(axis=1) > 0))
    if len(empty):
        edges = mel_edges_hz(frontend)[empty[0] :]
        raise InputError(
            f"{path}: {len(empty)} of {frontend.mels} bands hold no bin of an FFT of "
            f"{frontend.fft_size} at {frontend.sample_rate_hz} Hz, the first from {edges[0]:.0f} "
            f"to {edges[2]:.0f} Hz; take a larger fft_size or fewer mels"
        )
