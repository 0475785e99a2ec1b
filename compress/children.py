"""Commands as processes of their own, which end when the process that started them does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WATCH_VARIABLE = "COMPRESS_END_WITH_STDIN"


def start(module: str, arguments: Sequence[str], out: Any, working_folder: Path) -> Any:
    """``python -m MODULE ARGUMENTS``, both its outputs into the open file ``out``; a Popen."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.STDOUT,
        cwd=working_folder,
        env={**os.environ, WATCH_VARIABLE: "1"},
    )


def end_with_parent() -> None:
    """In such a process: end when the pipe on standard input does, as its parent is gone."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
