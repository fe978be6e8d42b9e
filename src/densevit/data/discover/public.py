"""Downloads of public data sets whose layout is like no other, and which names do not explain."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from densevit.data.discover.tree import Tree
from densevit.errors import DataError

if TYPE_CHECKING:
    from densevit.data.description import Described

_FOLDERS = {"cityscapes": "leftImg8bit", "kitti": "proj_depth"}
"""Kind of ``DATASETS`` -> a folder that no other has. ADE20K's images/training, for example, people use for theirs."""


def public(tree: Tree, given: Mapping[str, Any]) -> "Described | None":
    """A public data set, if it opens as one and nothing is ``given`` that such a kind has not."""
    from densevit.data import DATASETS
    from densevit.data.description import Described

    for kind, folder in _FOLDERS.items():
        schema, open_dataset = DATASETS[kind]
        if "kind" in given or given.keys() - schema.model_fields.keys():
            continue
        if not any(folder in file.folders for file in tree.pixels):
            continue
        try:
            config = schema.parse({**given, "root": tree.root}, source=str(tree.root))
            number = len(open_dataset(config))
        except DataError:
            continue
        text = f"{number:,} photos for training in the layout of {kind}, as which they are read"
        return Described(config, (f"{text}; --dataset folder reads them by their names",))
    return None
