"""What a generated model.c holds, counted in its text."""

from __future__ import annotations

import re

from compress.errors import InputError

_BYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4, "uint32_t": 4}
_ARRAY = re.compile(
    r"^static const (u?int\d+_t) (\w+)\[(?:\d+|SCENE_MELS)\](?: SCENE_ALIGNED)? = \{([^}]*)\};",
    re.MULTILINE,
)


def count_constants(text: str) -> dict[str, int]:
    """weights, biases: numbers in the layers' arrays (rows of a first convolution are filled up
    with zeros to whole words); bytes: of all arrays of numbers. Raises InputError for other text.
    """
    counts = {"weights": 0, "biases": 0, "bytes": 0}
    for kind, name, values in _ARRAY.findall(text):
        number = values.count(",") + 1
        counts["bytes"] += number * _BYTES[kind]
        for part in ("weights", "biases"):
            if name.endswith(f"_{part}"):
                counts[part] += number
    if not counts["weights"]:
        raise InputError("model.c: holds no arrays of weights; export it again")
    return counts
