"""Templates of file names, such as ``{split}/images/{name}_image.*``, by which files that belong together are found."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from densevit.errors import ConfigError
from densevit.io import ZipPath

PLACEHOLDERS = ("name", "folder", "split", "rest", "class", "task")
"""What stands in braces: ``{folder}`` is any number of folders, also none; the others are text without a slash.

``{rest}`` is the second part of a name that says in its middle what the file is: ``{name}_image_{rest}.png``.
"""

_PART = re.compile(r"\{([^{}]*)\}/?|(\*)|([^{}*]+)|[{}]")
_LONGEST = 1_000
_MOST_WILDCARDS = 8


class Template:
    """A pattern of paths relative to a folder.

    Besides ``PLACEHOLDERS``, ``*`` is any text without a slash; at the end, ``.*`` is any of the ``suffixes``. A path
    also needs one of them where the template has no suffix. A suffix is matched in upper and lower case. A placeholder
    that stands twice has the same text in both places.

    Args:
        text: the pattern, with slashes.
        suffixes: what ``.*`` at the end stands for.

    Attributes:
        fields: the placeholders.
        specific: orders templates by how much they say about a name; the larger one claims a file that both match.
        depth: number of folders that it goes down; None for any.

    Raises:
        ConfigError: a placeholder is unknown, or where it cannot stand.
    """

    def __init__(self, text: str, suffixes: Collection[str] = ()) -> None:
        self.text = unicodedata.normalize("NFC", text.replace("\\", "/"))
        self.suffixes = tuple(suffixes)
        last = self.text.rpartition("/")[2]
        stem, dot, ending = self.text.rpartition(".") if re.search(r"\.(\*|[^{}*]+)\Z", last) else (self.text, "", "")
        self._parsed = [*self._parts(stem)]
        self.fields = frozenset(name for name, _ in self._parsed if name in PLACEHOLDERS)
        self._fields = tuple(sorted(self.fields))
        names = [name for name, _ in self._parsed if name]
        wild = len(names)
        self._repeats = wild - names.count("*") > len(self.fields)
        most = _MOST_WILDCARDS // 2 if self._repeats else _MOST_WILDCARDS
        if len(text) > _LONGEST or wild > most:
            raise ConfigError(
                f"the template {text:.60} is too long; up to {_LONGEST} characters and {most} placeholders are accepted"
            )
        literal = sum(len(text) for name, text in self._parsed if not name)
        self.specific = (literal, 0 if ending == "*" else len(ending), -wild)
        self.depth = None if "folder" in self.fields else self.text.count("/")
        endings = [suffix.removeprefix(".") for suffix in suffixes] if ending == "*" else [ending]
        self._end = rf"\.(?i:{'|'.join(map(re.escape, endings)) or '[^/.]+'})" if dot else ""
        self._pattern = self._compile("+")
        self._by_length: dict[int, re.Pattern[str]] = {}

    def _parts(self, stem: str) -> Iterator[tuple[str, str]]:
        """(placeholder, text) of each part; "" and its text for a literal one."""
        for part in _PART.finditer(stem):
            name, star, literal = part.groups()
            if star:
                yield "*", "*"
            elif literal is not None:
                yield "", literal
            elif name is None or name not in PLACEHOLDERS:
                known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                raise ConfigError(
                    f"the template {self.text} has {part[0].rstrip('/')!r}; {known}, * and the extension .* are "
                    "accepted; check its braces"
                )
            elif name == "folder":
                before = stem[: part.start()]
                if not part[0].endswith("/") or (before and not before.endswith("/")):
                    raise ConfigError(
                        f"the template {self.text} has {{folder}} within a name; it stands for whole folders, as in "
                        "{folder}/{name}.png"
                    )
                yield name, part[0]
            else:
                yield name, part[0].rstrip("/")
                if part[0].endswith("/"):
                    yield "", "/"

    def _compile(self, times: str) -> re.Pattern[str]:
        """The pattern whose ``{name}`` is so many characters."""
        pieces: list[str] = []
        seen: set[str] = set()
        wild = [place for place, (name, _) in enumerate(self._parsed) if name]
        for place, (name, text) in enumerate(self._parsed):
            following = (
                "" if name != "*" or place == wild[-1] or self._repeats else self._parsed[place + 1][0] or "text"
            )
            if not name:
                pieces.append(re.escape(text))
            elif following == "text":
                # The first place of the text after * is as good as a later one, so no other is tried: the time of a
                # search would grow with a power of the number of *.
                until = re.escape(self._parsed[place + 1][1])
                pieces.append(f"(?=(?P<s{place}>[^/]*?){until})(?P=s{place})")
            elif name == "*":
                pieces.append("" if following else "[^/]*")
            elif name in seen:
                pieces.append(f"(?P={name})")
            elif name == "folder":
                pieces.append("(?P<folder>(?:[^/]+/)*)")
            else:
                pieces.append(f"(?P<{name}>[^/]{times if name == 'name' else '+'})")
            seen.add(name)
        return re.compile("".join(pieces) + self._end + r"\Z")

    def match(self, relative: str) -> dict[str, str] | None:
        """The placeholders of a path, each as long as it can be from left to right; None if it does not match."""
        if not self._end and self.suffixes and not relative.lower().endswith(self.suffixes):
            return None
        return self._values(self._pattern.match(relative))

    def readings(self, relative: str) -> Iterator[dict[str, str]]:
        """The readings of a path, longest name first, where it has several: a_b_c.png is {name}_{class}.png twice."""
        first = self.match(relative)
        if first is None:
            return
        yield first
        for length in range(len(first.get("name", "")) - 1, 0, -1):
            if length not in self._by_length:
                self._by_length[length] = self._compile(f"{{{length}}}")
            if (values := self._values(self._by_length[length].match(relative))) is not None:
                yield values

    def _values(self, found: re.Match[str] | None) -> dict[str, str] | None:
        return None if found is None else {field: found[field].rstrip("/") for field in self._fields}

    def fill(self, values: Mapping[str, str]) -> str:
        """The path of these placeholders, up to ``*`` and ``.*``, which stay."""
        text = self.text
        for key in self.fields:
            value = values.get(key, f"{{{key}}}")
            text = text.replace(f"{{{key}}}/" if key == "folder" and not value else f"{{{key}}}", value)
        return text


def is_template(path: Path | None) -> bool:
    """Whether a path has placeholders."""
    return path is not None and "{" in str(path)


def split_template(path: Path) -> tuple[Path, str]:
    """The folder before the first placeholder, and the template relative to it."""
    parts = path.inside.split("/") if isinstance(path, ZipPath) else [*path.parts]
    first = next(index for index, part in enumerate(parts) if "{" in part or "*" in part or index == len(parts) - 1)
    base: Path = Path(*parts[:first])
    if isinstance(path, ZipPath):
        base = ZipPath(f"{path.archive}!").joinpath(*parts[:first])
    return base, "/".join(parts[first:])
