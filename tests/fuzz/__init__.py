"""Hostile inputs by seed: damaged, false or odd files of every kind, and the commands that must survive them."""
