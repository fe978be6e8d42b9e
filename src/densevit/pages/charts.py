"""Charts as inline SVG: curves, a confusion matrix, predicted against true depth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from densevit.pages.html import escape, number

Points = Sequence[tuple[float, float]]

COLOURS = ("#2563a8", "#c2452d", "#2f8f5b", "#a9791c", "#7b4bab", "#14808c", "#b03a78", "#5f6b76")
MOST_POINTS = 240
"""Longer curves are drawn as averages of neighbouring points, with their range as a band."""
WIDTH, HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 10, 30
_LARGEST = 1e100
LABELLED, NUMBERED = 64, 16
"""The numbers of classes up to which a confusion matrix has names, and numbers in its cells."""


@dataclass(frozen=True)
class Scale:
    """Maps values between ``low`` and ``high`` to pixels, on a logarithmic axis if ``log``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the range; on a logarithmic axis powers of ten, or also multiples of them."""
        if not self.log:
            return _round_ticks(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5)):
            ticks = [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]
            if len(ticks) >= 3:
                return ticks[:: max(1, len(ticks) // 6)]
        return _round_ticks(self.low, self.high)


def line_chart(curves: Mapping[str, Points], *, from_zero: bool = False) -> str:
    """Curves over the iterations, with a legend if there are several.

    Points that are not finite, or beyond 1e100, are left out. The vertical axis begins at 0 with ``from_zero``.
    Without, it is logarithmic if all values are above 0 and the largest is more than thirty times the smallest.
    """
    kept = {name: [(x, _rounded(y)) for x, y in points if _drawable(x, y)] for name, points in curves.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return "<p class=soft>Nothing to draw yet.</p>"
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    log = not from_zero and min(ys) > 0 and max(ys) > 30 * min(ys)
    across = Scale(*widened(min(xs), max(xs), 0.0), _LEFT, WIDTH - _RIGHT)
    span = (min(ys) / 1.1, max(ys) * 1.1) if log else widened(min(ys), max(ys), 0.06)
    up = Scale(0.0 if from_zero and min(ys) >= 0 else span[0], span[1], HEIGHT - _BOTTOM, _TOP, log)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img class=chart>', *_axes(across, up, "iteration")]
    for index, (name, points) in enumerate(kept.items()):
        parts.append(_curve(name, points, across, up, COLOURS[index % len(COLOURS)]))
    parts.append("</svg>")
    if len(kept) > 1:
        parts.append(_legend({name: points[-1][1] for name, points in kept.items()}))
    return "".join(parts)


def _drawable(*values: float) -> bool:
    return all(math.isfinite(value) and abs(value) < _LARGEST for value in values)


def _rounded(value: float) -> float:
    """0 for values that are too small to divide by."""
    return value if abs(value) > 1 / _LARGEST else 0.0


def confusion_chart(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Rows are true classes, columns predicted ones; a cell is the share of its row. Cells below 0.5 % stay white."""
    classes = len(names)
    side = max(5, min(36, 640 // max(classes, 1)))
    labelled = classes <= LABELLED
    font = max(6, min(11, side - 1))
    short = [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
    margin = round(max((len(name) for name in short), default=0) * font * 0.6) + 10 if labelled else 8
    full = margin + classes * side + 4
    parts = [
        f'<svg viewBox="0 0 {full} {full}" role=img class=matrix style="max-width:{full}px" font-size={font}>',
        f"<rect x={margin} y={margin} width={classes * side} height={classes * side} fill=#fff stroke=#ccd />",
    ]
    for row, line in enumerate(counts):
        total = sum(line)
        y = margin + row * side
        if labelled:
            place = margin + (row + 0.5) * side
            parts.append(_text(margin - 5, y + side / 2, short[row], "end"))
            parts.append(
                f'<text transform="translate({place:.1f} {margin - 5}) rotate(-90)" dominant-baseline=central>'
                f"{escape(short[row])}</text>"
            )
        if not total:
            parts.append(f"<rect x={margin} y={y} width={classes * side} height={side} fill=#eee />")
        for column, count in enumerate(line):
            share = count / total if total else 0.0
            if share >= 0.005:
                title = f"{names[row]} taken for {names[column]}: {share:.1%}, {count} px"
                numbered = classes <= NUMBERED
                parts.append(_cell(margin + column * side, y, side, share, row == column, title, numbered))
    return "".join(parts) + "</svg>"


def depth_chart(counts: Sequence[Sequence[int]], max_depth_m: float) -> str:
    """Pixels by true (across) and predicted (up) depth; darker is more, on a logarithmic scale."""
    bins = len(counts)
    occupied = [max(i, j) for i in range(bins) for j in range(bins) if counts[i][j]]
    if not occupied:
        return "<p class=soft>No pixel has a depth.</p>"
    shown = max(occupied) + 1
    side, most = 380, max(max(row) for row in counts)
    low, high = _LEFT, _LEFT + side
    across = Scale(0, max_depth_m * shown / bins, low, high)
    up = Scale(0, max_depth_m * shown / bins, side + _TOP, _TOP)
    cell = side / shown
    box = f"{high + _RIGHT} {side + _TOP + _BOTTOM + 14}"
    parts = [f'<svg viewBox="0 0 {box}" role=img class=square>']
    for i in range(shown):
        for j in range(shown):
            if counts[i][j]:
                share = 0.08 + 0.92 * math.log1p(counts[i][j]) / math.log1p(most)
                x, y = low + i * cell, side + _TOP - (j + 1) * cell
                parts.append(
                    f"<rect x={x:.1f} y={y:.1f} width={cell + 0.3:.1f} height={cell + 0.3:.1f} fill=#2563a8 "
                    f"fill-opacity={share:.2f} />"
                )
    parts.append(f"<line x1={low} y1={side + _TOP} x2={high} y2={_TOP} stroke=#c2452d stroke-dasharray=4,4 />")
    parts += _axes(across, up, "true depth (m)", grid=False)
    parts.append(f'<text transform="translate(12 {_TOP + side / 2:.0f}) rotate(-90)" text-anchor=middle>'
                 "predicted depth (m)</text></svg>")  # fmt: skip
    return "".join(parts)


def _curve(name: str, points: Points, across: Scale, up: Scale, colour: str) -> str:
    ordered = sorted(points)
    size = -(-len(ordered) // MOST_POINTS)
    groups = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    line = [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]
    title = f"<title>{escape(name)}: {number(ordered[-1][1])} at {number(ordered[-1][0])}</title>"
    band = ""
    if size > 1:
        top = [(g[-1][0], max(y for _, y in g)) for g in groups]
        low = [(g[-1][0], min(y for _, y in g)) for g in reversed(groups)]
        band = f'<polygon points="{_places(top + low, across, up)}" fill={colour} fill-opacity=.18 />'
    path = f'<polyline points="{_places(line, across, up)}" fill=none stroke={colour} stroke-width=1.6 />'
    marked = line if len(line) <= 24 else line[-1:]
    dots = "".join(f"<circle cx={across.at(x):.1f} cy={up.at(y):.1f} r=2.4 fill={colour} />" for x, y in marked)
    return f"<g>{title}{band}{path}{dots}</g>"


def _places(points: Points, across: Scale, up: Scale) -> str:
    return " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in points)


def _axes(across: Scale, up: Scale, x_label: str, *, grid: bool = True) -> list[str]:
    parts = []
    for value in up.ticks():
        y = up.at(value)
        if grid:
            parts.append(f"<line x1={across.start} x2={across.end} y1={y:.1f} y2={y:.1f} stroke=#e6e8ec />")
        parts.append(_text(across.start - 6, y, number(value), "end"))
    parts += [_text(across.at(value), up.start + 12, number(value), "middle") for value in across.ticks()]
    parts.append(f"<line x1={across.start} x2={across.end} y1={up.start} y2={up.start} stroke=#9aa />")
    parts.append(_text((across.start + across.end) / 2, up.start + 24, x_label, "middle"))
    return parts


def _cell(x: float, y: float, side: int, share: float, right: bool, title: str, numbered: bool) -> str:
    colour = "#2563a8" if right else "#c2452d"
    fill = f"<rect x={x} y={y} width={side} height={side} fill={colour} fill-opacity={0.1 + 0.9 * share:.2f}>"
    text = ""
    if numbered:
        ink = "#fff" if share > 0.45 else "#223"
        text = _text(x + side / 2, y + side / 2, f"{100 * share:.0f}", "middle", ink)
    return f"{fill}<title>{escape(title)}</title></rect>{text}"


def _text(x: float, y: float, text: str, anchor: str, ink: str = "#556") -> str:
    return (
        f"<text x={x:.1f} y={y:.1f} text-anchor={anchor} dominant-baseline=central fill={ink} pointer-events=none>"
        f"{escape(text)}</text>"
    )


def _legend(last: Mapping[str, float]) -> str:
    items = (
        f"<li><i style=background:{COLOURS[k % len(COLOURS)]}></i>{escape(name)} <b>{number(value)}</b></li>"
        for k, (name, value) in enumerate(last.items())
    )
    return f"<ul class=legend>{''.join(items)}</ul>"


def widened(low: float, high: float, share: float) -> tuple[float, float]:
    """The range made a little wider; a range of a single value gets some width."""
    if low == high:
        half = abs(low) * 0.1 or 1.0
        return low - half, high + half
    return low - share * (high - low), high + share * (high - low)


def _round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round values within the range."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(s for s in (1, 2, 2.5, 5, 10) if raw <= s * power)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
