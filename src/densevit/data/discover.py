"""Recognise how somebody keeps a data set: from the names and a few of the files in a folder or zip archive."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densevit.data.description import Described


def discover(root: Path, **given: Any) -> "Described":
    """Recognise the layout of a folder or zip archive; keys of ``given`` (of ``FolderConfig``) are taken as they are.

    Raises:
        DataError: nothing is recognised, or several layouts are possible; the message lists them with their options.
    """
    raise NotImplementedError
