"""From data to a model, and the measuring of models."""
