"""Features of a frozen encoder on disk: each input is encoded once, then decoders train at the speed of reading.

A feature file is named by what determines it, the encoder (config, weights, normalisation) and the pixels that went
in, so a cache can be shared between runs and never be stale. Tokens are stored in float16.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.errors import ConfigError
from densevit.io import atomic_path
from densevit.model import DenseModel
from densevit.types import Taps


class FeatureCache:
    """Encodes each image once.

    All methods take float32 images (3, H, W) in [0, 1], sides multiples of the patch size.
    """

    def __init__(self, directory: Path, model: DenseModel) -> None:
        if model.config.encoder.stem is not None:
            raise ConfigError(
                "the feature cache holds tokens alone, but this encoder has a convolutional stem; unset features"
            )
        self.model = model
        self.directory = directory / encoder_key(model)
        self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, image: Tensor) -> Path:
        """Where the features of an image are, or will be."""
        # In 16 bits, which tells dark images of 16 bits apart.
        pixels = np.ascontiguousarray((image * 65535).round().to(torch.int32).cpu().numpy().astype(np.uint16))
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, person=b"densevit").hexdigest()
        return self.directory / f"{digest}_{image.shape[-2]}x{image.shape[-1]}.npy"

    def ensure(self, image: Tensor) -> Path:
        """Encode an image unless its features are there; several processes may do so at once."""
        path = self.path(image)
        if not path.exists():
            with torch.inference_mode():
                taps = self.model.encode(image[None].to(self.model.mean.device))
            both = [
                torch.cat((prefix, tokens), dim=1)[0] for prefix, tokens in zip(taps.prefix, taps.tokens, strict=True)
            ]
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, torch.stack(both).half().cpu().numpy())  # (taps, P + N, C)
        return path

    def read(self, image: Tensor) -> NDArray[np.float16]:
        """The features (taps, P + N, C) of an image, memory-mapped."""
        features: NDArray[np.float16] = np.load(self.ensure(image), mmap_mode="r")
        return features


def to_taps(features: Tensor, model: DenseModel, grid: tuple[int, int]) -> Taps:
    """Features (B, taps, P + N, C) -> Taps in float32."""
    num_prefix = model.config.encoder.num_prefix
    per_tap = features.float().unbind(1)
    return Taps(
        tokens=tuple(t[:, num_prefix:] for t in per_tap),
        prefix=tuple(t[:, :num_prefix] for t in per_tap),
        grid=grid,
        patch_size=model.config.encoder.patch_size,
    )


def encoder_key(model: DenseModel) -> str:
    """A name for the encoder: config, normalisation and weights."""
    digest = hashlib.blake2b(digest_size=12, person=b"densevit")
    facts = {"encoder": model.config.encoder.plain(), "normalisation": model.config.normalisation.plain()}
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
