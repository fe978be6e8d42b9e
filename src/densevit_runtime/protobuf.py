"""Walk through protobuf bytes, of which ONNX files consist, without the package onnx.

Nothing is copied: a field that has a length is given as its place, and whoever wants its content reads it there.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

from densevit_runtime.limits import limits, too_much

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Message:
    """A message between two offsets of a file.

    Attributes:
        data: the whole file.
        start, end: of the message.
        budget: how many fields may still be visited in the file, in a list of one.
    """

    data: mmap.mmap | bytes
    start: int
    end: int
    budget: list[int]

    def fields(self) -> Iterator[tuple[int, "int | Message"]]:
        """Number and value of each field: an integer, or the place of its content; errors are those of ``entries``."""
        for number, value, _ in self.entries():
            yield number, value

    def entries(self) -> Iterator[tuple[int, "int | Message", "Message"]]:
        """Number and value of each field, and the place of the whole field, with its number.

        Raises:
            ValueError: if this is not protobuf, is cut short, or has more fields than ``limits`` allow.
        """
        at = self.start
        while at < self.end:
            began = at
            self.budget[0] -= 1
            if self.budget[0] < 0:
                raise ValueError(too_much("it has more nodes and values", "graph_nodes"))
            tag, at = self._varint(at)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise ValueError(f"byte {began:,} has field 0, which does not exist")
            if wire == _VARINT:
                value, at = self._varint(at)
                yield number, value, Message(self.data, began, at, self.budget)
                continue
            if wire == _BYTES:
                size, at = self._varint(at)
            elif wire in (_FIXED64, _FIXED32):
                size = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"byte {at:,} has wire type {wire}, which ONNX does not use")
            if at + size > self.end:
                raise ValueError(f"byte {at:,} announces {size:,} bytes, and {self.end - at:,} follow")
            content = Message(self.data, at, at + size, self.budget)
            at += size
            yield number, content, Message(self.data, began, at, self.budget)

    def bytes(self, limit: int) -> bytes:
        """The content.

        Raises:
            ValueError: if it is longer than ``limit``.
        """
        if len(self) > limit:
            raise ValueError(f"a name or text has {len(self):,} bytes; up to {limit:,} are accepted")
        return self.data[self.start : self.end]

    def text(self, limit: int = 4096) -> str:
        """The content as UTF-8 text."""
        return self.bytes(limit).decode("utf-8")

    def integers(self) -> tuple[int, ...]:
        """The content as packed integers; negative ones have their sign."""
        values = []
        at = self.start
        while at < self.end:
            value, at = self._varint(at)
            values.append(signed(value))
        return tuple(values)

    def __len__(self) -> int:
        return self.end - self.start

    def _varint(self, at: int) -> tuple[int, int]:
        """The integer at an offset, and the offset after it."""
        value = shift = 0
        while at < self.end and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (2**64 - 1), at
            shift += 7
        raise ValueError(f"byte {at:,} is in the middle of a number")


def message(data: mmap.mmap | bytes) -> Message:
    """A file as one message."""
    return Message(data, 0, len(data), [limits().graph_nodes])


def encoded(value: int) -> bytes:
    """A number as protobuf writes it."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def signed(value: int) -> int:
    """An integer of 64 bits with its sign."""
    return value - 2**64 if value >= 2**63 else value
