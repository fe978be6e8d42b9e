"""Decoders, tasks and data sets from outside the package, found by their names.

An installed package declares an entry point in a group such as ``densevit.decoders``. It is imported when its name is
asked for, never before. Python code may also add a row to a table directly.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from densevit.config import did_you_mean
from densevit.errors import ConfigError

Row = TypeVar("Row")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*")


class PluginTable(dict[str, Row]):
    """The rows of one kind of part by name: densevit's own, those that were added, and on request those of packages.

    Iteration goes over the rows that are loaded; ``in`` and ``[name]`` look further.

    Args:
        what: a row, for messages: "decoder".
        builtin: densevit's rows.
        adapt: name and object of a plug-in -> its row; raises ConfigError for another object.
    """

    def __init__(self, what: str, builtin: Mapping[str, Row], adapt: Callable[[str, Any], Row]) -> None:
        super().__init__(builtin)
        self.what, self.builtin, self._adapt = what, frozenset(builtin), adapt
        self.origins: dict[str, str] = {}

    @property
    def group(self) -> str:
        """The group of entry points."""
        return f"densevit.{self.what.replace(' ', '')}s"

    def __contains__(self, name: object) -> bool:
        """Whether there is such a row, loading it if a package has it.

        Raises:
            ConfigError: the package cannot be used.
        """
        return super().__contains__(name) or (isinstance(name, str) and self._load(name))

    def __missing__(self, name: str) -> Row:
        if name not in self:
            raise KeyError(name)
        return self[name]

    def named_in(self, data: Any) -> Row:
        """The row that the ``kind`` of plain data names (for pydantic's validators: raises ValueError)."""
        kind = data.get("kind") if isinstance(data, Mapping) else None
        if not isinstance(kind, str) or kind not in self:
            raise ValueError(self.unknown(kind))
        return self[kind]

    def add(self, name: str, plugin: Any, *, origin: str = "Python code") -> None:
        """Add a row, or replace one that was added.

        Raises:
            ConfigError: it is a name of densevit's or none, or the object is no plug-in of this kind.
        """
        if name in self.builtin:
            raise ConfigError(f"{self.what} {name!r} is densevit's own; choose another name")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r:.80} is no name of a {self.what}; letters, digits, '_', '-' and '.' are accepted, a letter "
                "first; choose such a name"
            )
        self[name] = self._adapt(name, plugin)
        self.origins[name] = origin

    def add_by_name(self, plugin: Callable[..., Any]) -> str:
        """Add a function or class under its own name, which is returned; errors are those of ``add``."""
        name: str = getattr(plugin, "__name__", type(plugin).__name__)
        self.add(name, plugin)
        return name

    def names(self) -> list[str]:
        """All names: the rows, and what packages declare, none of which is loaded."""
        return sorted({*self, *(entry.name for entry in entry_points(group=self.group))})

    def unknown(self, name: object) -> str:
        """What to say of a name that is in no row: the nearest one, or all, and how to get it."""
        known = self.names()
        hint = did_you_mean(str(name), known) or (
            f"; known: {', '.join(known)}; others come with a package that has an entry point in {self.group}, or with "
            f"densevit.add_{self.what.replace(' ', '')}"
        )
        return f"{self.what} kind {name!r} is unknown{hint}"

    def _load(self, name: str) -> bool:
        entries = list(_declared(self.group, name))
        if not entries:
            return False
        if len(entries) > 1:
            packages = " and ".join(sorted(package for package, _ in entries))
            raise ConfigError(f"{self.what} {name!r} is declared by {packages}; uninstall one of them")
        ((package, entry),) = entries
        where = f"{self.what} {name!r} of {package} ({entry.value})"
        try:
            plugin = entry.load()
        except Exception as error:  # a foreign module may raise anything
            raise ConfigError(
                f"{where} cannot be loaded ({type(error).__name__}: {error}); fix, update or uninstall the package"
            ) from error
        try:
            self.add(name, plugin, origin=package)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        return True


def _declared(group: str, name: str) -> Iterator[tuple[str, EntryPoint]]:
    """Package with version, and entry point, once for each that differs: a package may be found twice."""
    seen: set[tuple[str, str]] = set()
    for entry in entry_points(group=group, name=name):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "a package"
        if (package, entry.value) not in seen:
            seen.add((package, entry.value))
            yield package, entry
