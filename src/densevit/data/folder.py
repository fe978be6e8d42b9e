"""Data sets in plain folders: ``root/<images|masks|depth|values>/<split>/``, or any two folders of equal stems."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from densevit.data.base import DataConfig, DataPath, contents
from densevit.data.class_list import check_palette, default_ignore, read_class_list, with_palette
from densevit.data.coco import CocoMasks, read_coco, read_coco_classes
from densevit.data.files import FileDataset, find_bands, match, name_key, same_size
from densevit.data.labelme import parse_labelme, read_labelme
from densevit.data.labels import LabelRule, read_mask
from densevit.data.polygons import background_index, warn_once
from densevit.data.sample import ALL_TARGETS, ClassTable, Rgb, Target, TargetFolder
from densevit.data.splits import SplitConfig
from densevit.errors import DataError
from densevit.io import find_images, read_bands, read_depth
from densevit.limits import limits, too_much
from densevit.types import Size

TARGET_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".pfm", ".bmp", ".gif")
DEPTH_SUFFIXES = (*TARGET_SUFFIXES, ".exr")


class FolderConfig(DataConfig):
    """The place of a data set, and how its files are read.

    Attributes:
        root: folder or zip archive with ``images/`` and any of ``masks/``, ``depth/`` and ``values/`` (.npy of
            (H, W, K) floats for regression), each with one folder per split, and classes.json.
        split: name of the split's folder; None if the files are directly in ``images/`` and the others.
        images, masks, depth, values: these folders themselves, instead of ``root`` and ``split``; or templates of file
            names below the root, such as ``{split}/{name}_mask.png`` (see ``templates``). ``masks`` may be a file of
            COCO annotations, or a folder of labelme's .json files.
        pairs: CSV file with the columns image and any of mask, depth, values and split; paths are relative to it.
        splits: how photos are divided that have no folders, lists or column for it.
        tasks: Label Studio's JSON export, which says which photo the ``{task}`` of a mask's name is.
        classes: class names, or the number of unnamed classes, instead of classes.json.
        palette: colour of every class in RGB masks, instead of ``palette`` in classes.json.
        class_values: stored number of every class, such as 0, 128 and 255, where they do not count from 0.
        stray_values: whether numbers in masks that no class has are refused, or taken for the nearest class.
        mask_format: whether masks hold class numbers or colours; "auto" takes numbers where a mask has one channel.
        unknown_colours: whether colours that the palette lacks are refused or ignored.
        background: class of pixels that no polygon covers (COCO, labelme); None ignores them.
        ignore_index: value of pixels without a class, unless classes.json has one; with more than 255 classes, 65535
            instead of 255.
        ignore_values: further numbers in masks that mean no class.
        reduce_zero_label: masks count classes from 1 and 0 is no class, as in ADE20K.
        depth_unit_m: metres per unit of an integer depth map; 0.001 for millimetres.
        depth_scale_m: metres per unit of a depth map of floats.
        depth_invalid: stored depths that mean no measurement, besides 0, NaN and infinity.
        normals: values are surface normals (x, y, z) in the camera's axes; a flip then negates x.
        bands: the bands of an image that the network takes, counted from 1, for images of other than three channels.
        full_scale: stored value that is 1 for the network, with ``bands``; by default the largest of 8 or 16 bits.
    """

    kind: Literal["folder"] = "folder"
    root: DataPath | None = None
    split: str | None = None
    images: DataPath | None = None
    masks: DataPath | None = None
    depth: DataPath | None = None
    values: DataPath | None = None
    pairs: DataPath | None = None
    splits: SplitConfig | None = None
    tasks: DataPath | None = None
    classes: tuple[str, ...] | int | None = None
    palette: tuple[Rgb, ...] | None = None
    class_values: tuple[int, ...] | None = None
    stray_values: Literal["refuse", "nearest"] = "refuse"
    mask_format: Literal["auto", "index", "colour"] = "auto"
    unknown_colours: Literal["refuse", "ignore"] = "refuse"
    background: str | None = None
    ignore_index: int = 255
    ignore_values: tuple[int, ...] = ()
    reduce_zero_label: bool = False
    depth_unit_m: float = Field(default=0.001, gt=0)
    depth_scale_m: float = Field(default=1.0, gt=0)
    depth_invalid: tuple[float, ...] = ()
    normals: bool = False
    bands: tuple[PositiveInt, ...] | None = None
    full_scale: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.root is None and self.images is None:
            raise ValueError("give root (a folder with images/ and masks/ or depth/), or images and masks")
        if self.full_scale is not None and self.bands is None:
            raise ValueError("full_scale belongs to bands, which is not set; name the bands that the network takes")
        given = 1 if self.classes is None else self.classes
        number = given if isinstance(given, int) else len(given)
        if number < 1:
            raise ValueError(f"classes is {self.classes}; names, or a number of 1 and more, are accepted")
        if number > limits().classes:
            raise ValueError(too_much(f"there are {number} classes", "classes"))
        if self.palette is not None:
            check_palette(self.palette)
        return self

    def rule(self, classes: ClassTable | None, **options: Any) -> LabelRule:
        """What the numbers in the masks mean, after the options of the config."""
        options |= {"ignored": self.ignore_values, "reduce_zero": self.reduce_zero_label}
        return super().rule(classes, ignore_index=self.ignore_index, **options)

    def folder(self, kind: Literal["images"] | TargetFolder) -> Path | None:
        """The folder of one kind of file, or for masks a file of COCO annotations; None if there is none."""
        given: Path | None = getattr(self, kind)
        if given is not None or self.root is None:
            return given
        folder = self.root / kind
        if self.split is not None:
            folder /= self.split
        if folder.is_dir() or kind == "images":
            return folder
        return self._coco_file(self.root) if kind == "masks" else None

    def _coco_file(self, root: Path) -> Path | None:
        """The first of the usual places that has COCO annotations of this split."""
        names = (self.split, f"instances_{self.split}", f"annotations_{self.split}")
        paths = [root / folder / f"{name}.json" for folder in ("annotations", "") for name in names]
        if self.split is None:
            paths = [root / "annotations.json"]
        return next((path for path in paths if path.is_file()), None)


class FolderDataset(FileDataset):
    """Images with masks, depth maps and value maps of the same stem, read on access."""

    def __init__(self, config: FolderConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> None:
        self.config = config
        self.coco: CocoMasks | None = None
        self.coco_entries: list[str] = []
        self.read_shapes: partial[NDArray[np.int32]] | None = None
        folder = config.folder("images")
        if folder is None or not folder.is_dir():
            raise DataError(_missing_folder(config, folder))
        if config.split is None and config.images is None and {path.is_dir() for path in folder.iterdir()} == {True}:
            raise DataError(f"{config.root} has splits and none was named; splits found: {_splits(folder)}; name one")
        images = find_bands(folder) if config.bands is not None else find_images([folder])
        super().__init__(images, normals=config.normals)
        if config.bands is not None:
            self.read_image = partial(read_bands, bands=config.bands, full_scale=config.full_scale)
        if "labels" in targets:
            self._find_masks(folder)
        if "depth" in targets:
            self.depths = match(self.images, config.folder("depth"), "depth map", DEPTH_SUFFIXES)
        if "values" in targets:
            self.values = match(self.images, config.folder("values"), "value map", TARGET_SUFFIXES)
        self.read_depth = partial(
            read_depth, unit_m=config.depth_unit_m, scale=config.depth_scale_m, invalid=config.depth_invalid
        )

    @property
    def has_shapes(self) -> bool:
        """Whether the masks are drawn from shapes, of COCO or labelme."""
        return self.coco is not None or self.read_shapes is not None

    def labels(self, index: int, size: Size | None = None) -> NDArray[np.int32]:
        """The mask of an image in class ids; with COCO, all masks are in one file."""
        if self.masks is None or not self.has_shapes:
            return super().labels(index)
        mask = self.masks[index]
        if self.coco is not None:
            entry = self.coco_entries[index]
            stored = self.coco.labels(entry, self._size(index, self.coco.photos[entry].size, size))
        else:
            assert self.read_shapes is not None
            stored = self.read_shapes(mask, size=self._size(index, parse_labelme(mask).size, size))
        return self.rule(stored, str(mask))

    def _size(self, index: int, claimed: Size | None, photo: Size | None) -> Size:
        """The size of a mask: that of the photo, with which the claimed one is compared before anything is drawn."""
        if photo is None and claimed is not None and claimed[0] * claimed[1] <= limits().small_pixels:
            return claimed  # without reading the photo
        if photo is None:
            height, width = self.read_image(self.images[index]).shape[:2]
            photo = (height, width)
        if claimed is not None and self.masks is not None:
            same_size(photo, claimed, self.images[index], self.masks[index])
        return photo

    def _find_masks(self, folder: Path) -> None:
        """Set ``masks``, ``rule`` and ``read_mask`` or ``coco`` by the kind of masks in the data set."""
        config, place = self.config, self.config.folder("masks")
        if place is None:
            return
        classes = read_classes(config)
        if place.suffix.lower() == ".json":
            coco = read_coco(place, classes, config.background)
            entries = coco_entries(self.images, coco)
            left_out = [path for path in self.images if path.name not in entries]
            self.images = [path for path in self.images if path.name in entries]
            if not self.images:
                raise DataError(
                    f"{place} lists none of the photos in {folder}; its file_name must be theirs; check both"
                )
            if left_out:
                warn_once(f"{len(left_out)} photos in {folder} are not listed in {place} and left out")
            for warning in coco.warnings:
                warn_once(f"{place}: {warning}")
            self.rule, self.masks = config.rule(coco.classes), [place] * len(self.images)
            self.coco, self.coco_entries = coco, [entries[path.name] for path in self.images]
            return
        drawn = is_labelme(place, folder, self.images)
        self.masks = match(self.images, place, "mask", (".json",) if drawn else TARGET_SUFFIXES)
        self.rule = config.rule(classes)
        if drawn:
            if classes is None:
                raise DataError(
                    f"{place} has files of labelme, but the classes are not known; add classes.json, or set classes to "
                    "their names"
                )
            background = background_index(classes, config.background)
            self.read_shapes = partial(read_labelme, classes=classes, background=background)
        else:
            palette = () if classes is None else classes.palette
            unknown = self.rule.ignore_index if config.unknown_colours == "ignore" else None
            self.read_mask = partial(read_mask, palette=palette, mode=config.mask_format, unknown=unknown)


def is_labelme(masks: Path, photos_folder: Path, photos: Iterable[Path]) -> bool:
    """Whether a folder of masks holds labelme's files: more photos have one than have an image as their mask.

    Other .json files, such as notes, do not count. Where the photos themselves are in the folder, as labelme leaves
    them, they are no masks.
    """
    if not masks.is_dir():
        return False
    stems = {name_key(path.stem) for path in photos}
    found = {
        suffix: len(stems & {name_key(path.stem) for path in masks.iterdir() if path.suffix.lower() in accepted})
        for suffix, accepted in (("json", {".json"}), ("image", {*TARGET_SUFFIXES}))
    }
    return found["json"] > (0 if masks == photos_folder else found["image"])


def coco_entries(images: Sequence[Path], coco: CocoMasks) -> dict[str, str]:
    """Name of an image -> its ``file_name`` in the annotations, which may have folders, also with backslashes."""
    named: dict[str, list[str]] = {}
    for entry in coco.photos:
        named.setdefault(name_key(PureWindowsPath(entry).name), []).append(entry)
    entries = {}
    for path in images:
        matches = named.get(name_key(path.name), [])
        if len(matches) > 1:  # annotations of images in several folders: the entry of this folder is meant
            ends = [entry for entry in matches if path.as_posix().endswith(f"/{PureWindowsPath(entry).as_posix()}")]
            matches = sorted(ends, key=len)[-1:] or matches
        if len(matches) > 1:
            raise DataError(
                f"{coco.path} lists {path.name} {len(matches)} times ({', '.join(matches[:4])}), and {path.parent} "
                "does not tell which is meant; photos in a folder of one of these names are accepted; move them there"
            )
        if matches:
            entries[path.name] = matches[0]
    return entries


def class_table(config: FolderConfig) -> ClassTable | None:
    """The classes of the data set after merging and dropping, without reading its images; raises as ``classes_of``."""
    classes, place = read_classes(config), config.folder("masks")
    if place is not None and place.suffix.lower() == ".json" and place.is_file():
        classes = read_coco_classes(place, classes, config.background)
    return config.rule(classes).classes


def read_classes(config: FolderConfig) -> ClassTable | None:
    """The classes of the config, otherwise of ``root/classes.json``; None if neither names them.

    Raises:
        DataError: if the file is not a class list.
    """
    offset = int(config.reduce_zero_label)
    if config.classes is not None:
        names = config.classes
        named = tuple(f"class {i}" for i in range(names)) if isinstance(names, int) else names
        ignore = config.ignore_index if config.ignore_index != 255 else default_ignore(len(named) + offset)
        return with_palette(ClassTable(named, ignore), config.palette, "the config")
    path = config.root / "classes.json" if config.root else None
    return read_class_list(path, config.palette, offset) if path is not None and path.is_file() else None


def _missing_folder(config: FolderConfig, images: Path | None) -> str:
    root = config.root
    if root is not None and root.is_dir() and (root / "images").is_dir():
        return f"{root} has no split {config.split!r}; splits found: {_splits(root / 'images')}"
    held = f" (it has {contents(root)})" if root is not None and root.is_dir() else ""
    return (
        f"there is no folder {images}; a data set needs images/<split> and masks/<split> or depth/<split> in its "
        f"root{held}"
    )


def _splits(images: Path) -> str:
    return ", ".join(sorted(path.name for path in images.iterdir() if path.is_dir())) or "none"
