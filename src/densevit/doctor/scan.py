"""One pass over the files of a data set, by several processes, in bounded memory."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from densevit.doctor.facts import Broken, SampleFacts
from densevit.doctor.layout import Split
from densevit.doctor.probe import probe
from densevit.doctor.semantics import invalid_depths

Job = tuple[str, str, dict[str, Path], tuple[float, ...]]
"""Split, stem, files by kind, and depths that stand for no measurement."""

_CHUNK = 16
"""Samples that a process gets at once: more would make the bar jump, fewer cost messages."""


def jobs_of(splits: Sequence[Split], sample: int | None) -> list[Job]:
    """What is to be read: all, or ``sample`` photos of each split, spread evenly over it."""
    return [
        (split.name, stem, split.files(stem), invalid_depths(split.config))
        for split in splits
        for stem in _spread(list(split.photos), sample)
    ]


def scan(jobs: Sequence[Job], *, workers: int = 0, progress: Callable[[int], None] | None = None) -> list[SampleFacts]:
    """The facts of every sample, in order.

    Args:
        jobs: what to read.
        workers: processes; 0 reads in this one.
        progress: is told how many are done.
    """
    facts: list[SampleFacts] = []
    for found in ([probe(*job)] for job in jobs) if workers < 1 else _in_processes(jobs, workers):
        facts += found
        if progress is not None:
            progress(len(facts))
    return facts


def _in_processes(jobs: Sequence[Job], workers: int) -> Iterator[list[SampleFacts]]:
    """Chunks of facts in order; only a few chunks are under way at a time."""
    waiting: deque[tuple[tuple[Job, ...], Future[list[SampleFacts]] | None]] = deque()
    chunks = _chunks(jobs)
    pool = _pool(workers)
    try:
        while True:
            while len(waiting) < 3 * workers and (chunk := next(chunks, None)) is not None:
                waiting.append((chunk, _submit(pool, chunk)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            try:
                if future is None:
                    raise BrokenProcessPool
                yield future.result()
            except BrokenProcessPool:  # a decoder died of a file, or memory ran out; find out which file it was
                yield _one_by_one(chunk)
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _pool(workers)
                waiting = deque((c, _submit(pool, c)) for c, _ in waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one_by_one(chunk: Sequence[Job]) -> list[SampleFacts]:
    """A chunk in a process of its own, a new one whenever it dies."""
    facts: list[SampleFacts] = []
    pool: ProcessPoolExecutor | None = None
    for job in chunk:
        pool = pool or _pool(1)
        try:
            facts += pool.submit(_probe_all, (job,)).result()
        except BrokenProcessPool:
            split, stem, files, _ = job
            crashed = Broken(str(files["images"]), "unreadable", "or one of its targets ends the program that reads it")
            facts.append(SampleFacts(split, stem, crashed))
            pool = None
    if pool is not None:
        pool.shutdown()
    return facts


def _submit(pool: ProcessPoolExecutor, chunk: tuple[Job, ...]) -> Future[list[SampleFacts]] | None:
    try:
        return pool.submit(_probe_all, chunk)
    except BrokenProcessPool:
        return None


def _probe_all(chunk: Sequence[Job]) -> list[SampleFacts]:
    return [probe(*job) for job in chunk]


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not forked from here: the caller may hold threads, of torch for one, that would not come along with their locks.
    # A server that forks from a clean process starts fast, where there is one.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["densevit.doctor.scan"])
    return ProcessPoolExecutor(workers, mp_context=context)


def _chunks(jobs: Sequence[Job]) -> Iterator[tuple[Job, ...]]:
    return (tuple(jobs[i : i + _CHUNK]) for i in range(0, len(jobs), _CHUNK))


def _spread(names: list[str], sample: int | None) -> list[str]:
    if sample is None or sample >= len(names):
        return names
    return [names[i * len(names) // sample] for i in range(sample)]
