"""The one door to a checkpoint: a name, a file, a folder or ``hf://owner/name`` becomes a model with its tasks."""

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from densevit.checkpoints.files import read_weights
from densevit.checkpoints.hub import DEFAULT_NAME, HUB_FILES, SCHEME, fetch_beside, resolve
from densevit.checkpoints.importers import IMPORTERS, detect, source_kind
from densevit.checkpoints.importers.base import ImportOverrides, Source
from densevit.checkpoints.importers.build import Imported, build
from densevit.checkpoints.importers.side_files import read_side_files
from densevit.checkpoints.native import Bundle, is_native, load_bundle, preset_bundle, read_header
from densevit.errors import CheckpointError
from densevit.inference_config import InferenceConfig
from densevit.model import ModelConfig
from densevit.presets import PRESETS

_log = logging.getLogger(__name__)


FOLDER_FILES = (*HUB_FILES, "checkpoint.pth")


SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}


def open_bundle(source: str, **answers: Any) -> Bundle:
    """A model from a native checkpoint or from weights of others: a file, a folder, or ``hf://owner/name``.

    Args:
        source: where it is.
        answers: ``config``, ``as_source`` and the fields of ``ImportOverrides``, for weights of others.

    Raises:
        CheckpointError: if the file cannot be used, or does not say all that is needed.
        ConfigError: if an answer is unknown or wrong.
    """
    path = find_weights(source)
    if is_native(path):
        if answers:
            raise CheckpointError(
                f"{source} is a densevit checkpoint, which needs no answers, but {', '.join(answers)} was given; "
                "leave that out"
            )
        return load_bundle(path)
    imported = _import(source, path, **answers)
    _log.info("%s", imported.report)
    return imported.bundle


def import_file(
    source: str, *, as_source: str | None = None, config: Path | str | None = None, **answers: Any
) -> Imported:
    """Read weights of others, with the files beside them, and turn them into our model.

    Args:
        source: a file, a folder, or ``hf://owner/name[/file]``.
        as_source: a key of ``IMPORTERS``; found from the names of the tensors if not given.
        config: the config that belongs to the weights, where it has another name or place than usual.
        answers: the fields of ``ImportOverrides``.

    Raises:
        CheckpointError: if the file cannot be used, or does not say all that is needed.
        ConfigError: if an answer is unknown or wrong.
    """
    path = find_weights(source)
    if is_native(path):
        raise CheckpointError(
            f"{source} is a densevit checkpoint already; there is nothing to convert; use it as it is"
        )
    return _import(source, path, as_source=as_source, config=config, **answers)


def _import(
    source: str, path: Path, *, as_source: str | None = None, config: Path | str | None = None, **answers: Any
) -> Imported:
    stated = ImportOverrides.parse(answers, source="the options")
    file = read_weights(path)
    name = detect(file.state, source) if as_source is None else source_kind(as_source)
    importer = IMPORTERS[name]
    if source.startswith(SCHEME):
        fetch_beside(source, [beside for beside in importer.beside if "*" not in beside])
    side = read_side_files(path, file.meta, importer.beside, None if config is None else Path(config))
    return build(name, importer, Source(source, file.state, side, stated, path.name))


def find_weights(source: str) -> Path:
    """The weights file that a source names: itself, the one in a folder, or one on the hub.

    Raises:
        CheckpointError: if there is none, or several could be meant.
    """
    folder = Path(source).expanduser()
    if source == DEFAULT_NAME or source.startswith(SCHEME) or not folder.is_dir():
        return resolve(source)
    usual = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    found = usual[:1] or sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found[:5]) or "none"
    raise CheckpointError(
        f"{source} is a folder with {len(found)} weights files ({names}); one is needed; name the file itself"
    )


def open_model(source: str | Path, **answers: Any) -> Bundle:
    """The model of a name or of weights in any known format; see ``Predictor.load``.

    Raises:
        CheckpointError: if the file cannot be used.
        ConfigError: if an answer does not exist.
    """
    if str(source) in PRESETS and not Path(source).exists():
        _log.warning("preset %s has no weights of its own; its parameters are random until it is trained", source)
        return preset_bundle(str(source))
    is_name = not (source == DEFAULT_NAME or str(source).startswith(SCHEME) or Path(source).exists())
    if is_name and (close := get_close_matches(str(source), (DEFAULT_NAME, *PRESETS), n=1)):
        raise CheckpointError(f"there is no model {str(source)!r}; did you mean {close[0]!r}?")
    return open_bundle(str(source), **answers)


def model_facts(source: str | Path) -> tuple[ModelConfig, InferenceConfig]:
    """What ``open_model`` would give, without reading the weights of a native checkpoint.

    Raises:
        CheckpointError: if the file cannot be used.
    """
    path = resolve(DEFAULT_NAME) if source == DEFAULT_NAME else Path(source)
    if path.is_file() and is_native(path):
        header = read_header(path)
        return header.model, header.fit
    bundle = open_model(source)
    return bundle.model.config, bundle.fit
