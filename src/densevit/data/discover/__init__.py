"""Recognise how somebody keeps a data set: from the names and a few of the files in a folder or zip archive."""

from densevit.data.discover.recognise import classes_of_pairs, discover, discover_in, has_shapes
from densevit.data.discover.tree import entered

__all__ = ["classes_of_pairs", "discover", "discover_in", "entered", "has_shapes"]
