"""Multithreading for the C kernels."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

import torch


def parallel_for(
    body: Callable[[int, int], None], count: int, *, grain: int | None = None, max_threads: int | None = None
) -> None:
    """Call ``body(start, stop)`` for ranges that cover ``range(count)``, on torch's number of threads.

    ``body`` must spend its time in ctypes calls, which release the interpreter's lock, and must not call this function.
    Each thread gets one equal share, or, with ``grain``, ranges of that length one after another, for iterations that
    differ in cost.
    """
    threads = min(torch.get_num_threads(), count, max_threads or count)
    if threads <= 1:
        body(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    if grain is not None:
        bounds = [*range(0, count, grain), count]
    ranges = deque(pairwise(bounds))

    def work() -> None:
        while ranges:
            try:
                start, stop = ranges.popleft()
            except IndexError:  # another thread took the last one
                return
            body(start, stop)

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        wait(others)  # they write to memory that the caller owns
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: to start them takes as long as a small product."""
    return ThreadPoolExecutor(threads, thread_name_prefix="densevit-kernels")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
