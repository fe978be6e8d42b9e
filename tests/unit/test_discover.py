import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.data import FolderConfig, FolderDataset
from densevit.data.discover import discover
from tests.layouts import LAYOUTS, pack, photo, save, truth


def plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_discover__recognises(name: str, packed: bool, tmp_path: Path) -> None:
    layout, root = LAYOUTS[name], tmp_path / "data"
    layout.make(root)

    found = discover(pack(root) if packed else root)

    assert {key: plain(getattr(found.config, key)) for key in layout.keys} == layout.keys
    assert found.config.masks or found.config.pairs or layout.classes is None
    remarks = "\n".join(found.remarks)
    assert [text for text in layout.said if text not in remarks] == [], remarks


def opened(config: FolderConfig, split: str) -> FolderDataset:
    return FolderDataset(config.model_copy(update={"split": split or None}))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_discover__config_reads_the_right_pixels(name: str, packed: bool, tmp_path: Path) -> None:
    layout, root = LAYOUTS[name], tmp_path / "data"
    layout.make(root)
    config = discover(pack(root) if packed else root).config
    assert isinstance(config, FolderConfig)
    if layout.photos.keys() == {""}:
        config = config.model_copy(update={"splits": None})

    for split, number in layout.photos.items():
        dataset = opened(config, split)
        assert len(dataset) == number
        for index in range(number):
            sample = dataset[index]
            i = int(re.findall(r"\d", sample.name)[-1])
            assert sample.image.shape[2] == 3
            if layout.classes is not None:
                assert sample.labels is not None
                expected = np.array(layout.classes)[truth(i)]
                step = sample.labels.shape[0] // expected.shape[0]
                agree = (sample.labels[step // 2 :: step, step // 2 :: step] == expected).mean()
                assert agree >= (1 if step == 1 else 0.99)
            else:
                assert sample.depth is not None or sample.values is not None


@pytest.mark.parametrize("kind", ["masks", "depth"])
@pytest.mark.parametrize(
    "array", [np.full((8, 8), "a"), np.ones((8, 8), complex), np.zeros((8, 8, 0))], ids=["text", "complex", "empty"]
)
def test_discover__survives_arrays_that_hold_no_numbers(kind: str, array: Any, tmp_path: Path) -> None:
    (tmp_path / kind).mkdir()
    for i in range(4):
        save(tmp_path / f"images/{i}.png", photo(i))
        np.save(tmp_path / f"{kind}/{i}.npy", truth(i) * 1000.0 if kind == "depth" else truth(i))
    np.save(tmp_path / f"{kind}/2.npy", array)

    assert str(getattr(discover(tmp_path).config, kind)) == f"{kind}/{{name}}.npy"


def test_discover__does_not_guess_the_unit_of_floats(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"images/{i}.png", photo(i))
        (tmp_path / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / f"depth/{i}.npy", (truth(i) * 1000.0 + 500).astype(np.float32))

    found = discover(tmp_path)

    assert found.config == found.config.model_copy(update={"depth_scale_m": 1.0})
    assert any("can hardly be; set depth_scale_m to 0.001 if it is in millimetres" in text for text in found.remarks)
