"""Recognise how somebody keeps a data set: from the names and a few of the files in a folder or zip archive."""

from densevit.data.discover.recognise import discover

__all__ = ["discover"]
