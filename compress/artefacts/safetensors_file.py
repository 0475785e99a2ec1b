"""The header of a safetensors file: names, types, shapes and places. The data is not read.

8 bytes little-endian header length | JSON header | data
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from compress.artefacts.summary import (
    INPUT_SCALING,
    RUNNING_STATISTICS,
    FileSummary,
    is_running_statistic,
    layers_by_prefix,
    sha256_of,
)
from compress.errors import InputError

_MOST_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
# Where a run's weights.safetensors keeps the scaling of its input, at most one value per mel band.
_SCALING_NAMES = ("normalise.mean", "normalise.deviation")
_MOST_BANDS = 256
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
    "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def read(path: Path) -> FileSummary:
    """Figures of a safetensors file; raises InputError where it is corrupt.

    Two names for one range of bytes are one weight. MACs and activations are not in such a file.
    """
    digest = sha256_of(path)
    file_bytes, header = _header(path)
    params, apart = 0, Counter[str]()
    counted: dict[str, int] = {}
    ranges: dict[tuple[int, int], str] = {}
    header.pop("__metadata__", None)
    places = {name: _tensor(path, name, entry) for name, entry in header.items()}
    shapes = {name: entry["shape"] for name, entry in header.items()}
    for name, (elements, begin, end) in places.items():
        if end > file_bytes:
            raise InputError(f"{path}: {name!r} ends behind the end of the file; it is truncated")
        if begin < end and (begin, end) in ranges:
            continue
        ranges[begin, end] = name
        if is_running_statistic(name, shapes):
            apart[RUNNING_STATISTICS] += elements
        elif name in _SCALING_NAMES and elements <= _MOST_BANDS:
            apart[INPUT_SCALING] += elements
        else:
            params += elements
            counted[name] = elements
    _refuse_overlaps(path, ranges)
    return FileSummary(
        path=path,
        kind="safetensors",
        sha256=digest,
        file_bytes=file_bytes,
        file_params=params,
        apart=dict(apart),
        layers=layers_by_prefix(counted),
    )


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """(bytes of the whole file, header); offsets in the header are moved to the file's start."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
                raise InputError(f"{path}: not a safetensors file, or a truncated one")
            raw = file.read(length)
        header = json.loads(raw)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):  # JSON and Unicode errors are ValueErrors
        raise InputError(f"{path}: not a safetensors file (its header is not JSON)") from None
    if not isinstance(header, dict):
        raise InputError(f"{path}: not a safetensors file (its header is not an object)")
    start = 8 + length
    for entry in header.values():
        if isinstance(entry, dict) and isinstance(entry.get("data_offsets"), list):
            entry["data_offsets"] = [
                offset + start if type(offset) is int else offset
                for offset in entry["data_offsets"]
            ]
            entry["start"] = start
    return size, header


def _tensor(path: Path, name: str, entry: Any) -> tuple[int, int, int]:
    """(elements, begin, end) of a header's entry, checked against each other."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    bits = _BITS.get(str(entry.get("dtype"))) if isinstance(entry, dict) else None
    if not (
        isinstance(shape, list)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(number) is int and number >= 0 for number in (*shape, *offsets))
    ):
        raise InputError(f"{path}: the header's entry {name!r} is damaged")
    if bits is None:
        raise InputError(f"{path}: {name!r} has an unknown type {entry.get('dtype')!r}")
    elements = math.prod(shape)
    begin, end = offsets
    if begin < entry["start"] or end - begin != math.ceil(elements * bits / 8):
        raise InputError(f"{path}: {name!r} declares {elements:,} values and holds others; damaged")
    return elements, begin, end


def _refuse_overlaps(path: Path, ranges: dict[tuple[int, int], str]) -> None:
    last_end, last_name = 0, ""
    for (begin, end), name in sorted(ranges.items()):
        if begin == end:
            continue
        if begin < last_end:
            raise InputError(f"{path}: {last_name!r} and {name!r} overlap; the file is damaged")
        last_end, last_name = end, name
