"""A disk that is full, without rights to mount one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond some bytes, as if the disk were full; unlike ``small_disk`` that needs no rights."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
