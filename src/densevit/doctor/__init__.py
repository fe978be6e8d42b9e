"""Checks a data set before training: what is wrong with its files, why it hurts, and how to fix it."""
