"""A small data set without a fault, and what looks at it or changes it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit.data import FolderConfig
from densevit.doctor.examine import Diagnosis, examine
from densevit.doctor.rules import Finding
from tests.e2e.scenes import CLASSES, scene

SIZE = (48, 64)


def photo(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A scene under light that falls in from a side of its own, so that no two look alike."""
    image = scene(seed, size).image.astype(np.float64)
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    light = 0.6 + 0.4 * np.sin(rows / draw.uniform(4, 14) + columns / draw.uniform(4, 14) + draw.uniform(0, 6))
    return (image * light[..., None]).clip(0, 255).astype(np.uint8)


def mask(seed: int) -> NDArray[np.uint8]:
    return scene(seed).labels


def depth_mm(seed: int) -> NDArray[np.uint16]:
    """A floor that comes nearer towards the bottom, with uneven ground, and no measurement in the first row."""
    draw = np.random.default_rng(seed)
    rows = np.linspace(6000, 1500, SIZE[0])[:, None] + draw.normal(0, 60, SIZE)
    rows[0] = 0
    return rows.clip(0, 65535).astype(np.uint16)


def save(path: Path, array: NDArray[Any], **facts: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **facts)
    return path


def look(root: Path, **facts: Any) -> Diagnosis:
    options = {key: facts.pop(key) for key in ("only", "sample", "crop", "colours") if key in facts}
    return examine(FolderConfig.parse({"root": root, **facts}), **options)


def codes(diagnosis: Diagnosis) -> set[str]:
    return {finding.code for finding in diagnosis.findings}


def finding(diagnosis: Diagnosis, code: str) -> Finding:
    (found,) = [finding for finding in diagnosis.findings if finding.code == code]
    return found


def each(root: Path, kind: str, change: Callable[[NDArray[Any]], NDArray[Any]], split: str = "*") -> None:
    for path in sorted(root.glob(f"{kind}/{split}/*.png")):
        save(path, change(np.asarray(Image.open(path))))


def classes(root: Path, **facts: Any) -> None:
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES, "ignore_index": 255} | facts))


def binary(root: Path) -> None:
    """Classes that are two, and no ignored pixel."""
    classes(root, classes=["no", "yes"])
    each(root, "masks", lambda m: ((m > 0) & (m < 255)).astype(np.uint8))


def with_exif(path: Path, orientation: int, pixels: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    save(path, pixels, exif=exif)
