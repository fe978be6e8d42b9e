"""A record as a picture: how many times faster than each peer, with intervals and the bars."""

import io
from pathlib import Path

from densevit.errors import ConfigError
from densevit.io import write_bytes_atomic
from densevit_lab.benchmark.bars import Bar, bars_of
from densevit_lab.benchmark.record import CaseRecord, Record

WAYS = {"eager": "#7a9cc6", "best path": "#1f4e8c"}
FORMATS = (".png", ".svg")


def write_plot(record: Record, path: Path) -> None:
    """Draw the ratios of a record of the suite "peers".

    Raises:
        ConfigError: if the suffix is no picture's, matplotlib is missing, or nothing was compared.
        DataError: if the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path} has suffix {path.suffix!r}; a plot is {' or '.join(FORMATS)}; name such a file")
    rows = [(case, found) for case in record.cases if (found := _ratios(case))]
    if not rows:
        raise ConfigError(f"suite {record.suite!r} compared nothing with a peer; a plot shows ratios; leave --plot out")
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise ConfigError(
            "a plot needs matplotlib, which is not installed; install densevit[benchmark], or leave --plot out"
        ) from None

    height = 0.6
    figure = Figure(figsize=(9, 1.3 + height * len(rows)), layout="constrained")
    axes = figure.subplots()
    for index, (_, found) in enumerate(rows):
        thick = 0.72 / len(WAYS)
        for offset, (way, colour) in enumerate(WAYS.items()):
            if (bar := found.get(way)) is None or bar.value is None:
                continue
            y = index + (offset - (len(WAYS) - 1) / 2) * thick
            axes.barh(y, bar.value, thick * 0.92, color=colour)
            ends = [[bar.value - (bar.low or bar.value)], [(bar.high or bar.value) - bar.value]]
            axes.errorbar(bar.value, y, xerr=ends, color="#333333", capsize=2, linewidth=0.9)
            axes.plot([bar.wanted] * 2, [y - thick / 2, y + thick / 2], color="#c0392b", linewidth=2)
            axes.text(0.06, y, f"{bar.value:.2f}x", va="center", fontsize=8, fontweight="bold", color="white")
    axes.axvline(1, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [f"{case.title}\n{case.against}" for case, _ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0)
    axes.set_xlabel("times faster than the peer: ratio of medians of CPU seconds, one thread (with 95 % interval)")
    handles = [Patch(color=colour, label=way) for way, colour in WAYS.items() if _drawn(rows, way)]
    handles += axes.plot([], [], color="#c0392b", linewidth=2, label="wanted")
    axes.legend(handles=handles, loc="lower right", fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(buffer, format=path.suffix[1:], dpi=110, metadata=metadata)
    write_bytes_atomic(path, buffer.getvalue())


def _ratios(case: CaseRecord) -> dict[str, Bar]:
    return {bar.what: bar for bar in bars_of(case, None) if bar.what in WAYS and bar.value is not None}


def _drawn(rows: list[tuple[CaseRecord, dict[str, Bar]]], way: str) -> bool:
    return any(way in found for _, found in rows)
