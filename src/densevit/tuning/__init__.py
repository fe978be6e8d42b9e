"""Studies of a model on a user's machine and data: measure, then a table and a picture."""
