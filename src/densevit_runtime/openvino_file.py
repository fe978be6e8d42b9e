"""What an OpenVINO file claims, an .xml with its .bin, checked before the engine opens it."""

import math
from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

from densevit_runtime.errors import CheckpointError
from densevit_runtime.io.decode import reason, require_file
from densevit_runtime.limits import limits, too_much
from densevit_runtime.metadata import KEY

_DIGITS = 20
_BITS = {
    **dict.fromkeys(("boolean", "u8", "i8", "f8e4m3", "f8e5m2", "f8e8m0"), 8),
    **dict.fromkeys(("f16", "bf16", "u16", "i16"), 16),
    **dict.fromkeys(("f32", "u32", "i32"), 32),
    **dict.fromkeys(("f64", "u64", "i64"), 64),
    **dict.fromkeys(("u4", "i4", "nf4", "f4e2m1"), 4),
}


def read_openvino(path: Path) -> str:
    """Check an OpenVINO file, and read densevit's entry of its ``rt_info``.

    Args:
        path: the .xml; the .bin is next to it.

    Returns:
        The entry as text, which ``Metadata.parse`` reads.

    Raises:
        DataError: if one of the two files is not there.
        CheckpointError: if it is not OpenVINO's XML, damaged, or not an export of densevit, or claims more than the
            .bin holds or than ``limits`` allow.
    """
    require_file(path)
    weights = path.with_suffix(".bin")
    require_file(weights)
    for file, limit in ((path, "text_bytes"), (weights, "file_bytes")):
        if file.stat().st_size > getattr(limits(), limit):
            raise CheckpointError(too_much(f"{file} has {file.stat().st_size:,} bytes", limit))
    checker = _Checker(path, weights.stat().st_size)
    try:
        with path.open("rb") as xml:
            checker.parser.ParseFile(xml)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({reason(error)}); check path and permissions") from error
    except (expat.ExpatError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not an OpenVINO file, or is damaged ({error}); copy it again with its .bin, or export the "
            "model again"
        ) from None
    if checker.metadata is None:
        raise CheckpointError(
            f"{path} is an OpenVINO file without densevit's metadata; files that densevit export has written are "
            "accepted; export the model with it"
        )
    return checker.metadata


class _Checker:
    """Walks through the XML. Entities, by which a short text can become a long one, are refused."""

    def __init__(self, path: Path, weights: int) -> None:
        self.path, self.weights = path, weights
        self.metadata: str | None = None
        self._open: list[str] = []
        self._constant = ""
        self._elements = 0
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype

    def _refuse_doctype(self, *_: object) -> None:
        raise ValueError("it has a document type, which OpenVINO does not write")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        if self._elements > limits().graph_nodes:
            raise ValueError(too_much("it has more elements", "graph_nodes"))
        if not self._open and tag != "net":
            raise ValueError(f"its root is {tag[:40]!a}, not 'net'")
        self._open.append(tag)
        if len(self._open) > limits().nesting:
            raise ValueError(too_much("it is nested deeper", "nesting"))
        if tag == "layer":
            self._constant = attributes.get("name", "") if attributes.get("type") == "Const" else ""
        elif tag == "data" and self._constant:
            self._check_constant(attributes)
        elif self._open == ["net", "rt_info", KEY]:
            self.metadata = attributes.get("value", "")

    def _end(self, _tag: str) -> None:
        self._open.pop()

    def _check_constant(self, attributes: Mapping[str, str]) -> None:
        """Compare the sides of a constant with its bytes, and these with the .bin."""
        name = f"constant {self._constant[:60]!a}"
        sides = [side for side in attributes.get("shape", "").replace(",", " ").split() if side]
        texts = [*sides, attributes.get("offset", "x"), attributes.get("size", "x")]
        if not all(text.isascii() and text.isdecimal() and len(text) < _DIGITS for text in texts):
            raise ValueError(f"{name} has shape, offset and size {texts!a:.80}; whole numbers are accepted")
        *shape, offset, size = map(int, texts)
        if offset + size > self.weights:
            raise ValueError(
                f"{name} ends at byte {offset + size:,} of {self.path.stem}.bin, which has {self.weights:,}"
            )
        if len(shape) > limits().nesting:
            raise ValueError(too_much(f"{name} has {len(shape):,} dimensions", "nesting"))
        needed = -(-math.prod(shape) * _BITS.get(attributes.get("element_type", ""), 0) // 8)
        if needed > size:
            raise ValueError(f"{name} needs {needed:,} bytes for {shape[:8]} and has {size:,}")
