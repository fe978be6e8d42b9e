"""One case: convert the weights, compare the outputs, then time all workloads in turns, each in its own process."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from densevit_lab.benchmark.cases import Case
from densevit_lab.benchmark.peers import EXTRA, missing_packages
from densevit_lab.benchmark.photo import write_photo
from densevit_lab.benchmark.process import TIME_IS_OVER, WorkerError, WorkerProcess
from densevit_lab.benchmark.record import TORCH, Agreement, CaseRecord, MemorySample, Sample, WorkloadRecord
from densevit_lab.benchmark.workloads import WorkloadSpec

LABELS_EQUAL = 0.999
"""Share of equal labels from which two label maps differ only by ties and rounding."""
VALUES_WITHIN = 1e-4
"""Largest difference of two depth maps, over their range, that rounding explains."""
LONG_RUN_S = 60.0
"""From this duration on the first run counts as a sample, since its warm-up is negligible."""
QUICK_S = 270.0
"""A quick run ends after this; its processes need a moment to end."""
FEW_PHOTOS = 10
"""Photos that a quick run measures metrics on."""
PEER = "peer"
"""Key of the workload with which the others are compared."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure.

    Attributes:
        rounds: most samples of each workload.
        least: rounds that are run however long they take.
        budget_s: no further round begins after so many seconds of a case.
        threads: numbers of threads to measure with.
        memory: memory samples of each workload, each in a fresh process.
        keep_freed_memory: which processes have glibc keep freed memory, as the command line of densevit does.
        photos: most photos of a val split that a metric is measured on, spread over it; None for all.
        deadline: ``time.monotonic`` at which everything ends.
    """

    quick: bool = False
    rounds: int = 15
    least: int = 3
    budget_s: float = 120.0
    threads: tuple[int, ...] = (1,)
    memory: int = 3
    keep_freed_memory: Literal["neither", "both", "ours"] = "neither"
    engines: tuple[str, ...] = (TORCH,)
    photos: int | None = None
    deadline: float = float("inf")

    def as_quick(self) -> Self:
        """Few cases and samples, and an end within five minutes."""
        photos = min(self.photos or FEW_PHOTOS, FEW_PHOTOS)
        few = replace(self, quick=True, rounds=min(self.rounds, 5), least=1, budget_s=30.0, memory=1, photos=photos)
        return replace(few, deadline=time.monotonic() + QUICK_S)

    def start_worker(self, threads: int, log: Path) -> WorkerProcess:
        """Start a process whose answers come before the deadline, unless that has passed."""
        if time.monotonic() >= self.deadline:
            raise WorkerError(TIME_IS_OVER)
        return WorkerProcess(threads=threads, log=log, deadline=self.deadline)


def compare(ours: NDArray[np.generic], theirs: NDArray[np.generic], *, values: bool) -> Agreement:
    """Compare two outputs of shape (H, W), up to ties and rounding; ``values``: depth, rather than labels."""
    different = Agreement(equal=0.0, max_error=0.0, passed=False)
    if ours.shape != theirs.shape:
        return different
    if not values:
        equal = float(np.mean(ours.astype(np.int64) == theirs.astype(np.int64)))
        return Agreement(equal=equal, max_error=0.0, passed=equal >= LABELS_EQUAL)
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    errors = np.abs(a - b) / (float(b.max() - b.min()) or 1.0)
    worst = float(errors.max())
    if not np.isfinite(worst):
        return different
    return Agreement(equal=float(np.mean(errors <= VALUES_WITHIN)), max_error=worst, passed=worst <= VALUES_WITHIN)


def measure_workloads(
    specs: Mapping[str, WorkloadSpec], photo: Path, plan: Plan, say: Say
) -> dict[str, WorkloadRecord]:
    """Compare the outputs of workloads with those of ``PEER``, and time all of them in turns.

    Raises:
        WorkerError: if the peer fails; of the others, the record says why.
    """
    return _CaseRun(specs, photo, plan, say).measure()


def measure_case(name: str, case: Case, plan: Plan, folder: Path, say: Say) -> CaseRecord:
    """Measure a case, with its files in a folder; the record says what failed or is missing."""
    began = time.monotonic()
    record = CaseRecord(name=name, title=case.title, against=case.peer.title if case.peer is not None else "")
    weights = folder / f"{name}.safetensors"
    photo = folder / f"{name}.jpg"
    write_photo(photo, case.image_size)
    specs = {PEER: case.peer} if case.peer is not None else {}
    for key, spec in case.ours.items():
        if spec.kind != "ours":
            specs[key] = spec
            continue
        source = spec.source or str(weights)
        for engine in plan.engines:
            changes = {"title": f"densevit, {engine}", "source": source, "engine": engine}
            specs[engine] = spec.model_copy(update=changes)
    try:
        if case.peer is not None and case.peer.kind == "peer":
            if missing := missing_packages(case.peer.source):
                raise WorkerError(f"not measured: install {EXTRA} ({', '.join(missing)} missing)")
            say(f"{name}: converting the weights")
            with plan.start_worker(1, folder / f"{name}.log") as worker:
                worker.ask("convert", workload=case.peer.plain(), weights=str(weights))
        ours = measure_workloads(specs, photo, plan, lambda text: say(f"{name}: {text}"))
        record = record.model_copy(update={"peer": ours.pop(PEER, None), "ours": ours})
    except WorkerError as error:
        record = record.model_copy(update={"problem": str(error)})
    finally:
        weights.unlink(missing_ok=True)
    return record.model_copy(update={"seconds": time.monotonic() - began})


class _CaseRun:
    """The workloads of one case and their records so far."""

    def __init__(self, specs: Mapping[str, WorkloadSpec], photo: Path, plan: Plan, say: Say) -> None:
        self.specs = specs
        self.photo = photo
        self.log = photo.with_suffix(".log")
        self.plan = plan
        self.say = say
        self.records = {key: WorkloadRecord(title=spec.title) for key, spec in specs.items()}
        self.is_long = False

    def measure(self) -> dict[str, WorkloadRecord]:
        """Measure everything. If a workload of ours fails, its record says why; a failure of the peer raises."""
        for index, threads in enumerate(self.plan.threads):
            self._time(threads, first=index == 0)
        for key in self._sound():
            # Other engines compile again in every process, and a long case runs only once.
            if self.specs[key].engine == TORCH and not self.is_long:
                self._measure_memory(key)
        return self.records

    def _sound(self) -> list[str]:
        return [key for key, record in self.records.items() if not record.problem]

    def _update(self, key: str, **changes: object) -> None:
        self.records[key] = self.records[key].model_copy(update=changes)

    def _load(self, worker: WorkerProcess, key: str, threads: int) -> float:
        """Build a workload in a worker; the seconds that took."""
        keeps = self.plan.keep_freed_memory
        keep = keeps == "both" or (keeps == "ours" and key != PEER)
        answer = worker.ask("load", workload=self.specs[key].plain(), threads=threads, keep_freed_memory=keep)
        return float(answer["seconds"])

    def _time(self, threads: int, *, first: bool) -> None:
        """Time all workloads with one number of threads."""
        with ExitStack() as stack:
            # All processes start importing at once; the models are loaded one after the other.
            workers = {key: stack.enter_context(self.plan.start_worker(threads, self.log)) for key in self._sound()}
            first_runs: dict[str, Sample] = {}
            for key, worker in workers.items():
                try:
                    first_runs[key] = self._start(key, worker, threads, first=first)
                except WorkerError as error:
                    if key == PEER:
                        raise
                    self._update(key, problem=str(error))
            if PEER in workers and first:
                self._compare([key for key in first_runs if key != PEER])
            sound = {key: workers[key] for key in self._sound()}
            samples = self._rounds(sound, first_runs, threads)
        for key, taken in samples.items():
            self._update(key, samples=self.records[key].samples | {str(threads): tuple(taken)})

    def _start(self, key: str, worker: WorkerProcess, threads: int, *, first: bool) -> Sample:
        """Load a workload, and run it once or twice; returns the sample of its first run."""
        self.say(f"{key}: loading, threads: {threads}")
        load_seconds = self._load(worker, key, threads)
        # The counter does not see operations inside the kernels of our backward pass.
        countable = first and self.specs[key].kind != "training" and key in (PEER, TORCH)
        # A long model is not run a second time for its operations; counting costs memory, but hardly time.
        count_now = countable and key == TORCH and self.is_long
        answer = worker.ask("first", image=str(self.photo), output=str(self._output(key)), flops=count_now)
        flops = answer.pop("flops", None)
        memory = MemorySample(**answer.pop("memory"))
        sample = Sample(**answer)
        if first:
            self.is_long |= sample.cpu >= LONG_RUN_S
            if countable and not count_now and (key == TORCH or not self.is_long):
                flops = worker.ask("flops", image=str(self.photo))["flops"]
            self._update(key, memory=() if count_now else (memory,), load_seconds=load_seconds, flops=flops)
        return sample

    def _compare(self, keys: list[str]) -> None:
        theirs = np.load(self._output(PEER))
        for key in keys:
            is_depth = self.specs[key].output == "depth"
            agreement = compare(np.load(self._output(key)), theirs, values=is_depth)
            self._update(key, agreement=agreement)
            if not agreement.passed and not self.specs[key].rounded:
                cause = f"{agreement.equal:.2%} of the labels are equal, {LABELS_EQUAL:.1%} are needed"
                if is_depth:
                    cause = f"largest error {agreement.max_error:.2g} of the range, {VALUES_WITHIN:g} is allowed"
                self._update(key, problem=f"invalid: the outputs differ ({cause})")

    def _rounds(
        self, workers: Mapping[str, WorkerProcess], first_runs: Mapping[str, Sample], threads: int
    ) -> dict[str, list[Sample]]:
        """Run the workloads in turns, forwards and backwards, so that other work on the machine slows all of them."""
        rounded = any(spec.rounded for spec in self.specs.values())  # there the peer is of interest by itself
        if not workers or (set(workers) == {PEER} and not rounded):  # nothing of ours is left to compare with
            return {}
        plan = self.plan
        is_long = max(sample.cpu for sample in first_runs.values()) >= LONG_RUN_S
        samples = {key: [first_runs[key]] if is_long else [] for key in workers}
        least = 1 if is_long else plan.least
        began = time.monotonic()
        seconds_per_round = sum(sample.wall for sample in first_runs.values())
        for index in range(int(is_long), plan.rounds):
            end = time.monotonic() + seconds_per_round
            if (index >= least and end - began > plan.budget_s) or (index > 0 and end > plan.deadline):
                break
            self.say(f"round {index + 1} of at most {plan.rounds}, threads: {threads}")
            try:
                for key in list(workers) if index % 2 == 0 else reversed(list(workers)):
                    samples[key].append(Sample(**workers[key].ask("run", image=str(self.photo))))
            except WorkerError:
                if index == 0 or time.monotonic() < plan.deadline:
                    raise
                # The deadline passed within this round: keep the complete ones.
                return {key: taken[:index] for key, taken in samples.items()}
            seconds_per_round = (time.monotonic() - began) / (index + 1 - is_long)
        return samples

    def _measure_memory(self, key: str) -> None:
        samples = list(self.records[key].memory)
        for index in range(len(samples), self.plan.memory):
            self.say(f"{key}: memory in a fresh process, {index + 1} of {self.plan.memory}")
            try:
                with self.plan.start_worker(1, self.log) as worker:
                    self._load(worker, key, 1)
                    samples.append(MemorySample(**worker.ask("first", image=str(self.photo))["memory"]))
            except WorkerError as error:
                self.say(f"{key}: {error}")
                break
        self._update(key, memory=tuple(samples))

    def _output(self, key: str) -> Path:
        return self.photo.with_name(f"output-{key}.npy")
