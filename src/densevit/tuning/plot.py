"""A picture of a metric against time, as SVG, without a plotting library."""

from collections.abc import Sequence

from densevit.evaluation.figure import Figure
from densevit.pages.charts import Scale, widened
from densevit.pages.html import escape, number
from densevit.tuning.pareto import Budget, Point, pareto_front

WIDTH, PLOT_HEIGHT, LEFT, RIGHT, TOP, BOTTOM, LINE = 760, 380, 78, 28, 46, 52, 20
BLUE, GREY, RED, INK = "#1f5fbf", "#9aa3ad", "#c0392b", "#222"


def pareto_svg(points: Sequence[Point], figure: Figure, *, title: str, budget: Budget, chosen: Point | None) -> str:
    """The points, their Pareto front with a numbered list of its settings, the budget and the point chosen.

    Complete points are full dots, those given up early are rings. Good is up. A budget of time or loss is a line.
    """
    front = pareto_front(points)
    height = TOP + PLOT_HEIGHT + BOTTOM + LINE * (len(front) + 2)
    across = _scale([p.milliseconds for p in points], LEFT, WIDTH - RIGHT)
    bottom, top = (TOP + PLOT_HEIGHT, TOP) if figure.higher_is_better else (TOP, TOP + PLOT_HEIGHT)
    up = _scale([p.value for p in points], bottom, top)
    x_of, y_of = across.at, up.at
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, DejaVu Sans, sans-serif" font-size="13" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(LEFT, 26, title, size=16),
    ]
    for tick in across.ticks():
        parts.append(_line(x_of(tick), TOP, x_of(tick), TOP + PLOT_HEIGHT, "#e6e8eb"))
        parts.append(_text(x_of(tick), TOP + PLOT_HEIGHT + 18, number(tick), anchor="middle"))
    for tick in up.ticks():
        parts.append(_line(LEFT, y_of(tick), WIDTH - RIGHT, y_of(tick), "#e6e8eb"))
        parts.append(_text(LEFT - 8, y_of(tick) + 4, number(tick), anchor="end"))
    parts += [
        _text((LEFT + WIDTH - RIGHT) / 2, TOP + PLOT_HEIGHT + 38, "ms per photo (median)", anchor="middle"),
        f'<g transform="translate(18 {TOP + PLOT_HEIGHT / 2}) rotate(-90)">',
        _text(0, 0, figure.name, anchor="middle"),
        "</g>",
        *_budget_line(points, figure, budget, across, up),
    ]
    corners = " ".join(f"{x_of(p.milliseconds):.1f},{y_of(p.value):.1f}" for p in front)
    parts += [f'<polyline points="{corners}" fill="none" stroke="{BLUE}" stroke-width="1.5"/>']
    parts += [_dot(p, x_of(p.milliseconds), y_of(p.value), best=p in front) for p in points]
    for rank, point in enumerate(front, start=1):
        x, y = x_of(point.milliseconds), y_of(point.value)
        parts.append(_text(x - 7, y - 8, str(rank), anchor="end", colour=BLUE))
    if chosen is not None:
        x, y = x_of(chosen.milliseconds), y_of(chosen.value)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="none" stroke="{RED}" stroke-width="2"/>')
    y = TOP + PLOT_HEIGHT + BOTTOM + 14
    parts.append(_text(LEFT, y, "rings: given up early; red ring: chosen; numbers: the front", colour="#666"))
    for rank, point in enumerate(front, start=1):
        memory = "" if point.peak_mb is None else f", {point.peak_mb:.0f} MB"
        label = f"{rank}  {point.name}: {figure.name} {point.value:.4f}, {point.milliseconds:.0f} ms{memory}"
        parts.append(_text(LEFT, y + LINE * rank, label))
    return "\n".join([*parts, "</svg>", ""])


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    return Scale(*widened(min(values), max(values), 0.08), start, end)


def _budget_line(points: Sequence[Point], figure: Figure, budget: Budget, across: Scale, up: Scale) -> list[str]:
    if budget.kind == "time" and across.low <= budget.amount <= across.high:
        x = across.at(budget.amount)
        return [_line(x, TOP, x, TOP + PLOT_HEIGHT, RED, dashed=True), _text(x + 5, TOP + 14, budget.text, colour=RED)]
    if budget.kind == "loss" and points:
        worst = figure.after(budget.amount, points[0].value)
        if up.low <= worst <= up.high:
            y = up.at(worst)
            label = f"{budget.text} {'less' if figure.higher_is_better else 'more'}"
            return [_line(LEFT, y, WIDTH - RIGHT, y, RED, dashed=True), _text(LEFT + 6, y - 5, label, colour=RED)]
    return []


def _dot(point: Point, x: float, y: float, *, best: bool) -> str:
    colour = BLUE if best else GREY
    fill = colour if point.complete else "white"
    title = escape(f"{point.name}: {point.value:.4f}, {point.milliseconds:.0f} ms, {point.photos} photos")
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="1.5">'
    return f"{dot}<title>{title}</title></circle>"


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"{dashes}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, colour: str = INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}">{escape(text)}</text>'
