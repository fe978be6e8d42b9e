"""What a run leaves behind: every sample, with the machine it was taken on; plain data in one JSON file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from densevit.config import Config
from densevit.errors import ConfigError, DataError
from densevit_lab.benchmark.cases import Bars


class Sample(Config):
    """One prediction: seconds of the CPU (all threads together) and of the clock."""

    cpu: float
    wall: float


class MemorySample(Config):
    """Resident bytes around the first prediction of a fresh process; see ``memory.Memory``."""

    before: int
    peak: int
    transient: int
    exact: bool


class Agreement(Config):
    """How far the output agrees with the peer's.

    Attributes:
        equal: share of the pixels whose labels are equal; for values, of those within the tolerance.
        max_error: largest absolute difference over the range of the peer's values; 0 for labels.
        passed: whether that counts as the same output.
    """

    equal: float
    max_error: float
    passed: bool


class SideRecord(Config):
    """One side of a case.

    Attributes:
        title: program and engine.
        samples: by number of threads; sample i of every side of the case was taken in the same round.
        memory: one per fresh process.
        flops: of one prediction in eager torch.
        load_seconds: to build the model.
        agreement: with the peer; None for the peer itself.
        problem: why there are no samples, or fewer.
    """

    title: str
    samples: dict[str, tuple[Sample, ...]] = Field(default_factory=dict)
    memory: tuple[MemorySample, ...] = ()
    flops: int | None = None
    load_seconds: float | None = None
    agreement: Agreement | None = None
    problem: str = ""


class Occasion(Config):
    """When and how a case was measured; cases of one record may come from several runs.

    Attributes:
        commit: of this source tree, with "+" if files differ from it; None outside a clone.
        time: UTC, when the case began.
        load_average: of the machine then.
        command: line of the run.
        settings: how thoroughly was measured.
    """

    commit: str | None
    time: str
    load_average: tuple[float, ...] | None = None
    command: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)


class CaseRecord(Config):
    """One case.

    Attributes:
        name: key of the case.
        title: model and image size.
        against: the peer's name; empty where there is none.
        bars: what was demanded.
        peer: its side.
        ours: our sides by engine.
        problem: why nothing was measured.
        seconds: that the case took.
        occasion: when and how; None where nothing was tried.
    """

    name: str
    title: str
    against: str = ""
    bars: Bars = Bars()
    peer: SideRecord | None = None
    ours: dict[str, SideRecord] = Field(default_factory=dict)
    problem: str = ""
    seconds: float = 0.0
    occasion: Occasion | None = None


class Record(Config):
    """A run, or several of one suite on one machine.

    Attributes:
        suite: which.
        machine: see ``machine.facts``.
        gemm: every sample of float32 matrix products, operations per CPU second with one thread, by shape.
        cases: in the order of the table.
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


def joined(old: Record, new: Record, *, order: Sequence[str]) -> Record:
    """A record with the cases of both; a case of the new one replaces that of the old unless it was not tried.

    Args:
        old: measured before.
        new: measured now.
        order: of the cases.

    Raises:
        ConfigError: if they are of two suites or two machines; versions of packages are part of the machine.
    """
    if old.suite != new.suite:
        raise ConfigError(
            f"the record holds suite {old.suite!r} but suite {new.suite!r} was asked for; a record holds one suite; "
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
    gemm = {shape: (*old.gemm.get(shape, ()), *new.gemm.get(shape, ())) for shape in {**old.gemm, **new.gemm}}
    in_order = sorted(cases.values(), key=lambda case: ranks.get(case.name, len(ranks)))
    return new.model_copy(update={"gemm": gemm, "cases": tuple(in_order)})


def read_record(path: Path) -> Record:
    """A record from its file.

    Raises:
        DataError: if there is none, or it is not JSON.
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
