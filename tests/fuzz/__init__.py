"""Hostile inputs by seed: files of every kind that are damaged, false or odd, and the commands that must survive them."""
