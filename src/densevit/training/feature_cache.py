"""A cache on disk for features of a frozen encoder, or of its first blocks: each input is encoded once, then read.

A file is named after a hash of everything that determines it: the frozen part (config, weights, normalisation,
precision) and the pixels. So a cache can be shared between runs and is never stale. Tokens are stored in float16, or in
float32 for evaluation, whose figures are then those of the model without a cache.
"""

import hashlib
import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.errors import ConfigError, DataError
from densevit.io import atomic_path, make_folder
from densevit.model import DenseModel
from densevit.types import Size, Taps

UNUSED_S = 24 * 3600.0
"""Features of another encoder may be deleted when they have not been used for this long."""
Precision = type[np.float16] | type[np.float32]
_GB = 1e9
_log = logging.getLogger(__name__)


class FeatureCache:
    """Encodes each image once.

    All methods take float32 images (3, H, W) in [0, 1], sides multiples of the patch size.

    Args:
        directory: shared by encoders and runs; it has a folder per encoder.
        model: with a frozen encoder, in evaluation mode.
        depth: number of frozen blocks; all, if not given.
        bf16: encode in bfloat16, which is the run's precision.

    Raises:
        ConfigError: if the encoder has a convolutional stem.
    """

    def __init__(self, directory: Path, model: DenseModel, *, depth: int | None = None, bf16: bool = False) -> None:
        if model.config.encoder.stem is not None:
            raise ConfigError(
                "the feature cache only holds tokens, but this encoder has a convolutional stem; unset features"
            )
        self.model, self.bf16 = model, bf16
        self.depth = len(model.encoder.blocks) if depth is None else depth
        self.root = directory
        self.directory = directory / encoder_key(model, self.depth, bf16=bf16)
        make_folder(self.directory)

    def path(self, image: Tensor, dtype: Precision = np.float16) -> Path:
        """The file of an image's features."""
        # 16 bits, so that dark images of 16 bits do not collide.
        pixels = np.ascontiguousarray((image * 65535).round().to(torch.int32).cpu().numpy().astype(np.uint16))
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, person=b"densevit").hexdigest()
        ending = "" if dtype is np.float16 else "_float32"
        return self.directory / f"{digest}_{image.shape[-2]}x{image.shape[-1]}{ending}.npy"

    def ensure(self, image: Tensor, dtype: Precision = np.float16) -> Path:
        """Encode an image unless its features exist and are whole; safe in several processes at once."""
        path = self.path(image, dtype)
        if self._stored(path, image, dtype) is None:
            if path.exists():
                _log.warning("%s is damaged; encoding its image again", path)
            device = self.model.mean.device
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                sequences = self.model.encode_first(image[None].to(device), self.depth)
            with atomic_path(path, internal=True) as temporary, temporary.open("wb") as file:
                np.save(file, torch.cat(sequences).float().cpu().numpy().astype(dtype))  # (kept, P + N, C)
        return path

    def read(self, image: Tensor, dtype: Precision = np.float16) -> NDArray[Any]:
        """The features (kept, P + N, C) of an image, memory-mapped; a damaged file is written again.

        Raises:
            DataError: if it cannot be written.
        """
        path = self.path(image, dtype)
        features = self._stored(path, image, dtype)
        if features is None:
            features = self._stored(self.ensure(image, dtype), image, dtype)
        if features is None:
            raise DataError(f"{path} cannot be read again after it was written; check the disk of {self.root}")
        return features

    def _stored(self, path: Path, image: Tensor, dtype: Precision) -> NDArray[Any] | None:
        """The features in a file, memory-mapped; None if there is none, or it is damaged or cut short."""
        try:
            features: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        except Exception:  # a damaged header raises anything, from EOFError to SyntaxError
            return None
        expected = self._shape((image.shape[-2], image.shape[-1]))
        return features if features.shape == expected and features.dtype == dtype else None

    def taps(self, image: Tensor, model: DenseModel) -> Taps:
        """The taps of one image, batch 1, in float32, through the blocks of ``model`` that are not frozen."""
        grid = model.encoder.grid_of((image.shape[-2], image.shape[-1]))
        features = torch.tensor(self.read(image, np.float32))[None].to(model.mean.device)
        return to_taps(features, model, grid, self.depth, image[None].to(model.mean.device))

    def num_bytes(self, image_size: Size) -> int:
        """Size of the features of one image."""
        return math.prod(self._shape(image_size)) * 2

    def _shape(self, image_size: Size) -> tuple[int, int, int]:
        """(kept, P + N, C) of the features of one image."""
        encoder = self.model.config.encoder
        grid = self.model.encoder.grid_of(image_size)
        kept = len(self.model.encoder.kept_blocks(self.depth))
        return kept, encoder.num_prefix + grid[0] * grid[1], encoder.embed_dim

    def make_room(self, needed: int, *, max_gb: float) -> None:
        """Make room for ``needed`` bytes of features, including those that exist.

        If the directory would exceed ``max_gb``, folders of other encoders that have not been used for a day are
        deleted, the oldest first.

        Raises:
            ConfigError: if ``needed`` exceeds ``max_gb`` or what is free on the disk.
        """
        if needed > max_gb * _GB:
            raise ConfigError(
                f"the features need about {needed / _GB:.1f} GB but features.max_gb is {max_gb:g}; raise it, take "
                "fewer features.views, or a smaller augment.crop"
            )
        (self.directory / "used").touch()
        missing = max(needed - _size_of(self.directory), 0)
        others = sorted((f for f in self.root.iterdir() if f != self.directory and _is_cache(f)), key=_last_used)
        total = needed + sum(_size_of(folder) for folder in others)
        for folder in others:
            if total <= max_gb * _GB or time.time() - _last_used(folder) < UNUSED_S:
                break
            total -= _size_of(folder)
            _log.info("deleted features of another encoder, unused for a day: %s", folder)
            shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(self.directory).free
        if missing > free:
            raise ConfigError(
                f"the features need another {missing / _GB:.1f} GB but the disk of {self.root} has {free / _GB:.1f} "
                "free; name another features.directory, or take fewer features.views"
            )


def to_taps(features: Tensor, model: DenseModel, grid: Size, depth: int, images: Tensor | None = None) -> Taps:
    """Features (B, kept, P + N, C) of the first ``depth`` blocks -> the taps of the whole encoder, in float32.

    ``images`` (B, 3, H, W) in [0, 1] are needed only for heads that read the image.
    """
    normalised = None if images is None else model.normalise(images)
    return model.encoder.other_blocks(list(features.float().unbind(1)), grid, depth, normalised)


def encoder_key(model: DenseModel, depth: int, *, bf16: bool = False) -> str:
    """A hash of the encoder's first blocks: config, normalisation, precision and weights."""
    digest = hashlib.blake2b(digest_size=12, person=b"densevit")
    kept = list(model.encoder.kept_blocks(depth))
    settings = {
        "encoder": model.config.encoder.plain() | {"drop_path": 0, "dropout": 0, "taps": kept},
        "normalisation": model.config.normalisation.plain(),
        "bf16": bf16,
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(model.encoder.state_dict().items()):
        parts = name.split(".")
        if parts[0] == "norm" or (parts[0] == "blocks" and int(parts[1]) >= depth):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.npy"))


def _is_cache(folder: Path) -> bool:
    """Whether a folder holds nothing but features, so that it may be deleted; ``directory`` may have other folders."""
    if folder.is_symlink() or not (folder / "used").is_file():
        return False
    return all(file.suffix == ".npy" or file.name == "used" for file in folder.iterdir())


def _last_used(folder: Path) -> float:
    return (folder / "used").stat().st_mtime
