"""The config of data in files: folders, templates of names, a list of pairs, or annotations, and what they mean."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from densevit.data.base import DataConfig, DataPath
from densevit.data.class_list import check_palette
from densevit.data.labels import LabelRule
from densevit.data.sample import ClassTable, Rgb, TargetFolder
from densevit.data.splits import SPLIT_NAMES, SplitConfig, find_split, split_key
from densevit.data.templates import Template, is_template
from densevit.errors import ConfigError
from densevit.io import ZipPath
from densevit.limits import limits, too_much


class FolderConfig(DataConfig):
    """The place of a data set, and how its files are read.

    Attributes:
        root: folder or zip archive with ``images/`` and any of ``masks/``, ``depth/`` and ``values/`` (.npy of
            (H, W, K) floats for regression), each with one folder per split, and classes.json.
        split: name of the split's folder; None if the files are directly in ``images/`` and the others.
        images, masks, depth, values: these folders themselves, instead of ``root`` and ``split``; or templates of file
            names below the root, such as ``{split}/{name}_mask.png`` (see ``templates``). ``masks`` may be a file of
            COCO annotations, or a folder of labelme's .json files. With ``background`` and one class besides it, a
            ``*`` in the name of masks stands for the objects of a photo, each in a file.
        pairs: CSV file with the columns image and any of mask, depth, values and split; paths are relative to its
            folder, where classes.json is looked for too, or else to the root.
        splits: how photos are divided that have no folders, lists or column for it.
        tasks: Label Studio's JSON export, which says which photo the ``{task}`` of a mask's name is.
        classes: class names, or the number of unnamed classes, instead of classes.json.
        palette: colour of every class in RGB masks, instead of ``palette`` in classes.json.
        class_values: stored number of every class, such as 0, 128 and 255, where they do not count from 0.
        stray_values: whether numbers in masks that are not in ``class_values`` are refused, or taken for the nearest
            one; "nearest" also accepts JPEGs as masks.
        mask_format: whether masks hold class numbers or colours; "auto" takes numbers where a mask has one channel.
        missing_targets: whether photos without a mask, depth or value map are refused or left out.
        nearest: photos and targets are named after numbers, such as time stamps, and each photo takes the nearest
            target that differs by at most this; 0 pairs equal names.
        unknown_colours: whether colours that the palette lacks are refused, ignored, or taken for the nearest one;
            "nearest" also accepts JPEGs as masks.
        background: class of pixels that no polygon or region covers (COCO, labelme, ``{class}``); None ignores them.
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
    missing_targets: Literal["refuse", "leave_out"] = "refuse"
    nearest: float = Field(default=0, ge=0)
    unknown_colours: Literal["refuse", "ignore", "nearest"] = "refuse"
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
        self._check_templates()
        self._check_values()
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

    def _check_templates(self) -> None:
        fields: dict[str, frozenset[str]] = {}
        for kind in ("images", "masks", "depth", "values"):
            path = getattr(self, kind)
            if is_template(path):
                try:
                    fields[kind] = Template(path.as_posix()).fields
                except ConfigError as error:
                    raise ValueError(str(error)) from None
                wrong = fields[kind] & ({"task"} if kind == "masks" else {"class", "task"})
                if wrong - ({"task"} if self.tasks is not None and kind == "masks" else set()):
                    raise ValueError(
                        f"{kind} has {{{min(wrong)}}}, which only masks may have, and task only with tasks: a JSON "
                        "export of Label Studio"
                    )
        if "images" in fields and self.images in (self.masks, self.depth, self.values):
            raise ValueError(f"images is {self.images}, and so is a target; say how their names or folders differ")
        if "images" in fields and not fields["images"] & {"name", "folder"}:
            raise ValueError(f"images is {self.images}; a template of photos needs {{name}} or {{folder}}")
        for kind, own in fields.items():
            annotations = kind == "masks" and str(self.masks).lower().endswith(".json") and "name" not in own
            lacking = "split" not in fields.get("images", {"split"} if self.images is None else set())
            if "split" in own and lacking and not annotations:  # of COCO, which list the photos of their split
                raise ValueError(f"{kind} has {{split}}, which images lacks; write it in both")
            shared = own & {"name", "task"} or (own & {"folder"} and "name" not in fields.get("images", {"name"}))
            if kind != "images" and not shared and not (kind == "masks" and str(self.masks).lower().endswith(".json")):
                raise ValueError(f"{kind} is {getattr(self, kind)}; it needs {{name}}, so that each photo has its own")
        if self.tasks is not None and "task" not in fields.get("masks", ()):
            raise ValueError("tasks is set, but masks has no {task}; write it where the names of files have the task")
        if self.pairs is not None and (
            given := [kind for kind in ("images", "masks", "depth", "values") if getattr(self, kind)]
        ):
            raise ValueError(f"pairs and {given[0]} are both set; either may list the files; remove one")

    def _check_values(self) -> None:
        values = self.class_values
        if values is None:
            if self.stray_values == "nearest":
                raise ValueError("stray_values belongs to class_values, which is not set; give each class its number")
            return
        if len({*values}) < len(values) or not values:
            raise ValueError(f"class_values is {list(values)}; a different number for each class is accepted")
        if min(values) < 0 or max(values) > limits().class_id:
            raise ValueError(f"class_values is {list(values)}; numbers of 0 to {limits().class_id} are accepted")
        if both := {*values} & {*self.ignore_values}:
            raise ValueError(f"{min(both)} is in class_values and in ignore_values; remove it from one of them")
        number = self.classes if isinstance(self.classes, int) else len(self.classes or values)
        if number != len(values):
            raise ValueError(f"class_values has {len(values)} numbers for {number} classes; give one for each class")
        if self.reduce_zero_label or self.mask_format == "colour":
            other = "reduce_zero_label" if self.reduce_zero_label else "mask_format: colour"
            raise ValueError(f"class_values and {other} are both set; class_values says it all; remove the other")

    def rule(self, classes: ClassTable | None, **options: Any) -> LabelRule:
        """What the numbers in the masks mean, after the options of the config."""
        options = {"ignored": self.ignore_values, "reduce_zero": self.reduce_zero_label, **options}
        if self.class_values is not None and "ids" not in options:
            if classes is not None and len(classes.names) != len(self.class_values):
                raise ConfigError(
                    f"class_values has {len(self.class_values)} numbers but there are {len(classes.names)} classes, "
                    f"{', '.join(classes.names[:8])}; give one number for each class, in their order"
                )
            options["ids"] = {value: index for index, value in enumerate(self.class_values)}
            options["nearest"] = self.stray_values == "nearest"
        return super().rule(classes, ignore_index=self.ignore_index, **options)

    def folder(self, kind: Literal["images"] | TargetFolder) -> Path | None:
        """Folder or template of one kind of file, or for masks a file of COCO annotations; None if there is none."""
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
