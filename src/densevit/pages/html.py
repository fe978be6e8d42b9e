"""The frame, the style and the shared parts of all HTML pages; text is escaped here, and nowhere else."""

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #223; --soft: #556; --line: #dde; --paper: #fff; --tint: #f4f6f9;
  --link: #2563a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a9a9a9; --line: #3a3a3a; --paper: #181818; --tint: #242424; --link: #7fb0ea; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1.5rem 1rem 4rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: .95rem; margin: 0 0 .3rem; }
section > h3 { margin-top: 1.6rem; }
p { margin: .3rem 0; } small, .soft, figcaption, .panels, .cards span { color: var(--soft); }
code { font-size: .92em; overflow-wrap: anywhere; }
pre { background: var(--tint); padding: .8rem; overflow-x: auto; font-size: .8rem; border-radius: 6px; }
summary { cursor: pointer; color: var(--link); margin: .4rem 0; }
table { border-collapse: collapse; font-size: .9rem; } th { text-align: left; font-weight: 600; }
td, th { padding: .16rem .7rem .16rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.facts td { overflow-wrap: anywhere; } .scroll { overflow-x: auto; }
.barcell { width: 160px; }
.bar { display: inline-block; height: .7em; background: #2563a8; border-radius: 2px; min-width: 1px; }
.swatch, .legend i { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em; }
.swatch { outline: 1px solid #8884; }
.state { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; background: #e8eef6; font-size: .9rem;
  color: #223; }
.state.finished { background: #dcf0e3; }
.state.failed { background: #f8dcd6; }
.state.interrupted { background: #f8ecd0; }
.finding { border-left: 4px solid var(--mark); background: var(--tint); padding: .6rem 1rem; margin: .8rem 0;
  border-radius: 0 6px 6px 0; }
.error { --mark: #c62f2f; } .warning { --mark: #d08a00; } .note { --mark: #4084d6; }
.badge { color: #fff; background: var(--mark); border-radius: 4px; padding: 0 .45em; font-size: .8em; }
.cards { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: 1rem; }
.cards div { background: var(--tint); border-radius: 8px; padding: .5rem .9rem; min-width: 110px; }
.cards b { display: block; font-size: 1.25rem; font-weight: 600; } .cards span { font-size: .85rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1.2rem; }
.two { display: flex; flex-wrap: wrap; gap: 1.6rem 2.4rem; align-items: flex-start; margin-bottom: 1.4rem; }
.two > * { flex: 1 1 380px; min-width: 0; } .box { min-width: 0; }
.row { display: flex; flex-wrap: wrap; gap: .7rem; margin-top: .6rem; }
.row figure { flex: 1 1 240px; max-width: 560px; }
figure { margin: 0 0 .8rem; } figure img { width: 100%; display: block; border-radius: 4px; }
figcaption { font-size: .85rem; padding-top: .15rem; overflow-wrap: anywhere; }
.panels { display: flex; font-size: .85rem; margin-top: .6rem; } .panels span { flex: 1; }
svg { width: 100%; height: auto; display: block; font-family: inherit; background: #fff; }
svg.chart { font-size: 11px; } svg.square { font-size: 12px; max-width: 470px; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .2rem 0 0;
  padding: 0 0 0 3rem; font-size: .85rem; }
"""


def escape(value: object) -> str:
    """The text of a value for HTML and SVG, in content and in quoted attributes.

    Bytes of file names that are not UTF-8 are shown as question marks.
    """
    return html.escape(str(value).encode("utf-8", "replace").decode(), quote=True)


def page(title: str, *parts: str) -> str:
    """A whole page; ``parts`` are HTML."""
    frame = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    body = "\n".join(part for part in parts if part)
    return f"{frame}<title>{escape(title)}</title><style>{STYLE}</style>\n{body}\n</html>\n"


def section(title: str, *parts: str) -> str:
    """A heading and its content; empty if there is no content."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def titled(title: str, body: str) -> str:
    """A box with a small heading."""
    return f"<div class=box><h3>{escape(title)}</h3>{body}</div>"


def folded(title: str, body: str) -> str:
    """Content that opens at a click."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def cards(values: Mapping[str, str]) -> str:
    """A few facts in large letters."""
    items = (f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in values.items())
    return f"<div class=cards>{''.join(items)}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = ()) -> str:
    """A table with a heading.

    Args:
        head: titles of the columns, as text.
        rows: cells, as HTML.
        numbers: columns that are aligned to the right.
    """
    lines = []
    for tag, cells in (("th", map(escape, head)), *(("td", row) for row in rows)):
        line = (f"<{tag}{' class=n' if i in numbers else ''}>{cell}" for i, cell in enumerate(cells))
        lines.append(f"<tr>{''.join(line)}")
    return f"<div class=scroll><table>{''.join(lines)}</table></div>"


def facts_table(facts: Mapping[str, Any]) -> str:
    """Names and values, without those that are None."""
    rows = (f"<tr><th>{escape(name)}<td>{escape(in_line(value))}" for name, value in facts.items() if value is not None)
    return f"<table class=facts>{''.join(rows)}</table>"


def figure(address: str, name: str, *, value: str = "") -> str:
    """An image with its name, and a value in bold, as caption."""
    caption = f"{escape(name)} <b>{escape(value)}</b>" if value else escape(name)
    image = f'<img src="{escape(address)}" alt="{escape(name)}" loading=lazy>'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def in_line(value: Any, *, levels: int = 8) -> str:
    """Plain data as text in one line, nested up to ``levels`` deep."""
    if levels == 0 and isinstance(value, dict | list | tuple):
        return "…"
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value) if math.isfinite(value) else "none"
        case dict():
            return ", ".join(f"{name} {in_line(one, levels=levels - 1)}" for name, one in value.items()) or "none"
        case list() | tuple():
            return ", ".join(in_line(one, levels=levels - 1) for one in value) or "none"
    return "none" if value is None else str(value)


def number(value: float) -> str:
    """A number in at most four digits, without needless zeros."""
    if value == round(value) and abs(value) < 1e7:
        return str(round(value))
    return f"{value:.4g}".replace("e+0", "e").replace("e-0", "e-")
