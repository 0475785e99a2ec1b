"""Tables of a flatbuffer, read with every offset checked against the file: nothing is trusted.

    root offset | identifier | ... table: offset of its vtable, fields | vtable: place of each field

What a file makes a reader look at is bounded by its size: tables may point to one another many
times over, and a small file could else be read for ever.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

_MOST_READS_PER_BYTE = 4
_LEAST_READS = 1 << 16
_VECTORS = {"b": 1, "B": 1, "i": 4, "I": 4, "q": 8, "f": 4}


class FlatBuffer:
    """The bytes of a file. refuse: makes the exception for a damaged one from half a sentence."""

    def __init__(self, content: bytes, refuse: Callable[[str], Exception]) -> None:
        self.content = content
        self.refuse = refuse
        self._left = max(_LEAST_READS, _MOST_READS_PER_BYTE * len(content))

    def root(self) -> Table:
        return Table(self, self.number("<I", 0))

    def number(self, form: str, place: int) -> Any:
        """One number of ``struct``'s format at a place of the file."""
        self.spend(1)
        if not 0 <= place <= len(self.content) - struct.calcsize(form):
            raise self.refuse("an offset leads out of the file")
        return struct.unpack_from(form, self.content, place)[0]

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise self.refuse("its tables refer to one another without end")

    def vector(self, place: int, width: int) -> tuple[int, int]:
        """(place of the first element, number of elements) of the vector that is pointed to."""
        start = place + self.number("<I", place)
        count = self.number("<I", start)
        if start + 4 + count * width > len(self.content):
            raise self.refuse("a list is longer than the file")
        return start + 4, count


class Table:
    """One table; a field is named by its number in the schema. Absent fields give the default."""

    def __init__(self, buffer: FlatBuffer, place: int) -> None:
        self._buffer, self._place = buffer, place
        self._vtable = place - buffer.number("<i", place)
        self._size = buffer.number("<H", self._vtable)

    def _field(self, number: int) -> int | None:
        entry = 4 + 2 * number
        if entry + 2 > self._size:
            return None
        offset = self._buffer.number("<H", self._vtable + entry)
        return self._place + offset if offset else None

    def number(self, field: int, form: str, default: int = 0) -> int:
        place = self._field(field)
        return default if place is None else int(self._buffer.number(form, place))

    def numbers(self, field: int, form: str) -> tuple[Any, ...]:
        """A list of numbers; form: one letter of ``struct``."""
        place = self._field(field)
        if place is None:
            return ()
        start, count = self._buffer.vector(place, _VECTORS[form])
        self._buffer.spend(count)
        return struct.unpack_from(f"<{count}{form}", self._buffer.content, start)

    def length(self, field: int, form: str) -> int:
        place = self._field(field)
        return 0 if place is None else self._buffer.vector(place, _VECTORS[form])[1]

    def span(self, field: int) -> tuple[int, int] | None:
        """(place, length) of a list of bytes in the file; None where it is absent."""
        place = self._field(field)
        return None if place is None else self._buffer.vector(place, 1)

    def text(self, field: int) -> str:
        found = self.span(field)
        if found is None:
            return ""
        start, count = found
        self._buffer.spend(count)
        return self._buffer.content[start : start + count].decode(errors="replace")

    def table(self, field: int) -> Table | None:
        place = self._field(field)
        return None if place is None else Table(self._buffer, self._follow(place))

    def tables(self, field: int) -> list[Table]:
        place = self._field(field)
        if place is None:
            return []
        start, count = self._buffer.vector(place, 4)
        self._buffer.spend(count)
        return [Table(self._buffer, self._follow(start + 4 * i)) for i in range(count)]

    def _follow(self, place: int) -> int:
        return place + self._buffer.number("<I", place)
