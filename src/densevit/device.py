"""The device that a model runs on, and whether freed memory stays in the process (Linux with glibc).

By default glibc gives every large buffer back to the system when it is freed, and the next layer pays for fresh pages:
on a CPU that was 13 % of the time of a DPT training step and 4 % of an encoder pass.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from densevit.errors import ConfigError

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Raise glibc's thresholds as far as they go; True if that was possible. For programs, not for libraries."""
    return _set(mmap_threshold=_LARGEST, trim_threshold=_LARGEST, top_pad=64 * 2**20)


@contextmanager
def returning_large_buffers() -> Iterator[None]:
    """Undo ``keep_freed_memory`` for buffers from a megabyte on, for a while.

    While a raster streams, small results and GDAL's blocks stay alive between large buffers that come and go. In one
    heap the gaps add up to a gigabyte over 32,000 lines; with pages of their own the memory stays flat.
    """
    _set(mmap_threshold=2**20, trim_threshold=64 * 2**20, top_pad=2**20)
    try:
        yield
    finally:
        keep_freed_memory()


def _set(*, mmap_threshold: int, trim_threshold: int, top_pad: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    settings = ((_M_MMAP_THRESHOLD, mmap_threshold), (_M_TRIM_THRESHOLD, trim_threshold), (_M_TOP_PAD, top_pad))
    done = [mallopt(option, value) == 1 for option, value in settings]  # each, even if one is refused
    return all(done)


def pick_device(name: str | None) -> "torch.device":
    """The device of that name; where none is named, a GPU if there is one.

    Raises:
        ConfigError: if there is no such device here.
    """
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).item()  # the device "meta" has tensors without values
    except (ImportError, RuntimeError, AssertionError) as error:  # an AssertionError where torch was built without CUDA
        cause = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used ({cause}); name another such as cpu, or none") from None
    return device
