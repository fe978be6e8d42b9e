"""A data set of one photo, whose mask is up to the test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import FolderConfig, FolderDataset
from densevit.errors import DataError

SIZE = (12, 16)
CLASSES = ("road", "car", "bus", "sky")


def write_root(root: Path) -> Path:
    """``images/a.png``, an empty ``masks`` and the names of the classes."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "images" / "a.png")
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    return root


def mask_of(root: Path, **facts: Any) -> NDArray[np.int32]:
    labels = FolderDataset(FolderConfig.parse({"root": root, **facts}))[0].labels
    assert labels is not None
    assert labels.dtype == np.int32
    return labels


def refusal(action: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)
