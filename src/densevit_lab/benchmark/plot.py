"""A record as a picture: how many times faster than each peer, with intervals."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from densevit.errors import ConfigError
from densevit.io import write_bytes_atomic
from densevit_lab.benchmark.record import TORCH, CaseRecord, Ratio, Record
from densevit_lab.benchmark.report_int8 import int8_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"eager torch": "#7a9cc6", "fastest engine": "#1f4e8c"}
FORMATS = (".png", ".svg")


def write_plot(record: Record, path: Path) -> None:
    """Draw the ratios of a record of the suite "peers" or "int8".

    Raises:
        ConfigError: if the suffix is not a picture's, matplotlib is missing, or nothing was compared.
        DataError: if the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path} has suffix {path.suffix!r}; a plot is {' or '.join(FORMATS)}; name such a file")
    try:
        figure = int8_figure(record) if record.suite == "int8" else _peers_figure(record)
    except ImportError:
        raise ConfigError(
            "a plot needs matplotlib, which is not installed; install densevit[benchmark], or leave --plot out"
        ) from None
    if figure is None:
        raise ConfigError(f"suite {record.suite!r} compared nothing with a peer; a plot shows ratios; leave --plot out")
    buffer = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(buffer, format=path.suffix[1:], dpi=110, metadata=metadata)
    write_bytes_atomic(path, buffer.getvalue())


def _peers_figure(record: Record) -> "Figure | None":
    """A bar for each peer and engine; None if nothing was compared."""
    rows = [(case, ratios) for case in record.cases if (ratios := _ratios(case))]
    if not rows:
        return None
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(9, 1.3 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for index, (_, ratios) in enumerate(rows):
        for y, (label, colour) in zip((index - 0.18, index + 0.18), COLOURS.items(), strict=True):
            if (ratio := ratios.get(label)) is None:
                continue
            axes.barh(y, ratio.value, 0.33, color=colour)
            ends = [[ratio.value - ratio.low], [ratio.high - ratio.value]]
            axes.errorbar(ratio.value, y, xerr=ends, color="#333333", capsize=2, linewidth=0.9)
            axes.text(0.06, y, f"{ratio.value:.2f}x", va="center", fontsize=8, fontweight="bold", color="white")
    axes.axvline(1, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [f"{case.title}\n{case.against}" for case, _ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0)
    axes.set_xlabel("times faster than the peer: ratio of medians of CPU seconds, one thread (with 95 % interval)")
    axes.legend(handles=[Patch(color=c, label=label) for label, c in COLOURS.items()], loc="lower right", fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _ratios(case: CaseRecord) -> dict[str, Ratio]:
    """The ratios by label; the fastest engine only where more than one was run."""
    fastest = case.fastest_engine() if len(case.ours) > 1 else None
    ratios = {"eager torch": case.speed_ratio(TORCH), "fastest engine": case.speed_ratio(fastest) if fastest else None}
    return {label: ratio for label, ratio in ratios.items() if ratio is not None}
