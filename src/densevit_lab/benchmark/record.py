"""The record of a benchmark run: every sample with the machine it was taken on, as plain data in one JSON file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import Field, model_validator

from densevit.config import Config
from densevit.errors import ConfigError, DataError
from densevit_lab.benchmark.statistics import Ratio, ratio_of_medians

TORCH = "torch"
"""The engine of every densevit: eager torch."""
Clock = Literal["cpu", "wall"]


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


class WorkloadRecord(Config):
    """The measurements of one workload, which is a program with an engine.

    Attributes:
        samples: by number of threads; sample i of every workload of a case was taken in the same round.
        memory: one sample per fresh process.
        flops: of one prediction in eager torch.
        problem: why samples are missing.
    """

    title: str
    samples: dict[str, tuple[Sample, ...]] = Field(default_factory=dict)
    memory: tuple[MemorySample, ...] = ()
    flops: int | None = None
    load_seconds: float | None = None
    agreement: Agreement | None = None
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
        time: UTC, when the case began.
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
        against: the peer's name; empty where there is no peer.
        ours: our measurements by engine.
        problem: why nothing was measured.
        seconds: duration of the case.
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

    def speed_ratio(self, engine: str) -> Ratio | None:
        """How many times less CPU time an engine of ours needs than the peer; None where it was not measured."""
        ours, theirs = self._cpu_seconds(engine), self.peer.seconds() if self.peer is not None else []
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
        DataError: if the file is missing or not JSON.
        ConfigError: if it is not a record.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give a file that --json wrote") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); give a file that --json wrote") from None
    if not isinstance(data, dict):
        raise DataError(f"{path} holds {type(data).__name__}, but a record is a mapping; give a file that --json wrote")
    return Record.parse(data, source=str(path))
