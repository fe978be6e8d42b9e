"""Random numbers that depend only on the position in a run.

The generators are seeded with its number before every sample and before every micro-batch. No random state is carried
from one to the next, so it does not matter which process prepared a batch, or how often a run was stopped.
"""

import hashlib
import os
import random
from typing import Any

import numpy as np
import torch


def seed_everything(*numbers: int) -> None:
    """Seed the global generators of Python, numpy and torch, on all devices, from ``numbers``."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8, person=b"densevit").digest()
    seed = int.from_bytes(digest) >> 1
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - a user's data set may draw from it
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of the global generators, as tensors and plain data."""
    kind, keys, position, has_normal, normal = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "torch_rng": torch.get_rng_state(),
        "numpy_rng": (str(kind), torch.from_numpy(np.asarray(keys, np.int64)), position, has_normal, normal),
        "python_rng": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the state of the global generators."""
    torch.set_rng_state(state["torch_rng"])
    kind, keys, *rest = state["numpy_rng"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python_rng"])
    if torch.cuda.is_available() and "cuda_rng" in state:
        torch.cuda.set_rng_state_all(state["cuda_rng"])


def be_deterministic() -> None:
    """Use algorithms that give the same bits every time, on a GPU too; an operation that has none warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix multiplication
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
