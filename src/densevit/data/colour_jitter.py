"""Random colour changes: first drawn (``draw_jitter``, ``draw_photometric``), then applied (``recolour``).

Images are float32 (C, H, W) in [0, 1]. Saturation and hue are changed in RGB images only.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

Step = tuple[str, float]
"""A change, one of ``_STEPS``, and its amount."""


def draw_jitter(strength: float, generator: torch.Generator) -> tuple[Step, ...]:
    """Brightness, contrast and saturation by a factor in 1 +- ``strength``, hue by a tenth of it, in this order."""
    if strength == 0:
        return ()
    brightness, contrast, saturation = (uniform(1 - strength, 1 + strength, generator) for _ in range(3))
    hue = uniform(-0.1 * strength, 0.1 * strength, generator)
    return ("brightness", brightness), ("contrast", contrast), ("saturation", saturation), ("hue", hue)


def draw_photometric(generator: torch.Generator) -> tuple[Step, ...]:
    """mmsegmentation's photometric distortion, each part with probability 1/2.

    Brightness is shifted by up to 32 of 255 levels. Contrast is a factor in 0.5..1.5 on all values, before or after the
    changes in HSV: a factor in 0.5..1.5 on the saturation, and a shift of the hue by -18..17 of 180 steps. Differs from
    mmseg: values are clipped after each step but not rounded to 8 bits.
    """
    *coins, gain_first = (bool(torch.rand((), generator=generator) < 0.5) for _ in range(5))
    changes = (
        ("shift", uniform(-32 / 255, 32 / 255, generator)),
        ("gain", uniform(0.5, 1.5, generator)),
        ("hsv_saturation", uniform(0.5, 1.5, generator)),
        ("hsv_hue", int(torch.randint(-18, 18, (), generator=generator)) / 180),
    )
    steps = [step for step, coin in zip(changes, coins, strict=True) if coin]
    return tuple(steps if gain_first else sorted(steps, key=lambda step: step[0] == "gain"))


def recolour(image: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """Apply the steps in order; the result is in [0, 1]."""
    for name, amount in steps:
        if len(image) == 3 or name not in _OF_RGB:
            image = _STEPS[name](image, amount)
    return image


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw a number between the two."""
    return float(low + (high - low) * torch.rand((), generator=generator))


def _contrast(image: Tensor, factor: float) -> Tensor:
    """Scale around the mean of the grey image; torchvision has it only for 1 and 3 channels."""
    if len(image) in {1, 3}:
        changed: Tensor = tv.adjust_contrast(image, factor)
        return changed
    return image.lerp(image.mean(), 1 - factor).clamp_(0, 1)


def _hsv_saturation(image: Tensor, factor: float) -> Tensor:
    """S times ``factor``, at most 1; hue and V, the largest channel, stay."""
    value = image.amax(dim=0)
    spread = value - image.amin(dim=0)  # S * V
    # S reaches 1 where the smallest channel reaches 0, which limits the factor.
    factors = torch.full_like(value, factor).minimum(value / spread.clamp_min(1e-12))
    return value - (value - image) * factors


def _hue(image: Tensor, turn: float) -> Tensor:
    """Turn the hue by ``turn`` of a full circle; S and V stay.

    The same as through HSV and back, in fewer passes: in the hexcone each channel is V - S V clamp(min(k, 4 - k), 0, 1)
    where k = (offset + 6 hue) mod 6, and the offset is 5, 3, 1 for red, green and blue.
    """
    if turn == 0:
        return image
    red, green, blue = image
    value, smallest = image.amax(dim=0), image.amin(dim=0)
    spread = value - smallest
    inverse = 1 / spread.clamp_min(1e-12)
    sixths = torch.where(  # 6 hue, in -1..5; grey has spread 0 and any hue
        value == red,
        (green - blue) * inverse,
        torch.where(value == green, (blue - red) * inverse + 2, (red - green) * inverse + 4),
    )
    sixths += 6 * turn
    turned = torch.empty_like(image)
    for channel, offset in enumerate((5.0, 3.0, 1.0)):
        k = torch.remainder(sixths + offset, 6)
        share = torch.minimum(k, 4 - k).clamp_(0, 1)
        torch.addcmul(value, spread, share, value=-1, out=turned[channel])
    return turned.clamp_(0, 1)


_OF_RGB = {"saturation", "hue", "hsv_saturation", "hsv_hue"}
_STEPS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": lambda image, factor: (image * factor).clamp_(0, 1),
    "contrast": _contrast,
    "saturation": tv.adjust_saturation,
    "hue": _hue,
    "shift": lambda image, shift: (image + shift).clamp_(0, 1),
    "gain": lambda image, factor: (image * factor).clamp_(0, 1),
    "hsv_saturation": _hsv_saturation,
    "hsv_hue": _hue,
}
