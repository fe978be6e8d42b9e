"""``densevit predict --annotations``: what people correct, and train on again."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from densevit.checkpoints.native import read_header
from densevit.data.folder import FolderDataset
from densevit.data.folder_config import FolderConfig
from densevit.inference.annotations import LabelSet
from densevit.io import read_labels
from densevit.tasks import Segmentation
from tests.e2e.runs import write_run
from tests.e2e.scenes import CLASSES, recipe
from tests.layouts import coco, labelme, photo, save

PALETTE = LabelSet.of(Segmentation(classes=CLASSES)).colours
MASKS = {"coco": "coco/annotations.json", "labelme": "labelme", "cvat": "cvat/SegmentationClass"}


@pytest.fixture
def photos(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset / "images" / "val", tmp_path / "photos"))


@pytest.fixture
def predict(cli, trained, photos, tmp_path):
    """``densevit predict`` of the photos with the trained model."""
    return lambda *arguments: cli("predict", photos, "--out", tmp_path / "out", "--model", trained, *arguments)


def everything(*extra: str) -> tuple[str, ...]:
    kinds = [argument for kind in MASKS for argument in ("--annotations", kind)]
    return (*kinds, "--head", "setr,depth", *extra)


def test_annotations__of_all_kinds_are_the_labels_and_train_again(predict, cli, photos, tmp_path):
    result = predict(*everything())

    assert result.code == 0, result.err
    for kind, masks in MASKS.items():
        data = {"images": photos, "masks": tmp_path / "out" / masks, "classes": CLASSES}
        data |= {"palette": PALETTE} if kind == "cvat" else {}
        samples = FolderDataset(FolderConfig.parse(data))
        for index, path in enumerate(sorted(photos.iterdir())):
            written = read_labels(tmp_path / "out" / f"{path.stem}.setr.labels.png")
            assert (samples[index].labels == written).all(), (kind, path)
        run = recipe(photos, "setr", iterations=2)
        run["sources"][0] |= {split: FolderConfig.parse(data).plain() for split in ("train", "val")}
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(run))
        trained = cli("train", "--config", tmp_path / f"{kind}.yaml", "--out", tmp_path / kind, "--no-check")
        assert trained.code == 0, trained.err


def test_annotations__with_resume_hold_the_photos_of_earlier_commands(predict, photos, tmp_path):
    predict(*everything())
    first = (tmp_path / "out" / "coco" / "annotations.json").read_bytes()
    for name in ("coco", "labelme", "cvat"):
        shutil.rmtree(tmp_path / "out" / name)

    result = predict(*everything("--resume"))

    assert "0 predicted, 3 skipped" in result.err
    assert (tmp_path / "out" / "coco" / "annotations.json").read_bytes() == first
    assert len(list((tmp_path / "out" / "labelme").glob("*.json"))) == 3


def test_annotations__of_the_others_do_not_change_when_a_photo_fails(predict, photos, tmp_path):
    (photos / "000.png").write_bytes(b"no photo")  # before the others, so that it has the first id

    result = predict("--annotations", "coco", "--head", "setr")

    images = json.loads((tmp_path / "out" / "coco" / "annotations.json").read_text())["images"]
    assert (result.code, [(row["id"], row["file_name"]) for row in images]) == (
        2,
        [(2, "100.png"), (3, "101.png"), (4, "102.png")],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--annotations", "cocoa", "--head", "setr"),
            "there are no annotations of kind 'cocoa'; did you mean 'coco'?",
        ),
        (
            ("--annotations", "coco", "--head", "setr,dpt,depth"),
            "--annotations are of one head, but 2 heads with classes run (setr, dpt); name one with --head",
        ),
        (
            ("--annotations", "coco", "--head", "depth"),
            "--annotations are of one head, but no head with classes runs; name one with --head",
        ),
    ],
)
def test_annotations__are_refused_before_any_work(predict, tmp_path, arguments, message):
    result = predict(*arguments)

    assert (result.code, result.err) == (2, f"densevit: {message}\n")
    assert not (tmp_path / "out").exists()


def test_annotations__of_a_streamed_photo_are_refused(predict, tmp_path):
    pytest.importorskip("rasterio")
    result = predict("--annotations", "coco", "--head", "setr", "--stream")

    assert result.code == 2
    assert "is streamed, because it is large or georeferenced, and annotations are for photos in memory" in result.err


def test_annotations__that_were_corrected_are_kept(predict, tmp_path):
    predict("--annotations", "labelme", "--head", "setr")
    corrected = tmp_path / "out" / "labelme" / "101.json"
    corrected.write_text("{}")

    refused = predict("--annotations", "labelme", "--head", "setr")

    assert refused.code == 2
    assert f"{corrected} exists, and densevit did not write what is there now" in refused.err
    assert corrected.read_text() == "{}"
    assert predict("--annotations", "labelme", "--head", "setr", "--overwrite").code == 0
    assert corrected.read_text() != "{}"


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_annotations__of_some_classes_are_understood_without_options(cli, tmp_path, kind):
    for number in range(4):
        save(tmp_path / "photos" / f"{number}.png", photo(number))
        (tmp_path / "drafts").mkdir(exist_ok=True)
        (tmp_path / "drafts" / f"{number}.json").write_text(labelme(number, f"{number}.png"))
    (tmp_path / "all.json").write_text(coco({number: f"{number}.png" for number in range(4)}))
    masks = tmp_path / ("all.json" if kind == "coco" else "drafts")
    given = ("--images", tmp_path / "photos", "--masks", masks)

    examined = cli("doctor", *given, "--write", tmp_path / "data.yaml")
    config = write_run(tmp_path / "run.yaml", None, pictures=0)
    trained = cli("train", "--config", config, *given, "--out", tmp_path / "run")

    assert (examined.code, trained.code) == (0, 0), examined.out + trained.err
    assert "which is the class 'background'" in trained.err
    names = ("background", "cell", "nucleus")
    assert read_header(tmp_path / "run" / "model.safetensors").tasks["main"].classes == names
    described = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert (described["background"], tuple(described["classes"])) == ("background", names)
