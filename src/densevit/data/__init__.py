"""Data sets. A new kind is one file and one row in ``DATASETS``; the key is its ``kind`` in a config.

Others come from outside the package, see ``densevit.plugins``.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from densevit.data.ade20k import Ade20kConfig, open_ade20k
from densevit.data.base import DataConfig, PublicConfig
from densevit.data.camvid import CamvidConfig, open_camvid
from densevit.data.cityscapes import CityscapesConfig, open_cityscapes
from densevit.data.coco_stuff import CocoStuffConfig, open_coco_stuff
from densevit.data.files import FileDataset
from densevit.data.folder import FolderDataset, class_table
from densevit.data.folder_config import FolderConfig
from densevit.data.in_memory import DatasetRow, PluginConfig, PythonConfig, PythonDataset, adapt_dataset
from densevit.data.kitti import KittiConfig, open_kitti
from densevit.data.nyuv2 import Nyuv2Config, open_nyuv2
from densevit.data.pascal_context import PascalContextConfig, open_pascal_context
from densevit.data.pascal_voc import PascalVocConfig, open_pascal_voc
from densevit.data.sample import ClassTable, Dataset, Sample
from densevit.errors import ConfigError
from densevit.plugins import PluginTable

_BUILTIN: dict[str, DatasetRow] = {
    "folder": (FolderConfig, FolderDataset),
    "python": (PythonConfig, PythonDataset),
    "ade20k": (Ade20kConfig, open_ade20k),
    "camvid": (CamvidConfig, open_camvid),
    "cityscapes": (CityscapesConfig, open_cityscapes),
    "coco_stuff": (CocoStuffConfig, open_coco_stuff),
    "kitti": (KittiConfig, open_kitti),
    "nyuv2": (Nyuv2Config, open_nyuv2),
    "pascal_context": (PascalContextConfig, open_pascal_context),
    "pascal_voc": (PascalVocConfig, open_pascal_voc),
}
DATASETS = PluginTable("data set", _BUILTIN, adapt_dataset)


def parse_data(data: DataConfig | Mapping[str, Any]) -> DataConfig:
    """Plain data -> the config that its ``kind`` names, by default "folder" (a validator: raises ValueError)."""
    if isinstance(data, DataConfig):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(f"a data set is a mapping of keys to values, not {data!r}")
    kind = data.get("kind", "folder")
    if not isinstance(kind, str) or kind not in DATASETS:
        raise ValueError(DATASETS.unknown(kind))
    try:
        return DATASETS[kind][0].parse(data, source=f"the data set of kind {kind}")
    except ConfigError as error:
        raise ValueError(str(error)) from None


def as_config(data: Any) -> DataConfig:
    """The config of the data that Python code gives: itself, its keys, or a function, which becomes a kind.

    Raises:
        ConfigError: it is none of these, or a key is wrong.
    """
    if not isinstance(data, DataConfig | Mapping) and not callable(data):
        raise ConfigError(
            f"data is of type {type(data).__name__}; a path, keys or config of a data set, or a function that gives a "
            "densevit.data.Dataset, is accepted; write such a function"
        )
    try:
        return parse_data(data if isinstance(data, DataConfig | Mapping) else {"kind": DATASETS.add_by_name(data)})
    except ValueError as error:
        raise ConfigError(f"data: {error}") from None


AnyData = Annotated[SerializeAsAny[DataConfig], BeforeValidator(parse_data)]
"""The config of a data set of any kind, as a field of another config."""


def classes_of(config: DataConfig) -> ClassTable | None:
    """The classes of a data set after merging and dropping, if they are known without its images.

    Raises:
        DataError: if the file that names them cannot be used.
        ConfigError: if merge or drop names a class that does not exist.
    """
    if isinstance(config, FolderConfig):
        return class_table(config)
    if isinstance(config, PythonConfig | PluginConfig):
        return DATASETS[config.kind][1](config).classes
    if isinstance(config, PublicConfig) and config.table is not None:
        return config.rule(config.table).classes
    return None


__all__ = [
    "DATASETS",
    "AnyData",
    "ClassTable",
    "DataConfig",
    "Dataset",
    "FileDataset",
    "FolderConfig",
    "FolderDataset",
    "PublicConfig",
    "Sample",
    "as_config",
    "classes_of",
    "parse_data",
]
