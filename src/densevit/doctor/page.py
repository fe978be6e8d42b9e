"""The diagnosis as one HTML page with its pictures inside."""

from densevit.doctor.context import Material
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import SampleFacts
from densevit.doctor.pictures import Picture, legend, pictures
from densevit.doctor.report import SplitFigures, class_shares, figures, headline, ignored_share, remarks
from densevit.doctor.rules import Finding
from densevit.pages import html

MAX_EXAMPLES, MAX_NAMES, MAX_SAMPLES = 3, 12, 6


def page(diagnosis: Diagnosis, data: str) -> str:
    """The whole page; it needs no other file."""
    material = diagnosis.material
    title = f"Data set {data}"
    by_path = {facts.path: sample for sample in material.samples for facts in sample.files()}
    splits = figures(material)
    parts = [
        f"<h1>{html.escape(title)}</h1><p><b>{html.escape(headline(diagnosis))}</b></p>",
        f"<p class=soft>{html.escape('; '.join(remarks(diagnosis)))}</p>",
        "<h2>Findings</h2>" if diagnosis.findings else "",
        *(_finding(finding, by_path, material) for finding in diagnosis.findings),
        "<h2>Splits</h2>",
        _splits(splits),
        *_classes(splits, material),
        _sizes(splits),
        "<h2>Samples</h2>",
        *(_row(pictures(sample, material)) for sample in _spread(material.samples)),
    ]
    return html.page(title, *parts)


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
    figures = "".join(html.figure(address, caption) for caption, address in shown)
    return f"<div class=row>{figures}</div>" if shown else ""


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
    return html.table(("split", "photos", "targets", "height x width", "depth"), rows, numbers={1})


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
    return ["<h2>Classes</h2>", html.table(head, [*rows, ignored], numbers=numbers)]


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
    return "<h2>Sizes</h2>" + html.table(("split", "height x width", "photos"), rows)


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
