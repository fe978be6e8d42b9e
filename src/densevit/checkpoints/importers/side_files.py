"""Read the config files next to weights, as data; nothing in them is run."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from densevit.checkpoints.importers.base import Plain
from densevit.checkpoints.importers.python_config import WHOLE, Settings, Unknown, check_values, read_literals
from densevit.errors import CheckpointError
from densevit.plain_data import parse_json_config, parse_yaml, read_text
from densevit_runtime.io.decode import reason

MAX_BASES = 64
_log = logging.getLogger(__name__)


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
        elif (weights.parent / name).exists():
            side[name] = read_data_file(weights.parent / name)
    if config is not None:
        key = _key(config, wanted)
        # mmsegmentation's own configs have their bases in ../_base_.
        python = config.suffix == ".py"
        side[key] = read_config_file(config, folder=config.parent / "..") if python else read_data_file(config)
    return side


def _key(config: Path, wanted: Sequence[str]) -> str:
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
                "name it to `densevit convert` by --config (config=... in Python)"
            )
    return configs[0] if configs else None


def _is_config(path: Path) -> bool:
    """Whether a Python file assigns a model, or a base that may."""
    try:
        assigned = read_literals(read_text(path), str(path))
    except (OSError, ValueError, CheckpointError) as error:
        _log.warning("%s is passed over, since it cannot be read as a config: %s", path, error)
        return False
    model = assigned.get("model", assigned.get(WHOLE))
    if isinstance(model, Unknown) and "_base_" not in assigned:  # scripts have a model too, so that it is no error
        _log.warning("%s is passed over: it computes its model (%s); if it is a config, give --config", path, model)
    return "_base_" in assigned or isinstance(model, dict)


def read_data_file(path: Path) -> Plain:
    """A config in JSON or YAML."""
    try:
        text = read_text(path)
        data = parse_json_config(text) if path.suffix == ".json" else parse_yaml(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"the config {path} cannot be read ({error}); correct or remove it") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}, but a config is a mapping; correct or remove it")
    return data


def read_config_file(path: Path, *, folder: Path | None = None) -> Plain:
    """A config file merged over its ``_base_`` files, as mmengine does.

    Args:
        path: the file.
        folder: its bases must be in this folder or below; by default in the folder of the file.

    Raises:
        CheckpointError: if a file is missing, not Python, in another folder, or there are too many.
    """
    return _with_bases(path, path.parent if folder is None else folder, {}, ())


def _with_bases(path: Path, folder: Path, read: dict[Path, Plain], above: tuple[Path, ...]) -> Plain:
    if path in read:
        return read[path]
    if path in above or len(above) > MAX_BASES or len(read) > MAX_BASES:
        raise CheckpointError(f"{path} is a base of itself, or there are more than {MAX_BASES}; correct its _base_")
    try:
        config = read_literals(read_text(path), str(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot read the config {path} ({reason(error)}), which may be a base of another; give the complete "
            "config that the training program wrote into its work folder"
        ) from None
    bases = Settings({"_base_": config.pop("_base_", [])}, str(path))["_base_"]
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list | tuple) or not all(isinstance(base, str) for base in bases):
        raise CheckpointError(f"{path} has _base_ = {bases!r}; a path or a list of paths is accepted; correct it")
    merged: Plain = {}
    for base in bases:
        place = Path(os.path.normpath(path.parent / base))
        if not place.is_relative_to(os.path.normpath(folder)):
            raise CheckpointError(
                f"{path} has a base {base!r} outside of {folder}; a config that comes with weights reads no files "
                "elsewhere; copy the base there, or name the config by --config (config=... in Python)"
            )
        merged = _merge(merged, _with_bases(place, folder, read, (*above, path)))
    read[path] = _merge(merged, config)
    check_values(read[path])
    return read[path]


def _merge(base: Plain, over: Mapping[str, Any]) -> Plain:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict):
            old = merged.get(key)
            kept = old if isinstance(old, dict) and not value.get("_delete_") else {}
            merged[key] = _merge(kept, {name: item for name, item in value.items() if name != "_delete_"})
        else:
            merged[key] = value
    return merged
