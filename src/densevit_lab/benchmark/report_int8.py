"""The table and the picture of the suite "int8": speed next to what it costs."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from densevit_lab.benchmark.record import CaseRecord, MetricRecord, Ratio, Record, WorkloadRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INT8_HEAD = (
    "model", "program", "CPU s", "n", "times faster", "wall", "metric", "loss", "differs, mean", "worst", "file MB",
    "note",
)  # fmt: skip
COLOURS = {
    "torch, int8": "#1f4e8c",
    "ONNX Runtime, float32": "#c3d9c3",
    "ONNX Runtime, int8": "#4f8a4f",
    "OpenVINO, float32": "#e3cfb8",
    "OpenVINO, int8": "#b0713a",
}


def int8_rows(record: Record) -> list[tuple[str, ...]]:
    """One row for each program of each case, the reference first; the columns are ``INT8_HEAD``."""
    rows: list[tuple[str, ...]] = []
    for case in record.cases:
        if case.peer is None:
            rows.append((case.title, case.against, *("",) * (len(INT8_HEAD) - 3), case.problem))
            continue
        rows.append(_row(case, None, case.peer))
        rows += [_row(case, name, program) for name, program in case.ours.items()]
    return rows


def _row(case: CaseRecord, name: str | None, program: WorkloadRecord) -> tuple[str, ...]:
    seconds = program.seconds()
    metric, reference = program.metric, case.peer.metric if case.peer is not None else None
    return (
        case.title,
        program.title,
        f"{median(seconds):.3g}" if seconds else "",
        str(len(seconds)) if seconds else "",
        _times(case.speed_ratio(name)) if name is not None else "",
        ", ".join(_wall(case, name, threads) for threads in sorted(program.samples, key=int)) if name else "",
        f"{metric.figure} {metric.value:.4f} ({metric.photos})" if metric is not None else "",
        _loss(metric, reference) if name is not None else "",
        _share(metric.difference) if metric is not None else "",
        _share(metric.largest_difference) if metric is not None else "",
        f"{program.file_bytes / 1e6:.1f}" if program.file_bytes else "",
        program.problem or program.metric_problem,
    )


def _times(ratio: Ratio | None) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio is not None else ""


def _wall(case: CaseRecord, name: str, threads: str) -> str:
    ratio = case.speed_ratio(name, threads, "wall")
    return f"{ratio.value:.2f} ({threads})" if ratio is not None else ""


def _loss(metric: MetricRecord | None, reference: MetricRecord | None) -> str:
    """What the metric is worse by; all metrics of the suite are fractions of which more is better."""
    return "" if metric is None or reference is None else f"{reference.value - metric.value:+.4f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def int8_figure(record: Record) -> "Figure | None":
    """Times faster than float32 in torch, by case and program, with the loss of the metric; None if nothing was."""
    cases = [case for case in record.cases if any(case.speed_ratio(name) for name in case.ours)]
    if not cases:
        return None
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    step = 0.8 / len(COLOURS)
    figure = Figure(figsize=(9, 1.3 + 1.1 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for index, case in enumerate(cases):
        for place, (name, colour) in enumerate(COLOURS.items()):
            if (ratio := case.speed_ratio(name)) is None:
                continue
            y = index - 0.4 + (place + 0.5) * step
            axes.barh(y, ratio.value, step * 0.9, color=colour)
            ends = [[max(ratio.value - ratio.low, 0)], [max(ratio.high - ratio.value, 0)]]
            axes.errorbar(ratio.value, y, xerr=ends, color="#333333", capsize=2, linewidth=0.8)
            axes.text(ratio.high + 0.04, y, _bar_text(case, name, ratio), va="center", fontsize=7)
    axes.axvline(1, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(cases)), [case.title.replace(", random", "\nrandom") for case in cases], fontsize=8)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.15)
    axes.set_xlabel("times faster than float32 in torch: ratio of medians of CPU seconds, one thread")
    shown: Sequence[str] = [name for name in COLOURS if any(case.speed_ratio(name) for case in cases)]
    handles = [Patch(color=COLOURS[name], label=name) for name in shown]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _bar_text(case: CaseRecord, name: str, ratio: Ratio) -> str:
    metric, reference = case.ours[name].metric, case.peer.metric if case.peer is not None else None
    lost = "" if metric is None or reference is None else f", {metric.figure} {metric.value - reference.value:+.4f}"
    return f"{ratio.value:.2f}x{lost}"
