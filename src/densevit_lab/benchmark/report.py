"""A record as rows of tables, and as a page of the documentation."""

from collections.abc import Sequence
from statistics import median

from densevit_lab.benchmark.record import CaseRecord, Record, WorkloadRecord
from densevit_lab.benchmark.report_int8 import INT8_HEAD, int8_rows

MEASURED_HEAD = (
    "model", "program", "CPU s", "n", "wall s", "ratio", "limit", "transient MB", "peak MB", "GFLOP", "share", "output",
)  # fmt: skip
RUNS_HEAD = ("commit", "from", "to", "settings", "cases")


def measured_rows(record: Record) -> list[tuple[str, ...]]:
    """One row for each program of each case, or one with the problem; the columns are ``MEASURED_HEAD``."""
    rows: list[tuple[str, ...]] = []
    for case in record.cases:
        if case.peer is None and not case.ours:
            rows.append((case.title, case.against, *("",) * (len(MEASURED_HEAD) - 3), case.problem))
        if case.peer is not None:
            rows.append(_measured_row(case, None, case.peer, record.gemm_peak))
        for engine, workload in case.ours.items():
            rows.append(_measured_row(case, engine, workload, record.gemm_peak))
    return rows


def measured_table(record: Record) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Head and rows of the table of a suite."""
    return (INT8_HEAD, int8_rows(record)) if record.suite == "int8" else (MEASURED_HEAD, measured_rows(record))


def run_rows(record: Record) -> list[tuple[str, ...]]:
    """One row for each commit and settings; the columns are ``RUNS_HEAD``."""
    runs: dict[tuple[str, str], dict[str, str]] = {}  # -> time by name of the case
    for case in record.cases:
        if case.occasion is not None:
            settings = ", ".join(f"{name} {value}" for name, value in case.occasion.settings.items())
            runs.setdefault((case.occasion.commit or "none", settings), {})[case.name] = case.occasion.time
    return [
        (commit[:12] + commit[40:], min(times.values()), max(times.values()), settings, ", ".join(times))
        for (commit, settings), times in runs.items()
    ]


def closing_lines(record: Record) -> list[str]:
    """The lines below the table: the machine's rate, and why something was not measured."""
    peak = record.gemm_peak
    lines = [f"GEMM peak of the machine, float32, one thread: {peak / 1e9:.0f} GFLOP/s"] if peak else []
    return lines + [f"{case.name}: {case.problem}" for case in record.cases if case.problem]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _measured_row(
    case: CaseRecord, engine: str | None, workload: WorkloadRecord, peak: float | None
) -> tuple[str, ...]:
    """The row of one program; ``engine`` is None for the peer."""
    cpu = workload.seconds()
    walls = {threads: workload.seconds(threads, "wall") for threads in sorted(workload.samples, key=int)}
    memory = "" if workload.transient_bytes is None else f"{workload.transient_bytes / 1e6:.0f}"
    if engine is None:
        ratio = None
        share = workload.flops / median(cpu) / peak if cpu and workload.flops and peak else None
    else:
        ratio, share = case.speed_ratio(engine), case.share_of_peak(engine, peak)
        peer_bytes = case.peer.transient_bytes if case.peer is not None else None
        if peer_bytes is not None and workload.transient_bytes is not None:
            memory += f" ({peer_bytes / max(workload.transient_bytes, 1.0):.1f}x less)"
    return (
        case.title,
        workload.title,
        f"{median(cpu):.3g}" if cpu else "",
        str(len(cpu)) if cpu else "",
        ", ".join(f"{median(wall):.3g} ({threads})" for threads, wall in walls.items() if wall),
        f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "",
        f"{ratio.value / share:.2f}" if ratio and share else "",
        memory,
        f"{median(sample.peak for sample in workload.memory) / 1e6:.0f}" if workload.memory else "",
        f"{workload.flops / 1e9:.0f}" if workload.flops else "",
        f"{share:.2f}" if share else "",
        workload.problem or _agreement_text(workload),
    )


def _agreement_text(workload: WorkloadRecord) -> str:
    if workload.agreement is None:
        return ""
    if workload.agreement.max_error:
        return f"within {workload.agreement.max_error:.1g} of the range"
    return f"{workload.agreement.equal:.4%} equal"


def page(record: Record, *, plot: str | None = None) -> str:
    """A page of the documentation; ``plot``: the picture's path relative to the page."""
    machine = record.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items())
    picture = "How many times faster than each peer"
    if record.suite == "int8":
        picture = "How many times faster than float32 in torch, and what it costs"
    parts = [
        "# Benchmark results" if record.suite != "int8" else "# 8-bit integers",
        f"Written by `densevit benchmark --from` from a record of the suite `{record.suite}`; do not edit. "
        "[Measure speed and memory](../how-to/benchmark.md) explains the method and the columns.",
        f"Machine: {machine.get('cpu')} ({machine.get('instructions')}), {machine.get('cores')} cores, "
        f"{machine.get('system')}, Python {machine.get('python')}; {packages}.",
        f"![{picture}]({plot})" if plot is not None else "",
        "## Measured",
        markdown_table(*measured_table(record)),
        "## Runs",
        markdown_table(RUNS_HEAD, run_rows(record)),
        "\n".join(f"- {line}" for line in closing_lines(record)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
