"""The command that may come next, as the last line of a command prints it."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from compress import toml_text
from compress.config import (
    ContinuingOptions,
    DataOptions,
    InputOptions,
    TeachingOptions,
    flag_of,
)

_SHARED = (DataOptions, ContinuingOptions, TeachingOptions, InputOptions)
_LEFT_OUT = ("out", "force", "workers")  # of one run; prepared data lies in the cache


def next_command(name: str, takes: type, given: Any, **own: Any) -> str:
    """``python -m compress.NAME`` on the data, machine and folders that the user gave, for a shell.

    takes: the dataclass of that command's options. given: the options of the command that ends;
    those that mean the same in both (:data:`_SHARED`) are said again where they are not defaults.
    own: options that are said first, whatever ``given`` says; None leaves one out.
    """
    specs = {spec.name: spec for spec in dataclasses.fields(takes)}
    same = [kind for kind in _SHARED if isinstance(given, kind) and issubclass(takes, kind)]
    kept = {spec.name for kind in same for spec in dataclasses.fields(kind)} - set(_LEFT_OUT)
    values = {key: value for key, value in toml_text.changed(given).items() if key in kept}
    words = ["python", "-m", f"compress.{name}"]
    for key, value in {**own, **{k: v for k, v in values.items() if k not in own}}.items():
        flag = specs[key].metadata["flag"] or flag_of(key)
        if value is True:
            words.append(flag)
        elif value is not None:
            for one in value if isinstance(value, tuple) else (value,):
                words += [flag, str(one)]
    return shlex.join(words)
