"""Options as the text of a TOML file: what ``--config`` and ``--recipe`` read again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def dumps(values: Mapping[str, Any]) -> str:
    """One line per value: texts, numbers, switches and lists of them; None is left out."""
    lines = [f"{name} = {_value(value)}" for name, value in values.items() if value is not None]
    return "".join(f"{line}\n" for line in lines)


def changed(options: Any) -> dict[str, Any]:
    """The options of a dataclass that are not the defaults, by name."""
    return {
        spec.name: getattr(options, spec.name)
        for spec in dataclasses.fields(options)
        if spec.metadata and getattr(options, spec.name) != spec.default
    }


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        return text if any(c in text for c in ".einf") else f"{text}.0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (str, Path)):
        # TOML's basic strings take the escapes of JSON, and DEL must be escaped too
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return "[" + ", ".join(_value(item) for item in value) + "]"
