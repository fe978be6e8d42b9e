"""The state of a run between two steps: everything that the next step depends on, in one atomic file."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from densevit.errors import CheckpointError
from densevit.io import atomic_path

STATE_NAME = "state-{iteration:08d}.pt"
KEEP = 2
_log = logging.getLogger(__name__)


def save_state(folder: Path, iteration: int, model: nn.Module, parts: dict[str, Any]) -> None:
    """Write the state after ``iteration`` steps; the last two are kept.

    Parameters that are frozen are not stored: they come from where they came from.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    weights = {name: value for name, value in model.state_dict().items() if name in trained | buffers}
    state = {"iteration": iteration, "model": weights, "torch_rng": torch.get_rng_state(), **parts}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state_all()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / STATE_NAME.format(iteration=iteration), sync=True) as temporary:
        torch.save(state, temporary)
    for old in sorted(folder.glob(STATE_NAME.replace("{iteration:08d}", "*")))[:-KEEP]:
        old.unlink()


def load_state(folder: Path) -> dict[str, Any] | None:
    """The latest state that can be read; a damaged one is passed over with a warning. None if there is none.

    Raises:
        CheckpointError: if there are states but none can be read.
    """
    paths = sorted(folder.glob(STATE_NAME.replace("{iteration:08d}", "*")), reverse=True)
    for path in paths:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file raises anything from EOFError to RuntimeError
            _log.warning("cannot read %s (%s); trying the one before", path, error)
            continue
        return state
    if paths:
        raise CheckpointError(f"none of the {len(paths)} states in {folder} can be read; train into a new folder")
    return None


def restore_rng(state: dict[str, Any]) -> None:
    """Set the random generators to where they were."""
    torch.set_rng_state(state["torch_rng"])
    if torch.cuda.is_available() and "cuda_rng" in state:
        torch.cuda.set_rng_state_all(state["cuda_rng"])
