"""The record of a benchmark run: every sample with the machine it was taken on, as plain data in one JSON file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from densevit.config import Config
from densevit.errors import ConfigError, DataError
from densevit.io import read_json

TORCH = "torch"
"""The engine of every densevit: eager torch."""
Clock = Literal["cpu", "wall"]
RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """How many times the other program's median is larger than ours, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def ratio_of_medians(theirs: Sequence[float], ours: Sequence[float], *, seed: int = 0) -> Ratio:
    """The ratio of medians of interleaved samples.

    Sample i of both was taken at nearly the same time, so the bootstrap draws pairs: other work on the machine that
    slows both down cancels.

    Raises:
        ValueError: if there are no samples, or the numbers differ.
    """
    a, b = np.asarray(theirs, dtype=np.float64), np.asarray(ours, dtype=np.float64)
    if a.size == 0 or a.shape != b.shape:
        raise ValueError(f"{a.size} samples against {b.size}; pairs are needed")
    draws = np.random.default_rng(seed).integers(0, a.size, size=(RESAMPLES, a.size))
    ratios = np.median(a[draws], axis=1) / np.median(b[draws], axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(float(np.median(a) / np.median(b)), float(low), float(high))


class Sample(Config):
    """Seconds of one prediction: CPU time of all threads together, and wall-clock time."""

    cpu: float
    wall: float


class MemorySample(Config):
    """Resident bytes around the first prediction of a fresh process; see ``densevit.memory.Memory``."""

    before: int
    peak: int
    transient: int
    exact: bool


class Agreement(Config):
    """How closely an output agrees with the peer's.

    Attributes:
        equal: share of equal labels, or of values within the tolerance.
        max_error: largest absolute difference over the range of the peer's values; 0 for labels.
        passed: whether that counts as the same output.
    """

    equal: float
    max_error: float
    passed: bool


class MetricRecord(Config):
    """What a program's outputs are worth on the val split of a data set.

    Attributes:
        figure: name of the metric, such as mIoU.
        photos: how many it was measured on.
        difference: from the outputs of the reference, mean of the photos: the share of labels, or relative values.
        largest_difference: that of the photo on which it is largest.
    """

    figure: str
    value: float
    photos: int
    difference: float | None = None
    largest_difference: float | None = None


class WorkloadRecord(Config):
    """The measurements of one workload, which is a program with an engine.

    Attributes:
        samples: by number of threads; sample i of every workload of a case was taken in the same round.
        memory: one sample per fresh process.
        flops: of one prediction in eager torch.
        file_bytes: size of the exported file that it runs.
        metric_problem: why there is no metric although the program runs.
    """

    title: str
    samples: dict[str, tuple[Sample, ...]] = Field(default_factory=dict)
    memory: tuple[MemorySample, ...] = ()
    flops: int | None = None
    load_seconds: float | None = None
    agreement: Agreement | None = None
    file_bytes: int | None = None
    metric: MetricRecord | None = None
    metric_problem: str = ""
    problem: str = ""

    def seconds(self, threads: str = "1", clock: Clock = "cpu") -> list[float]:
        """The samples of one clock."""
        return [getattr(sample, clock) for sample in self.samples.get(threads, ())]

    @property
    def transient_bytes(self) -> float | None:
        """Median of the memory that one prediction needs in addition to the built model."""
        return median(sample.transient for sample in self.memory) if self.memory else None


class RunInfo(Config):
    """When and how a case was measured; the cases of a record may come from several runs.

    Attributes:
        commit: of this source tree, with "+" if files differ from it; None outside a clone.
        settings: rounds, threads and the like.
    """

    commit: str | None
    time: str
    load_average: tuple[float, ...] | None = None
    command: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)


class CaseRecord(Config):
    """The measurements of one case.

    Attributes:
        against: the peer's name, or empty.
        ours: our measurements by engine.
        occasion: its run; None where nothing was tried.
    """

    name: str
    title: str
    against: str = ""
    peer: WorkloadRecord | None = None
    ours: dict[str, WorkloadRecord] = Field(default_factory=dict)
    problem: str = ""
    seconds: float = 0.0
    occasion: RunInfo | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_targets(cls, data: Any) -> Any:
        """Older records also hold target values of each case, under ``bars``."""
        return {key: value for key, value in data.items() if key != "bars"} if isinstance(data, Mapping) else data

    def speed_ratio(self, engine: str, threads: str = "1", clock: Clock = "cpu") -> Ratio | None:
        """How many times less time an engine of ours needs than the peer; None where it was not measured."""
        ours = self.ours[engine].seconds(threads, clock) if engine in self.ours else []
        theirs = self.peer.seconds(threads, clock) if self.peer is not None else []
        pairs = min(len(ours), len(theirs))
        return ratio_of_medians(theirs[:pairs], ours[:pairs]) if pairs else None

    def share_of_peak(self, engine: str, peak: float | None) -> float | None:
        """Operations of our eager model, over the CPU seconds of an engine, over the machine's rate."""
        eager, seconds = self.ours.get(TORCH), self._cpu_seconds(engine)
        flops = eager.flops if eager is not None else None
        return flops / median(seconds) / peak if seconds and flops and peak else None

    def fastest_engine(self) -> str | None:
        """The engine of ours with the least CPU time; None where nothing was measured."""
        medians = {engine: median(self._cpu_seconds(engine)) for engine in self.ours if self._cpu_seconds(engine)}
        return min(medians, key=lambda engine: medians[engine], default=None)

    def _cpu_seconds(self, engine: str) -> list[float]:
        return self.ours[engine].seconds() if engine in self.ours else []


class Record(Config):
    """One run, or several of one suite on one machine.

    Attributes:
        machine: see ``machine.describe_machine``.
        gemm: every sample of float32 matrix products, operations per CPU second with one thread, by shape.
    """

    format: Literal[2] = 2
    suite: str
    machine: dict[str, Any]
    gemm: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    cases: tuple[CaseRecord, ...] = ()

    @property
    def gemm_peak(self) -> float | None:
        """The machine's rate: the largest sample."""
        return max((max(rates) for rates in self.gemm.values() if rates), default=None)


def merge_records(old: Record, new: Record, *, order: Sequence[str]) -> Record:
    """The cases of both records in the given order; a case that the new one measured replaces the old one.

    Raises:
        ConfigError: if they are of two suites or two machines; versions of packages are part of the machine.
    """
    if old.suite != new.suite:
        raise ConfigError(
            f"the record holds suite {old.suite!r} but suite {new.suite!r} was requested; a record holds one suite; "
            "name another file"
        )
    for key in ("cpu", "instructions", "cores", "gpu", "python", "packages"):
        if (was := old.machine.get(key)) != (now := new.machine.get(key)):
            raise ConfigError(
                f"the record was measured with {key} {was} but here it is {now}; a record holds one machine and its "
                "versions; name another file"
            )
    cases = {case.name: case for case in old.cases}
    cases |= {case.name: case for case in new.cases if case.occasion is not None or case.name not in cases}
    ranks = {name: rank for rank, name in enumerate(order)}
    in_order = sorted(cases.values(), key=lambda case: ranks.get(case.name, len(ranks)))
    gemm = {shape: (*old.gemm.get(shape, ()), *new.gemm.get(shape, ())) for shape in {**old.gemm, **new.gemm}}
    return new.model_copy(update={"gemm": gemm, "cases": tuple(in_order)})


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        DataError, ConfigError: if the file is missing, or is not a record.
    """
    data = read_json(path, "a record that --json wrote")
    if not isinstance(data, dict):
        raise DataError(f"{path} holds {type(data).__name__}, but a record is a mapping; give a file that --json wrote")
    return Record.parse(data, source=str(path))
