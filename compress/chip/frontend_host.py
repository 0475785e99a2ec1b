"""frontend.c compiled on this machine, and what its levels do to the decisions of the network."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli
from compress.chip import host
from compress.chip.frontend_c import LEVEL_BITS
from compress.data.open import is_sound
from compress.data.sets import CODES_PER_DB, SpectrogramSet, is_synthetic
from compress.data.splits import Split
from compress.data.waves import OtherSynthesis, scene_seed, window_waveforms
from compress.errors import InputError
from compress.frontend import FLOOR_DB, FrontEnd

COMPARED_ABOVE_DB = FLOOR_DB + 10.0
_FULL_SCALE = 32_768
_HIGHEST = 2**15 - 1
_STEP = 2**LEVEL_BITS // CODES_PER_DB
_BIN_BYTES, _SAMPLE_BYTES, _OTHER_BYTES = 16, 2, 64


class HostFrontEnd:
    """frontend.c of ``folder`` as a function."""

    def __init__(self, folder: Path, frontend: FrontEnd) -> None:
        self.frontend = frontend
        self._build = tempfile.TemporaryDirectory(prefix="scene-host-")
        library = Path(self._build.name) / "frontend.so"
        command = [host.compiler(), *host.STRICT, "-O2", "-fPIC", "-shared"]
        host.compile_files(command, [folder / "frontend.c"], library, folder)
        self.compiled = ctypes.CDLL(str(library))
        self.compiled.scene_frontend_push.restype = ctypes.c_size_t
        self._state = ctypes.create_string_buffer(
            _BIN_BYTES * (frontend.fft_size // 2 + 1)
            + _SAMPLE_BYTES * frontend.window_samples
            + _OTHER_BYTES
        )

    def __enter__(self) -> HostFrontEnd:
        return self

    def __exit__(self, *error: object) -> None:
        self._build.cleanup()

    def levels(self, samples: np.ndarray, chunks: tuple[int, ...] = ()) -> np.ndarray:
        """(samples,) int16 -> (mels, frames') int32 in 2^-22 dB; fed in ``chunks``, then the rest.

        Under the fixed reference, or over mel power 1 where the reference is the window's.
        """
        samples = np.ascontiguousarray(samples, dtype=np.int16)
        self.compiled.scene_frontend_reset(self._state)
        edges = [0, *np.cumsum(chunks).astype(int).tolist(), len(samples)]
        frames: list[np.ndarray] = []
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            at = start
            while at < stop:
                found = np.zeros(self.frontend.mels, dtype=np.int32)
                ready = ctypes.c_int()
                at += self.compiled.scene_frontend_push(
                    self._state,
                    ctypes.c_void_p(samples.ctypes.data + _SAMPLE_BYTES * at),
                    ctypes.c_size_t(stop - at),
                    ctypes.c_void_p(found.ctypes.data),
                    ctypes.byref(ready),
                )
                if ready.value:
                    frames.append(found)
        return np.stack(frames, axis=1) if frames else np.zeros((self.frontend.mels, 0), np.int32)

    def window(self, samples: np.ndarray) -> np.ndarray:
        """dB of one window as the network takes them, (mels, frames) int16: what scene.c does."""
        levels = self.levels(samples).astype(np.int64)
        if self.frontend.reference == "clip":
            quietest = round(self.frontend.quietest_reference_db * 2**LEVEL_BITS)
            levels -= max(int(levels.max()), quietest)
        codes = (levels + (_STEP >> 1)) // _STEP
        return np.clip(codes, round(FLOOR_DB * CODES_PER_DB), _HIGHEST).astype(np.int16)


def measure(
    folder: Path,
    network: Callable[[np.ndarray], np.ndarray],
    codes: np.ndarray,
    data: SpectrogramSet,
    split: Split,
    spec: str | None,
) -> dict[str, Any] | None:
    """The test windows' sound through frontend.c and the network, beside stored spectrograms.

    network: (n, mels, frames) int16 -> (n, classes) codes. codes: of the stored test windows.
    None where there is no front end in C. Without sound at hand only the golden test is made; where
    scenes cannot be made again as they were, "reason" says so.
    """
    if data.frontend is None:
        return None
    _run_golden(folder)
    if spec is not None and not is_sound(spec):
        spec = None  # spectrograms whose front end was stated
    if spec is None and data.synthetic and is_synthetic(data.name):
        spec = data.name
    if spec is None:
        return {"windows": 0}
    parts, rows_done = [], []
    try:
        with (
            HostFrontEnd(folder, data.frontend) as front,
            cli.progress(len(split.test), "front end in C", "window") as bar,
        ):
            for rows, waveforms in window_waveforms(data, split.test, spec, scene_seed(split)):
                samples = np.clip(np.rint(waveforms * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
                parts += [front.window(one) for one in samples.astype(np.int16)]
                rows_done.append(rows)
                bar.update(len(rows))
    except OtherSynthesis as error:  # the network's code is as good as before
        return {"windows": 0, "reason": str(error)}
    order = np.argsort(np.concatenate(rows_done), kind="stable")
    found = np.stack(parts)[order]
    expected = data.codes[split.test].astype(np.int32)
    apart = np.abs(found - expected)[expected > COMPARED_ABOVE_DB * CODES_PER_DB]
    decided, stored = network(found), codes
    changed = decided.argmax(1) != stored.argmax(1)
    return {
        "windows": len(found),
        "largest_difference_db": float(apart.max(initial=0)) / CODES_PER_DB,
        "compared_above_db": COMPARED_ABOVE_DB,
        "changed_decisions": int(changed.sum()),
        "largest_margin_of_changed": _margin(stored[changed]),
        "accuracy": float((decided.argmax(1) == data.labels[split.test]).mean()),
        "accuracy_stored": float((stored.argmax(1) == data.labels[split.test]).mean()),
    }


def _margin(codes: np.ndarray) -> int:
    """Steps of the output by which the first class led the second, at most over ``codes``."""
    if not len(codes):
        return 0
    ordered = np.sort(codes.astype(np.int32), axis=1)
    return int((ordered[:, -1] - ordered[:, -2]).max())


def lines_of(found: dict[str, Any] | None) -> list[str]:
    """What was measured, in words."""
    if found is None:
        return []
    if found.get("reason"):
        return [f"note      front end in C not measured on sound: {found['reason']}"]
    if not found["windows"]:
        return ["sound     front end in C written; --data PATH measures it on sound"]
    return [
        f"sound     front end in C: at most {found['largest_difference_db']:.4f} dB from Python's "
        f"above {found['compared_above_db']:.0f} dB, {found['changed_decisions']} of "
        f"{found['windows']:,} test windows decided otherwise"
        + (
            f" (led by at most {found['largest_margin_of_changed']} output steps before)"
            if found["changed_decisions"]
            else ""
        )
    ]


def _run_golden(folder: Path) -> None:
    """Build and run the front end's host test that ships; raises InputError where it fails."""
    with tempfile.TemporaryDirectory(prefix="scene-host-") as built:
        program = Path(built) / "frontend_test"
        sources = [folder / "frontend_test.c", folder / "frontend.c"]
        host.compile_files([host.compiler(), *host.STRICT, "-O2"], sources, program, folder)
        done = subprocess.run([str(program)], capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        raise InputError(f"{folder}: the host test of the front end fails ({last[0]})")
