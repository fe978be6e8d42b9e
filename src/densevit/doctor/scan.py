"""One pass over the files of a data set, in several processes and bounded memory."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from densevit.data import FolderConfig
from densevit.doctor.drawing import Drawing, StoredMask
from densevit.doctor.facts import Broken, SampleFacts
from densevit.doctor.layout import Split
from densevit.doctor.probe import probe

Job = tuple[str, str, dict[str, Path], FolderConfig, Drawing | StoredMask | None]
"""Split, name of the pair, files by kind, how they are read, and how the mask is drawn or read."""

_CHUNK = 16
"""Samples per message to a process: more would make the progress bar jump, fewer cost messages."""

_T = TypeVar("_T")


def jobs_of(splits: Sequence[Split], sample: int | None) -> list[Job]:
    """The samples to read: all, or ``sample`` of each split, evenly spaced."""
    return [
        (split.name, name, split.files(name), split.config, split.drawing(name) or split.stored)
        for split in splits
        for name in evenly_spaced(list(split.photos), sample)
    ]


def evenly_spaced(items: Sequence[_T], number: int | None) -> list[_T]:
    """``number`` of the items, or all of them."""
    if number is None or number >= len(items):
        return list(items)
    return [items[i * len(items) // number] for i in range(number)]


def scan(jobs: Sequence[Job], *, workers: int = 0, progress: Callable[[int], None] | None = None) -> list[SampleFacts]:
    """The facts of every sample, in order, read in this process with 0 workers; ``progress`` gets the number done."""
    samples: list[SampleFacts] = []
    for chunk in ([probe(*job)] for job in jobs) if workers < 1 else _in_processes(jobs, workers):
        samples += chunk
        if progress is not None:
            progress(len(samples))
    return samples


def _in_processes(jobs: Sequence[Job], workers: int) -> Iterator[list[SampleFacts]]:
    """Chunks of facts in order; only a few chunks are in flight at a time."""
    waiting: deque[tuple[Sequence[Job], Future[list[SampleFacts]]]] = deque()
    chunks = (jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK))
    pool = _pool(workers)
    try:
        while True:
            while len(waiting) < 3 * workers and (chunk := next(chunks, None)) is not None:
                waiting.append((chunk, _submit(pool, chunk)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:  # a decoder crashed on a file, or memory ran out: find the file
                yield [_in_new_process(job) for job in chunk]
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _pool(workers)
                waiting = deque((c, _submit(pool, c)) for c, _ in waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, chunk: Sequence[Job]) -> Future[list[SampleFacts]]:
    try:
        return pool.submit(_probe_all, chunk)
    except BrokenProcessPool as error:
        failed: Future[list[SampleFacts]] = Future()
        failed.set_exception(error)
        return failed


def _in_new_process(job: Job) -> SampleFacts:
    """Read a sample that may crash the process."""
    try:
        with _pool(1) as pool:
            return pool.submit(probe, *job).result()
    except BrokenProcessPool:
        split, name, files, *_ = job
        reason = "or one of its targets crashes the process that reads it"
        return SampleFacts(split, name, Broken(str(files["images"]), "unreadable", reason))


def _probe_all(chunk: Sequence[Job]) -> list[SampleFacts]:
    return [probe(*job) for job in chunk]


def _pool(workers: int) -> ProcessPoolExecutor:
    # Never forked from this process: it may have threads (of torch, say), whose locks would be copied as they are.
    # A server that forks from a clean process starts fast, where there is one.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["densevit.doctor.scan"])
    return ProcessPoolExecutor(workers, mp_context=context)
