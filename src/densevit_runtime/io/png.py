"""Whether a PNG holds all of its pixels: Pillow leaves rows black, without a word, if the data ends early."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from densevit_runtime.errors import DataError

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels by PNG's colour type."""

_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, and steps of both, of each pass of an interlaced image."""

_PIECE = 1 << 20


def check_complete_png(image: Image.Image, path: Path) -> None:
    """Check a loaded image whose last row is black, as missing rows are; others are complete.

    Raises:
        DataError: its data ends before the last row.
    """
    row = image.crop((0, image.height - 1, image.width, image.height))
    if image.format != "PNG" or np.asarray(row).any():
        return
    data = path.read_bytes()
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * _CHANNELS.get(colour, 0)
    expected = sum(rows * (1 + (columns * bits + 7) // 8) for rows, columns in _passes(height, width, interlaced))
    found = 0
    for piece in _inflated(data):
        found += len(piece)
        if found >= expected:
            return
    raise DataError(
        f"{path} ends after {found:,} of {expected:,} bytes of pixels; a complete PNG is accepted; copy or export it "
        "again"
    )


def _passes(height: int, width: int, interlaced: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of each pass that has any."""
    for top, left, down, right in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        rows, columns = -(-(height - top) // down), -(-(width - left) // right)
        if rows > 0 and columns > 0:
            yield rows, columns


def _inflated(data: bytes) -> Iterator[bytes]:
    """The content of the IDAT chunks, in pieces of bounded size."""
    inflater = zlib.decompressobj()
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            rest = data[at + 8 : at + 8 + length]
            while rest and not inflater.eof:
                yield inflater.decompress(rest, _PIECE)
                rest = inflater.unconsumed_tail
        at += length + 12
