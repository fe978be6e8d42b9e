"""Checkpoints: the native format, importers for other programs, and the hub."""
