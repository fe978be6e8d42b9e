"""Work of the C kernels over torch's number of threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def spread(some: Callable[[int, int], None], count: int) -> None:
    """Call ``some(first, last)`` for parts that make up 0 to ``count``, one for each thread."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        some(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        list(pool.map(some, bounds[:-1], bounds[1:]))
