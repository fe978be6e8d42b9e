import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import FolderConfig, FolderDataset, classes_of
from densevit.errors import DataError

SIZE = (4, 6)


def region(*columns: int) -> NDArray[np.uint8]:
    """255 in some columns, 0 elsewhere."""
    pixels = np.zeros(SIZE, np.uint8)
    pixels[:, list(columns)] = 255
    return pixels


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def row_of(config: dict[str, Any], index: int = 0) -> list[int]:
    """The first row of a mask."""
    labels = FolderDataset(FolderConfig.parse(config)).labels(index)
    assert labels.shape == SIZE
    return [int(label) for label in labels[0]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photos a_b and c; a_b with weed in columns 0 and 1, and crop in 1 and 2."""
    for name in ("a_b", "c"):
        save(tmp_path / "images" / f"{name}.png", np.zeros((*SIZE, 3), np.uint8))
    save(tmp_path / "masks" / "a_b_weed.png", region(0, 1))
    save(tmp_path / "masks" / "a_b_crop.png", region(1, 2))
    return tmp_path


def config(root: Path, **facts: Any) -> dict[str, Any]:
    return {"root": root, "images": "images/{name}.*", "masks": "masks/{name}_{class}.*", **facts}


def test_files_of_classes__are_merged_with_later_ones_on_top(root: Path) -> None:
    assert row_of(config(root)) == [1, 1, 0, 255, 255, 255]  # crop is 0; weed comes later


def test_classes__are_those_of_the_names_after_the_background(root: Path) -> None:
    facts = FolderConfig.parse(config(root, background="soil"))
    table = classes_of(facts)
    assert table is not None
    assert table.names == ("soil", "crop", "weed")
    assert row_of(config(root, background="soil")) == [2, 2, 1, 0, 0, 0]


def test_classes__of_other_splits_count_too(root: Path) -> None:
    for split, name in (("train", "weed"), ("val", "crop")):
        save(root / split / "x.png", np.zeros((*SIZE, 3), np.uint8))
        save(root / split / f"x_{name}_mask.png", region(0))
    facts = {"root": root, "images": "{split}/{name}.png", "masks": "{split}/{name}_{class}_mask.png"}
    assert row_of({**facts, "split": "train"})[0] == 1


def test_classes__of_names_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEVIT_LIMITS", "classes=1")
    with pytest.raises(DataError, match=r"the names of the masks have 2 classes, .* DENSEVIT_LIMITS=classes=NUMBER"):
        row_of(config(root))


def test_classes__of_the_config_give_the_order(root: Path) -> None:
    assert row_of(config(root, classes=["weed", "crop"])) == [0, 0, 1, 255, 255, 255]


def test_class__that_is_unknown_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="has masks of 'crop' but the classes are weed, soil; add them to the classes"):
        row_of(config(root, classes=["weed", "soil"]))


def test_photos__without_a_file_are_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert FolderDataset(FolderConfig.parse(config(root))).names == ["a_b"]
    assert "1 of 2 photos have no mask in" in caplog.text


def test_region__of_another_size_is_refused(root: Path) -> None:
    save(root / "masks" / "a_b_weed.png", region(0).T)
    with pytest.raises(DataError, match=r"a_b.png is 4 x 6 but .*a_b_weed.png is 6 x 4"):
        row_of(config(root))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA", "P", "clear", "16"])
def test_region__is_what_is_not_zero_in_any_mode(root: Path, mode: str) -> None:
    image = Image.fromarray(region(0, 1) // 85)
    if mode == "clear":  # white on transparent
        image = Image.merge("RGBA", [*Image.new("RGB", image.size, "white").split(), Image.fromarray(region(0, 1))])
    elif mode == "16":
        image = Image.fromarray(region(0, 1).astype(np.uint16) * 200)
    else:
        image = Image.fromarray(region(0, 1)).convert(mode)
    image.save(root / "masks" / "a_b_weed.png")
    assert row_of(config(root)) == [1, 1, 0, 255, 255, 255]


def label_studio(root: Path, tasks: Any, *, names: tuple[str, ...] = ("photo.png",)) -> dict[str, Any]:
    """Photos with region masks as Label Studio exports them, of task 12."""
    for name in names:
        save(root / "images" / name, np.zeros((*SIZE, 3), np.uint8))
    save(root / "brush" / "task-12-annotation-3-by-1-tag-weed-0.png", region(0, 1))
    save(root / "brush" / "task-12-annotation-3-by-1-tag-weed-10.png", region(5))
    save(root / "brush" / "task-12-annotation-3-by-1-tag-dead crop-2.png", region(1, 2))
    (root / "export.json").write_text(json.dumps(tasks))
    masks = "brush/task-{task}-annotation-*-by-*-tag-{class}-*.png"
    return {"root": root, "images": "images", "masks": masks, "tasks": "export.json", "background": "soil"}


@pytest.mark.parametrize(
    ("task", "photo"),
    [
        ({"data": {"image": "/data/upload/1/ab12cd34-photo.png"}}, "photo.png"),
        ({"data": {"image": "/data/upload/1/ab12cd34-photo.png"}}, "ab12cd34-photo.png"),
        ({"data": {"image": "s3://bucket/photo.png"}}, "photo.png"),
        ({"data": {"image": "/data/local-files/?d=shots/photo.png"}}, "photo.png"),
        ({"data": {"img": "https://host/my%20photo.png?key=1"}}, "my photo.png"),
        ({"data": {"image": "/data/upload/1/ab12cd34-my_photo.png"}}, "my photo.png"),
        ({"image": "/data/upload/1/ab12cd34-photo.png", "updated_at": "2024-01-01T10:00:00.5Z"}, "photo.png"),
        ({"file_upload": "ab12cd34-photo.png", "data": {"image": 7}}, "photo.png"),
    ],
)
def test_tasks__lead_to_their_photos(tmp_path: Path, task: dict[str, Any], photo: str) -> None:
    facts = label_studio(tmp_path, [{"id": 12, **task}, {"id": 13, "data": {}}], names=(photo, "other.png"))
    assert FolderDataset(FolderConfig.parse(facts)).names == [Path(photo).stem]
    assert row_of(facts) == [2, 2, 1, 0, 0, 2]  # the classes are soil, dead crop and weed


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ({"id": 12}, "is not Label Studio's JSON export"),
        ([1], "is not Label Studio's JSON export"),
        (
            [{"id": 12, "data": {"image": "x.png"}}],
            "has 1 tasks, of which none has the name of a photo such as photo.png",
        ),
    ],
)
def test_tasks__that_do_not_fit_are_refused(tmp_path: Path, tasks: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        FolderDataset(FolderConfig.parse(label_studio(tmp_path, tasks)))
    assert reason in str(caught.value)


def test_task__of_several_photos_is_refused(tmp_path: Path) -> None:
    names = ("ab12cd34-photo.png", "ff12cd34-photo.png")
    facts = label_studio(tmp_path, [{"id": 12, "data": {"image": "photo.png"}}], names=names)
    with pytest.raises(DataError, match=r"task 12 of .* may be of .*ab12cd34-photo.png, .*ff12cd34-photo.png"):
        FolderDataset(FolderConfig.parse(facts))
