"""Stand-ins for the objects that training programs store next to the weights in a pickle.

PyTorch refuses a pickle as soon as it names an unknown class, even where the weights do not need it. mmengine stores
its log there (``HistoryBuffer``, which needs ``getattr``), numpy scalars and arrays, and paths; others store the parsed
command line. ``weights_only`` gets an empty stub for exactly these names: nothing of numpy, mmengine or the standard
library is imported or called, and the values are lost.
"""

from typing import Any, Self

STUBBED_NAMES = (
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


class PickleStub:
    """Takes every argument and every state, and keeps none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Accept what the pickle passes."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


PICKLE_STUBS: list[Any] = [(PickleStub, name) for name in STUBBED_NAMES]
"""The stub under every name, for ``torch.serialization.safe_globals``."""
