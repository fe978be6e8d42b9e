"""Tiny copies of the layouts of public data sets, one writer per row of ``DATASETS``."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit.data.class_names import CAMVID, CAMVID_COLOURS, CITYSCAPES_IDS, COCO_STUFF_GAPS

SIZE = (6, 8)


def stored(low: int, high: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random numbers of a mask, the corner 255."""
    labels = np.random.default_rng(seed).integers(low, high, SIZE, dtype=np.uint8)
    labels[0, 0] = 255
    return labels


def save(array: NDArray[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def photo(path: Path, seed: int = 0) -> None:
    save(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8), path)


def folder(root: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        photo(root / "images" / split / "a.png")
        save(stored(0, 3), root / "masks" / split / "a.png")
        save(np.full(SIZE, 1500, np.uint16), root / "depth" / split / "a.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["a", "b", "c"]}))
    return {"root": root}


def python(root: Path) -> dict[str, Any]:
    return {"factory": "tests.contract.fakes:make_samples", "arguments": {"length": 2}}


def ade20k(root: Path) -> dict[str, Any]:
    for split in ("training", "validation"):
        photo(root / "ADEChallengeData2016" / "images" / split / "ADE_00000001.jpg")
        save(stored(0, 151), root / "ADEChallengeData2016" / "annotations" / split / "ADE_00000001.png")
    return {"root": root}


def camvid(root: Path) -> dict[str, Any]:
    for split in ("train", "val", "test"):
        photo(root / split / "0001TP_006690.png")
        save(stored(0, 12), root / f"{split}annot" / "0001TP_006690.png")
    return {"root": root}


def camvid_colours(root: Path) -> dict[str, Any]:
    """The original masks: every colour occurs, and void."""
    colours = [colour for _, colour, _ in CAMVID_COLOURS] + [(0, 0, 0)]
    for split in ("train", "val", "test"):
        photo(root / split / "0001TP_006690.png")
        pixels = np.array(colours, np.uint8)[np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % len(colours)]
        save(pixels, root / f"{split}_labels" / "0001TP_006690_L.png")
    return {"root": root}


def camvid_expected() -> NDArray[np.int32]:
    final = [CAMVID.index(name) for _, _, name in CAMVID_COLOURS] + [255]
    return np.array(final)[np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % len(final)]


def cityscapes(root: Path, *, train_ids: bool = False) -> dict[str, Any]:
    for split, city in (("train", "aachen"), ("val", "frankfurt"), ("train_extra", "bayreuth")):
        stem = f"{city}_000000_000019"
        photo(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        kind = "gtCoarse" if split == "train_extra" else "gtFine"
        save(stored(0, 34), root / kind / split / city / f"{stem}_{kind}_labelIds.png")
        if train_ids:
            save(stored(0, 19), root / kind / split / city / f"{stem}_{kind}_labelTrainIds.png")
    return {"root": root}


def cityscapes_expected() -> NDArray[np.int32]:
    raw = stored(0, 34)
    return np.vectorize(lambda v: CITYSCAPES_IDS.index(v) if v in CITYSCAPES_IDS else 255)(raw)


def coco_stuff(root: Path, *, train_ids: bool = False) -> dict[str, Any]:
    for split in ("train2017", "val2017"):
        photo(root / "images" / split / "000000000009.jpg")
        raw = stored(0, 182)
        raw[np.isin(raw, COCO_STUFF_GAPS)] = 255
        name = "000000000009_labelTrainIds.png" if train_ids else "000000000009.png"
        save(stored(0, 171) if train_ids else raw, root / "annotations" / split / name)
    return {"root": root}


def coco_stuff_expected() -> NDArray[np.int32]:
    raw = stored(0, 182).astype(np.int32)
    ids = [number for number in range(182) if number not in COCO_STUFF_GAPS]
    return np.vectorize(lambda v: ids.index(v) if v in ids else 255)(raw)


def kitti(root: Path) -> dict[str, Any]:
    drive = "2011_09_26/2011_09_26_drive_0002_sync"
    name = drive.split("/")[1]
    for number, part in ((69, "train"), (54, "val")):
        photo(root / "raw" / drive / "image_02" / "data" / f"{number:010d}.png")
        sparse = np.zeros(SIZE, np.uint16)
        sparse[2, 3] = 256 * 10 + 128
        truth = root / "data_depth_annotated" / part / name / "proj_depth" / "groundtruth" / "image_02"
        save(sparse, truth / f"{number:010d}.png")
        listed = f"{drive}/image_02/data/{number:010d}.png"
        depth = f"{name}/proj_depth/groundtruth/image_02/{number:010d}.png"
        file = {"train": "train", "val": "test"}[part]
        (root / f"kitti_eigen_{file}_files_with_gt.txt").write_text(
            f"{listed} {depth} 721.5377\n{drive}/image_02/data/0000000001.png None 721.5377\n"
        )
    return {"root": root}


def nyuv2(root: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        photo(root / "images" / split / "0001.jpg")
        save(stored(0, 40), root / "masks" / split / "0001.png")
        save(np.full(SIZE, 2500, np.uint16), root / "depth" / split / "0001.png")
    return {"root": root}


def nyuv2_official(root: Path) -> dict[str, Any]:
    """The files of MATLAB: three photos, of which the second is for testing."""
    import h5py
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = rng.integers(0, 256, (3, 3, SIZE[1], SIZE[0]), dtype=np.uint8)
        file["depths"] = rng.uniform(1, 9, (3, SIZE[1], SIZE[0])).astype(np.float32)
        labels = rng.integers(0, 895, (3, SIZE[1], SIZE[0])).astype(np.uint16)
        labels[:, 0, 0] = 255
        file["labels"] = labels
    savemat(root / "splits.mat", {"trainNdxs": [[1], [3]], "testNdxs": [[2]]})
    savemat(root / "classMapping40.mat", {"mapClass": [np.arange(894) % 40 + 1]})
    return {"root": root}


def nyuv2_listed(root: Path) -> dict[str, Any]:
    for part, place in (("train", "sync"), ("test", "official_splits/test")):
        photo(root / place / "kitchen" / "rgb_00045.jpg")
        save(np.full(SIZE, 2500, np.uint16), root / place / "kitchen" / "sync_depth_00045.png")
        lines = "kitchen/rgb_00045.jpg kitchen/sync_depth_00045.png 518.8579\n"
        (root / f"nyudepthv2_{part}_files_with_gt.txt").write_text(lines)
    return {"root": root}


def pascal_voc(root: Path) -> dict[str, Any]:
    top = root / "VOCdevkit" / "VOC2012"
    (top / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, name in (("train", "2007_000032"), ("val", "2007_000033"), ("trainval", "2007_000032")):
        photo(top / "JPEGImages" / f"{name}.jpg")
        image = Image.fromarray(stored(0, 21), "P")
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
        (top / "SegmentationClass").mkdir(exist_ok=True)
        image.save(top / "SegmentationClass" / f"{name}.png")
        (top / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{name}\n")
    photo(top / "JPEGImages" / "2008_000002.jpg")
    save(stored(0, 21, 1), top / "SegmentationClassAug" / "2008_000002.png")
    lines = "2007_000032\n/JPEGImages/2008_000002.jpg /SegmentationClassAug/2008_000002.png\n"
    (top / "ImageSets" / "Segmentation" / "trainaug.txt").write_text(lines)
    return {"root": root}


def pascal_context(root: Path) -> dict[str, Any]:
    top = root / "VOCdevkit" / "VOC2010"
    (top / "ImageSets" / "SegmentationContext").mkdir(parents=True)
    for split in ("train", "val"):
        photo(top / "JPEGImages" / f"2008_00000{len(split)}.jpg")
        save(stored(0, 60), top / "SegmentationClassContext" / f"2008_00000{len(split)}.png")
        (top / "ImageSets" / "SegmentationContext" / f"{split}.txt").write_text(f"2008_00000{len(split)}\n")
    return {"root": root}


def make_samples(length: int) -> Any:
    """A user's data set."""
    from densevit.data import ClassTable, Sample

    class Samples:
        classes = ClassTable(("a", "b", "c"))

        def __len__(self) -> int:
            return length

        def __getitem__(self, index: int, /) -> Sample:
            if index >= length:
                raise IndexError(index)
            image = np.full((*SIZE, 3), index, np.uint8)
            return Sample(f"s{index}", image, stored(0, 3).astype(np.int32), np.ones(SIZE, np.float32))

    return Samples()


FAKES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "folder": folder,
    "python": python,
    "ade20k": ade20k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco_stuff": coco_stuff,
    "kitti": kitti,
    "nyuv2": nyuv2,
    "pascal_context": pascal_context,
    "pascal_voc": pascal_voc,
}
"""A fake of every row of ``DATASETS``; each gives the config's keys but ``kind`` and ``split``."""


def pack(folder: Path, archive: Path) -> Path:
    """The content of a folder as a zip archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())
    return archive
