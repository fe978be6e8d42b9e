"""Multithreading for the C kernels."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def parallel_for(
    body: Callable[[int, int], None], count: int, *, grain: int | None = None, max_threads: int | None = None
) -> None:
    """Call ``body(start, stop)`` for ranges that cover ``range(count)``, on torch's number of threads.

    ``body`` must spend its time in ctypes calls, which release the interpreter's lock. Each thread gets one equal
    share, or, with ``grain``, ranges of that length one after another, for iterations that differ in cost.
    """
    threads = min(torch.get_num_threads(), count, max_threads or count)
    if threads <= 1:
        body(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    if grain is not None:
        bounds = [*range(0, count, grain), count]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(body, bounds[:-1], bounds[1:]))
