"""Comparison with outputs that the reference programs wrote down: ``densevit parity``."""
