"""States to resume from: everything that the next step depends on, in one file that is written atomically."""

import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densevit.errors import CheckpointError
from densevit.io import atomic_path, make_folder
from densevit.training.seeds import random_state

STATE_NAME = "state-{iteration:08d}.pt"
KEEP = 2
_log = logging.getLogger(__name__)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The part of a model that a state holds; frozen parameters are loaded from their origin again."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    return {name: value for name, value in model.state_dict().items() if name in trained | buffers}


def check_names(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Refuse weights of another model, which ``load_state_dict`` with ``strict=False`` would pass over in silence.

    Raises:
        KeyError: a trained weight is missing, or the model has no weight of a name.
    """
    missing, unknown = trained_weights(model).keys() - weights.keys(), weights.keys() - model.state_dict().keys()
    if missing or unknown:
        raise KeyError(f"{len(missing)} weights are missing and {len(unknown)} are unknown")


def save_state(
    folder: Path,
    iteration: int,
    model: nn.Module,
    parts: dict[str, Any],
    *,
    keep: int = KEEP,
    on_written: Callable[[Path], None] | None = None,
) -> None:
    """Write the state after ``iteration`` steps: the trained part of ``model``, and ``parts``.

    The last ``keep`` states are kept. ``on_written`` is called with the temporary path before it gets its name.

    Raises:
        DataError: if it cannot be written.
    """
    state = {"iteration": iteration, "model": trained_weights(model), **random_state(), **parts}
    make_folder(folder)
    path = folder / STATE_NAME.format(iteration=iteration)
    with atomic_path(path, sync=True, internal=True) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
        except RuntimeError as error:  # torch wraps the OSError of a full disk
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        if on_written is not None:
            on_written(temporary)
    sync_folder(folder)
    forget_old(folder, keep)


def load_state(folder: Path, *, before: int | None = None) -> dict[str, Any] | None:
    """The latest state that can be read, None if there is none; a damaged one is skipped with a warning.

    Args:
        folder: of the states.
        before: skip states of more iterations than this.

    Raises:
        CheckpointError: if there are states but none can be read.
    """
    paths = [path for path in states_in(folder) if before is None or iteration_of(path) <= before]
    for path in reversed(paths):
        try:
            # torch writes checksums but does not verify them.
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("torch does not compress states")
                if (damaged := archive.testzip()) is not None:
                    raise OSError(f"the checksum of {damaged} is wrong")
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            _check_state(state)
        except Exception as error:  # a damaged file raises anything from EOFError to RuntimeError
            _log.warning("cannot read %s (%s); trying the one before", path, error)
            continue
        return state
    if paths:
        raise no_readable_state_error(folder, len(paths))
    return None


def _check_state(state: Any) -> None:
    """Refuse what another program has saved."""
    iteration = state.get("iteration") if isinstance(state, dict) else None
    if not isinstance(iteration, int) or iteration < 0 or not isinstance(state.get("model"), dict):
        raise ValueError("it is not a state of densevit train")


def no_readable_state_error(folder: Path, count: int) -> CheckpointError:
    """The error for a folder whose states are all damaged."""
    return CheckpointError(f"none of the {count} states in {folder} can be read; train into a new folder")


def other_model_error(folder: Path) -> CheckpointError:
    """The error for states that do not fit the model or the optimiser."""
    return CheckpointError(
        f"the states in {folder} are those of another model or optimiser; resume with the config of the run, or train "
        "into a new folder"
    )


def states_in(folder: Path) -> list[Path]:
    """Finished states, oldest first: files, or folders of a run with sharded weights."""
    paths = [path for path in folder.glob("state-*") if path.suffix in {".pt", ".dcp"} and path.stem[6:].isdecimal()]
    return sorted(paths, key=iteration_of)


def iteration_of(path: Path) -> int:
    """state-00000040.pt -> 40."""
    return int(path.stem.removeprefix("state-"))


def forget_old(folder: Path, keep: int) -> None:
    """Delete all but the last ``keep`` states, and unfinished ones of a run that was killed."""
    for old in states_in(folder)[:-keep]:
        if old.is_dir():
            # Renamed first, so that a folder that is half deleted does not look like a state.
            old = old.rename(old.with_name(f".densevit-{old.name}"))
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for partial in folder.glob(".densevit-*"):
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system supports it."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
