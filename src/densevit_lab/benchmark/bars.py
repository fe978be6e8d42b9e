"""Which bars a case meets, and the figures behind that."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from densevit_lab.benchmark.record import CaseRecord, Record, SideRecord
from densevit_lab.benchmark.sides import TORCH
from densevit_lab.benchmark.statistics import Ratio, ratio_of_medians

Verdict = Literal["met", "not met", "not measured", "invalid"]
Measure = Literal["cpu", "wall"]


@dataclass(frozen=True)
class Bar:
    """One demand on one case.

    Attributes:
        what: "eager", "best path", "memory", "share, eager" or "share, best path".
        wanted: the least value.
        value: what was found.
        low: lower end of its interval, where there is one.
        high: upper end.
        limit: of a ratio, if everything that our eager model does ran at the machine's rate of matrix products.
        engine: that reached it.
        verdict: of the value, not of the interval.
        reason: why nothing was found.
    """

    what: str
    wanted: float
    verdict: Verdict
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    engine: str = ""
    reason: str = ""


def speed_ratio(case: CaseRecord, engine: str, *, threads: str = "1", measure: Measure = "cpu") -> Ratio | None:
    """How many times faster an engine of ours is than the peer; None where it was not measured."""
    ours = case.ours.get(engine)
    if case.peer is None or ours is None:
        return None
    theirs, mine = (seconds(side, threads, measure) for side in (case.peer, ours))
    return ratio_of_medians(theirs[: len(mine)], mine[: len(theirs)]) if theirs and mine else None


def seconds(side: SideRecord, threads: str = "1", measure: Measure = "cpu") -> list[float]:
    """The samples of a side."""
    return [getattr(sample, measure) for sample in side.samples.get(threads, ())]


def transient_bytes(side: SideRecord | None) -> float | None:
    """Median of the memory that one prediction needs on top of the built model."""
    return median(sample.transient for sample in side.memory) if side is not None and side.memory else None


def share_of_peak(case: CaseRecord, engine: str, peak: float | None) -> float | None:
    """Operations of our eager model over our CPU seconds over the machine's rate."""
    side, eager = case.ours.get(engine), case.ours.get(TORCH)
    taken = seconds(side) if side is not None else []
    flops = eager.flops if eager is not None else None
    return flops / median(taken) / peak if taken and flops and peak else None


def ratio_at_peak(case: CaseRecord, peak: float | None) -> float | None:
    """How many times faster than the peer we would be with all our operations at the machine's rate."""
    eager, theirs = case.ours.get(TORCH), seconds(case.peer) if case.peer is not None else []
    flops = eager.flops if eager is not None else None
    return median(theirs) * peak / flops if theirs and flops and peak else None


def best_engine(case: CaseRecord) -> str | None:
    """The engine with the least CPU seconds, eager torch among them; None where nothing was measured."""
    taken = {engine: median(found) for engine, side in case.ours.items() if (found := seconds(side))}
    return min(taken, key=lambda engine: taken[engine]) if taken else None


def bars_of(case: CaseRecord, peak: float | None) -> list[Bar]:
    """Every bar of a case with its verdict.

    The best path is the fastest of the engines that were run, so it needs another engine than eager torch.
    """
    best = best_engine(case) if len(case.ours) > 1 else None
    reason, limit = _reason(case, TORCH), ratio_at_peak(case, peak)
    found = [
        _ratio_bar("eager", case.bars.eager, speed_ratio(case, TORCH), limit, TORCH, reason),
        _ratio_bar(
            "best path",
            case.bars.best,
            speed_ratio(case, best) if best else None,
            limit,
            best or "",
            _reason(case, best) if best else _no_best(case),
        ),
        _memory_bar(case, reason),
        _value_bar("share, eager", case.bars.share, share_of_peak(case, TORCH, peak), TORCH, reason),
        _value_bar(
            "share, best path",
            case.bars.best_share,
            share_of_peak(case, best, peak) if best else None,
            best or "",
            _reason(case, best) if best else _no_best(case),
        ),
    ]
    return [bar for bar in found if bar is not None]


def all_bars(record: Record) -> list[tuple[CaseRecord, Bar]]:
    """Every bar of a run."""
    return [(case, bar) for case in record.cases for bar in bars_of(case, record.gemm_peak)]


def count(bars: Sequence[Bar]) -> dict[Verdict, int]:
    """How many bars have each verdict."""
    order: tuple[Verdict, ...] = ("met", "not met", "invalid", "not measured")
    return {verdict: number for verdict in order if (number := sum(bar.verdict == verdict for bar in bars))}


def _ratio_bar(
    what: str, wanted: float | None, ratio: Ratio | None, limit: float | None, engine: str, reason: str
) -> Bar | None:
    if wanted is None:
        return None
    if ratio is None:
        return Bar(what, wanted, _verdict(reason), engine=engine, reason=reason)
    verdict: Verdict = "met" if ratio.value >= wanted else "not met"
    return Bar(what, wanted, verdict, ratio.value, ratio.low, ratio.high, limit, engine)


def _memory_bar(case: CaseRecord, reason: str) -> Bar | None:
    theirs, ours = transient_bytes(case.peer), transient_bytes(case.ours.get(TORCH))
    value = None if reason or theirs is None or ours is None else theirs / max(ours, 1.0)
    return _value_bar("memory", case.bars.memory, value, TORCH, reason)


def _value_bar(what: str, wanted: float | None, value: float | None, engine: str, reason: str) -> Bar | None:
    if wanted is None:
        return None
    if value is None:
        return Bar(what, wanted, _verdict(reason), engine=engine, reason=reason)
    return Bar(what, wanted, "met" if value >= wanted else "not met", value, engine=engine)


def _verdict(reason: str) -> Verdict:
    return "invalid" if reason.startswith("invalid") else "not measured"


def _reason(case: CaseRecord, engine: str) -> str:
    side = case.ours.get(engine)
    return case.problem or (side.problem if side is not None else "")


def _no_best(case: CaseRecord) -> str:
    reasons = [side.problem for side in case.ours.values() if side.problem]
    return case.problem or next(iter(reasons), "no engine but eager torch was run; see --engine")
