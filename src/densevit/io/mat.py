"""The official files of NYUv2, written by MATLAB. The only module that imports h5py and scipy."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.errors import DataError
from densevit.io.decode import guarded, require_file
from densevit.io.zipped import is_zip_path

_HINT = "install them with: pip install 'densevit[mat]'"


def read_mat_item(path: Path, name: str, index: int) -> NDArray[Any]:
    """Item ``index`` of an array in a MATLAB 7.3 file, its axes in MATLAB's order.

    Raises:
        DataError: no such file, not of this format, no such array, or the library is missing.
    """
    with guarded(path, "a MATLAB 7.3 file is accepted"):
        array = _open(path, os.getpid())[name]
        if not 0 <= index < array.shape[0]:
            raise DataError(f"{path}: {name} has {array.shape[0]} items but number {index} was asked for")
        item: NDArray[Any] = np.asarray(array[index]).T
    return item


def mat_length(path: Path, name: str) -> int:
    """How many items an array in a MATLAB 7.3 file has.

    Raises:
        DataError: as ``read_mat_item``.
    """
    with guarded(path, "a MATLAB 7.3 file is accepted"):
        length = int(_open(path, os.getpid())[name].shape[0])
    return length


def read_small_mat(path: Path, name: str) -> NDArray[Any]:
    """A numeric array of a small MATLAB file of an older version.

    Raises:
        DataError: no such file, not of this format, no such array, or the library is missing.
    """
    require_file(path, "a MATLAB file is accepted")
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"{path} is a MATLAB file; the libraries scipy and h5py read it; {_HINT}") from error
    with guarded(path, "a MATLAB file is accepted"), path.open("rb") as file:
        found: NDArray[Any] = np.asarray(loadmat(file)[name])
    if found.dtype.kind not in "iuf":
        raise DataError(f"{path}: {name} holds {found.dtype}; numbers are accepted; check the file")
    return found


@lru_cache(maxsize=4)
def _open(path: Path, process: int) -> Any:
    """The open file; once per process, for HDF5 does not survive a fork."""
    require_file(path, "a MATLAB 7.3 file is accepted")
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path} is a MATLAB 7.3 file; the libraries h5py and scipy read it; {_HINT}") from error
    if is_zip_path(path):
        raise DataError(f"{path} is a MATLAB file inside an archive; on disk it is accepted; unpack it")
    return h5py.File(path, "r")
