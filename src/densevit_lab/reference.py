"""Writes the reference pages that are made from the code: ``python -m densevit_lab.reference [--check]``.

Keys, types, defaults and meanings come from the typed configs and their docstrings, options from the command line, and
findings from the doctor's table, so these pages cannot go stale. Introductions are in ``reference_text``.
"""

import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from densevit.config import Config
from densevit_lab import reference_text as text
from densevit_lab.reference_importers import importer_keys_page
from densevit_lab.reference_models import models_page
from densevit_lab.reference_text import Row, escape, paragraphs, sentence, slug, table

ROOT = Path(__file__).parents[2]

_WORDS: dict[Any, str] = {int: "whole number", float: "number", str: "text", Path: "path", bool: "`true`, `false`"}


def pages() -> dict[str, str]:
    """The text of every page that is made from the code, by its path in the repository."""
    return {
        "docs/reference/config.md": config_page(),
        "docs/reference/cli.md": cli_page(),
        "docs/reference/findings.md": findings_page(),
        "docs/reference/importer-keys.md": importer_keys_page(),
        "docs/reference/models.md": models_page(),
    }


def main() -> None:
    """Write the pages, or with ``--check`` end with an error if one differs from the code."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, page in pages().items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != page:
            stale.append(name)
            if not check:
                path.write_text(page, encoding="utf-8")
    if check and stale:
        sys.exit(f"not as the code says: {', '.join(stale)}; run make reference")


# Configs


def config_page() -> str:
    """Every key that a training run, a merge, or the switches of speed may have."""
    from densevit.checkpoints.merge import MergeConfig
    from densevit.inference.speed import SpeedConfig
    from densevit.training.config import TrainConfig
    from densevit.tuning.tuner import GridConfig

    roots: tuple[type[Config], ...] = (TrainConfig, MergeConfig, SpeedConfig, GridConfig)
    tree = Tree()
    titles = dict(zip(roots, text.ROOTS, strict=True))
    for config, title in titles.items():
        tree.place(config, title)
    sections = [f"## {title}\n\n{text.ROOTS[title]}\n\n{tree.table(c)}{tree.below(c)}" for c, title in titles.items()]
    return text.MADE + text.CONFIG + "".join(sections).rstrip() + "\n"


class Tree:
    """The configs below some roots. Each is shown once, where it is first met, and linked to from elsewhere."""

    def __init__(self) -> None:
        from densevit.data import DATASETS, DataConfig
        from densevit.decoders import DECODERS, DecoderConfig
        from densevit.tasks import TASKS, Task

        self.kinds: dict[type[Config], list[type[Config]]] = {
            DecoderConfig: [config for config, _ in DECODERS.values()],
            DataConfig: [config for config, _ in DATASETS.values()],
            Task: list(TASKS.values()),
        }
        self.headings: dict[type[Config], str] = {}
        self.children: dict[type[Config], list[type[Config]]] = {}

    def place(self, root: type[Config], heading: str) -> None:
        """Choose the headings of a root and of all below it: breadth first, so that short paths win."""
        self.headings[root] = heading
        queue = [(root, "")]
        for config, path in queue:
            self.children[config] = []
            for key, field in config.model_fields.items():
                where = path + key + _item(field.annotation)
                for inner in self.configs_in(field.annotation):
                    if inner not in self.headings:
                        kind = _kind(inner)
                        self.headings[inner] = f"`{where}`" + (f" of kind `{kind}`" if kind else "")
                        self.children[config].append(inner)
                        queue.append((inner, where + "."))

    def below(self, config: type[Config]) -> str:
        """The sections of the configs that the fields of this one hold."""
        sections = ""
        groups = groupby(self.children[config], lambda child: self.headings[child].split(" of kind")[0])
        for name, group in groups:
            members = list(group)
            # what many kinds have in common is said once
            common = set.intersection(*(set(self.rows(c)) for c in members)) if len(members) > 2 else set()
            if common:
                shared = [row for row in self.rows(members[0]) if row in common]
                sections += f"### {name} of every kind\n\n{table(text.CONFIG_HEAD, shared)}"
            for child in members:
                introduction = paragraphs(child.__doc__)
                sections += f"### {self.headings[child]}\n\n{introduction}\n\n{self.table(child, common)}"
                sections += self.below(child)
        return sections

    def table(self, config: type[Config], without: set[Row] | None = None) -> str:
        """The keys of a config."""
        return table(text.CONFIG_HEAD, [row for row in self.rows(config) if row not in (without or ())])

    def rows(self, config: type[Config]) -> list[Row]:
        """Key, type, default and meaning of every field but a ``kind`` that the heading states."""
        said = meanings(config)
        rows: list[Row] = []
        for key, field in config.model_fields.items():
            if key != "kind" or not _kind(config):
                meaning = said.get(key) or text.MEANINGS.get(f"{config.__name__}.{key}") or ""
                rows.append((f"`{key}`", self.words(field.annotation), _default(field), meaning))
        return rows

    def words(self, annotation: Any) -> str:
        """A type in words."""
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if annotation in _WORDS:
            return _WORDS[annotation]
        if isinstance(annotation, type) and origin is None and issubclass(annotation, Config):
            return ", ".join(self.link(config) for config in self.kinds.get(annotation, [annotation]))
        if origin is typing.Annotated:
            return self.words(arguments[0])
        if origin is Literal:
            return ", ".join(f"`{value}`" for value in arguments)
        if origin in (types.UnionType, typing.Union):
            return " or ".join(dict.fromkeys(self.words(a) for a in arguments if a is not types.NoneType))
        if origin is dict:
            return f"mapping of names to {_many(self.words(arguments[1]))}"
        if origin is tuple and arguments[-1] is not Ellipsis:
            return f"{len(arguments)} {_many(self.words(arguments[0]))}"
        if origin in (tuple, list):
            return f"list of {_many(self.words(arguments[0]))}"
        return "any"

    def link(self, config: type[Config]) -> str:
        """A link to the section of a config."""
        heading = self.headings[config]
        return f"[{heading.split('`')[-2] if '`' in heading else heading}](#{slug(heading)})"

    def configs_in(self, annotation: Any) -> Iterator[type[Config]]:
        """Every config that a value of this type may hold."""
        arguments = typing.get_args(annotation)
        if isinstance(annotation, type) and not arguments and issubclass(annotation, Config):
            yield from self.kinds.get(annotation, [annotation])
        for argument in arguments:
            yield from self.configs_in(argument)


def meanings(config: type[Config]) -> dict[str, str]:
    """Field name -> what ``Attributes`` in the docstring of the class, or of one of its bases, say of it."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__[: config.__mro__.index(Config)]):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for names, words in re.findall(r"^    (\w[\w, ]*)(?: \(.*?\))?: (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            found |= {name: sentence(words) for name in names.split(", ")}
    return found


def _kind(config: type[Config]) -> str:
    """The tag of a config that is one of several kinds, else an empty text."""
    field = config.model_fields.get("kind")
    values = typing.get_args(field.annotation) if field is not None else ()
    return str(values[0]) if len(values) == 1 else ""


def _item(annotation: Any) -> str:
    """How a path names an item of a list or a mapping."""
    origins = {typing.get_origin(annotation), *map(typing.get_origin, typing.get_args(annotation))}
    return ".NAME" if dict in origins else "[]" if origins & {tuple, list} else ""


def _many(words: str) -> str:
    return words + "s" if words in ("whole number", "number", "text", "path") else words


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Config):
        return "its defaults"
    if value is None or value == "":
        return "none" if value is None else "empty"
    return (
        f"`{value}`" if isinstance(value, str) else f"`{json.dumps(TypeAdapter(Any).dump_python(value, mode='json'))}`"
    )


# Commands and findings


def cli_page() -> str:
    """Every command with its arguments and options."""
    from densevit.cli.main import app

    assert app.registered_callback is not None
    page = text.MADE + text.CLI + table(text.CLI_HEAD, _options(app.registered_callback.callback)[1])
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        arguments, rows = _options(command.callback)
        usage = " ".join(["densevit", name, *arguments, "[OPTIONS]"])
        page += f"## densevit {name}\n\n`{usage}`\n\n{escape(inspect.cleandoc(command.callback.__doc__ or ''))}\n\n"
        page += table(text.CLI_HEAD, rows) + (text.COMMANDS[name].strip() + "\n\n" if name in text.COMMANDS else "")
    return page.rstrip() + "\n"


def _options(function: Any) -> tuple[list[str], list[Row]]:
    """The arguments of a command in its usage line, and its options, from typer's annotations."""
    hints = typing.get_type_hints(function, include_extras=True)
    arguments: list[str] = []
    rows: list[Row] = []
    for name, parameter in inspect.signature(function).parameters.items():
        metadata = getattr(hints[name], "__metadata__", ())
        info: Any = metadata[0] if metadata else parameter.default
        default = parameter.default if metadata else info.default
        required = default is inspect.Parameter.empty
        if type(info).__name__ == "ArgumentInfo":
            shown = info.metavar or name.upper()
            arguments.append(shown if required or shown[0] == "[" else f"[{shown}]")
        elif not info.hidden:
            kind = typing.get_args(hints[name])[0] if metadata else hints[name]
            stated = [info.default] if metadata and isinstance(info.default, str) else []  # where typer finds it too
            flags = [*stated, *(info.param_decls or ())]
            flags = flags or [f"--{name}", f"--no-{name}"][: 1 + (bool in (kind, *typing.get_args(kind)))]
            meaning = sentence(info.help or "")
            if typing.get_origin(kind) is Literal:
                meaning += ": " + ", ".join(f"`{value}`" for value in typing.get_args(kind))
            value = "required" if required else "none" if default is None else f"`{default}`"
            value = {True: "on", False: "off"}[default] if isinstance(default, bool) else value
            rows.append((", ".join(f"`{flag.replace('_', '-')}`" for flag in flags), value, meaning))
    return arguments, rows


def findings_page() -> str:
    """Every finding of ``densevit doctor``."""
    from densevit.doctor.rules import CHECKS

    rows: list[Row] = [
        (f"`{code}`", check.severity, "yes" if check.fixable else "", sentence(check.why), sentence(check.fix))
        for code, check in CHECKS.items()
    ]
    return text.MADE + text.FINDINGS + table(text.FINDINGS_HEAD, rows).rstrip() + "\n"


if __name__ == "__main__":
    main()
