"""Test-time augmentation: several scales, mirrored or not, their probabilities averaged. Pure functions."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def average_probabilities(views: Iterable[tuple[Tensor, bool]], to_logits: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over views of the softmax probabilities.

    Args:
        views: normalised images (1, 3, h, w) of one photo at several scales, and whether each is to be mirrored.
        to_logits: such an image -> logits (1, K, H, W) at the photo's size.

    Returns:
        (K, H, W) float32 that sum to one over K.
    """
    total: Tensor | None = None
    count = 0
    for image, mirrored in views:
        logits = to_logits(image.flip(-1) if mirrored else image)
        scores = (logits.flip(-1) if mirrored else logits)[0].float().softmax(dim=0)
        total = scores if total is None else total.add_(scores)
        count += 1
    assert total is not None
    return total.div_(count)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Logits whose softmax gives the probabilities (K, ...) back; what is 0 becomes the smallest normal float."""
    return probabilities.clamp_(min=torch.finfo(probabilities.dtype).tiny).log_()
