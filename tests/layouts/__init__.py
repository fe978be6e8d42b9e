"""Miniature data sets in the layouts in which people keep them and tools export them.

Each maker writes files below a folder. Photo ``i`` is ``photo(i)``, and its classes are ``truth(i)``: 0 around a
rectangle of class 1 and another of class 2, up to their order in the layout.
"""

from tests.layouts import depth, exports, images, regions, versions
from tests.layouts.making import COLOURS, LAYOUTS, coco, depth_mm, labelme, pack, photo, save, truth, write

__all__ = [
    "COLOURS",
    "LAYOUTS",
    "coco",
    "depth",
    "depth_mm",
    "exports",
    "images",
    "labelme",
    "pack",
    "photo",
    "regions",
    "save",
    "truth",
    "versions",
    "write",
]
