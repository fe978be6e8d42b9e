"""A run of the benchmark: the cases of a suite, one after the other."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from densevit.config import nearest
from densevit.device import pick_device
from densevit.errors import ConfigError
from densevit_lab.benchmark.cases import SUITES
from densevit_lab.benchmark.gpu import GPU_CASES, measure_gpu_case
from densevit_lab.benchmark.machine import describe_machine, describe_run
from densevit_lab.benchmark.measure import Plan, Say, measure_case
from densevit_lab.benchmark.process import WorkerProcess
from densevit_lab.benchmark.record import CaseRecord, Record, RunInfo

LEFT_OUT = "left out by --quick"


def case_names(suite: str, pattern: str = "*") -> list[str]:
    """The names of the cases of a suite that fit a pattern such as ``setr-*``.

    Raises:
        ConfigError: if there is no such suite, or no case fits.
    """
    if suite not in (suites := [*SUITES, "gpu"]):
        raise ConfigError(f"there is no suite {suite!r}{nearest(suite, suites)}")
    names = list(GPU_CASES if suite == "gpu" else SUITES[suite])
    fitting = [name for name in names if fnmatchcase(name, pattern)]
    if not fitting:
        raise ConfigError(f"there is no case {pattern!r}{nearest(pattern, names)}")
    return fitting


def run_suite(
    suite: str,
    plan: Plan,
    say: Say,
    *,
    pattern: str = "*",
    device: str | None = None,
    keep: Callable[[Record], None] = lambda record: None,
) -> Record:
    """Measure the cases of a suite that fit a pattern.

    Args:
        suite: its name.
        plan: how thoroughly to measure.
        say: called with messages about the progress.
        pattern: of case names; a quick plan leaves out long cases unless one is given.
        device: for the suite "gpu"; a GPU by default.
        keep: called with the record so far, before the first case and after every case.

    Raises:
        ConfigError: if there is no such suite, case or device.
    """
    names = case_names(suite, pattern)
    settings: dict[str, Any] = {"quick": plan.quick, "rounds": plan.rounds}
    if suite == "gpu":
        device = str(pick_device(device or "cuda"))
        settings["device"] = device
    else:
        settings |= {key: value for key, value in asdict(plan).items() if key not in ("engines", "deadline")}
    record = Record(suite=suite, machine=describe_machine())
    keep(record)
    with tempfile.TemporaryDirectory(prefix="densevit-benchmark-") as folder:
        for name in names:
            if suite != "gpu" and plan.quick and pattern == "*" and not SUITES[suite][name].quick:
                case = SUITES[suite][name]
                against = case.peer.title if case.peer is not None else ""
                measured = CaseRecord(name=name, title=case.title, against=against, problem=LEFT_OUT)
            else:
                run = RunInfo.parse({**describe_run(), "settings": settings})
                if suite in ("peers", "self") and time.monotonic() < plan.deadline:
                    gemm = _with_new_rates(record.gemm, Path(folder))
                    record = record.model_copy(update={"gemm": gemm})
                if suite == "gpu":
                    measured = measure_gpu_case(name, str(device), say, rounds=plan.rounds)
                else:
                    measured = measure_case(name, SUITES[suite][name], plan, Path(folder), say)
                measured = measured.model_copy(update={"occasion": run})
            record = record.model_copy(update={"cases": (*record.cases, measured)})
            keep(record)
    return record


def _with_new_rates(gemm: Mapping[str, tuple[float, ...]], folder: Path) -> dict[str, tuple[float, ...]]:
    """The samples of matrix products so far, and those of a fresh process."""
    with WorkerProcess(threads=1, log=folder / "gemm.log") as worker:
        rates = worker.ask("gemm")["rates"]
    return {shape: (*gemm.get(shape, ()), *new) for shape, new in rates.items()}
