"""Weights of others as our models. A new source is one file with its list of renames and one row in ``IMPORTERS``."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from densevit.checkpoints.encoder_names import looks_like_encoder
from densevit.checkpoints.files import read_weights
from densevit.checkpoints.hub import DEFAULT_NAME, HUB_FILES, SCHEME, fetch_beside, resolve
from densevit.checkpoints.importers import depth_anything, dpt_official, mmseg, segmenter, setr_paper, transformers
from densevit.checkpoints.importers.base import Answers, Importer, Source
from densevit.checkpoints.importers.build import Counts, Imported, build
from densevit.checkpoints.importers.side_files import read_side_files
from densevit.checkpoints.native import Bundle, is_native, load_bundle
from densevit.checkpoints.rename import collapse
from densevit.config import nearest
from densevit.errors import CheckpointError

__all__ = [
    "IMPORTERS",
    "Answers",
    "Counts",
    "Imported",
    "Importer",
    "Source",
    "build",
    "detect",
    "find_weights",
    "import_file",
    "open_bundle",
]

_log = logging.getLogger(__name__)

IMPORTERS: dict[str, Importer] = {
    "segmenter": segmenter.IMPORTER,
    "setr": setr_paper.IMPORTER,
    "mmseg": mmseg.IMPORTER,
    "dpt": dpt_official.IMPORTER,
    "depth_anything": depth_anything.IMPORTER,
    "transformers": transformers.IMPORTER,
}

FOLDER_FILES = (*HUB_FILES, "checkpoint.pth")
SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}


def open_bundle(source: str, **answers: Any) -> Bundle:
    """A model from a native checkpoint or from weights of others: a file, a folder, or ``hf://owner/name``.

    Args:
        source: where it is.
        answers: ``config``, ``as_source`` and the fields of ``Answers``, for weights of others.

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
        answers: the fields of ``Answers``.

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
    stated = Answers.parse(answers, source="the options")
    file = read_weights(path)
    name = detect(file.state, source) if as_source is None else _row(as_source)
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


def detect(state: Mapping[str, Tensor], source: str) -> str:
    """The key in ``IMPORTERS`` of the source whose names the tensors bear.

    Raises:
        CheckpointError: if there is none, or several.
    """
    found = [name for name, importer in IMPORTERS.items() if importer.recognises(Source(source, state))]
    if len(found) == 1:
        return found[0]
    if found:
        titles = " and ".join(IMPORTERS[name].title for name in found)
        raise CheckpointError(
            f"{source} has the names of {titles} in one file; weights of one source are needed; take the file apart"
        )
    if looks_like_encoder(state):
        raise CheckpointError(
            f"{source} is a plain encoder without a decoder, so there is no model to make of it; "
            "train a decoder on it: name the file as encoder_weights in a training config"
        )
    names = ", ".join(collapse(sorted(state))[:5])
    raise CheckpointError(
        f"{source} has names of no known source ({names}, ...); known: "
        f"{', '.join(importer.title for importer in IMPORTERS.values())}; check the file"
    )


def _row(name: str) -> str:
    if name not in IMPORTERS:
        raise CheckpointError(f"there is no source {name!r}{nearest(name, IMPORTERS)}")
    return name
