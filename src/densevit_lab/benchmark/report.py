"""A record as rows for a table, and as a page of the documentation."""

from collections.abc import Sequence
from statistics import median

from densevit_lab.benchmark.bars import Bar, all_bars, count, seconds, share_of_peak, speed_ratio, transient_bytes
from densevit_lab.benchmark.record import CaseRecord, Record, SideRecord

BAR_HEAD = ("model", "against", "bar", "wanted", "found", "95 % interval", "limit", "by", "verdict")
SIDE_HEAD = ("model", "program", "CPU s", "n", "wall s", "ratio", "transient MB", "peak MB", "GFLOP", "share", "output")
RUN_HEAD = ("commit", "from", "to", "settings", "cases")


def bar_rows(record: Record) -> list[tuple[str, ...]]:
    """One row for each bar."""
    return [
        (
            *(case.title, case.against, bar.what, _wanted(bar), _found(bar), _interval(bar)),
            *("" if bar.limit is None else f"{bar.limit:.2f}x", bar.engine, _verdict(bar)),
        )
        for case, bar in all_bars(record)
    ]


def side_rows(record: Record) -> list[tuple[str, ...]]:
    """One row for each side of each case, or one with the problem."""
    rows: list[tuple[str, ...]] = []
    for case in record.cases:
        sides: list[tuple[str | None, SideRecord]] = [(None, case.peer)] if case.peer is not None else []
        sides += list(case.ours.items())
        if not sides:
            rows.append((case.title, case.against, *("",) * (len(SIDE_HEAD) - 3), case.problem))
        rows += [_side_row(case, engine, side, record.gemm_peak) for engine, side in sides]
    return rows


def run_rows(record: Record) -> list[tuple[str, ...]]:
    """One row for each commit and way of measuring: when its cases began, how they were measured, which they are."""
    runs: dict[tuple[str, str], list[CaseRecord]] = {}
    for case in record.cases:
        if case.occasion is not None:
            settings = ", ".join(f"{name} {value}" for name, value in case.occasion.settings.items())
            runs.setdefault((case.occasion.commit or "none", settings), []).append(case)
    rows: list[tuple[str, ...]] = []
    for (commit, settings), cases in runs.items():
        times = sorted(case.occasion.time for case in cases if case.occasion is not None)
        rows.append((commit[:12] + commit[40:], times[0], times[-1], settings, ", ".join(case.name for case in cases)))
    return rows


def tables(record: Record) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Title, head and rows of the tables of a record."""
    bars, sides = bar_rows(record), side_rows(record)
    found = [("bars", BAR_HEAD, bars)] if bars else []
    return [("measured", SIDE_HEAD, sides), *found]


def closing(record: Record) -> list[str]:
    """The lines below the tables: the machine's rate, the count of bars, what was left out."""
    peak = record.gemm_peak
    lines = [f"GEMM peak of the machine, float32, one thread: {peak / 1e9:.0f} GFLOP/s"] if peak else []
    bars = [bar for _, bar in all_bars(record)]
    if bars:
        lines.append("bars: " + ", ".join(f"{number} {verdict}" for verdict, number in count(bars).items()))
    return lines + [f"{case.name}: {case.problem}" for case in record.cases if case.problem]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


def _side_row(case: CaseRecord, engine: str | None, side: SideRecord, peak: float | None) -> tuple[str, ...]:
    threads = sorted(side.samples, key=int)
    cpu = seconds(side)
    wall = [f"{median(found):.3g} ({number})" for number in threads if (found := seconds(side, number, "wall"))]
    ratio = speed_ratio(case, engine) if engine is not None else None
    share = share_of_peak(case, engine, peak) if engine is not None else _peer_share(side, peak)
    transient = transient_bytes(side)
    highest = median(sample.peak for sample in side.memory) if side.memory else None
    return (
        case.title,
        side.title,
        f"{median(cpu):.3g}" if cpu else "",
        str(len(cpu)) if cpu else "",
        ", ".join(wall),
        f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "",
        f"{transient / 1e6:.0f}" if transient is not None else "",
        f"{highest / 1e6:.0f}" if highest is not None else "",
        f"{side.flops / 1e9:.0f}" if side.flops else "",
        f"{share:.2f}" if share else "",
        side.problem or _output(side),
    )


def _peer_share(side: SideRecord, peak: float | None) -> float | None:
    cpu = seconds(side)
    return side.flops / median(cpu) / peak if cpu and side.flops and peak else None


def _output(side: SideRecord) -> str:
    if side.agreement is None:
        return ""
    if side.agreement.max_error:
        return f"within {side.agreement.max_error:.1g} of the range"
    return f"{side.agreement.equal:.4%} equal"


def _wanted(bar: Bar) -> str:
    return f">= {bar.wanted:g}" + ("x" if not bar.what.startswith("share") else "")


def _found(bar: Bar) -> str:
    return "" if bar.value is None else f"{bar.value:.2f}" + ("x" if not bar.what.startswith("share") else "")


def _interval(bar: Bar) -> str:
    return "" if bar.low is None or bar.high is None else f"{bar.low:.2f} to {bar.high:.2f}"


def _verdict(bar: Bar) -> str:
    return bar.verdict if not bar.reason else f"{bar.verdict}: {bar.reason.removeprefix(f'{bar.verdict}: ')}"


def page(record: Record, *, plot: str | None = None) -> str:
    """A page of the documentation.

    Args:
        record: what was measured.
        plot: path of the picture, as seen from the page.
    """
    machine = record.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items())
    parts = [
        "# Benchmark results",
        f"Written by `densevit benchmark --from` from a record of the suite `{record.suite}`; do not edit. How it is "
        "measured and what the columns mean: [measure speed and memory](../how-to/benchmark.md).",
        f"Machine: {machine.get('cpu')} ({machine.get('instructions')}), {machine.get('cores')} cores, "
        f"{machine.get('system')}, Python {machine.get('python')}; {packages}.",
    ]
    if plot is not None:
        parts.append(f"![How many times faster than each peer]({plot})")
    for title, head, rows in tables(record):
        parts.append(f"## {title.capitalize()}")
        parts.append(table(head, rows).rstrip())
    parts.append("## Runs")
    parts.append(table(RUN_HEAD, run_rows(record)).rstrip())
    parts.append("\n".join(f"- {line}" for line in closing(record)))
    return "\n\n".join(part for part in parts if part) + "\n"
