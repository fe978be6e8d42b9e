"""Measuring a model on a data set, and choosing what to measure."""
