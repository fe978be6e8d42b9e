"""The diagnosis as one HTML page that contains its pictures."""

import html
from collections.abc import Iterable
from typing import Any

from densevit.doctor.checks_classes import histograms
from densevit.doctor.context import Context
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import SampleFacts, size_text
from densevit.doctor.pictures import Picture, legend, pictures
from densevit.doctor.report import HEAD, class_columns, headline, remarks, split_records, split_row
from densevit.doctor.rules import Finding, listed
from densevit.doctor.scan import evenly_spaced

MAX_EXAMPLES, MAX_NAMES, MAX_SAMPLES = 3, 12, 6

_STYLE = """
:root { --ink: #222; --soft: #555; --line: #ddd; --paper: #fff; --tint: #f6f6f4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a9a9a9; --line: #3a3a3a; --paper: #181818; --tint: #222; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { margin: 2.2rem 0 .6rem; font-size: 1.15rem; }
p { margin: .3rem 0; } small, .soft { color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; }
.scroll { overflow-x: auto; }
.bar { display: inline-block; height: .75em; border-radius: 2px; background: #4084d6; min-width: 1px; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .4em; }
.finding { border-left: 4px solid var(--mark); background: var(--tint); padding: .6rem 1rem; margin: .8rem 0;
  border-radius: 0 6px 6px 0; }
.error { --mark: #c62f2f; } .warning { --mark: #d08a00; } .note { --mark: #4084d6; }
.finding h3 { margin: 0 0 .3rem; font-size: 1rem; }
.badge { color: #fff; background: var(--mark); border-radius: 4px; padding: 0 .45em; font-size: .8em;
  font-weight: 600; }
code { font-size: .92em; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: .6rem; }
figure { margin: 0; width: 240px; } figure img { width: 100%; border-radius: 4px; display: block; }
figcaption { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
"""


def page(diagnosis: Diagnosis, data: str) -> str:
    """The whole page, which needs no other file."""
    context = diagnosis.context
    title = f"Data set {data}"
    by_path = {facts.path: sample for sample in context.samples for facts in sample.files()}
    splits = split_records(context)
    rows = [[html.escape(cell) for cell in split_row(split)] for split in splits]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1><p><b>{headline(diagnosis)}</b></p>",
        f"<p class=soft>{html.escape('; '.join(remarks(diagnosis)))}</p>",
        "<h2>Findings</h2>" if diagnosis.findings else "",
        *(_finding(finding, by_path, context) for finding in diagnosis.findings),
        "<h2>Splits</h2>",
        _table(HEAD, rows, numbers={1}),
        _classes(context),
        _sizes(splits),
        "<h2>Samples</h2>",
        *(_row(pictures(sample, context)) for sample in evenly_spaced(context.samples, MAX_SAMPLES)),
        "</html>",
    ]
    return "\n".join(part for part in parts if part)


def _finding(finding: Finding, by_path: dict[str, SampleFacts], context: Context) -> str:
    samples = [by_path[path] for path in finding.files[:50] if path in by_path]
    examples = list({id(sample): sample for sample in samples}.values())[:MAX_EXAMPLES]
    shown = [picture for sample in examples for picture in pictures(sample, context)]
    split = f" <small>in {html.escape(finding.split)}</small>" if finding.split else ""
    fixable = " <small>(--write-fixed does it where it is safe)</small>" if finding.check.fixable else ""
    return (
        f"<div class='finding {finding.severity}'><h3><span class=badge>{finding.severity}</span> "
        f"<code>{finding.code}</code>{split}</h3><p>{_sentence(finding.what)} "
        f"<span class=soft>{_sentence(finding.check.why)}</span></p>"
        f"<p><b>What to do:</b> {_sentence(finding.fix)}{fixable}</p>"
        f"{_names([context.short(path) for path in finding.files])}{_row(shown)}</div>"
    )


def _names(files: list[str]) -> str:
    if not files:
        return ""
    shown = listed([f"<code>{html.escape(path)}</code>" for path in files], MAX_NAMES)
    if len(files) == 1:
        return f"<p class=soft>{shown}</p>"
    more = " (all with --json)" if len(files) > MAX_NAMES else ""
    return f"<details><summary class=soft>{len(files)} files</summary><small>{shown}{more}</small></details>"


def _row(shown: list[Picture]) -> str:
    cells = (
        f"<figure><img src='{address}' alt='{html.escape(caption, quote=True)}' loading=lazy>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, address in shown
    )
    return f"<div class=row>{''.join(cells)}</div>" if shown else ""


def _classes(context: Context) -> str:
    """Histogram of the classes, one column per split."""
    by_split = histograms(context)
    colours = legend(context)
    if not by_split or not colours:
        return ""
    columns = class_columns(by_split)
    most = max(float(histogram.shares.max(initial=0)) for histogram in by_split.values()) or 1
    rows = []
    for index, (name, colour) in enumerate(colours):
        row = [f"<span class=swatch style='background:{colour}'></span>{index} {html.escape(name)}"]
        for histogram, cells in zip(by_split.values(), columns.values(), strict=True):
            row.append(_bar(8 * histogram.shares[index] / most) + cells[index])
        rows.append(row)
    rows.append(["<i>ignored</i>", *(cells[-1] for cells in columns.values())])
    return "<h2>Classes</h2>" + _table(["class", *columns], rows)


def _sizes(splits: list[dict[str, Any]]) -> str:
    """The number of photos of each size, if there are several sizes."""
    if all(split["num_sizes"] < 2 for split in splits):
        return ""
    most = max(size["photos"] for split in splits for size in split["sizes"])
    rows = []
    for split in splits:
        for size in split["sizes"][:10]:
            bar = f"{_bar(12 * size['photos'] / most)}{size['photos']}"
            rows.append([html.escape(split["name"]), size_text((size["height"], size["width"])), bar])
    return "<h2>Sizes</h2>" + _table(("split", "height x width", "photos"), rows)


def _bar(width: float) -> str:
    return f"<span class=bar style='width:{width:.2f}em'></span> "


def _table(head: Iterable[str], rows: list[list[str]], *, numbers: Iterable[int] = ()) -> str:
    """Cells are HTML already; ``numbers`` are the columns that are aligned right."""

    def line(cells: Iterable[str], tag: str) -> str:
        marked = (f"<{tag}{' class=number' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<div class=scroll><table>{line(map(html.escape, head), 'th')}{body}</table></div>"


def _sentence(text: str) -> str:
    """The text with a capital and a full stop, unless it begins with a file name or key, whose case matters."""
    is_key = not {"_", "/", "."}.isdisjoint(text.split(" ")[0])
    text = text if is_key else text[:1].upper() + text[1:]
    return html.escape(text if text.endswith((".", ":")) else f"{text}.")
