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
from densevit_lab.benchmark.int8 import INT8_CASES, REFERENCE, Int8Case, measure_int8_case
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
    cases: dict[str, Any] = {**SUITES, "gpu": GPU_CASES, "int8": INT8_CASES}
    if suite not in cases:
        raise ConfigError(f"there is no suite {suite!r}{nearest(suite, cases)}")
    names = list(cases[suite])
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
    data: Path = Path("data"),
    heads: Path = Path("runs/int8-heads"),
    keep: Callable[[Record], None] = lambda record: None,
) -> Record:
    """Measure the cases of a suite that fit a pattern; a quick plan without a pattern leaves out long cases.

    ``say`` is called with messages about the progress, and ``keep`` with the record so far: before the first case and
    after every case. ``device`` is for the suite "gpu". For "int8" are ``data``, the folder of camvid and
    nyuv2, and ``heads``, the run folder of the heads trained on CamVid.

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
        if plan.photos is None:  # all of them
            del settings["photos"]
    record = Record(suite=suite, machine=describe_machine())
    keep(record)
    with tempfile.TemporaryDirectory(prefix="densevit-benchmark-") as folder:
        for name in names:
            if plan.quick and pattern == "*" and (left := _left_out(suite, name)) is not None:
                measured = left
            else:
                run = RunInfo.parse({**describe_run(), "settings": settings})
                if suite in ("peers", "self", "int8") and time.monotonic() < plan.deadline:
                    gemm = _with_new_rates(record.gemm, Path(folder))
                    record = record.model_copy(update={"gemm": gemm})
                if suite == "gpu":
                    measured = measure_gpu_case(name, str(device), say, rounds=plan.rounds)
                elif suite == "int8":
                    measured = measure_int8_case(name, INT8_CASES[name], plan, Path(folder), data, heads, say)
                else:
                    measured = measure_case(name, SUITES[suite][name], plan, Path(folder), say)
                measured = measured.model_copy(update={"occasion": run})
            record = record.model_copy(update={"cases": (*record.cases, measured)})
            keep(record)
    return record


def _left_out(suite: str, name: str) -> CaseRecord | None:
    """The record of a case that a quick run leaves out; None if it measures it."""
    if suite == "gpu":
        return None
    case = INT8_CASES[name] if suite == "int8" else SUITES[suite][name]
    if case.quick:
        return None
    peer = REFERENCE if isinstance(case, Int8Case) else "" if case.peer is None else case.peer.title
    return CaseRecord(name=name, title=case.title, against=peer, problem=LEFT_OUT)


def _with_new_rates(gemm: Mapping[str, tuple[float, ...]], folder: Path) -> dict[str, tuple[float, ...]]:
    """The samples of matrix products so far, and those of a fresh process."""
    with WorkerProcess(threads=1, log=folder / "gemm.log") as worker:
        rates = worker.ask("gemm")["rates"]
    return {shape: (*gemm.get(shape, ()), *new) for shape, new in rates.items()}
