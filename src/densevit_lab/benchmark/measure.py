"""One case: convert, compare, then run both sides in turns, each in a process of its own."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from densevit.types import Size
from densevit_lab.benchmark.cases import Case
from densevit_lab.benchmark.child import OVER, ChildError, Worker
from densevit_lab.benchmark.peers import EXTRA, PEERS
from densevit_lab.benchmark.photo import write_photo
from densevit_lab.benchmark.record import Agreement, CaseRecord, MemorySample, Sample, SideRecord
from densevit_lab.benchmark.sides import TORCH, SideSpec, missing_packages

LABELS_EQUAL = 0.999
"""Share of equal labels from which two label maps are the same but for ties and rounding."""
VALUES_WITHIN = 1e-4
"""Largest difference of two depth maps, over their range, that rounding explains."""
LONG_RUN_S = 60.0
"""From this length on the first run counts as a sample: what it has to warm up does not show."""
PEER = "peer"

Say = Callable[[str], None]
Keeps = Literal["neither", "both", "ours"]


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure.

    Attributes:
        rounds: most samples of each side.
        least: rounds that are taken whatever they cost.
        budget_s: no further round begins after so many seconds of a case.
        threads: numbers of threads to measure with; the first is that of the bars.
        memory: fresh processes for memory, of each side.
        keep_freed_memory: whether glibc keeps freed memory, as ``densevit`` on the command line has it: on "neither"
            side, on "both", or on "ours" alone.
        deadline: ``time.monotonic`` at which everything ends.
    """

    rounds: int = 15
    least: int = 3
    budget_s: float = 120.0
    threads: tuple[int, ...] = (1,)
    memory: int = 3
    keep_freed_memory: Keeps = "neither"
    deadline: float = float("inf")

    def worker(self, threads: int, log: Path) -> Worker:
        """A fresh process whose answers come before the deadline.

        Raises:
            ChildError: if that is over.
        """
        if time.monotonic() >= self.deadline:
            raise ChildError(OVER)
        return Worker(threads=threads, log=log, limit_s=3600.0, until=self.deadline)

    def keeps(self, side: str) -> bool:
        """Whether a side keeps freed memory."""
        return self.keep_freed_memory == "both" or (self.keep_freed_memory == "ours" and side != PEER)


def compare(ours: NDArray[np.generic], theirs: NDArray[np.generic], *, values: bool) -> Agreement:
    """Whether two outputs are the same, up to ties and rounding.

    Args:
        ours: (H, W).
        theirs: (H, W).
        values: depth, rather than labels.
    """
    if ours.shape != theirs.shape:
        return Agreement(equal=0.0, max_error=0.0, passed=False)
    if not values:
        equal = float(np.mean(ours.astype(np.int64) == theirs.astype(np.int64)))
        return Agreement(equal=equal, max_error=0.0, passed=equal >= LABELS_EQUAL)
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    spread = float(b.max() - b.min()) or 1.0
    errors = np.abs(a - b) / spread
    worst = float(errors.max())
    if not np.isfinite(worst):
        return Agreement(equal=0.0, max_error=0.0, passed=False)
    return Agreement(equal=float(np.mean(errors <= VALUES_WITHIN)), max_error=worst, passed=worst <= VALUES_WITHIN)


def measure_case(
    name: str, case: Case, plan: Plan, folder: Path, *, engines: tuple[str, ...] = (TORCH,), say: Say = lambda _: None
) -> CaseRecord:
    """A case against its peer, from the conversion of the weights on; a missing peer is a problem in the record."""
    title = PEERS[case.peer].title
    known = {"against": title, "bars": case.bars}
    peer = SideSpec(kind="peer", source=case.peer, options=case.options, output=case.output)
    if missing := missing_packages(peer):
        problem = f"not measured: install {EXTRA} ({', '.join(missing)} missing)"
        return CaseRecord(name=name, title=case.title, problem=problem).model_copy(update=known)
    weights = folder / f"{name}.safetensors"
    say("converting the weights")
    try:
        with plan.worker(1, folder / f"{name}.log") as child:
            child.ask("convert", side=peer.plain(), weights=str(weights))
        facts = {"source": str(weights), "protocol": case.protocol, "output": case.output}
        ours = {engine: SideSpec.parse({"kind": "ours", "engine": engine, **facts}) for engine in engines}
        titles = {PEER: title} | {engine: f"densevit, {engine}" for engine in engines}
        sides = {PEER: peer, **ours}
        found = measure_sides(name, case.title, sides, titles, plan, folder, say, image_size=case.image_size)
        return found.model_copy(update=known)
    except ChildError as error:
        return CaseRecord(name=name, title=case.title, problem=str(error)).model_copy(update=known)
    finally:
        weights.unlink(missing_ok=True)


def measure_sides(
    name: str,
    title: str,
    specs: Mapping[str, SideSpec],
    titles: Mapping[str, str],
    plan: Plan,
    folder: Path,
    say: Say,
    *,
    image_size: Size = (512, 512),
) -> CaseRecord:
    """Sides against that of ``PEER``, or alone; what goes wrong is in the record."""
    began = time.monotonic()
    photo = folder / f"{name}.jpg"
    write_photo(photo, image_size)
    try:
        sides = _Sides(specs, photo, folder, folder / f"{name}.log", plan, say).measure()
    except ChildError as error:
        return CaseRecord(name=name, title=title, problem=str(error), seconds=time.monotonic() - began)
    named = {key: side.model_copy(update={"title": titles[key]}) for key, side in sides.items()}
    peer = named.pop(PEER, None)
    against = titles.get(PEER, "")
    return CaseRecord(name=name, title=title, against=against, peer=peer, ours=named, seconds=time.monotonic() - began)


class _Sides:
    """The sides of one case: peer and ours, or ours alone."""

    def __init__(
        self, specs: Mapping[str, SideSpec], photo: Path, folder: Path, log: Path, plan: Plan, say: Say
    ) -> None:
        self.specs, self.photo, self.folder, self.log, self.plan, self.say = specs, photo, folder, log, plan, say
        self.records = {key: SideRecord(title=key) for key in specs}
        self.is_long = False

    def measure(self) -> dict[str, SideRecord]:
        """Everything of the case. A side of ours that fails has the reason in its record; the peer's failure raises."""
        for index, threads in enumerate(self.plan.threads):
            self._time(threads, first=index == 0)
        for key in self._sound():
            # Other engines have no bar, and build their programs anew in every process; a long case is run but once.
            if self.specs[key].engine == TORCH and not self.is_long:
                self._memory(key)
        return self.records

    def _sound(self) -> list[str]:
        return [key for key, record in self.records.items() if not record.problem]

    def _set(self, key: str, **changes: object) -> None:
        self.records[key] = self.records[key].model_copy(update=changes)

    def _time(self, threads: int, *, first: bool) -> None:
        """Interleaved rounds with one number of threads."""
        with ExitStack() as stack:
            # All begin to import at once, one after the other loads.
            workers = {key: stack.enter_context(self.plan.worker(threads, self.log)) for key in self._sound()}
            early: dict[str, Sample] = {}
            for key, worker in list(workers.items()):
                try:
                    early[key] = self._start(key, worker, threads, first=first)
                except ChildError as error:
                    if key == PEER:
                        raise
                    self._set(key, problem=str(error))
                    del workers[key]
            if PEER in workers and first:
                self._compare(workers)
            samples = self._rounds({key: workers[key] for key in self._sound() if key in workers}, early, threads)
        for key, taken in samples.items():
            self._set(key, samples=self.records[key].samples | {str(threads): tuple(taken)})

    def _start(self, key: str, worker: Worker, threads: int, *, first: bool) -> Sample:
        """Load a side, and run it once or twice; the sample of its first run."""
        self.say(f"{key}: loading, {threads} thread{'s' * (threads > 1)}")
        loaded = worker.ask(
            "load", side=self.specs[key].plain(), threads=threads, keep_freed_memory=self.plan.keeps(key)
        )
        counts = first and key == TORCH and self.is_long  # costs no time that shows, but memory
        answer = worker.ask("first", image=str(self.photo), output=str(self._output(key)), flops=counts)
        flops, memory = answer.pop("flops", None), MemorySample(**answer.pop("memory"))
        sample = Sample(**answer)
        if first:
            self.is_long |= sample.cpu >= LONG_RUN_S
            self._set(key, memory=() if counts else (memory,))
            if not counts and (key == TORCH or (key == PEER and not self.is_long)):
                flops = worker.ask("flops", image=str(self.photo))["flops"]
            self._set(key, load_seconds=loaded["seconds"], flops=flops)
        return sample

    def _compare(self, workers: dict[str, Worker]) -> None:
        theirs = np.load(self._output(PEER))
        for key in [key for key in workers if key != PEER]:
            agreement = compare(np.load(self._output(key)), theirs, values=self.specs[key].output == "depth")
            self._set(key, agreement=agreement)
            if not agreement.passed:
                self._set(key, problem=f"invalid: the outputs differ ({describe(agreement, self.specs[key])})")

    def _rounds(self, workers: dict[str, Worker], early: dict[str, Sample], threads: int) -> dict[str, list[Sample]]:
        plan, began = self.plan, time.monotonic()
        is_long = max((sample.cpu for sample in early.values()), default=0.0) >= LONG_RUN_S
        samples: dict[str, list[Sample]] = {key: [early[key]] if is_long else [] for key in workers}
        if set(workers) <= {PEER}:  # nothing of ours is left to compare with
            return {}
        order = list(workers)
        while (taken := len(samples[order[0]])) < plan.rounds:
            spent = time.monotonic() - began
            per_round = spent / max(taken - is_long, 1) if taken > is_long else sum(s.wall for s in early.values())
            enough = taken >= (1 if is_long else plan.least)
            if enough and spent + per_round > plan.budget_s:
                break
            if taken and time.monotonic() + per_round > plan.deadline:
                break
            self.say(f"round {taken + 1} of at most {plan.rounds}, {threads} thread{'s' * (threads > 1)}")
            try:
                for key in order if taken % 2 == 0 else order[::-1]:
                    samples[key].append(Sample(**workers[key].ask("run", image=str(self.photo))))
            except ChildError:
                if not taken or time.monotonic() < plan.deadline:
                    raise
                return {key: some[:taken] for key, some in samples.items()}  # the time was over within a round
        return samples

    def _memory(self, key: str) -> None:
        taken = list(self.records[key].memory)
        for index in range(len(taken), self.plan.memory):
            self.say(f"{key}: memory in a fresh process, {index + 1} of {self.plan.memory}")
            try:
                with self.plan.worker(1, self.log) as worker:
                    load = {"side": self.specs[key].plain(), "threads": 1}
                    worker.ask("load", **load, keep_freed_memory=self.plan.keeps(key))
                    taken.append(MemorySample(**worker.ask("first", image=str(self.photo))["memory"]))
            except ChildError as error:
                self.say(f"{key}: {error}")
                break
        self._set(key, memory=tuple(taken))

    def _output(self, key: str) -> Path:
        return self.folder / f"output-{key}.npy"


def describe(agreement: Agreement, spec: SideSpec) -> str:
    """An agreement in words."""
    if spec.output == "depth":
        return f"largest error {agreement.max_error:.2g} of the range, {VALUES_WITHIN:g} is allowed"
    return f"{agreement.equal:.2%} of the labels are equal, {LABELS_EQUAL:.1%} are needed"
