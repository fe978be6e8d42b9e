"""Open a checkpoint: a name, a file, a folder or ``hf://owner/name`` becomes a model with its tasks."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from densevit.checkpoints.card_file import CARD_FILE, licence_beside
from densevit.checkpoints.files import SUFFIXES, read_weights
from densevit.checkpoints.hub import (
    DEFAULT_NAME,
    HUB_FILES,
    SCHEME,
    HubAccess,
    fetch_side_files,
    kind_of,
    local_path,
    resolve,
)
from densevit.checkpoints.importers import IMPORTERS, detect
from densevit.checkpoints.importers.base import ImportOverrides, Source
from densevit.checkpoints.importers.build import Imported, build
from densevit.checkpoints.importers.side_files import read_side_files
from densevit.checkpoints.native import Bundle, Card, is_native, load_bundle, read_header
from densevit.checkpoints.published import PUBLISHED, find_published
from densevit.checkpoints.published.store import weights_of
from densevit.checkpoints.shards import index_of
from densevit.config import did_you_mean, nearest
from densevit.errors import CheckpointError, ConfigError
from densevit.inference_config import InferenceConfig
from densevit.model import ModelConfig
from densevit.presets import PRESETS
from densevit.tasks import Task
from densevit_runtime.licences import UNSTATED, announce, terms
from densevit_runtime.runtime import is_exported

_log = logging.getLogger(__name__)

FOLDER_FILES = (*HUB_FILES, "checkpoint.pth")

# Options of densevit.load: for every checkpoint (only named in errors here), and for those of other programs.
LOAD_OPTIONS = ("heads", "device", "speed", "engine", "quality")
CLASS_OPTIONS = ("classes", "num_classes", "num_labels", "out_channels")
IMPORT_OPTIONS = ("config", "as_source", *ImportOverrides.model_fields)


def open_model(source: str | Path, access: HubAccess | None = None, /, **overrides: Any) -> Bundle:
    """Open the model that ships, a published one, or a checkpoint of densevit or of another program.

    Args:
        source: "default", the name of a published model, a file, a folder, or ``hf://owner/name[/file][@revision]``.
        access: to the hub; by default with the user's token and cache.
        overrides: for checkpoints of other programs, ``config``, ``as_source`` and the fields of ``ImportOverrides``.

    Raises:
        CheckpointError: if there is no such model, its file cannot be used, or a fact about it is missing.
        ConfigError: if an override is unknown or has a wrong value.
    """
    for name in overrides:
        if name in CLASS_OPTIONS:
            raise ConfigError(
                f"load() got {name!r}, but a model has the classes that it was trained with; "
                "densevit.create_model(NAME, num_classes=...) makes one with others, to train, and "
                "densevit.train(data, init=NAME) trains it for those of your data"
            )
        if name == "pretrained":
            raise ConfigError(
                "load() got 'pretrained', but it never gives random weights; densevit.create_model(NAME, "
                "pretrained=False) does"
            )
        if name not in IMPORT_OPTIONS:
            raise ConfigError(
                f"load() got an unknown option {name!r}{did_you_mean(name, (*LOAD_OPTIONS, *IMPORT_OPTIONS))}; "
                f"accepted: {', '.join(LOAD_OPTIONS)}, and for checkpoints of other programs "
                f"{', '.join(IMPORT_OPTIONS)}"
            )
    source = str(source)
    if _is_name(source) and find_published(source) is not None:
        _refuse_overrides(f"{source} is a published model", overrides)
    path = _find_model(source, access)
    if is_native(path):
        _refuse_overrides(f"{source} is a densevit checkpoint", overrides)
        bundle = load_bundle(path)
    else:
        imported = _import(source, path, access, **overrides)
        _log.info("%s", imported.report)
        bundle = imported.bundle
    is_published = source.startswith(SCHEME) or _is_name(source)
    if is_published or terms(bundle.card.licence) != "permissive":  # of one's own models that is no news
        announce(source, bundle.card.licence, _log, has_publisher=is_published)
    return bundle


open_bundle = open_model
"""The earlier name, which scripts for the importers use."""


def open_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    **overrides: Any,
) -> Bundle:
    """Open a folder or file, or else a repository of the hub; see ``densevit.from_pretrained``.

    Raises:
        CheckpointError: as ``open_model``.
        ConfigError: if this is neither, or a revision of a folder is asked for.
    """
    name = str(name)
    if not name.startswith(SCHEME) and kind_of(local_path(name)) != "none":
        if revision is not None:
            raise ConfigError(f"{name} is here and not on the hub, so it has no revision {revision!r}; leave it out")
        return open_model(local_path(name).absolute(), **overrides)
    repo = name.removeprefix(SCHEME)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ConfigError(
            f"{name!r:.200} is no folder here and no repository of the hub; give a folder or OWNER/NAME; "
            "densevit.load(NAME) loads a model by its name"
        )
    access = HubAccess(token, None if cache_dir is None else Path(cache_dir))
    return open_model(SCHEME + repo + (f"@{revision}" if revision else ""), access, **overrides)


class ModelFacts(NamedTuple):
    """What is known of a model without its weights."""

    model: ModelConfig
    tasks: dict[str, Task]
    fit: InferenceConfig


def model_facts(source: str | Path) -> ModelFacts:
    """The configs of what ``open_model`` opens; the weights of a native checkpoint are not read.

    Raises:
        CheckpointError: as ``open_model``.
    """
    source = str(source)
    if is_native(path := _find_model(source)):
        header = read_header(path)
        return ModelFacts(header.model, dict(header.tasks), header.fit)
    bundle = open_model(source)
    return ModelFacts(bundle.model.config, bundle.tasks, bundle.fit)


def stated_card(source: str | Path) -> tuple[Card, Path]:
    """The card of what ``open_model`` opens, and its weights file.

    Weights of another program have a card with their licence, if a README.md next to them states it.

    Raises:
        CheckpointError: if there is no such model.
    """
    source = str(source)
    path = _find_model(source)
    if is_native(path):
        return read_header(path).card, path
    if source.startswith(SCHEME):
        fetch_side_files(source, [CARD_FILE])
    return Card(name=path.name, licence=licence_beside(path) or UNSTATED), path


def import_file(
    source: str, *, as_source: str | None = None, config: Path | str | None = None, **overrides: Any
) -> Imported:
    """Read a checkpoint of another program and convert it, with an account of every tensor.

    Args:
        source: a file, a folder, or ``hf://owner/name[/file]``.
        as_source: a key of ``IMPORTERS``; by default recognised by the names of the tensors.
        config: the model's config file, where it is not next to the weights under its usual name.
        overrides: the fields of ``ImportOverrides``.

    Raises:
        CheckpointError: if the file cannot be used, or a fact about it is missing.
        ConfigError: if an override is unknown or has a wrong value.
    """
    path = _find_weights(source)
    if is_native(path):
        raise CheckpointError(f"{source} is a densevit checkpoint already; use it without converting it")
    return _import(source, path, None, as_source=as_source, config=config, **overrides)


def _import(
    source: str,
    path: Path,
    access: HubAccess | None,
    *,
    as_source: str | None = None,
    config: Path | str | None = None,
    **overrides: Any,
) -> Imported:
    stated = ImportOverrides.parse(overrides, source="the set of import options")
    if as_source is not None and as_source not in IMPORTERS:
        raise CheckpointError(f"there is no importer {as_source!r}{nearest(as_source, IMPORTERS)}")
    file = read_weights(path)
    key = as_source or detect(file.state, source)
    importer = IMPORTERS[key]
    if source.startswith(SCHEME):
        names = [file_name for file_name in importer.side_files if "*" not in file_name]
        fetch_side_files(source, [*names, CARD_FILE], access)
    if stated.licence is None:
        stated = stated.model_copy(update={"licence": licence_beside(path)})
    side = read_side_files(path, file.meta, importer.side_files, None if config is None else Path(config))
    found = Source(source, file.state, side, stated, path.name)
    return build(key, importer, importer.complete(found, path) if importer.complete else found)


def _is_name(source: str) -> bool:
    """Whether a source can be the name of a model; a file or folder of the same name goes first."""
    return not source.startswith(SCHEME) and kind_of(local_path(source)) == "none"


def _refuse_overrides(description: str, overrides: Mapping[str, Any]) -> None:
    if overrides:
        raise CheckpointError(
            f"{description} and takes no import overrides, but {', '.join(overrides)} was given; leave it out"
        )


def _find_model(source: str, access: HubAccess | None = None) -> Path:
    """The weights file of a model; a name that is close to a known one is taken for a typing mistake."""
    if source == DEFAULT_NAME or not _is_name(source):
        return _find_weights(source, access)
    if (row := find_published(source)) is not None:
        return weights_of(row.name)
    if source in PRESETS:
        raise CheckpointError(
            f"{source} is an architecture without published weights, and load() never gives random ones; "
            f'densevit.create_model("{source}", pretrained=False) does, and densevit train --preset {source} trains it'
        )
    if hint := did_you_mean(source, (DEFAULT_NAME, *PUBLISHED, *PRESETS)):
        raise CheckpointError(f"there is no model {source!r}{hint}")
    return _find_weights(source, access)


def _find_weights(source: str, access: HubAccess | None = None) -> Path:
    """The weights file that a source names: the file itself, the only one in a folder, or one on the hub."""
    if is_exported(source):
        raise CheckpointError(
            f"{source} is an exported file, which has no weights to load or train; densevit predict and evaluate run "
            "it, and in Python densevit_runtime.load; name the checkpoint that it was exported from"
        )
    folder = local_path(source)
    if source == DEFAULT_NAME or source.startswith(SCHEME) or kind_of(folder) != "folder":
        return resolve(source, access)
    usual = [folder / name for name in FOLDER_FILES if kind_of(folder / name) == "file"]
    try:
        files = usual[:1] or sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    except OSError as error:
        raise CheckpointError(f"the folder {source} cannot be read: {error.strerror}; check its permissions") from None
    if len(files) > 1 and all(index_of(path.name) for path in files):
        raise CheckpointError(
            f"{source} has {len(files)} shards of a model, but not their index, {index_of(files[0].name)}; download it "
            "into the folder"
        )
    if len(files) == 1:
        return resolve(str(files[0]))  # which refuses devices, pipes and dangling links
    names = ", ".join(path.name for path in files[:5]) or "none"
    raise CheckpointError(
        f"{source} is a folder with {len(files)} weights files ({names}), but one is needed; give the path of the file"
    )
