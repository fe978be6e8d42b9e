"""Palettes: natural colours for the classes of streets and rooms, for others colours that look different."""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from densevit.data.sample import Rgb
from densevit_runtime.oklab import from_lab, polar, to_lab

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


@functools.lru_cache(maxsize=32)
def _fill(known: tuple[Rgb | None, ...]) -> tuple[Rgb, ...]:
    """The known colours, and in the gaps the candidate that is farthest from all colours taken so far."""
    candidates = _candidates()
    labs = to_lab(candidates)
    palette = list(known)
    if palette and not any(palette):
        palette[0] = _FIRST
    distance = np.full(len(candidates), np.inf)
    for taken in filter(None, palette):
        distance = np.minimum(distance, np.linalg.norm(labs - to_lab(np.array(taken)), axis=1))
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
    rgb = from_lab(polar(grid.reshape(-1, 3)))
    return np.rint(rgb[((rgb >= 0) & (rgb <= 255)).all(axis=1)]).astype(np.int64)
