"""The data set that all of these tests start from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.scenes import CLASSES
from tests.unit.doctor.data import SIZE, depth_mm, mask, photo, save


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos to train on and five to measure with, without a fault."""
    root = tmp_path_factory.mktemp("sound") / "data"
    for split, seeds in (("train", range(12)), ("val", range(100, 105))):
        for seed in seeds:
            save(root / "images" / split / f"{seed:03}.png", photo(seed))
            save(root / "masks" / split / f"{seed:03}.png", mask(seed))
            save(root / "depth" / split / f"{seed:03}.png", depth_mm(seed))
            values = np.random.default_rng(seed).normal(size=(*SIZE, 2)).astype(np.float32)
            (root / "values" / split).mkdir(parents=True, exist_ok=True)
            np.save(root / "values" / split / f"{seed:03}.npy", values)
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES, "ignore_index": 255}))
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A data set to plant faults in."""
    return Path(shutil.copytree(sound, tmp_path / "data"))
