"""The exceptions that densevit raises for a user's mistake; anything else that escapes is a bug of ours."""


class DensevitError(Exception):
    """Base of all errors a user can cause. The message says what was given, what is accepted and what to do."""


class ConfigError(DensevitError):
    """A config file, a preset name or a ``--set`` value is not valid."""


class ShapeError(DensevitError):
    """A tensor or an image has a size that the model cannot take."""


class DataError(DensevitError):
    """A photo, a mask, a depth map or a data folder cannot be used."""


class CheckpointError(DensevitError):
    """A weights file is damaged, unsafe, or does not fit the model."""


class EngineError(DensevitError):
    """An exported artefact could not be made or does not reproduce the model."""
