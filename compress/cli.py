"""What all commands share: parsing, one-line errors, exit codes, progress, the last line.

Exit codes: 0 done, 1 a check did not hold (gate, verify), 2 the input is wrong, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compress import children
from compress import config as options
from compress.config import Config
from compress.errors import InputError

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file would be larger than this place allows; choose another with --out or "
    "--cache",
    errno.EIO: "the disk cannot be read or written; choose another with --out or --cache",
    errno.ESTALE: "the folder was removed while the command ran; run the same command again",
    errno.ENOENT: "was removed while the command ran; run the same command again",
    errno.ENOTDIR: "lies below a file, not a folder; choose another place with --out or --cache",
    errno.EISDIR: "is a folder where a file is needed; give a file",
    errno.EPERM: "not permitted there; choose another place with --out or --cache",
    errno.EEXIST: "is in the way; choose another place with --out or --cache",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter --out",
    errno.EROFS: "the file system is read-only; choose another place with --out or --cache",
    errno.EACCES: "permission denied; choose another place with --out or --cache",
}


def main(
    config_class: type[Config],
    run: Callable[[Config], int | None],
    description: str | None,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, run, and turn every expected failure into one line and exit code 2."""
    prog = f"python -m {_module_of(run)}"
    if argv is None and os.environ.get(children.WATCH_VARIABLE):
        children.end_with_parent()  # before libraries load, which may take long
    try:
        config = options.parse(
            config_class,
            sys.argv[1:] if argv is None else argv,
            prog,
            (description or "").strip(),
        )
        return run(config) or 0
    except InputError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            return fail(f"{error.filename or 'output'}: {_DISK_ERRORS[error.errno]}")
        raise


def fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _module_of(run: Callable[..., Any]) -> str:
    module = run.__module__
    if module == "__main__":
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        module = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem
    return module


def say(message: str = "") -> None:
    """A line for the user, at once."""
    print(message, flush=True)


def interactive() -> bool:
    return sys.stderr.isatty()


def progress(total: int, label: str, unit: str = "it") -> Any:
    """A tqdm bar with time left on standard error; silent when that is not a terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        leave=False,
        dynamic_ncols=True,
        disable=not interactive(),
    )


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 1 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
