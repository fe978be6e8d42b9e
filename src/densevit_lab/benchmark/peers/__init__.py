"""Other programs, one file each: built with random weights at a published size, and run as their users run them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densevit.checkpoints.importers import IMPORTERS, Source
from densevit.checkpoints.importers import build as build_import
from densevit.checkpoints.native import Bundle

EXTRA = "densevit[benchmark]"


@dataclass(frozen=True)
class Peer:
    """A program, built; ``bundle`` gives the same weights, converted by one of our importers."""

    predict: Callable[[Path], NDArray[Any]]  # an image file -> (H, W) labels or depth, with the program's own inference
    bundle: Callable[[], Bundle]


# The key is also the name of the file here whose ``build(**options)`` makes the peer.
PEERS = {
    "mmseg": "mmsegmentation",
    "segmenter": "official arithmetic",
    "transformers": "transformers",
    "smp": "segmentation_models.pytorch",
}
NEEDS: dict[str, tuple[str, ...]] = {
    "mmseg": ("mmseg", "mmengine", "mmcv", "ftfy", "cv2"),
    "transformers": ("transformers",),
    "smp": ("segmentation_models_pytorch",),
}
"""The modules that a peer imports."""
INSTALL = {
    "mmseg": "mmsegmentation",
    "mmcv": "mmcv-lite",
    "cv2": "opencv-python",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
}
"""Module -> the package to install, where its name differs."""


def missing_packages(name: str) -> list[str]:
    """The packages without which a peer cannot be built."""
    return [INSTALL.get(module, module) for module in NEEDS.get(name, ()) if find_spec(module) is None]


def open_peer(name: str, options: Mapping[str, Any]) -> Peer:
    """Build a peer whose packages are installed."""
    peer: Peer = import_module(f"densevit_lab.benchmark.peers.{name}").build(**options)
    return peer


def import_bundle(
    importer: str, source: str, state: Mapping[str, Tensor], side_files: dict[str, Mapping[str, Any]] | None = None
) -> Bundle:
    """Convert the weights of a peer."""
    return build_import(importer, IMPORTERS[importer], Source(source, dict(state), side_files or {})).bundle


@torch.no_grad()
def fill(model: nn.Module, *, seed: int = 0) -> None:
    """Overwrite all parameters and statistics with random values, so that every part shows in the output.

    Activations stay in range at any depth: matrices and convolutions are scaled by the root of their inputs, as trained
    ones roughly are, and norms stay near the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        tensor.normal_(generator=generator)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
        elif tensor.ndim == 1:
            tensor.mul_(0.1).add_(float(name.endswith(("weight", "lambda1", "gamma"))))
        elif "pos" in name or "token" in name or name.endswith("cls_emb"):
            tensor.mul_(0.5)
        else:
            tensor.mul_((tensor.numel() / tensor.shape[0]) ** -0.5)
