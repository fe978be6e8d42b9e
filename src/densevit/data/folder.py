"""Data sets of files on disk or in zip archives, found by ``find_pairs`` and read on access."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from densevit.data.class_list import default_ignore, read_class_list, with_palette
from densevit.data.coco import read_coco_classes
from densevit.data.columns import DEPTH_SUFFIXES, LOSSY_SUFFIXES, TARGET_SUFFIXES, WHAT
from densevit.data.files import FileDataset, find_bands, same_size
from densevit.data.folder_config import FolderConfig as FolderConfig
from densevit.data.mask_files import read_grey, read_mask
from densevit.data.pairs import Pair, Pairs, find_pairs
from densevit.data.polygons import background_index, warn_once
from densevit.data.regions import RegionReader, class_indices, region_classes
from densevit.data.sample import ALL_TARGETS, TARGET_FOLDERS, ClassTable, Target, TargetFolder
from densevit.data.shapes import LabelmeReader, ShapeReader, read_coco_files
from densevit.data.templates import is_template
from densevit.errors import DataError
from densevit.io import find_images, read_bands, read_depth
from densevit.limits import limits
from densevit.types import Size


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
        self.pairs = self._complete(pairs, targets) if config.missing_targets == "leave_out" else pairs.pairs
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
            if folder is not None and not is_template(self.config.images):  # both say what the folder has
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

    def _complete(self, pairs: Pairs, targets: frozenset[Target]) -> list[Pair]:
        """The pairs that have a target of each kind that is wanted and that the data have."""
        kinds = [folder for target, folder in TARGET_FOLDERS.items() if target in targets and folder in pairs.missing]
        complete = [pair for pair in pairs.pairs if all(kind in pair.targets for kind in kinds)]
        if not complete:
            raise DataError(f"none of the {len(pairs.pairs)} photos has {' and '.join(kinds)}; check where they are")
        return complete

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
            wrong |= {pair.image for pair, file in zip(self.pairs, files, strict=True) if self._is_refused(file)}
        missing = [pair.image for pair in self.pairs if pair.image in wrong]
        if missing:
            what, hint = WHAT[kind], ""
            if case := [(photo, path) for photo, path in pairs.case if photo in missing]:
                hint = f" (upper and lower case differ in {case[0][0].name} and {case[0][1].name})"
            raise DataError(
                f"{len(missing)} of {len(self.pairs)} photos have no {what} in {pairs.places[kind]}, for example "
                f"{missing[0].name}; each photo needs a {what} of the same name with one of {', '.join(suffixes)}{hint}"
            )
        return files

    def _is_refused(self, mask: Path) -> bool:
        """Whether a mask is a JPEG in a place where files of any suffix are looked for."""
        given = self.config.masks
        if "nearest" in (self.config.stray_values, self.config.unknown_colours):
            return False
        named = given is not None and is_template(given) and not given.name.endswith(".*")
        return not named and self.config.pairs is None and mask.suffix.lower() in LOSSY_SUFFIXES

    def _set_masks(self, pairs: Pairs) -> None:
        """Set ``masks``, ``rule`` and ``read_mask`` or ``shapes`` by the kind of masks in the data set."""
        config, classes = self.config, read_classes(self.config)
        if pairs.shapes == "coco":
            self._set_coco(pairs, classes)
            return
        if pairs.regions:
            assert classes is not None
            self._set_regions(pairs, classes)
            return
        self.masks = self._files(pairs, "masks")
        self.rule = config.rule(classes, **({"ids": None} if pairs.shapes else {}))
        if pairs.shapes == "labelme":
            if classes is None:
                raise DataError(
                    f"{pairs.places['masks']} has files of labelme, but the classes are not known; add classes.json, "
                    "or set classes to their names"
                )
            background_index(classes, config.background)
            self.shapes = LabelmeReader(classes, config.background)
            return
        self.read_mask = mask_reader(config, classes, self.rule.ignore_index)

    def _set_regions(self, pairs: Pairs, classes: ClassTable) -> None:
        """Keep the photos that have files of classes or regions."""
        index = class_indices(pairs.regions, classes, pairs.places["masks"])
        left_out, self.pairs = self.pairs, [pair for pair in self.pairs if "masks" in pair.targets]
        if not self.pairs:
            raise DataError(f"none of the {len(left_out)} photos has a mask in {pairs.places['masks']}; check it")
        if len(left_out) > len(self.pairs):
            warn_once(
                f"{len(left_out) - len(self.pairs)} of {len(left_out)} photos have no mask in "
                f"{pairs.places['masks']} and are left out"
            )
        files = {
            pair.image: tuple(
                (index[name], path) for name, path in zip(pair.regions, pair.targets["masks"], strict=True)
            )
            for pair in self.pairs
        }
        self.rule = self.config.rule(classes, ids=None)
        self.shapes = RegionReader(files, background_index(classes, self.config.background))
        self.masks = [pair.targets["masks"][0] for pair in self.pairs]

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
        self.rule, self.shapes = config.rule(coco.classes, ids=None), coco
        self.masks = [files[pair.image] for pair in self.pairs]


def mask_reader(config: FolderConfig, classes: ClassTable | None, ignore_index: int) -> partial[NDArray[np.int32]]:
    """The function path -> stored numbers for masks that are images."""
    if config.class_values is not None:
        return partial(read_grey, lossy=config.stray_values == "nearest")
    palette = () if classes is None else classes.palette
    lossy = config.unknown_colours == "nearest"
    others: int | Literal["nearest"] | None = "nearest" if lossy else None
    if config.unknown_colours == "ignore":
        others = ignore_index
    return partial(read_mask, palette=palette, mode=config.mask_format, unknown=others, lossy=lossy)


def class_table(config: FolderConfig) -> ClassTable | None:
    """The classes of the data set after merging and dropping, without reading its images; raises as ``classes_of``."""
    classes, place = read_classes(config), config.folder("masks")
    if place is not None and place.suffix.lower() == ".json" and place.is_file():
        classes = read_coco_classes(place, classes, config.background)
    elif config.pairs is not None or (place is not None and place.suffix.lower() == ".json"):
        pairs = find_pairs(config)
        files = [pair.targets["masks"][0] for pair in pairs.pairs if "masks" in pair.targets]
        if pairs.shapes == "coco" and files:
            classes = read_coco_classes(files[0], classes, config.background)
    return config.rule(classes).classes


def read_classes(config: FolderConfig) -> ClassTable | None:
    """The classes of the config, of classes.json, or of the names of files, in this order; None if nothing names them.

    Raises:
        DataError: if the file is not a class list.
    """
    offset = int(config.reduce_zero_label)
    if config.classes is not None:
        names = config.classes
        named = tuple(f"class {i}" for i in range(names)) if isinstance(names, int) else names
        ignore = config.ignore_index if config.ignore_index != 255 else default_ignore(len(named) + offset)
        return with_palette(ClassTable(named, ignore), config.palette, "the config")
    folder = config.root or (config.pairs.parent if config.pairs is not None else None)
    path = folder / "classes.json" if folder is not None else None
    if path is not None and path.is_file():
        return read_class_list(path, config.palette, offset)
    if config.class_values is not None:
        named = tuple(f"class {i}" for i in range(len(config.class_values)))
        return with_palette(ClassTable(named, default_ignore(len(named))), config.palette, "the config")
    if "{class}" in str(config.masks):
        everything = config.model_copy(update={"split": None, "splits": None})
        table = region_classes(find_pairs(everything).regions, config.background, config.ignore_index)
        return with_palette(table, config.palette, "the config")
    return None
