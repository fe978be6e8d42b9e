"""The files beside weights that say what shapes do not, read as data and never run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from densevit.checkpoints.importers.literal import read_config_file, read_literals
from densevit.errors import CheckpointError

Plain = dict[str, Any]
MAX_BYTES = 10_000_000


class _Loader(yaml.SafeLoader):
    """Safe YAML, and tuples, which rstrudel/segmenter writes for image sizes."""


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_side_files(
    weights: Path, meta: Mapping[str, Any], wanted: Sequence[str], config: Path | None = None
) -> dict[str, Plain]:
    """What lies beside a weights file, by name; a config of mmsegmentation as "mmseg", the checkpoint's own as "meta".

    Args:
        weights: the file; its folder is searched.
        meta: what the checkpoint itself says beside its weights; the config in it wins over a file.
        wanted: names of the files that the importer reads; "*.py" is an mmsegmentation config.
        config: the config file, where it has another name or place; it wins over all.

    Raises:
        CheckpointError: if a file is not what its name says, or several configs could be meant.
    """
    side: dict[str, Plain] = {"meta": dict(meta)}
    for name in wanted:
        if "*" not in name and (path := weights.parent / name).is_file():
            side[name] = _read(path)
    if "*.py" in wanted:
        stored = meta.get("cfg") or meta.get("config")
        if isinstance(stored, str):
            side["mmseg"] = read_literals(stored, f"the checkpoint {weights}")
        elif config is None and (path_ := _python_config(weights)) is not None:
            side["mmseg"] = read_config_file(path_)
    if config is not None:
        side[_kind(config, wanted)] = read_config_file(config) if config.suffix == ".py" else _read(config)
    return side


def _kind(config: Path, wanted: Sequence[str]) -> str:
    """Which side file a config of any name stands for."""
    if not config.is_file():
        raise CheckpointError(f"there is no config {config}; a file is needed; check --config")
    for name in wanted:
        if Path(name).suffix == config.suffix:
            return "mmseg" if name == "*.py" else name
    raise CheckpointError(
        f"{config} is no config of this source, which reads {' or '.join(wanted) or 'none'}; name such a file"
    )


def _python_config(weights: Path) -> Path | None:
    """The one config in Python beside the weights; of several, the one whose name begins the weights' name."""
    found = sorted(path for path in weights.parent.glob("*.py") if _is_config(path))
    if len(found) > 1:
        found = [path for path in found if weights.name.startswith(path.stem)]
        if len(found) != 1:
            raise CheckpointError(
                f"{weights.parent} holds several configs in Python, and one can belong to {weights.name}; "
                "name it by --config (config=...)"
            )
    return found[0] if found else None


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
        raise CheckpointError(f"{path} beside the weights cannot be read ({error}); mend it or remove it") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}, but a config is a mapping; mend it or remove it")
    return data
