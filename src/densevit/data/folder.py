"""Data sets in plain folders: ``root/<images|masks|depth|values>/<split>/``, or any two folders of equal stems."""

import json
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from densevit.config import Config
from densevit.data.sample import ClassTable, Sample
from densevit.errors import DataError
from densevit.io import find_images, read_depth, read_image, read_labels, read_values

TARGET_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".pfm", ".bmp", ".gif")


class FolderConfig(Config):
    """Where a data set lies.

    Attributes:
        root: folder with ``images/`` and any of ``masks/``, ``depth/`` and ``values/`` (.npy of (H, W, K) floats for
            regression), each with one folder per split, and classes.json.
        split: name of the split's folder; None if the files lie directly in ``images/`` and the others.
        images, masks, depth, values: these folders themselves, instead of ``root`` and ``split``.
        classes: class names, instead of classes.json; a number stands for that many unnamed classes.
        ignore_index: value of pixels without a class, where classes.json does not say.
        reduce_zero_label: masks count classes from 1 and 0 is no class, as in ADE20K: 0 is ignored, the others less 1.
        depth_unit_m: metres per unit of an integer depth map; 0.001 for millimetres.
    """

    kind: Literal["folder"] = "folder"
    root: Path | None = None
    split: str | None = None
    images: Path | None = None
    masks: Path | None = None
    depth: Path | None = None
    values: Path | None = None
    classes: tuple[str, ...] | int | None = None
    ignore_index: int = 255
    reduce_zero_label: bool = False
    depth_unit_m: float = Field(default=0.001, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.root is None and self.images is None:
            raise ValueError("give root (a folder with images/ and masks/ or depth/), or images and masks")
        return self

    def folder(self, kind: Literal["images", "masks", "depth", "values"]) -> Path | None:
        """The folder of one kind of file; None where a data set has none."""
        given: Path | None = getattr(self, kind)
        if given is not None or self.root is None:
            return given
        folder = self.root / kind
        if self.split is not None:
            folder /= self.split
        return folder if folder.is_dir() or kind == "images" else None


class FolderDataset:
    """Photos with masks and depth maps of the same stem, read when asked for."""

    def __init__(
        self, config: FolderConfig, *, with_labels: bool = True, with_depth: bool = True, with_values: bool = True
    ) -> None:
        self.config = config
        images = config.folder("images")
        if images is None or not images.is_dir():
            raise DataError(_missing_folder(config, images))
        if config.split is None and config.images is None and {path.is_dir() for path in images.iterdir()} == {True}:
            raise DataError(f"{config.root} has splits and none was named; splits found: {_splits(images)}; name one")
        self.images = find_images([images])
        self.masks = _match(self.images, config.folder("masks"), "mask") if with_labels else None
        self.depths = _match(self.images, config.folder("depth"), "depth map") if with_depth else None
        self.values = _match(self.images, config.folder("values"), "value map") if with_values else None
        self._classes = read_classes(config) if self.masks is not None else None

    @property
    def classes(self) -> ClassTable | None:
        """From classes.json or the config; None without masks or names."""
        return self._classes

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.images)

    def __getitem__(self, index: int, /) -> Sample:
        """Read a photo and what belongs to it.

        Raises:
            DataError: if a file is broken, sizes differ, or a mask holds an unknown class.
        """
        path = self.images[index]
        image = read_image(path)
        labels = depth = values = None
        if self.masks is not None:
            labels = read_labels(self.masks[index])
            if self.config.reduce_zero_label:
                ignore = self.config.ignore_index if self._classes is None else self._classes.ignore_index
                labels = np.where((labels == 0) | (labels == ignore), ignore, labels - 1).astype(labels.dtype)
            _same_size(image.shape, labels.shape, path, self.masks[index])
            if self._classes is not None:
                self._classes.check(labels, str(self.masks[index]))
        if self.depths is not None:
            depth = read_depth(self.depths[index], unit_m=self.config.depth_unit_m)
            _same_size(image.shape, depth.shape, path, self.depths[index])
        if self.values is not None:
            values = read_values(self.values[index])
            _same_size(image.shape, values.shape, path, self.values[index])
        return Sample(path.stem, image, labels, depth, values)


def read_classes(config: FolderConfig) -> ClassTable | None:
    """The class table of a folder data set: the config's names, else ``root/classes.json``, else None.

    classes.json holds ``classes`` (names), optionally ``ignore_index``, and for each coarser view ``classesN`` (names)
    with ``to_N`` (the new index of every class).

    Raises:
        DataError: if the file is not such a mapping.
    """
    if config.classes is not None:
        names = config.classes
        named = tuple(f"class {i}" for i in range(names)) if isinstance(names, int) else names
        return ClassTable(named, config.ignore_index)
    path = config.root / "classes.json" if config.root else None
    if path is None or not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        views = {
            key: (_names(data[key]), tuple(int(i) for i in data[f"to_{key.removeprefix('classes')}"]))
            for key in data
            if key.startswith("classes") and key != "classes"
        }
        table = ClassTable(_names(data["classes"]), int(data.get("ignore_index", 255)), views)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a class list ({type(error).__name__}: {error}); "
            'it must look like {"classes": ["road", "sky"], "ignore_index": 255}'
        ) from None
    for key, (names, mapping) in table.views.items():
        if len(mapping) != len(table.names) or any(
            not 0 <= m < len(names) and m != table.ignore_index for m in mapping
        ):
            raise DataError(f"{path}: to_{key.removeprefix('classes')} must give one index of {key} for each class")
    return table


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{type(value).__name__} instead of a list of names")
    return tuple(value)


def _match(images: list[Path], folder: Path | None, what: str) -> list[Path] | None:
    """For every photo the file of the same stem in ``folder``."""
    if folder is None:
        return None
    if not folder.is_dir():
        raise DataError(f"{what} folder {folder} does not exist; give the folder that holds one {what} per photo")
    photos = _by_stem(images)
    targets = _by_stem(sorted(path for path in folder.iterdir() if path.suffix.lower() in TARGET_SUFFIXES))
    missing = [path.name for stem, path in photos.items() if stem not in targets]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} photos have no {what} in {folder}, {missing[0]} for one; "
            f"each photo needs a {what} of the same name with one of {', '.join(TARGET_SUFFIXES)}"
        )
    return [targets[stem] for stem in photos]


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    """The paths by their stems, in their order; a stem of two files is refused, since either could be meant."""
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise DataError(
                f"{other} and {path} have the same name up to the suffix, by which photos and targets are brought "
                "together; each name may occur once; rename or remove one"
            )
    return by_stem


def _same_size(image: tuple[int, ...], target: tuple[int, ...], image_path: Path, target_path: Path) -> None:
    if image[:2] != target[:2]:
        raise DataError(
            f"{image_path} is {image[0]} x {image[1]} but {target_path} is {target[0]} x {target[1]}; "
            "both must have the same height and width (was one rotated by its EXIF tag, or resized?)"
        )


def _missing_folder(config: FolderConfig, images: Path | None) -> str:
    root = config.root
    if root is not None and root.is_dir() and (root / "images").is_dir():
        return f"{root} has no split {config.split!r}; splits found: {_splits(root / 'images')}"
    return (
        f"there is no folder {images}; a data set needs images/<split> and masks/<split> or depth/<split> in its root"
    )


def _splits(images: Path) -> str:
    return ", ".join(sorted(path.name for path in images.iterdir() if path.is_dir())) or "none"
