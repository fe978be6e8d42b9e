"""The exceptions for a user's mistakes; any other exception that escapes is a bug."""


class DensevitError(Exception):
    """Base of all errors that a user can cause."""


class ConfigError(DensevitError):
    """A config, an option or the name of a preset is not valid."""


class MissingNameError(ConfigError, KeyError):
    """A mapping, such as a prediction, lacks this name; a ``KeyError`` too, so that ``in`` and ``get`` work."""

    __str__ = Exception.__str__  # a KeyError would put quotes around the message


class ShapeError(DensevitError):
    """A tensor or an image has a size or type that the model cannot take."""


class DataError(DensevitError):
    """An image, a mask, a depth map or a data folder cannot be used."""


class OutputError(DataError):
    """A file cannot be written.

    Attributes:
        everywhere: whether others could not be written either, as on a full disk.
    """

    def __init__(self, message: str, *, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


class CheckpointError(DensevitError):
    """A weights file is damaged, unsafe, or does not fit the model."""


class EngineError(DensevitError):
    """An engine is not available, fails, or does not reproduce the model."""
