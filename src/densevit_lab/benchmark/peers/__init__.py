"""Other programs, one file each: built with random weights at a published size, run as their users run them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle
from densevit.config import nearest
from densevit.errors import ConfigError

EXTRA = "densevit[benchmark]"


@dataclass(frozen=True)
class Peer:
    """A program, built.

    Attributes:
        predict: an image file -> (H, W) labels or depth in the photo's own size, by the program's own way.
        bundle: the same weights, turned into ours by an importer.
    """

    predict: Callable[[Path], NDArray[Any]]
    bundle: Callable[[], Bundle]


@dataclass(frozen=True)
class PeerInfo:
    """A row of ``PEERS``.

    Attributes:
        title: the program's name.
        module: the file here that builds it; it has ``build(options, device) -> Peer``.
        packages: import names that it needs -> what to install.
    """

    title: str
    module: str
    packages: Mapping[str, str]


_MMSEG = {
    "mmseg": "mmsegmentation",
    "mmengine": "mmengine",
    "mmcv": "mmcv-lite",
    "ftfy": "ftfy",
    "cv2": "opencv-python",
}

PEERS: dict[str, PeerInfo] = {
    "mmseg": PeerInfo("mmsegmentation", "mmseg", _MMSEG),
    "segmenter": PeerInfo("official arithmetic", "segmenter", {}),
    "transformers": PeerInfo("transformers", "transformers", {"transformers": "transformers"}),
    "smp": PeerInfo(
        "segmentation_models.pytorch", "smp", {"segmentation_models_pytorch": "segmentation-models-pytorch"}
    ),
}


def open_peer(name: str, options: Mapping[str, Any], device: str) -> Peer:
    """Build a peer.

    Raises:
        ConfigError: if there is none of this name, or what it needs is not installed.
    """
    if name not in PEERS:
        raise ConfigError(f"there is no peer {name!r}{nearest(name, PEERS)}")
    try:
        peer: Peer = import_module(f"densevit_lab.benchmark.peers.{PEERS[name].module}").build(options, device)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{PEERS[name].title} needs {error.name}, which is not installed; install {EXTRA}") from None
    return peer
