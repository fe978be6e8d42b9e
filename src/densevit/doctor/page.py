"""The diagnosis as one HTML page that contains its pictures."""

from collections.abc import Sequence
from typing import Any

from densevit.doctor.checks_classes import histograms
from densevit.doctor.context import Context
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import SampleFacts, size_text
from densevit.doctor.palettes import colour_shares
from densevit.doctor.pictures import Picture, legend, pictures
from densevit.doctor.report import (
    COLOUR_HEAD,
    HEAD,
    class_columns,
    colour_name,
    headline,
    remarks,
    split_records,
    split_row,
    unread,
)
from densevit.doctor.rules import Finding, listed
from densevit.doctor.scan import evenly_spaced
from densevit.pages import html

MAX_EXAMPLES, MAX_NAMES, MAX_SAMPLES = 3, 12, 6


def page(diagnosis: Diagnosis, data: str, recognised: Sequence[str] = ()) -> str:
    """The whole page, which needs no other file."""
    context = diagnosis.context
    title = f"Data set {data}"
    by_path = {facts.path: sample for sample in context.samples for facts in sample.files()}
    splits = split_records(context)
    rows = [[html.escape(cell) for cell in split_row(split)] for split in splits]
    parts = [
        f"<h1>{html.escape(title)}</h1><p><b>{html.escape(headline(diagnosis))}</b></p>",
        f"<p class=soft>{html.escape('; '.join(remarks(diagnosis)))}</p>",
        _list("What the data are", recognised),
        _list("Not looked at", unread(diagnosis)),
        "<h2>Findings</h2>" if diagnosis.findings else "",
        *(_finding(finding, by_path, context) for finding in diagnosis.findings),
        "<h2>Splits</h2>",
        html.table(HEAD, rows, numbers={1}),
        _classes(context),
        _colours(context),
        _sizes(splits),
        "<h2>Samples</h2>",
        *(_row(pictures(sample, context)) for sample in evenly_spaced(context.samples, MAX_SAMPLES)),
    ]
    return html.page(title, *parts)


def _list(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{_sentence(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if lines else ""


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
    return f"<div class=row>{''.join(html.figure(uri, caption) for caption, uri in shown)}</div>" if shown else ""


def _classes(context: Context) -> str:
    """Histogram of the classes, one column per split."""
    by_split = histograms(context)
    colours = legend(context)
    if not by_split or not colours:
        return ""
    columns = class_columns(by_split, context)
    most = max(float(histogram.shares.max(initial=0)) for histogram in by_split.values()) or 1
    rows = []
    for index, (name, colour) in enumerate(colours):
        row = [f"<span class=swatch style='background:{colour}'></span>{index} {html.escape(name)}"]
        for histogram, cells in zip(by_split.values(), columns.values(), strict=True):
            row.append(_bar(8 * histogram.shares[index] / most) + cells[index])
        rows.append(row)
    rows.append(["<i>ignored</i>", *(cells[-1] for cells in columns.values())])
    return "<h2>Classes</h2>" + html.table(["class", *columns], rows)


def _colours(context: Context) -> str:
    """The colours in masks that no class list explains."""
    rows = []
    for row in colour_shares(context):
        swatch = f"<span class=swatch style='background:#{row.colour:06x}'></span>"
        rows.append([swatch + colour_name(row), f"{row.share:.2%}", str(row.masks)])
    return "<h2>Colours in the masks</h2>" + html.table(COLOUR_HEAD, rows, numbers={1, 2}) if rows else ""


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
    return "<h2>Sizes</h2>" + html.table(("split", "height x width", "photos"), rows)


def _bar(width: float) -> str:
    return f"<span class=bar style='width:{width:.2f}em'></span> "


def _sentence(text: str) -> str:
    """The text with a capital and a full stop, unless it begins with a file name or key, whose case matters."""
    is_key = not {"_", "/", "."}.isdisjoint(text.split(" ")[0])
    text = text if is_key else text[:1].upper() + text[1:]
    return html.escape(text if text.endswith((".", ":")) else f"{text}.")
