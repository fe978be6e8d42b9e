"""The exceptions for a user's mistakes; any other exception that escapes is a bug."""

from densevit_runtime.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DensevitError,
    EngineError,
    MissingNameError,
    OutputError,
    ShapeError,
)

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DensevitError",
    "EngineError",
    "MissingNameError",
    "OutputError",
    "ShapeError",
]
