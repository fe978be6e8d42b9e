"""Data sets in plain folders: ``root/<images|masks|depth|values>/<split>/``, or any two folders of equal stems."""

from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from densevit.data.base import DataConfig, DataPath
from densevit.data.class_list import check_palette, default_ignore, read_class_list, with_palette
from densevit.data.coco import read_coco_classes
from densevit.data.files import FileDataset, find_bands, same_size
from densevit.data.labels import LabelRule, read_mask
from densevit.data.matching import DEPTH_SUFFIXES, LOSSY_SUFFIXES, TARGET_SUFFIXES, WHAT
from densevit.data.pairs import Pairs, find_pairs
from densevit.data.polygons import background_index, warn_once
from densevit.data.sample import ALL_TARGETS, ClassTable, Rgb, Target, TargetFolder
from densevit.data.shapes import LabelmeReader, ShapeReader, read_coco_files
from densevit.data.splits import SPLIT_NAMES, SplitConfig, find_split, split_key
from densevit.data.templates import is_template
from densevit.errors import DataError
from densevit.io import ZipPath, find_images, read_bands, read_depth
from densevit.limits import limits, too_much
from densevit.types import Size


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
        if self.root is None and self.images is None and self.pairs is None:
            raise ValueError("give root (a folder with images/ and masks/ or depth/), or images and masks, or pairs")
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
        """The folder or template of one kind of file, or for masks a file of COCO annotations; None if there is none."""
        given: Path | None = getattr(self, kind)
        if given is not None:
            return self.below_root(given)
        if self.root is None or self.pairs is not None:
            return None
        folder = self.root / kind
        if self.split is not None:
            names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
            folder /= find_split(self.split, names) or self.split
        if folder.is_dir() or kind == "images":
            return folder
        return self._coco_file(self.root) if kind == "masks" else None

    def below_root(self, path: Path) -> Path:
        """A path of the config: templates are relative to the root, others to it or else to the working directory."""
        if self.root is None or path.is_absolute() or isinstance(path, ZipPath):
            return path
        below = self.root / path
        return below if is_template(path) or below.exists() else path

    def _coco_file(self, root: Path) -> Path | None:
        """The first of the usual places that has COCO annotations of this split."""
        same = () if self.split is None else SPLIT_NAMES.get(split_key(self.split), ())
        splits = (self.split, *(name for name in same if name != self.split))
        names = [name.format(split) for split in splits for name in ("{}", "instances_{}", "annotations_{}")]
        paths = [root / folder / f"{name}.json" for folder in ("annotations", "") for name in names]
        if self.split is None:
            paths = [root / "annotations.json"]
        return next((path for path in paths if path.is_file()), None)


class FolderDataset(FileDataset):
    """Images with masks, depth maps and value maps, as ``find_pairs`` finds them, read on access."""

    def __init__(self, config: FolderConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> None:
        self.config = config
        self.shapes: ShapeReader | None = None
        pairs = find_pairs(config)
        if config.split is None and (splits := pairs.splits()):
            place = config.root or config.pairs or config.images
            raise DataError(f"{place} has splits and none was named; splits found: {', '.join(splits)}; name one")
        self._check(pairs)
        self.pairs = pairs.pairs
        super().__init__([], normals=config.normals)
        if config.bands is not None:
            self.read_image = partial(read_bands, bands=config.bands, full_scale=config.full_scale)
        if "labels" in targets and "masks" in pairs.missing:
            self._set_masks(pairs)
        self.images, self.names = [pair.image for pair in self.pairs], [pair.name for pair in self.pairs]
        if "depth" in targets:
            self.depths = self._files(pairs, "depth")
        if "values" in targets:
            self.values = self._files(pairs, "values")
        self.read_depth = partial(
            read_depth, unit_m=config.depth_unit_m, scale=config.depth_scale_m, invalid=config.depth_invalid
        )

    @property
    def has_shapes(self) -> bool:
        """Whether the masks are drawn from shapes, of COCO or labelme."""
        return self.shapes is not None

    def labels(self, index: int, size: Size | None = None) -> NDArray[np.int32]:
        """The mask of an image in class ids; with COCO, all masks are in one file."""
        if self.masks is None or self.shapes is None:
            return super().labels(index)
        photo, file = self.images[index], self.masks[index]
        size = self._size(index, self.shapes.claimed_size(photo, file), size)
        return self.rule(self.shapes.draw(photo, file, size), str(file))

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

    def _check(self, pairs: Pairs) -> None:
        """Refuse data without a photo, and files that claim the same place."""
        if not pairs.pairs:
            folder = self.config.folder("images")
            if folder is not None and not is_template(folder):  # both say what the folder has
                (find_bands if self.config.bands is not None else lambda folder: find_images([folder]))(folder)
            others = ", ".join(path.name for path in [*pairs.passed_over][:3])
            raise DataError(
                f"no photo matches {folder} (among {len(pairs.passed_over)} other files{others and f': {others}'}); "
                "check the template, and the folder that it is relative to"
            )
        if pairs.twins:
            other, path = pairs.twins[0]
            raise DataError(
                f"{other} and {path} have the same name up to the suffix, by which photos and targets are matched; "
                "each name may occur once; rename or remove one"
            )

    def _files(self, pairs: Pairs, kind: TargetFolder) -> list[Path] | None:
        """The first file of each photo; None if the data set has none of this kind."""
        if kind not in pairs.missing:
            return None
        wrong = {path for path, _ in pairs.case} | {*pairs.missing[kind]}
        suffixes: tuple[str, ...] = DEPTH_SUFFIXES if kind == "depth" else TARGET_SUFFIXES
        if kind == "masks" and pairs.shapes is not None:
            suffixes = (".json",)
        files = [pair.targets.get(kind, (pair.image,))[0] for pair in self.pairs]
        if kind == "masks" and pairs.shapes is None:
            wrong |= {p.image for p, file in zip(self.pairs, files, strict=True) if self._is_refused(file)}
        missing = [pair.image for pair in self.pairs if pair.image in wrong]
        if missing:
            what = WHAT[kind]
            raise DataError(
                f"{len(missing)} of {len(self.pairs)} photos have no {what} in {pairs.places[kind]}, for example "
                f"{missing[0].name}; each photo needs a {what} of the same name with one of {', '.join(suffixes)}"
            )
        return files

    def _is_refused(self, mask: Path) -> bool:
        """Whether a mask is a JPEG in a place where files of any suffix are looked for."""
        given = self.config.masks
        named = given is not None and is_template(given) and not given.name.endswith(".*")
        return not named and self.config.pairs is None and mask.suffix.lower() in LOSSY_SUFFIXES

    def _set_masks(self, pairs: Pairs) -> None:
        """Set ``masks``, ``rule`` and ``read_mask`` or ``shapes`` by the kind of masks in the data set."""
        config, classes = self.config, read_classes(self.config)
        if pairs.shapes == "coco":
            self._set_coco(pairs, classes)
            return
        self.masks = self._files(pairs, "masks")
        self.rule = config.rule(classes)
        if pairs.shapes == "labelme":
            if classes is None:
                raise DataError(
                    f"{pairs.places['masks']} has files of labelme, but the classes are not known; add classes.json, "
                    "or set classes to their names"
                )
            background_index(classes, config.background)
            self.shapes = LabelmeReader(classes, config.background)
            return
        palette = () if classes is None else classes.palette
        unknown = self.rule.ignore_index if config.unknown_colours == "ignore" else None
        self.read_mask = partial(read_mask, palette=palette, mode=config.mask_format, unknown=unknown)

    def _set_coco(self, pairs: Pairs, classes: ClassTable | None) -> None:
        """Keep the photos that COCO's annotations list."""
        config, place, photos = self.config, pairs.places["masks"], pairs.places["images"]
        files = {pair.image: pair.targets["masks"][0] for pair in self.pairs if "masks" in pair.targets}
        coco = read_coco_files(files, classes, config.background)
        left_out = len(self.pairs)
        self.pairs = [pair for pair in self.pairs if pair.image in coco.entries]
        left_out -= len(self.pairs)
        if not self.pairs:
            raise DataError(f"{place} lists none of the photos in {photos}; its file_name must be theirs; check both")
        if left_out:
            warn_once(f"{left_out} photos in {photos} are not listed in {place} and left out")
        for file, masks in coco.files.items():
            for warning in masks.warnings:
                warn_once(f"{file}: {warning}")
        self.rule, self.shapes = config.rule(coco.classes), coco
        self.masks = [files[pair.image] for pair in self.pairs]


def class_table(config: FolderConfig) -> ClassTable | None:
    """The classes of the data set after merging and dropping, without reading its images; raises as ``classes_of``."""
    classes, place = read_classes(config), config.folder("masks")
    if place is not None and place.suffix.lower() == ".json" and place.is_file():
        classes = read_coco_classes(place, classes, config.background)
    elif classes is None and place is not None and place.suffix.lower() == ".json" and is_template(place):
        pairs = find_pairs(config)
        files = {pair.targets["masks"][0]: pair for pair in pairs.pairs if "masks" in pair.targets}
        if pairs.shapes == "coco" and files:
            classes = read_coco_classes(next(iter(files)), classes, config.background)
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
