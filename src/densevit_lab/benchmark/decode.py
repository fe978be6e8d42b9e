"""The last step alone: logits at the decoder's stride -> labels of the photo, in several forms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.config import nearest
from densevit.errors import ConfigError
from densevit.types import Size
from densevit.upsampling import upsample_labels

Form = Callable[[Tensor, Size], Tensor]
"""Logits (K, h, w) and (H, W) -> labels (H, W)."""


@dataclass(frozen=True)
class DecodeCase:
    """Sizes as in a data set.

    Attributes:
        title: for the table.
        num_classes: K.
        grid: (h, w) of the logits.
        size: (H, W) of the photo.
    """

    title: str
    num_classes: int
    grid: Size
    size: Size


DECODE_CASES: dict[str, DecodeCase] = {
    "ade20k": DecodeCase("150 classes, 32 x 32 to 512 x 512", 150, (32, 32), (512, 512)),
    "cityscapes": DecodeCase("19 classes, 64 x 128 to 1024 x 2048", 19, (64, 128), (1024, 2048)),
    "camvid": DecodeCase("11 classes, 22 x 30 to 360 x 480", 11, (22, 30), (360, 480)),
}


def _interpolate(logits: Tensor, size: Size) -> Tensor:
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)


def _softmax(logits: Tensor, size: Size) -> Tensor:
    return _interpolate(logits, size).softmax(dim=1).argmax(dim=1)[0]


def _plain(logits: Tensor, size: Size) -> Tensor:
    return _interpolate(logits, size).argmax(dim=1)[0]


def _channels_last(logits: Tensor, size: Size) -> Tensor:
    last = logits[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(last, size=size, mode="bilinear", align_corners=False).argmax(dim=1)[0]


def _ours(logits: Tensor, size: Size) -> Tensor:
    return upsample_labels(logits, size, align_corners=False)


FORMS: dict[str, Form] = {
    "interpolate, softmax, argmax": _softmax,
    "interpolate, argmax": _plain,
    "interpolate channels last, argmax": _channels_last,
    "densevit": _ours,
}


def open_form(name: str, *, num_classes: int, grid: Size, size: Size, seed: int = 0) -> Callable[[], NDArray[Any]]:
    """A form on random logits.

    Raises:
        ConfigError: if there is none of this name.
    """
    if name not in FORMS:
        raise ConfigError(f"there is no form {name!r}{nearest(name, FORMS)}")
    form = FORMS[name]
    logits = torch.randn(num_classes, *grid, generator=torch.Generator().manual_seed(seed))

    def run() -> NDArray[Any]:
        with torch.inference_mode():
            labels: NDArray[Any] = form(logits, (size[0], size[1])).numpy()
        return labels

    return run
