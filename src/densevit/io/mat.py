"""MATLAB files, in which NYUv2 is published. The only module that imports h5py and scipy."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.errors import DataError
from densevit_runtime.io.decode import guarded, require_file
from densevit_runtime.io.zipped import ZipPath

_HINT = "install them with: pip install 'densevit[mat]'"


def read_mat_item(path: Path, name: str, index: int) -> NDArray[Any]:
    """Read item ``index`` of an array in a MATLAB 7.3 file, with MATLAB's order of axes.

    Raises:
        DataError: no such file, not of this format, no such array, or the library is missing.
    """
    with guarded(path, "a MATLAB 7.3 file"):
        array = _open(path, os.getpid())[name]
        if not 0 <= index < array.shape[0]:
            raise DataError(f"{path}: {name} has {array.shape[0]} items but number {index} is needed")
        item: NDArray[Any] = np.asarray(array[index]).T
    return item


def mat_length(path: Path, name: str) -> int:
    """The number of items of an array in a MATLAB 7.3 file.

    Raises:
        DataError: as ``read_mat_item``.
    """
    with guarded(path, "a MATLAB 7.3 file"):
        length = int(_open(path, os.getpid())[name].shape[0])
    return length


def read_small_mat(path: Path, name: str) -> NDArray[Any]:
    """Read a numeric array of a small MATLAB file of an older version.

    Raises:
        DataError: no such file, not of this format, no such array, or the library is missing.
    """
    require_file(path)
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"{path} is a MATLAB file, which needs scipy and h5py; {_HINT}") from error
    with guarded(path, "a MATLAB file"), path.open("rb") as file:
        array: NDArray[Any] = np.asarray(loadmat(file)[name])
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: {name} holds {array.dtype}; numbers are accepted; check the file")
    return array


@lru_cache(maxsize=4)
def _open(path: Path, process: int) -> Any:
    """Open a file, once per process, since HDF5 does not survive a fork."""
    require_file(path)
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path} is a MATLAB 7.3 file, which needs h5py and scipy; {_HINT}") from error
    if isinstance(path, ZipPath):
        raise DataError(f"{path} is a MATLAB file inside an archive; unpack it")
    return h5py.File(path, "r")
