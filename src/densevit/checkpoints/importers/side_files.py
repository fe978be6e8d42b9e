"""Read the config files next to weights, as data; nothing in them is run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from densevit.checkpoints.importers.base import Plain
from densevit.checkpoints.importers.literal import read_config_file, read_literals
from densevit.errors import CheckpointError

MAX_BYTES = 10_000_000


class _Loader(yaml.SafeLoader):
    """Safe YAML with tuples, which rstrudel/segmenter writes for image sizes."""


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_side_files(
    weights: Path, meta: Mapping[str, Any], wanted: Sequence[str], config: Path | None = None
) -> dict[str, Plain]:
    """The config files of a checkpoint by name; mmsegmentation's config is "mmseg", the checkpoint's metadata "meta".

    Args:
        weights: the weights file, whose folder is searched.
        meta: the checkpoint's metadata; a config in it goes before a file.
        wanted: names of the files that the importer reads; "*.py" is an mmsegmentation config.
        config: a config file of another name or place; it goes before all others.

    Raises:
        CheckpointError: if a file cannot be read, or several could be meant.
    """
    side: dict[str, Plain] = {"meta": dict(meta)}
    for name in wanted:
        if name == "*.py":
            stored = meta.get("cfg") or meta.get("config")
            if isinstance(stored, str):
                side["mmseg"] = read_literals(stored, f"the checkpoint {weights}")
            elif config is None and (python_config := _python_config(weights)) is not None:
                side["mmseg"] = read_config_file(python_config)
        elif (weights.parent / name).is_file():
            side[name] = _read(weights.parent / name)
    if config is not None:
        side[_kind(config, wanted)] = read_config_file(config) if config.suffix == ".py" else _read(config)
    return side


def _kind(config: Path, wanted: Sequence[str]) -> str:
    """The key under which an importer expects a config of any name."""
    if not config.is_file():
        raise CheckpointError(
            f"there is no config {config}; give the path of a file as --config (config=... in Python)"
        )
    for name in wanted:
        if Path(name).suffix == config.suffix:
            return "mmseg" if name == "*.py" else name
    raise CheckpointError(
        f"{config} is no config of this program, which reads {' or '.join(wanted) or 'none'}; give such a file"
    )


def _python_config(weights: Path) -> Path | None:
    """The only Python config next to the weights; of several, the one whose name begins that of the weights."""
    configs = sorted(path for path in weights.parent.glob("*.py") if _is_config(path))
    if len(configs) > 1:
        configs = [path for path in configs if weights.name.startswith(path.stem)]
        if len(configs) != 1:
            raise CheckpointError(
                f"{weights.parent} holds several Python configs, of which one may belong to {weights.name}; "
                "name it by --config (config=... in Python)"
            )
    return configs[0] if configs else None


def _is_config(path: Path) -> bool:
    """Whether a Python file assigns a model, or a base that may."""
    try:
        assigned = read_literals(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, CheckpointError):
        return False
    return "_base_" in assigned or isinstance(assigned.get("model"), dict)


def _read(path: Path) -> Plain:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(f"the config {path} cannot be read ({error}); correct or remove it") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}, but a config is a mapping; correct or remove it")
    return data
