"""Section headers and symbols of a linked 32-bit image, read without any tool.

Sections are named by owner in ``firmware/sections.ld``, so their sizes tell what the network
takes and what start-up code takes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compress.errors import InputError

_MAGIC = b"\x7fELF\x01\x01"  # 32 bits, little-endian
_ARM = 40
_NO_BITS, _SYMBOL_TABLE = 8, 2  # section types
_WRITABLE, _ALLOCATED = 1, 2  # section flags
_MOST_BYTES = 64 * 2**20
NETWORK = ".network."
SOUND = ".sound."  # front end and stream, where they were linked


@dataclass(frozen=True)
class Section:
    """One section; ``content`` is empty where the file holds none (memory that starts as zero)."""

    name: str
    address: int
    size: int
    allocated: bool
    writable: bool
    in_file: bool
    content: bytes = b""

    @property
    def in_flash(self) -> bool:
        """Code, constants, and what variables start with."""
        return self.allocated and self.in_file

    @property
    def in_ram(self) -> bool:
        return self.allocated and self.writable


@dataclass(frozen=True)
class Image:
    """A linked image. All sizes in bytes."""

    sections: tuple[Section, ...]
    symbols: dict[str, int]  # name -> address; of equal names the last

    def section(self, name: str) -> Section:
        """Raises InputError where the image has no such section."""
        for section in self.sections:
            if section.name == name:
                return section
        raise InputError(f"the image has no section {name}; it was linked with another script")

    def _sum(self, *, flash: bool, prefix: str = "") -> int:
        return sum(
            s.size
            for s in self.sections
            if s.name.startswith(prefix) and (s.in_flash if flash else s.in_ram)
        )

    @cached_property
    def flash_bytes(self) -> int:
        """Everything that is burnt: network, start-up code, vectors."""
        return self._sum(flash=True)

    @cached_property
    def ram_bytes(self) -> int:
        """Variables, arena and stack."""
        return self._sum(flash=False)

    @cached_property
    def weights_bytes(self) -> int:
        """Constants of the network: weights, biases, multipliers, tables, names."""
        return self.section(NETWORK + "weights").size

    @cached_property
    def code_bytes(self) -> int:
        """Code of the network with what it calls of the C library."""
        return self.section(NETWORK + "code").size + self.section(NETWORK + "data").size

    @cached_property
    def startup_bytes(self) -> int:
        return self.flash_bytes - self.weights_bytes - self.code_bytes

    @cached_property
    def arena_bytes(self) -> int:
        """Memory of the network alone: activations and other variables."""
        return self._sum(flash=False, prefix=NETWORK)

    @cached_property
    def stack_bytes(self) -> int:
        return self.section(".stack").size


def read(path: Path) -> Image:
    """Sections and symbols of an image; raises InputError for another or a damaged file."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: too large to be a firmware image of this workbench")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    try:
        return _parse(data)
    except (struct.error, ValueError, IndexError) as error:
        raise InputError(f"{path}: not a 32-bit Arm ELF image ({error})") from None


def _parse(data: bytes) -> Image:
    if data[:6] != _MAGIC:
        raise ValueError("it does not begin as one")
    machine = struct.unpack_from("<H", data, 18)[0]
    if machine != _ARM:
        raise ValueError(f"machine {machine}")
    (table,) = struct.unpack_from("<I", data, 32)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 46)
    if entry_size < 40:
        raise ValueError(f"section headers of {entry_size} bytes")
    headers = [struct.unpack_from("<10I", data, table + entry_size * i) for i in range(count)]

    def content(header: tuple[int, ...]) -> bytes:
        start, size = header[4], header[5]
        if header[1] == _NO_BITS:
            return b""
        if start + size > len(data):
            raise ValueError("a section ends behind the file")
        return data[start : start + size]

    names = content(headers[names_index])
    sections = tuple(
        Section(
            name=_text(names, header[0]),
            address=header[3],
            size=header[5],
            allocated=bool(header[2] & _ALLOCATED),
            writable=bool(header[2] & _WRITABLE),
            in_file=header[1] != _NO_BITS,
            content=content(header),
        )
        for header in headers
    )
    symbols: dict[str, int] = {}
    for header in headers:
        if header[1] == _SYMBOL_TABLE:
            strings = content(headers[header[6]])
            for name, address, *_ in struct.iter_unpack("<IIIBBH", content(header)):
                symbols[_text(strings, name)] = address
    return Image(sections, symbols)


def _text(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode("utf-8", "replace")
