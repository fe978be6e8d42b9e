"""Readers of photos and writers of results; the files of densevit.io that need neither torch nor a data set."""
