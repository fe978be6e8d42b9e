"""Colours for labels and values: palettes, look-up, overlays. Numpy only; pictures are uint8 (H, W, 3) RGB.

Colours are chosen and mixed in OKLab, where equal distances look equal: Björn Ottosson, "A perceptual color space for
image processing", 2020; the two matrices are his.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densevit_runtime.errors import DataError, ShapeError
from densevit_runtime.typed import Rgb

_Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

_NAMED: dict[str, Rgb] = {
    # streets, the 11 classes of CamVid
    "sky": (150, 205, 245),
    "building": (185, 120, 100),
    "pole": (250, 235, 150),
    "road": (105, 100, 135),
    "pavement": (225, 175, 200),
    "tree": (60, 130, 60),
    "sign": (250, 175, 35),
    "fence": (100, 75, 40),
    "car": (50, 105, 225),
    "pedestrian": (245, 55, 70),
    "bicyclist": (35, 185, 170),
    # rooms, the 13 classes of NYUv2
    "bed": (240, 125, 155),
    "books": (240, 120, 30),
    "ceiling": (240, 235, 215),
    "chair": (30, 160, 150),
    "floor": (150, 100, 70),
    "furniture": (215, 180, 95),
    "objects": (140, 85, 190),
    "picture": (215, 60, 185),
    "sofa": (165, 25, 60),
    "table": (100, 160, 65),
    "tv": (45, 65, 150),
    "wall": (165, 165, 180),
    "window": (115, 200, 250),
}

_FIRST: Rgb = (64, 132, 214)
"""The first colour of a palette without known names, a calm blue."""

_DEPTH_ANCHORS = (
    (0.20, 0.07, 285.0),
    (0.36, 0.15, 300.0),
    (0.52, 0.19, 335.0),
    (0.67, 0.18, 25.0),
    (0.82, 0.145, 70.0),
    (0.96, 0.07, 105.0),
)
"""Far to near, night blue to cream: lightness in even steps, chroma, and hue in degrees."""


def default_palette(num_classes: int) -> tuple[Rgb, ...]:
    """Colours that differ as much as possible, neither glaring nor near black.

    Each is the farthest from all before it, so a shorter palette is the beginning of a longer one. There are some
    4,700 colours; after these they repeat.
    """
    return _fill((None,) * num_classes)


def palette_for(names: Sequence[str]) -> tuple[Rgb, ...]:
    """One colour per class: the natural one for well-known classes of streets and rooms, a distinct one for others.

    Args:
        names: class names, in upper or lower case.
    """
    known: list[Rgb | None] = []
    taken: set[Rgb] = set()
    for name in names:
        colour = _NAMED.get(name.strip().lower())
        known.append(None if colour in taken else colour)
        taken |= set() if colour is None else {colour}
    return _fill(tuple(known))


def colourise_labels(labels: NDArray[Any], palette: Sequence[Rgb], *, ignore_index: int = 255) -> Picture:
    """Look up every label in the palette; ignored pixels are black.

    Args:
        labels: (H, W) integer class ids.
        palette: one colour per class.
        ignore_index: id shown in black, even if the palette has a colour for it.

    Raises:
        ShapeError: not (H, W).
        DataError: not integer, or an id that is neither in the palette nor ``ignore_index``.
    """
    _check_map(labels, "labels")
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels are {labels.dtype} but integer class ids are accepted; pass the arg max of the scores")
    table = np.zeros((len(palette) + 1, 3), np.uint8)
    table[:-1] = np.array(palette, np.uint8).reshape(-1, 3)
    ignored = labels == ignore_index
    outside = labels[((labels < 0) | (labels >= len(palette))) & ~ignored]
    if outside.size:
        raise DataError(
            f"labels hold class id {outside[0]} but the palette has the ids 0..{len(palette) - 1} and ignore_index is "
            f"{ignore_index}; pass the palette of the model that made the labels"
        )
    return table[np.where(ignored, np.uint16(len(palette)), labels)]


def colourise_depth(
    depth: NDArray[Any],
    *,
    near: Literal["small", "large"] = "small",
    percentiles: tuple[float, float] = (2.0, 98.0),
    limits: tuple[float, float] | None = None,
    invalid: NDArray[np.bool_] | None = None,
) -> Picture:
    """Depth or disparity as colours: near is a bright cream, far a night blue, lightness even in between.

    Args:
        depth: (H, W) depth or disparity.
        near: ``"small"`` for depth, where 0 and less means invalid; ``"large"`` for disparity.
        percentiles: of the valid pixels, where the colour map begins and ends; robust to outliers.
        limits: the values where it begins and ends instead, to give several pictures one scale.
        invalid: (H, W) True where there is no value; shown in black, like all that is not finite.

    Raises:
        ShapeError: not (H, W), or ``invalid`` has another size.
    """
    _check_map(depth, "depth")
    values = depth.astype(np.float32)
    valid = np.isfinite(values) & ((values > 0) | (near == "large"))
    if invalid is not None:
        _check_size(invalid, depth, "invalid", "depth")
        valid &= ~invalid
    if not valid.any():
        return np.zeros((*depth.shape, 3), np.uint8)
    low, high = limits if limits is not None else np.percentile(values[valid], percentiles)
    share = (np.where(valid, values, low) - low) / max(high - low, 1e-12)
    nearness = (1 - share if near == "small" else share).clip(0, 1)
    picture: Picture = _depth_table()[np.rint(nearness * 255).astype(np.uint8)]
    picture[~valid] = 0
    return picture


def heat(share: NDArray[Any]) -> Picture:
    """0..1 (H, W) -> colours from black through red to yellow."""
    level = np.clip(np.nan_to_num(share), 0, 1)
    stops = np.array([[0, 0, 0], [110, 10, 60], [225, 60, 30], [255, 225, 90]], np.float64)
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(level, places, stops[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def overlay(image: Picture, colours: Picture, *, alpha: float = 0.55, labels: NDArray[Any] | None = None) -> Picture:
    """Colours blended over an image; where they are black (ignored, invalid), the image is unchanged.

    Args:
        image: (H, W, 3) uint8.
        colours: (H, W, 3) uint8, of ``colourise_labels`` or ``colourise_depth``.
        alpha: weight of the colours, 0 to 1.
        labels: (H, W); thin dark lines are drawn where they change.

    Raises:
        ShapeError: the sizes differ.
    """
    _check_size(colours, image, "colours", "image")
    # In 256ths and 16 bits: an image of 100 megapixels in floats would take gigabytes.
    weight = round(alpha * 256)
    mixed = (image * np.uint16(256 - weight) + colours * np.uint16(weight) + np.uint16(128)) >> 8
    picture = np.where(colours.any(axis=2, keepdims=True), mixed.astype(np.uint8), image)
    return picture if labels is None else draw_edges(picture, labels)


def draw_edges(picture: Picture, labels: NDArray[Any]) -> Picture:
    """A copy of the picture, darkened to 35 % along the boundaries between labels.

    Lines are one pixel wide up to a shorter side of 720 pixels, and wider in larger pictures, which are shown smaller.

    Args:
        picture: (H, W, 3) uint8.
        labels: (H, W).

    Raises:
        ShapeError: the sizes differ.
    """
    _check_size(labels, picture[..., 0], "labels", "picture")
    edges = np.zeros(labels.shape, np.bool_)
    for step in range(1, max(1, min(labels.shape) // 360) + 1):
        edges[:, :-step] |= labels[:, step:] != labels[:, :-step]
        edges[:-step] |= labels[step:] != labels[:-step]
    lined = picture.copy()
    lined[edges] = np.rint(picture[edges] * 0.35)
    return lined


@functools.lru_cache(maxsize=32)
def _fill(known: tuple[Rgb | None, ...]) -> tuple[Rgb, ...]:
    """The known colours, and in the gaps the candidate that is farthest from all colours taken so far."""
    candidates = _candidates()
    labs = _to_lab(candidates)
    palette = list(known)
    if palette and not any(palette):
        palette[0] = _FIRST
    distance = np.full(len(candidates), np.inf)
    for taken in filter(None, palette):
        distance = np.minimum(distance, np.linalg.norm(labs - _to_lab(np.array(taken)), axis=1))
    chosen: list[Rgb] = []
    for place, colour in enumerate(palette):
        if colour is None and len(chosen) >= len(candidates):
            palette[place] = chosen[len(chosen) % len(candidates)]
            chosen.append(chosen[len(chosen) % len(candidates)])
        elif colour is None:
            # Rounded, so that near-ties fall the same way with every maths library.
            best = int(distance.round(9).argmax())
            red, green, blue = candidates[best].tolist()
            palette[place] = (red, green, blue)
            chosen.append((red, green, blue))
            distance = np.minimum(distance, np.linalg.norm(labs - labs[best], axis=1))
    return tuple(colour for colour in palette if colour is not None)


def _candidates() -> NDArray[np.int64]:
    """(N, 3) colours of middle lightness and chroma that exist in sRGB."""
    lightness, chroma = np.linspace(0.5, 0.88, 12), np.linspace(0.06, 0.155, 7)
    grid = np.stack(np.meshgrid(lightness, chroma, np.arange(0.0, 360.0, 5.0), indexing="ij"), axis=-1)
    rgb = _from_lab(_polar(grid.reshape(-1, 3)))
    return np.rint(rgb[((rgb >= 0) & (rgb <= 255)).all(axis=1)]).astype(np.int64)


@functools.cache
def _depth_table() -> Picture:
    """(256, 3), far to near: linear in OKLab between the anchors."""
    anchors = _polar(np.array(_DEPTH_ANCHORS))
    steps = np.linspace(0, len(anchors) - 1, 256)
    lab = np.stack([np.interp(steps, np.arange(len(anchors)), anchors[:, axis]) for axis in range(3)], axis=-1)
    return np.rint(_from_lab(lab).clip(0, 255)).astype(np.uint8)


def _polar(lch: _Floats) -> _Floats:
    """(N, 3) lightness, chroma, hue in degrees -> OKLab."""
    lightness, chroma, hue = lch.T
    return np.stack([lightness, chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))], axis=-1)


def _to_lab(rgb: NDArray[Any]) -> _Floats:
    """(..., 3) sRGB 0..255 -> OKLab."""
    gamma = rgb / 255
    linear = np.where(gamma <= 0.04045, gamma / 12.92, ((gamma + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T)


def _from_lab(lab: _Floats) -> _Floats:
    """(..., 3) OKLab -> sRGB, 0..255 for colours that a screen can show."""
    linear = (lab @ np.linalg.inv(_LMS_TO_LAB).T) ** 3 @ np.linalg.inv(_RGB_TO_LMS).T
    gamma = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clip(0.0031308) ** (1 / 2.4) - 0.055)
    return np.asarray(gamma * 255)


def _check_map(values: NDArray[Any], name: str) -> None:
    if values.ndim != 2:
        raise ShapeError(f"{name} have the shape {values.shape} but (H, W) is accepted; pass one image at a time")


def _check_size(first: NDArray[Any], second: NDArray[Any], name: str, other: str) -> None:
    if first.shape != second.shape:
        raise ShapeError(
            f"{name} and {other} have the shapes {first.shape} and {second.shape} but must have one size; "
            f"resize the {name} first"
        )
