"""What a run consists of, and the run itself."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from densevit.benchmark.cases import CASES
from densevit.benchmark.child import Worker
from densevit.benchmark.machine import facts
from densevit.benchmark.measure import Keeps, Plan, Say, measure_case
from densevit.benchmark.peers import PEERS
from densevit.benchmark.record import CaseRecord, Record
from densevit.benchmark.sides import TORCH
from densevit.config import nearest
from densevit.errors import ConfigError

QUICK_S = 270.0
"""A quick run ends after this, and its processes need a moment to do so."""


@dataclass(frozen=True)
class Options:
    """What a person asks for.

    Attributes:
        pattern: which cases.
        quick: few cases, few samples, and an end within five minutes.
        engines: of ours, beside eager torch.
        threads: numbers of threads, beside one.
        rounds: most samples of each side.
        keep_freed_memory: see ``Plan``.
        device: of the suite "gpu".
    """

    pattern: str = "*"
    quick: bool = False
    engines: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    rounds: int = 15
    keep_freed_memory: Keeps = "neither"
    device: str | None = None

    def plan(self) -> Plan:
        """How thoroughly to measure."""
        threads = tuple(dict.fromkeys((1, *self.threads)))
        plan = Plan(rounds=self.rounds, threads=threads, keep_freed_memory=self.keep_freed_memory)
        if not self.quick:
            return plan
        return replace(
            plan, rounds=min(self.rounds, 5), least=1, budget_s=30.0, memory=1, deadline=time.monotonic() + QUICK_S
        )


def run_suite(suite: str, options: Options, say: Say) -> Record:
    """Measure a suite.

    Raises:
        ConfigError: if there is no such suite, or no case of it has such a name.
    """
    if suite not in SUITES:
        raise ConfigError(f"there is no suite {suite!r}{nearest(suite, SUITES)}")
    return SUITES[suite](options, say)


def choose(names: Sequence[str], pattern: str) -> list[str]:
    """The names of cases that a pattern such as ``setr-*`` fits.

    Raises:
        ConfigError: if there are none, with the nearest name.
    """
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(f"there is no case {pattern!r}{nearest(pattern, names)}")
    return found


def run_peers(options: Options, say: Say) -> Record:
    """Our predictions against those of other programs."""
    chosen, plan = choose(list(CASES), options.pattern), options.plan()
    engines = tuple(dict.fromkeys((TORCH, *options.engines)))
    gemm = Rates(plan)

    def measure(name: str, folder: Path) -> CaseRecord:
        case = CASES[name]
        if options.quick and options.pattern == "*" and not case.quick:
            record = CaseRecord(name=name, title=case.title, against=PEERS[case.peer].title, bars=case.bars)
            return record.model_copy(update={"problem": "left out by --quick"})
        gemm.sample(folder)
        return measure_case(name, case, plan, folder, engines=engines, say=lambda text: say(f"{name}: {text}"))

    cases = _each(chosen, measure)
    return Record(suite="peers", machine=facts(), settings=_settings(plan, options.quick), gemm=gemm.found, cases=cases)


class Rates:
    """The machine's rates of matrix products, sampled all through a run."""

    def __init__(self, plan: Plan) -> None:
        self.found: dict[str, tuple[float, ...]] = {}
        self._plan = plan

    def sample(self, folder: Path, seconds: float = 0.25) -> None:
        """Add samples from a fresh process."""
        if time.monotonic() > self._plan.deadline:
            return
        with Worker(threads=1, log=folder / "gemm.log") as worker:
            for shape, rates in worker.ask("gemm", seconds=seconds)["rates"].items():
                self.found[shape] = (*self.found.get(shape, ()), *rates)


def _each(names: Sequence[str], measure: Callable[[str, Path], CaseRecord]) -> tuple[CaseRecord, ...]:
    with tempfile.TemporaryDirectory(prefix="densevit-benchmark-") as folder:
        return tuple(measure(name, Path(folder)) for name in names)


def _settings(plan: Plan, quick: bool) -> dict[str, Any]:
    settings = asdict(plan)
    del settings["deadline"]
    return {"quick": quick, **settings}


SUITES: dict[str, Callable[[Options, Say], Record]] = {"peers": run_peers}
