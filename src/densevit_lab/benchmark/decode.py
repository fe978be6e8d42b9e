"""The last step only: logits at the decoder's stride -> labels at the image's size, in several forms."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.types import Size
from densevit.upsampling import upsample_labels


def _interpolate(logits: Tensor, size: Size) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _channels_last(logits: Tensor, size: Size) -> Tensor:
    return _interpolate(logits.contiguous(memory_format=torch.channels_last), size).argmax(dim=1)


# Logits (1, K, h, w) -> labels (H, W) or (1, H, W). The first form is the one that the others are compared with.
FORMS: dict[str, Callable[[Tensor, Size], Tensor]] = {
    "interpolate, softmax, argmax": lambda logits, size: _interpolate(logits, size).softmax(dim=1).argmax(dim=1),
    "interpolate, argmax": lambda logits, size: _interpolate(logits, size).argmax(dim=1),
    "interpolate channels last, argmax": _channels_last,
    "densevit": lambda logits, size: upsample_labels(logits[0], size, align_corners=False),
}


def open_form(name: str, *, num_classes: int, grid: Size, size: Size, seed: int = 0) -> Callable[[], NDArray[Any]]:
    """Prepare a form on random logits."""
    form = FORMS[name]
    logits = torch.randn(1, num_classes, *grid, generator=torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def run() -> NDArray[Any]:
        labels: NDArray[Any] = form(logits, (size[0], size[1])).reshape(*size).numpy()
        return labels

    return run
