"""What training programs leave beside the weights in a pickle: opened as nothing, so that no class of theirs is needed.

PyTorch refuses a pickle as soon as it names a class that it does not know, even where the weights do not need it.
mmengine stores its log there (``HistoryBuffer``, which drags ``getattr`` along), numpy's scalars and arrays, paths;
others store the parsed command line. For these names alone ``weights_only`` is given an empty stand-in: nothing of
numpy, mmengine or the standard library is imported or called, and the values are gone.
"""

from typing import Any, Self

NAMES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    "numpy.dtype",
    "numpy.ndarray",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.config.config.Config",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.Config",
    "mmcv.utils.config.ConfigDict",
    "builtins.getattr",
    "argparse.Namespace",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",  # from Python 3.13 on
    "pathlib._local.WindowsPath",
)


class Leftover:
    """Stands for any object of ``NAMES``: takes every argument and every state, and keeps none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Whatever the pickle calls it with."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def stand_ins() -> list[Any]:
    """What ``torch.serialization.safe_globals`` takes: the stand-in under every name."""
    return [(Leftover, name) for name in NAMES]
