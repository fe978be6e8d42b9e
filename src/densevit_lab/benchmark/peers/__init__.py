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
    """A program, built.

    Attributes:
        predict: an image file -> (H, W) labels or depth at its size, with the program's own inference.
        bundle: the same weights, converted by one of our importers.
    """

    predict: Callable[[Path], NDArray[Any]]
    bundle: Callable[[], Bundle]


@dataclass(frozen=True)
class PeerInfo:
    """A row of ``PEERS``.

    Attributes:
        title: the program's name.
        packages: the import names that it needs -> what to install.
    """

    title: str
    packages: Mapping[str, str]


_MMSEG = {
    "mmseg": "mmsegmentation",
    "mmengine": "mmengine",
    "mmcv": "mmcv-lite",
    "ftfy": "ftfy",
    "cv2": "opencv-python",
}

# The key is also the name of the file here whose ``build(**options)`` makes the peer.
PEERS: dict[str, PeerInfo] = {
    "mmseg": PeerInfo("mmsegmentation", _MMSEG),
    "segmenter": PeerInfo("official arithmetic", {}),
    "transformers": PeerInfo("transformers", {"transformers": "transformers"}),
    "smp": PeerInfo("segmentation_models.pytorch", {"segmentation_models_pytorch": "segmentation-models-pytorch"}),
}


def missing_packages(name: str) -> list[str]:
    """The packages without which a peer cannot be built."""
    return [package for module, package in PEERS[name].packages.items() if find_spec(module) is None]


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
