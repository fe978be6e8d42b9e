"""The diagnosis as one HTML page with its pictures inside."""

import html
from collections.abc import Iterable

from densevit.doctor.context import Material
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import SampleFacts
from densevit.doctor.pictures import Picture, legend, pictures
from densevit.doctor.report import SplitFigures, class_shares, figures, headline, ignored_share, remarks
from densevit.doctor.rules import Finding

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
    """The whole page; it needs no other file."""
    material = diagnosis.material
    title = f"Data set {data}"
    by_path = {facts.path: sample for sample in material.samples for facts in sample.files()}
    splits = figures(material)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1><p><b>{headline(diagnosis)}</b></p>",
        f"<p class=soft>{html.escape('; '.join(remarks(diagnosis)))}</p>",
        "<h2>Findings</h2>" if diagnosis.findings else "",
        *(_finding(finding, by_path, material) for finding in diagnosis.findings),
        "<h2>Splits</h2>",
        _splits(splits),
        *_classes(splits, material),
        _sizes(splits),
        "<h2>Samples</h2>",
        *(_row(pictures(sample, material)) for sample in _spread(material.samples)),
        "</html>",
    ]
    return "\n".join(part for part in parts if part)


def _finding(finding: Finding, by_path: dict[str, SampleFacts], material: Material) -> str:
    shown: list[Picture] = []
    seen: set[int] = set()
    for path in finding.files[:50]:
        sample = by_path.get(path)
        if sample is not None and id(sample) not in seen and len(seen) < MAX_EXAMPLES:
            seen.add(id(sample))
            shown += pictures(sample, material)
    split = f" <small>in {html.escape(finding.split)}</small>" if finding.split else ""
    return (
        f"<div class='finding {finding.severity}'><h3><span class=badge>{finding.severity}</span> "
        f"<code>{finding.code}</code>{split}</h3><p>{_sentence(finding.what)} "
        f"<span class=soft>{_sentence(finding.check.why)}</span></p><p><b>What to do:</b> {_sentence(finding.fix)}"
        f"{' <small>(--write-fixed does it where it is safe)</small>' if finding.check.written else ''}</p>"
        f"{_names([material.short(path) for path in finding.files])}{_row(shown)}</div>"
    )


def _names(files: list[str]) -> str:
    if not files:
        return ""
    shown = ", ".join(f"<code>{html.escape(path)}</code>" for path in files[:MAX_NAMES])
    if len(files) == 1:
        return f"<p class=soft>{shown}</p>"
    more = f" and {len(files) - MAX_NAMES} more (all by --json)" if len(files) > MAX_NAMES else ""
    return f"<details><summary class=soft>{len(files)} files</summary><small>{shown}{more}</small></details>"


def _row(shown: list[Picture]) -> str:
    cells = (
        f"<figure><img src='{address}' alt='{html.escape(caption, quote=True)}' loading=lazy>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, address in shown
    )
    return f"<div class=row>{''.join(cells)}</div>" if shown else ""


def _splits(splits: list[SplitFigures]) -> str:
    rows = []
    for split in splits:
        depth = ""
        if split.depth_m is not None:
            _, low, middle, high, _ = split.depth_m
            depth = f"{low:.3g} to {high:.3g} m, median {middle:.3g} m; {split.valid:.0%} measured"
        targets = ", ".join(f"{number} {kind}" for kind, number in split.targets.items()) or "none"
        cells = (split.name or "(no splits)", str(split.photos), targets, split.size_range(), depth)
        rows.append([html.escape(cell) for cell in cells])
    return _table(("split", "photos", "targets", "height x width", "depth"), rows, numbers={1})


def _classes(splits: list[SplitFigures], material: Material) -> list[str]:
    """Histogram of the classes, a column for each split."""
    known = [split for split in splits if split.classes is not None]
    colours = legend(material)
    if not known or not colours:
        return []
    most = max(max(class_shares(s.classes), default=0) for s in known if s.classes is not None) or 1
    head = ["class"] + [title for split in known for title in (f"{split.name or 'pixels'}", "photos")]
    rows = []
    for index, (name, colour) in enumerate(colours):
        row = [f"<span class=swatch style='background:{colour}'></span>{index} {html.escape(name)}"]
        for split in known:
            assert split.classes is not None
            share = class_shares(split.classes)[index]
            row.append(f"<span class=bar style='width:{8 * share / most:.2f}em'></span> {share:.2%}")
            row.append(f"{split.classes.photos[index]}")
        rows.append(row)
    ignored = ["<i>ignored</i>"]
    for split in known:
        assert split.classes is not None
        ignored += [f"{ignored_share(split.classes):.2%} of all", ""]
    numbers = {2 * i + 2 for i in range(len(known))}
    return ["<h2>Classes</h2>", _table(head, [*rows, ignored], numbers=numbers)]


def _sizes(splits: list[SplitFigures]) -> str:
    """How many photos have which size, where there are several."""
    if all(len(split.sizes) < 2 for split in splits):
        return ""
    most = max(number for split in splits for _, number in split.sizes)
    rows = [
        [html.escape(split.name), f"{h} x {w}", f"<span class=bar style='width:{12 * n / most:.2f}em'></span> {n}"]
        for split in splits
        for (h, w), n in split.sizes[:10]
    ]
    return "<h2>Sizes</h2>" + _table(("split", "height x width", "photos"), rows, numbers=set())


def _table(head: Iterable[str], rows: list[list[str]], *, numbers: set[int]) -> str:
    """Cells are HTML already; ``numbers`` are columns set flush right."""

    def line(cells: Iterable[str], tag: str) -> str:
        marked = (f"<{tag}{' class=number' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<div class=scroll><table>{line(map(html.escape, head), 'th')}{body}</table></div>"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:] if not text[:1].isupper() and not _is_key(text) else text
    return html.escape(text if text.endswith((".", ":")) else f"{text}.")


def _is_key(text: str) -> bool:
    """It begins with a name of a file or a key, whose case matters."""
    return "_" in text.split(" ")[0] or "/" in text.split(" ")[0] or "." in text.split(" ")[0]


def _spread(samples: list[SampleFacts]) -> list[SampleFacts]:
    """A few samples of the whole data set."""
    if len(samples) <= MAX_SAMPLES:
        return samples
    return [samples[i * len(samples) // MAX_SAMPLES] for i in range(MAX_SAMPLES)]
