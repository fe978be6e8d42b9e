"""Weights on disk: the native format, and the loading of others."""
