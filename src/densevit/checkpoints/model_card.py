"""The files that go with published weights: the model card of the hub (README.md) and a small config.json.

Source of the keys: huggingface.co/docs/hub/model-cards, and the list of licences there.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from densevit import __version__
from densevit.checkpoints.card_file import seal
from densevit.checkpoints.catalogue import FAMILIES, encoder_name
from densevit.checkpoints.native import Bundle
from densevit.tasks import Task
from densevit_runtime.licences import UNSTATED, in_words, parts, terms

LIBRARY = "densevit"
WEIGHTS = "model.safetensors"

# Licences that the hub knows, as its identifiers; others are "other" with a name.
_HUB_LICENCES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0
cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0
gpl-3.0 intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1
openmdw-1.0 openrail openrail++ osl-3.0 pddl postgresql unlicense wtfpl zlib
"""
_PIPELINES = {"segmentation": "image-segmentation", "depth": "depth-estimation"}
_TASK_TAGS = {"segmentation": "semantic-segmentation", "depth": "depth-estimation"}
_METRIC_TYPES = {"mIoU": "mean_iou", "aAcc": "accuracy", "mAcc": "mean_accuracy", "RMSE": "rmse", "MAE": "mae"}
# What an evaluation writes next to its metrics.
_NO_METRICS = frozenset({"seconds", "evaluation_seconds", "mean_entropy"})
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")


@dataclass(frozen=True)
class Measured:
    """One value of one metric.

    Attributes:
        data: name of the data set; empty if unknown.
        split: its part; empty if unknown.
        how: the protocol in words, such as "quality fast"; empty if unknown.
    """

    head: str
    task: str
    metric: str
    value: float
    data: str
    split: str
    how: str


def measured(bundle: Bundle) -> list[Measured]:
    """The metrics on a bundle's card, each with the data and the protocol that are known of it.

    A metric of an evaluation says so itself; that of a training was measured on what the head was trained with. The
    name of a published one begins with its data set, as in "ADE20K mIoU".
    """
    return [row for head, task in bundle.tasks.items() for row in _of_head(bundle, head, task)]


def _of_head(bundle: Bundle, head: str, task: Task) -> Iterator[Measured]:
    about = bundle.card.metrics.get(head)
    if not isinstance(about, Mapping):
        return
    run = next((data for data in bundle.trained_on if head in data.heads and data.val is not None), None)
    of_run = {} if run is None else {**run.train, **(run.val or {})}
    for values in (about, about.get("best")):
        if not isinstance(values, Mapping):
            continue
        facts = values if "data" in values else {"data": of_run.get("root"), "split": of_run.get("split"), **values}
        quality = values.get("quality") or ("best" if values is about.get("best") else None)
        how = [f"quality {quality}"] if quality else []
        how += [str(values[key]) for key in ("protocol", "source") if isinstance(values.get(key), str)]
        for name, value in values.items():
            if isinstance(value, float) and math.isfinite(value) and name not in _NO_METRICS:
                own, _, metric = name.rpartition(" ")
                data = own or PurePosixPath(str(facts.get("data") or "")).name
                split = "" if own else str(facts.get("split") or "")
                yield Measured(head, task.kind, metric, value, data, split, ", ".join(how))


def config_json(bundle: Bundle) -> dict[str, Any]:
    """What the hub and a reader learn without opening the weights, which hold the whole config themselves."""
    config = bundle.model.config
    heads: dict[str, Any] = {}
    for name, head in config.heads.items():
        task = bundle.tasks[name]
        classes = task.class_table
        facts = {"task": task.kind, "decoder": head.decoder.kind}
        heads[name] = facts | ({} if classes is None else {"num_classes": len(classes.names)})
    return {
        "library_name": LIBRARY,
        "library_version": __version__,
        "weights": WEIGHTS,
        "encoder": encoder_name(config.encoder),
        "patch_size": list(config.encoder.patch_size),
        "parameters": bundle.model.num_parameters(),
        "heads": heads,
        "license": bundle.card.licence,
    }


def model_card(bundle: Bundle, *, name: str, repo_id: str | None, sha256: str, num_bytes: int) -> str:
    """The text of README.md.

    Args:
        bundle: the model.
        name: its title.
        repo_id: ``owner/name`` on the hub, for the lines that load it; a placeholder if not given.
        sha256: of model.safetensors.
        num_bytes: of model.safetensors.
    """
    rows = measured(bundle)
    header = yaml.safe_dump(_header(bundle, name, rows), sort_keys=False, allow_unicode=True, width=120)
    card = bundle.card
    weights = "OWNER/NAME" if repo_id is None else repo_id
    sections = [
        f"---\n{header}---\n\n# {_text(name)}\n",
        *([f"{_text(card.description)}\n"] if card.description else []),
        f"Dense prediction with a plain Vision Transformer, {_text(encoder_name(bundle.model.config.encoder))}, "
        f"{bundle.model.num_parameters() / 1e6:.1f} million parameters, by `{LIBRARY}`.\n",
        f"Licence of the weights: **{_text(in_words(card.licence))}**.\n",
        "## Use\n\n```python\nimport densevit\n\n"
        f'predictor = densevit.from_pretrained("{weights}")\n'
        'predictor.predict("photo.jpg").save("out")\n```\n',
        f"```sh\ndensevit predict photo.jpg --model hf://{weights} --out out\n```\n",
        "## Heads\n\n" + _table(("head", "task", "decoder", "gives", "short side"), _heads(bundle)),
        "## Metrics\n\n" + _metrics_table(rows),
        "## Licence\n\n" + _table(("part", "terms"), _licences(bundle)),
        "## Provenance\n\n"
        + "".join(f"- {_text(line)}\n" for line in card.provenance)
        + f"- `{WEIGHTS}`: {num_bytes:,} bytes, sha256 `{sha256}`, written by {LIBRARY} {__version__}\n",
    ]
    return seal("\n".join(sections) + "\n")


def _header(bundle: Bundle, name: str, rows: list[Measured]) -> dict[str, Any]:
    kinds = list(dict.fromkeys(task.kind for task in bundle.tasks.values()))
    decoders = (head.decoder.kind for head in bundle.model.config.heads.values())
    families = [FAMILIES[kind.split("_")[0]].lower() for kind in decoders if kind.split("_")[0] in FAMILIES]
    header: dict[str, Any] = {**_licence(bundle.card.licence), "library_name": LIBRARY}
    if pipeline := next((_PIPELINES[kind] for kind in kinds if kind in _PIPELINES), None):
        header["pipeline_tag"] = pipeline
    task_tags = [_TASK_TAGS.get(kind, kind) for kind in kinds]
    header["tags"] = list(dict.fromkeys([LIBRARY, "vision-transformer", *families, *task_tags]))
    known = [row for row in rows if row.data]
    if data := list(dict.fromkeys(_slug(row.data) for row in known)):
        header["datasets"] = data
    if metrics := list(dict.fromkeys(_METRIC_TYPES.get(row.metric, row.metric) for row in rows)):
        header["metrics"] = metrics
    # The hub refuses results without a data set; the table below shows these too.
    if results := _results(known):
        header["model-index"] = [{"name": name, "results": results}]
    return header


def _licence(licence: str) -> dict[str, Any]:
    if terms(licence) == UNSTATED:
        return {"license": "unknown"}
    names = [re.sub(r"-(only|or-later)$", "", part.lower()) for part in parts(licence)]
    if {*names} <= {*_HUB_LICENCES.split()}:
        return {"license": names[0] if len(names) == 1 else names}
    return {"license": "other", "license_name": _slug(licence)[:80].strip("-")}


def _results(rows: list[Measured]) -> list[dict[str, Any]]:
    """The results of model-index: one for each head, data set and protocol."""
    results: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row.head, row.data, row.split, row.how)
        data = {"type": _slug(row.data), "name": row.data} | ({"split": row.split} if row.split else {})
        task = {"type": _PIPELINES.get(row.task, row.task), "name": f"{row.task} (head {row.head})"}
        result = results.setdefault(key, {"task": task, "dataset": data, "metrics": []})
        metric = {"type": _METRIC_TYPES.get(row.metric, row.metric.lower()), "name": row.metric, "value": row.value}
        result["metrics"].append(metric | ({"args": {"protocol": row.how}} if row.how else {}))
    return list(results.values())


def _heads(bundle: Bundle) -> Iterator[tuple[str, ...]]:
    for name, task in bundle.tasks.items():
        classes = task.class_table
        gives = task.kind if classes is None else f"{len(classes.names)} classes: {_some(classes.names)}"
        unit = getattr(task, "unit", "")
        quantity = getattr(task, "quantity", "")
        if classes is None and (unit or quantity):
            gives = " in ".join(filter(None, (quantity or "values", unit)))
        short_side = bundle.fit.at_quality("fast").for_head(name).short_side
        yield name, task.kind, bundle.model.config.heads[name].decoder.kind, gives, str(short_side)


def _metrics_table(rows: list[Measured]) -> str:
    if not rows:
        return "Nothing was measured, or the checkpoint does not say it.\n"
    lines = ((row.head, row.metric, f"{row.value:.4g}", row.data, row.split, row.how) for row in rows)
    table = _table(("head", "metric", "value", "data", "split", "protocol"), lines)
    return table + "\nAn empty cell is not stated by the checkpoint.\n"


def _licences(bundle: Bundle) -> Iterator[tuple[str, str]]:
    yield "weights", in_words(bundle.card.licence)
    yield f"code of {LIBRARY}", "Apache-2.0"
    yield "training data", bundle.card.data_licence or "not stated"


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *(tuple(map(_text, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def _text(text: str) -> str:
    """Plain text as one line of Markdown, in which nothing has a meaning."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _slug(text: str) -> str:
    """A name as the hub writes identifiers: small letters, digits, and - . _ between them."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
