"""States of a run with sharded weights: folders to which every process writes its part.

Tensors are stored by ``torch.distributed.checkpoint``, so a run can continue with another number of processes. A folder
gets its name once all of it is on the disk; ``facts.json`` holds the checksum of each of its files.
"""

import hashlib
import json
import logging
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from densevit.errors import DataError
from densevit.io import write_json
from densevit.training.checkpoint import (
    forget_old,
    iteration_of,
    no_readable_state_error,
    other_model_error,
    states_in,
    sync_folder,
)
from densevit.training.distributed import Group
from densevit_runtime.io.decode import reason

FACTS = "facts.json"
_log = logging.getLogger(__name__)


def save_sharded(
    folder: Path,
    iteration: int,
    tensors: dict[str, Any],
    facts: dict[str, Any],
    *,
    keep: int,
    group: Group,
    on_written: Callable[[Path], None] | None = None,
) -> None:
    """Write the state after ``iteration`` steps; all processes must call it, and the last ``keep`` states are kept.

    ``on_written`` is called in the first process with the temporary path of the state before it gets its name.

    Raises:
        DataError: if it cannot be written.
    """
    final = folder / f"state-{iteration:08d}.dcp"
    unfinished = folder / f".densevit-{final.name}"

    def begin() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in (unfinished, final):
            shutil.rmtree(old, ignore_errors=True)

    def end() -> None:
        write_json(unfinished / FACTS, {"iteration": iteration, "files": digests, **facts}, internal=True)
        sync_folder(unfinished)
        if on_written is not None:
            on_written(unfinished)
        unfinished.rename(final)
        sync_folder(folder)
        forget_old(folder, keep)

    try:
        group.on_first(begin)
        save(tensors, storage_writer=FileSystemWriter(unfinished, sync_files=True))
        digests = _digests(unfinished, group)
        group.on_first(end)
    except (OSError, CheckpointException) as error:
        if group.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        first = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        raise DataError(
            f"{final} cannot be written ({reason(first)}); a writable folder with free space is needed, shared by "
            "all processes; choose another --out or make room"
        ) from error


def load_sharded(folder: Path, tensors: dict[str, Any], *, group: Group) -> dict[str, Any]:
    """Load the latest state that can be read into ``tensors``, and return its facts, including ``iteration``.

    A damaged state is skipped with a warning. Averages that the state lacks, as earlier ones lack those of the
    running statistics, are taken out of ``tensors``.

    Raises:
        CheckpointError: if no state can be read, or it is that of another model.
    """
    paths = group.on_first(lambda: states_in(folder))
    for path in reversed(paths):
        facts = group.on_first(partial(_read_facts, path))
        if facts is None or _digests(path, group) != facts["files"]:
            _log.warning("cannot read %s (its files are not those that were written); trying the one before", path)
            continue
        try:
            stored = _Reader(path).read_metadata().state_dict_metadata
            tensors["average"] = {n: v for n, v in tensors["average"].items() if f"average.{n}" in stored}
            load(tensors, storage_reader=_Reader(path))
        except (
            CheckpointException,
            pickle.PickleError,
            RuntimeError,
            ValueError,
            KeyError,
        ) as error:  # names or shapes differ
            raise other_model_error(folder) from error
        return {**facts, "iteration": iteration_of(path)}
    raise no_readable_state_error(folder, len(paths))


def create_slots(optimiser: torch.optim.Optimizer) -> None:
    """Give the optimiser the tensors that a state is loaded into, by a step with rate 0 and gradient 0."""
    rates = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate


def _read_facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and isinstance(facts.get("files"), dict) else None


def _digests(path: Path, group: Group) -> dict[str, str]:
    """Checksum of every file of a state; each process reads some of the files."""
    files = group.on_first(lambda: sorted(file.name for file in path.iterdir() if file.name != FACTS))
    digests: dict[str, str] = {}
    for name in files[group.rank :: group.world]:
        with (path / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return {name: digest for part in group.gather(digests) for name, digest in sorted(part.items())}


class _Reader(FileSystemReader):
    """Reads the table of contents safely; torch's own reader unpickles anything, and so runs any code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The table of contents, made of torch's plain types only."""
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata: Metadata = _PlainUnpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


_METADATA_TYPES = frozenset({
    "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties",
    "ChunkStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING", "_StorageInfo", "_StoragePrefix",
})  # fmt: skip
_PLAIN_TYPES = {
    "torch.distributed.checkpoint.metadata": _METADATA_TYPES,
    "torch.distributed.checkpoint.filesystem": _METADATA_TYPES,
    "torch": {"Size", "device"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath"},
    "collections": {"OrderedDict"},
}
"""What a table of contents consists of besides dtypes, by module."""


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every class that a table of contents does not need."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if dtype or name in _PLAIN_TYPES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a table of contents")
