"""KITTI depth, the Eigen split: outdoor depth from a laser (Geiger et al., 2013; Eigen, Puhrsch and Fergus, 2014)."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from densevit.data.base import DataPath, PublicConfig
from densevit.data.files import FileDataset
from densevit.data.sample import ALL_TARGETS, Target
from densevit.errors import DataError
from densevit.io import read_depth, read_lines, walk

_PHOTOS = ("", "raw", "input", "kitti_raw", "raw_data")
_DEPTHS = tuple(
    f"{top}{part}" for top in ("", "data_depth_annotated/", "gt_depth/", "depth/") for part in ("train", "val", "")
)
_DEPTH = re.compile(
    r"(?P<drive>(?P<date>\d{4}_\d\d_\d\d)_[^/]+)/proj_depth/groundtruth/(?P<camera>image_0[23])/(?P<file>\d+\.png)"
)
_SIDES = {"l": "image_02", "2": "image_02", "r": "image_03", "3": "image_03"}


class KittiConfig(PublicConfig):
    """KITTI depth.

    Attributes:
        split: of Eigen, where val is its test split; without a list, the folders of depth maps.
        split_file: list of the images, instead of the usual one in the root. A line has the paths of image and depth
            below their folders (and a focal length, which is not used), or a drive, a frame and a side, l or r. Images
            without depth are left out.
    """

    layout: ClassVar[str] = (
        "the raw drives <date>/<drive>/image_02/data/*.png in the root, raw/ or input/; the depth "
        "<drive>/proj_depth/groundtruth/image_02/*.png in train/ and val/ of the root, of data_depth_annotated/ or of "
        "gt_depth/; and a list kitti_eigen_train_files_with_gt.txt or kitti_eigen_test_files_with_gt.txt, or "
        "split_file, without which train/ and val/ are the splits"
    )
    kind: Literal["kitti"] = "kitti"
    split: Literal["train", "val"] = "train"
    split_file: DataPath | None = None


def open_kitti(config: KittiConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> FileDataset:
    """Images and sparse depth of a split: 16-bit PNG in steps of 1/256 m, 0 where nothing was measured.

    Raises:
        DataError: if the layout differs, or an image is missing.
    """
    part = {"train": "train", "val": "test"}[config.split]
    names = (f"kitti_eigen_{part}_files_with_gt.txt", f"kitti_eigen_{part}.txt", f"eigen_{part}_files.txt")
    places = [config.root / top / name for top in ("", "splits") for name in names]
    lists = config.split_file or next((path for path in places if path.is_file()), None)
    if lists is None:
        images, depths = _all_pairs(config)
    else:
        lines = [_pair(line, lists) for line in read_lines(lists, "photo and depth map")]
        pairs = [(photo, depth) for photo, depth in lines if depth is not None]
        images, depths = find_pairs(config, pairs, lists, _PHOTOS, _DEPTHS)
    metres = partial(read_depth, unit_m=1 / 256)
    sample_names = ["_".join((image.parts[-4], image.parent.parent.name, image.stem)) for image in images]
    return FileDataset(images, depths=depths if "depth" in targets else None, read_depth=metres, names=sample_names)


def _all_pairs(config: KittiConfig) -> tuple[list[Path], list[Path]]:
    """The photos of all depth maps in the folder of the split; those without a photo are left out."""
    top = config.find([f"{top}{config.split}" for top in ("data_depth_annotated/", "gt_depth/", "depth/", "")])
    places = [*_PHOTOS]
    pairs = []
    for name in sorted(walk(top).files):
        if (found := _DEPTH.fullmatch(name)) is not None:
            photo = "{date}/{drive}/{camera}/data/{file}".format_map(found.groupdict())
            pairs.extend([(photo, name)] if _find(config.root, photo, places) is not None else [])
    if not pairs:
        raise config.incomplete(f"{top} has no depth map of a photo below {config.root}")
    return find_pairs(config, pairs, top, _PHOTOS, [f"{top.relative_to(config.root).as_posix()}/"])


def _pair(line: str, lists: Path) -> tuple[str, str | None]:
    """Relative paths of image and depth map; None for the depth where the list says so."""
    words = line.split()
    if len(words) == 3 and words[2] in _SIDES:
        drive, frame, side = words
        camera, name = _SIDES[side], f"{int(frame):010d}.png" if frame.isdecimal() else f"{frame}.png"
        depth = f"{drive.rpartition('/')[2]}/proj_depth/groundtruth/{camera}/{name}"
        return f"{drive}/{camera}/data/{name}", depth
    if len(words) < 2:
        raise DataError(f"{lists} has the line {line!r}; photo and depth map are accepted, or drive, frame and side")
    return words[0], None if words[1] == "None" else words[1]


def find_pairs(
    config: PublicConfig, pairs: list[tuple[str, str]], lists: Path, photos: Sequence[str], depths: Sequence[str]
) -> tuple[list[Path], list[Path]]:
    """Images and depth maps that a list names, each below the first of some folders of the root that has it.

    An image without its depth map is left out: the usual lists of KITTI have some.

    Raises:
        DataError: if an image is missing, or all depth maps are.
    """
    images, depth_maps = [], []
    photo_places, depth_places = list(photos), list(depths)
    for photo, depth in pairs:
        image = _find(config.root, photo.strip("/"), photo_places)
        if image is None:
            raise config.incomplete(f"{lists} lists {photo!r}, which is not below {config.root}")
        depth_map = _find(config.root, depth.strip("/"), depth_places)
        if depth_map is not None:
            images.append(image)
            depth_maps.append(depth_map)
    if not images:
        raise config.incomplete(f"{config.root} has none of the {len(pairs)} depth maps of {lists}")
    return images, depth_maps


def _find(root: Path, name: str, places: list[str]) -> Path | None:
    """The file in the first place that has it, which is moved to the front: it nearly always has the next one too."""
    for place in places:
        path = root / place / name
        if path.is_file():
            places.remove(place)
            places.insert(0, place)
            return path
        jpeg = path.with_suffix(".jpg")  # the drives are often stored as JPEG
        if jpeg != path and jpeg.is_file():
            return jpeg
    return None
