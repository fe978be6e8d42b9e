"""Data sets. A new kind is one file and one row in ``DATASETS``; the key is its ``kind`` in a config."""

from collections.abc import Callable

from densevit.data.folder import FolderConfig, FolderDataset
from densevit.data.sample import ClassTable, Dataset, Sample

DATASETS: dict[str, tuple[type[FolderConfig], Callable[..., Dataset]]] = {
    "folder": (FolderConfig, FolderDataset),
}

__all__ = ["DATASETS", "ClassTable", "Dataset", "FolderConfig", "FolderDataset", "Sample"]
