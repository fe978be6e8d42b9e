"""The tables and picture rows of a report, as HTML. Everything that comes from a file is escaped."""

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from densevit.evaluation.panels import PANELS
from densevit.pages.charts import number

MOST_CONFUSED = 8


def escape(value: object) -> str:
    """Text for HTML."""
    return html.escape(str(value))


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it; nothing if there is nothing."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def titled(title: str, body: str) -> str:
    """One of several things that stand side by side."""
    return f"<div class=box><h3>{escape(title)}</h3>{body}</div>"


def cards(values: Mapping[str, str]) -> str:
    """Few facts in large letters."""
    items = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in values.items())
    return f"<div class=cards>{''.join(items)}</div>"


def facts_table(facts: Mapping[str, Any]) -> str:
    """Names and values; nested ones as ``name value`` on one line."""
    rows = (f"<tr><th>{escape(name)}<td>{escape(in_line(value))}" for name, value in facts.items() if value is not None)
    return f"<table class=facts>{''.join(rows)}</table>"


def in_line(value: Any) -> str:
    """Plain data in one line."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value) if math.isfinite(value) else "none"
        case dict():
            return ", ".join(f"{name} {in_line(one)}" for name, one in value.items()) or "none"
        case list() | tuple():
            return ", ".join(in_line(one) for one in value) or "none"
    return "none" if value is None else str(value)


def folded(title: str, body: str) -> str:
    """Something long that opens at a click."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def class_table(per_class: Mapping[str, Any], palette: Sequence[Sequence[int]]) -> str:
    """IoU, accuracy and pixels of each class, with a bar for the IoU."""
    rows = []
    total = sum(_count(values) for values in per_class.values()) or 1
    for index, (name, values) in enumerate(per_class.items()):
        colour = ",".join(str(int(c)) for c in palette[index][:3]) if index < len(palette) else "200,200,200"
        iou = values.get("IoU") if isinstance(values, dict) else None
        bar = f'<i class=bar style="width:{100 * iou:.1f}%"></i>' if _known(iou) else ""
        count = _count(values)
        rows.append(
            f'<tr><td><i class=swatch style="background:rgb({colour})"></i>{escape(name)}'
            f"<td class=n>{_share(iou)}<td class=barcell>{bar}"
            f"<td class=n>{_share(values.get('Acc') if isinstance(values, dict) else None)}"
            f"<td class=n>{count:,}<td class=n>{count / total:.2%}"
        )
    head = "<tr><th>class<th class=n>IoU<th><th class=n>accuracy<th class=n>pixels<th class=n>share"
    return f"<table>{head}{''.join(rows)}</table>"


def confused_table(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """The pairs of classes that cost the most pixels."""
    pairs = [
        (count, row, column) for row, line in enumerate(counts) for column, count in enumerate(line) if row != column
    ]
    pairs = [pair for pair in sorted(pairs, reverse=True)[:MOST_CONFUSED] if pair[0]]
    if not pairs:
        return ""
    total = sum(map(sum, counts))
    rows = "".join(
        f"<tr><td>{escape(names[row])}<td>{escape(names[column])}<td class=n>{count:,}"
        f"<td class=n>{count / sum(counts[row]):.1%}<td class=n>{count / total:.2%}"
        for count, row, column in pairs
    )
    head = "<tr><th>true<th>taken for<th class=n>pixels<th class=n>of its class<th class=n>of all"
    return f"<table>{head}{rows}</table>"


def figures_table(figures: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Every figure that is a number: now, and at the evaluation that the best checkpoint is of."""
    rows = "".join(
        f"<tr><td>{escape(name)}<td class=n>{in_line(value)}<td class=n>{in_line(best.get(name))}"
        for name, value in figures.items()
        if isinstance(value, int | float)
    )
    return f"<table><tr><th>figure<th class=n>last<th class=n>best checkpoint{rows}</table>"


def picture_rows(folder: Path, seen: Iterable[Mapping[str, Any]], figure: str) -> str:
    """Pictures of images side by side with name and figure, inside the page; those whose file is gone are left out."""
    rows = []
    for one in seen:
        try:
            data = base64.b64encode((folder / Path(str(one["file"])).name).read_bytes()).decode()
        except (OSError, KeyError):
            continue
        name, value = escape(one.get("name", "")), one.get("value")
        caption = f"{name} <b>{figure} {number(value)}</b>" if _known(value) else name
        rows.append(
            f'<figure><img src="data:image/jpeg;base64,{data}" alt="{name}"><figcaption>{caption}</figcaption></figure>'
        )
    if not rows:
        return ""
    heads = "".join(f"<span>{panel}</span>" for panel in PANELS)
    return f"<div class=panels>{heads}</div>{''.join(rows)}"


def _count(values: Any) -> int:
    count = values.get("pixels") if isinstance(values, dict) else None
    return count if isinstance(count, int) else 0


def _known(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _share(value: Any) -> str:
    return f"{value:.3f}" if _known(value) else "–"
