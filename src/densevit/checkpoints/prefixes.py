"""Names of tensors without what wrappers of modules add, and without tensors besides the model."""

import logging
import re
from pathlib import Path

from torch import Tensor

_log = logging.getLogger(__name__)

_MOST = 20
"""Prefixes that are stripped one after the other; a hostile name may be nothing else."""

# Prefixes that DataParallel, Lightning and the modules of training scripts write before every name.
PREFIXES = ("module.", "model.", "net.", "network.", "_forward_module.")

# Names that wrappers of modules write anywhere inside a name: torch.compile, FSDP, activation checkpoints.
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

# Tensors besides a model in a checkpoint: a counter of averages, losses, metrics, and averages of the weights.
BESIDE = re.compile(
    r"n_averaged$|(criterion|loss|losses|loss_fn|metrics?|(train|val|test)_\w+)(\.|$)"
    r"|(ema|ema_model|model_ema|averaged_model|swa_model|teacher)\."
)


def strip_prefixes(state: dict[str, Tensor], path: Path, depth: int = 0) -> dict[str, Tensor]:
    """Names without what wrappers of modules add to all of them, and without tensors besides the model."""
    clean = {_without_inner(name): tensor for name, tensor in state.items()}
    if len(clean) < len(state):
        return state  # two names would become one
    for prefix in PREFIXES if depth < _MOST else ():
        inside = {name.removeprefix(prefix): tensor for name, tensor in clean.items() if name.startswith(prefix)}
        beside = [name for name in clean if not name.startswith(prefix)]
        if inside and all(BESIDE.match(name) for name in beside):
            left_out = [name for name in beside if name != "n_averaged"]
            if left_out:
                _log.warning("%s holds %s besides the model under %r; taking the model", path, some(left_out), prefix)
            return strip_prefixes(inside, path, depth + 1)
    return clean


def _without_inner(name: str) -> str:
    for inner in INNER:
        name = name.replace(inner, "")
    return name


def some(names: list[str], limit: int = 3) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
