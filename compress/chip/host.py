"""The C files compiled on this machine and called: what is measured is what was written."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from compress.chip import emit
from compress.errors import InputError

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_COMPILERS = ("cc", "gcc", "clang")
_BATCH = "host_batch.c"


def compiler() -> str:
    """A C compiler of this machine; raises InputError that says what to install."""
    for name in _COMPILERS:
        if (found := shutil.which(name)) is not None:
            return found
    raise InputError(
        "no C compiler (cc, gcc or clang) was found, and what is exported is measured by running "
        "it; install one (Debian, Ubuntu: apt install gcc; Fedora: dnf install gcc; macOS: "
        "xcode-select --install)"
    )


def compiler_version() -> str:
    """The first line in which the compiler says what it is."""
    done = subprocess.run([compiler(), "--version"], capture_output=True, text=True)
    return (done.stdout.splitlines() or ["not known"])[0]


def compile_files(
    command: Sequence[str], sources: Sequence[Path], result: Path, include: Path
) -> None:
    """Raises InputError with the compiler's first error."""
    line = [*command, f"-I{include}", "-o", str(result), *map(str, sources)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        errors = [text for text in done.stderr.splitlines() if "error" in text.lower()]
        raise InputError(
            f"{command[0]}: cannot compile {include / emit.SOURCE} "
            f"({(errors or done.stderr.splitlines() or ['no reason given'])[0][:300]})"
        )


@contextlib.contextmanager
def built_test(folder: Path) -> Iterator[Path]:
    """The host test of an export, compiled without warnings in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="scene-host-") as built:
        program = Path(built) / "host_test"
        sources = [folder / name for name in ("host_test.c", "model.c", "kernels.c")]
        compile_files([compiler(), *STRICT, "-O2"], sources, program, folder)
        yield program


class HostNetwork:
    """The exported network as a function, compiled from ``folder`` without warnings."""

    def __init__(self, folder: Path, classes: int) -> None:
        self._classes = classes
        self._build = tempfile.TemporaryDirectory(prefix="scene-host-")
        built = Path(self._build.name)
        (built / _BATCH).write_text(emit.copied_file(_BATCH), encoding="utf-8")
        library = built / "scene.so"
        sources = [folder / "model.c", folder / "kernels.c", built / _BATCH]
        compile_files(
            [compiler(), *STRICT, "-O2", "-fPIC", "-shared"], sources, library, folder
        )
        self._batch = ctypes.CDLL(str(library)).scene_batch
        self._batch.restype = None
        self._batch.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

    def __enter__(self) -> HostNetwork:
        return self

    def __exit__(self, *error: object) -> None:
        self._build.cleanup()

    def __call__(self, decibels_q8: np.ndarray) -> np.ndarray:
        """(n, mels, frames) int16, dB in steps of 1/256 -> (n, classes) int8 codes."""
        given = np.ascontiguousarray(decibels_q8, dtype=np.int16)
        found = np.zeros((len(given), self._classes), np.int8)
        self._batch(given.ctypes.data, len(given), found.ctypes.data)
        return found
