"""The unit of depth maps, guessed from their numbers."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.discover.candidates import Candidate
from densevit.data.discover.contents import SAMPLES
from densevit.data.discover.tree import Tree
from densevit.errors import DataError
from densevit.io.depth import plane
from densevit.io.stored import read_numbers

_FAR_M, _FAR_MM, _NEAR_MM, _SATURATED, _SPARSE = 1_000, 20_000, 500, 65_535, 0.5
_LASER = re.compile("velodyne|lidar|laser|proj_depth|groundtruth_depth|kitti")
"""Names of sparse depth that is stored as KITTI's, however near everything is."""

_SHIFT, _FEWEST_SHIFTED = 8, 64
"""Depth of which nearly all numbers, that many different ones, are multiples of 8 is shifted by three bits."""

_SHIFTED = (0.000125, "1/8000 m, as SUN RGB-D stores it: all numbers are multiples of 8")
_UNITS = ((1 / 256, "1/256 m, as KITTI stores sparse depth"), (0.0002, "1/5000 m, as TUM RGB-D stores it"))


def unit_of_depth(tree: Tree, one: Candidate, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The unit of depth maps, guessed from their numbers where that of millimetres is not plausible."""
    high, total, valid, saturated, odd, floats = 0.0, 0, 0, 0, 0, False
    numbers: set[int] = set()
    for file in one.targets["depth"].sample(4 * SAMPLES):
        try:
            pixels = plane(read_numbers(tree.path(file)).pixels)
        except DataError:
            continue
        if kind := _unfit(pixels):
            raise DataError(
                f"{tree.path(file)} is a depth map of {kind}, too coarse or not a measurement; a 16-bit grey PNG, or "
                "floats in metres as .npy or TIFF, is accepted; export the depth again, or remove it"
            )
        floats |= pixels.dtype.kind == "f"
        full = (pixels == _SATURATED) if pixels.dtype.itemsize == 2 else np.zeros(pixels.shape, bool)
        good = pixels[np.isfinite(pixels) & (pixels > 0) & ~full]
        high = max(high, float(good.max()) if good.size else 0.0)
        total, valid, saturated = total + pixels.size, valid + good.size, saturated + int(full.sum())
        odd += int(np.count_nonzero(good % _SHIFT))
        numbers |= {*np.unique(good)[:_FEWEST_SHIFTED].tolist()}
    keys: dict[str, Any] = {}
    remarks: list[str] = []
    if saturated > 0.001 * total and "depth_invalid" not in given:
        keys["depth_invalid"] = (float(_SATURATED),)
        remarks.append(
            f"depth of {_SATURATED} in {saturated / total:.1%} of the pixels is no measurement (depth_invalid)"
        )
    advice = "to change it"
    if floats:  # never guessed: they have no other usual unit, so that a wrong guess would be a model of a wrong scale
        unit, key = "metres", "depth_scale_m"
        if high > _FAR_M:
            unit, advice = "metres, which can hardly be", "to 0.001 if it is in millimetres"
    else:
        unit, key = "millimetres", "depth_unit_m"
        sparse = valid <= _SPARSE * total
        laser = sparse and _LASER.search(one.targets["depth"].template().lower()) is not None
        if "depth_unit_m" not in given and len(numbers) >= _FEWEST_SHIFTED and odd <= 0.001 * valid and not laser:
            keys["depth_unit_m"], unit = _SHIFTED
        elif (high > _FAR_MM or laser) and "depth_unit_m" not in given:
            keys["depth_unit_m"], unit = _UNITS[not sparse]
            advice += "" if sparse else ", such as to 0.00025 for Matterport3D's or 0.01 for centimetres"
        elif high < _NEAR_MM:
            unit, advice = "millimetres, which can hardly be", "to 0.01 if it is in centimetres"
    if key not in given:
        remarks.append(f"depth up to {high:,.6g} is taken for {unit}; set {key} {advice}")
    return keys, remarks


def coarse_depth(tree: Tree, one: Candidate) -> str:
    """Why the depth maps are no measurement, by the first that can be read; "" if they are."""
    for file in one.targets["depth"].sample(SAMPLES):
        try:
            return _unfit(plane(read_numbers(tree.path(file)).pixels))
        except DataError:
            continue
    return ""


def _unfit(pixels: NDArray[Any]) -> str:
    if pixels.dtype.itemsize < 2:
        return "8 bits"
    return f"{pixels.shape[2]} channels" if pixels.ndim != 2 else ""
