"""What the configs of all data sets share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from densevit.config import Config
from densevit.data.labels import LabelRule
from densevit.data.sample import ClassTable
from densevit.errors import DataError
from densevit.io import place

DataPath = Annotated[Path, AfterValidator(place)]
"""A path, also into a zip archive: ``data.zip``, or ``data.zip!/images/train``."""


class DataConfig(Config):
    """A data set.

    Attributes:
        kind: the tag on disk, the key in ``DATASETS``.
        merge: new class name -> the classes that become it. A new name that is also an old one includes that class; a
            single class is renamed. The order is that of the first members.
        drop: classes whose pixels are ignored.
    """

    kind: str
    merge: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()

    def rule(self, classes: ClassTable | None, **options: Any) -> LabelRule:
        """What the numbers in the masks mean, after merging and dropping."""
        return LabelRule(classes, merge=self.merge, drop=self.drop, **options)


class PublicConfig(DataConfig):
    """A public data set, in the layout of its download.

    Attributes:
        layout: what the root should hold, for messages.
        root: folder or zip archive of the download.
    """

    layout: ClassVar[str]
    root: DataPath

    @property
    def table(self) -> ClassTable | None:
        """The classes before merging and dropping; None without masks."""
        return None

    def find(self, names: Sequence[str]) -> Path:
        """The first of some files or folders below the root that exists.

        Raises:
            DataError: if none does.
        """
        for name in names:
            if (self.root / name).exists():
                return self.root / name
        if not self.root.exists():
            raise DataError(
                f"{self.root} does not exist; it should be a folder or zip archive with {self.layout}; check root"
            )
        raise DataError(
            f"{self.root} has no {' or '.join(names[:4])} (it has {contents(self.root)}); {self.kind} needs "
            f"{self.layout}; check root, or unpack the whole download"
        )

    def incomplete(self, problem: str) -> DataError:
        """The error for a download that lacks something."""
        return DataError(f"{problem}; {self.kind} needs {self.layout}; unpack the whole download")

    def choose_masks(self, train_ids: list[Path], raw: list[Path], **numbers: Any) -> tuple[list[Path], LabelRule]:
        """The masks of class ids where all images have them, otherwise those of raw ``numbers``, options of ``rule``.

        Raises:
            DataError: if raw masks are missing, naming the first.
        """
        if all(path.is_file() for path in train_ids):
            return train_ids, self.rule(self.table)
        missing = [path for path in raw if not path.is_file()]
        if missing:
            raise self.incomplete(f"{len(missing)} of {len(raw)} photos have no mask, for example {missing[0]}")
        return raw, self.rule(self.table, **numbers)


def contents(folder: Path) -> str:
    """The first names in a folder, for messages."""
    if not folder.is_dir():
        return "no folder"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "nothing"
