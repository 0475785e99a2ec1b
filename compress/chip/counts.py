"""Executed instructions, from what the emulator's plugin wrote and the image that ran.

The plugin counts by address, so what the test harness executes is left out exactly: an
instruction is the network's where it lies in the section of the network's code.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from compress.chip.elf import NETWORK, Image
from compress.errors import InputError

_LONG = (0b11101, 0b11110, 0b11111)  # top five bits of a Thumb instruction of 32 bits
_VECTOR_MASK = _VECTOR = 0xEC00  # coprocessor space: MVE in code that computes in integers


@dataclass(frozen=True)
class Count:
    """Instructions of the network, and how many of them are MVE vector instructions."""

    instructions: int = 0
    vector: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.instructions + other.instructions, self.vector + other.vector)


def read(path: Path, image: Image, section: str = NETWORK + "code") -> list[Count]:
    """One count per stretch between marks, the stretch before the first mark included.

    section: the code whose instructions are counted.
    """
    code = image.section(section)
    vectors: dict[tuple[int, int], int] = {}
    found = [Count()]
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            if line == "mark":
                found.append(Count())
                continue
            address, instructions, times = (
                int(part, base) for part, base in zip(line.split(), (16, 10, 10), strict=True)
            )
            if not code.address <= address < code.address + code.size:
                continue
            key = (address, instructions)
            if key not in vectors:
                vectors[key] = vector_instructions(code.content, address - code.address, key[1])
            found[-1] += Count(instructions * times, vectors[key] * times)
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"{path.name}: the emulator's counts cannot be read ({error})") from None
    return found


def vector_instructions(code: bytes, start: int, instructions: int) -> int:
    """How many of the ``instructions`` from ``start`` on are of MVE (or floating point)."""
    found, place = 0, start
    for _ in range(instructions):
        (half,) = struct.unpack_from("<H", code, place)
        long = half >> 11 in _LONG
        found += long and half & _VECTOR_MASK == _VECTOR
        place += 4 if long else 2
    return found
