"""transformers' image processor of DPT as a protocol, and as the mean and deviation of images in [0, 1]."""

import math
from collections.abc import Mapping
from typing import Any

from densevit.checkpoints.importers.base import Plain
from densevit.checkpoints.importers.keys import check_keys
from densevit.checkpoints.importers.transformers_keys import PROCESSOR
from densevit.errors import CheckpointError
from densevit.inference_config import Resampling, WholeProtocol
from densevit.presets import HALF

# The numbers of Pillow's filters.
RESAMPLING: dict[int, Resampling] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def preprocessing(stated: Mapping[str, Any], source: str, published: Plain) -> tuple[Plain, WholeProtocol]:
    """Plain data of the model's mean and deviation, and the protocol.

    Args:
        stated: preprocessor_config.json; what it leaves out has the default of the class.
        source: what messages call the checkpoint.
        published: the settings of the published models, where there is no such file.

    Raises:
        CheckpointError: if a key is unknown, or a setting cannot be reproduced.
    """
    where = "preprocessor_config.json"
    settings = {key: value for key, value in stated.items() if value is not None} if stated else published
    check_keys(settings, PROCESSOR, where=where, source=source, program="transformers")
    number = settings.get("resample", 3)
    if isinstance(number, bool) or number not in RESAMPLING:
        known = ", ".join(f"{number} ({name})" for number, name in RESAMPLING.items())
        raise CheckpointError(f"{source} has resample={number!r} in its {where}; accepted: {known}; correct it")
    pads = bool(settings.get("do_pad", False))
    protocol = WholeProtocol.parse(
        {
            "kind": "transformers",
            "net_size": _size(settings.get("size", 384), source),
            "multiple": settings.get("ensure_multiple_of", 1),
            "keep_aspect": settings.get("keep_aspect_ratio", False),
            "resample": RESAMPLING[number],
            "resize": settings.get("do_resize", True),
            "pad_multiple": settings.get("size_divisor", 1) if pads else 1,
        },
        source=f"the {where} of {source}",
    )
    return _normalisation(settings), protocol


def _size(size: Any, source: str) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if not isinstance(size, Mapping) or set(size) != {"height", "width"}:
        raise CheckpointError(
            f"{source} has size={size!r} in preprocessor_config.json, but only a height and a width can be "
            "reproduced; run the model with transformers"
        )
    return size["height"], size["width"]


def _normalisation(settings: Mapping[str, Any]) -> Plain:
    """Mean and deviation for images in [0, 1]: (255 f x - mean) / deviation, with the processor's factor f."""
    scale = 255.0 * (settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0)
    mean, std = settings.get("image_mean", HALF["mean"]), settings.get("image_std", HALF["std"])
    if not settings.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if not all(map(math.isfinite, (scale, *mean, *std))) or min(scale, *std) <= 0:
        raise ValueError(f"rescale_factor {scale / 255}, image_mean {mean} and image_std {std}")
    if abs(scale - 1) < 1e-9:  # 255 times the stored 1/255 need not be 1 exactly
        return {"mean": mean, "std": std}
    return {"mean": [value / scale for value in mean], "std": [value / scale for value in std]}
