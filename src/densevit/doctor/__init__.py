"""Looks at a data set before it is trained on: what is wrong with its files, why that hurts, and what mends it."""
