"""The models that have a name, as plain rows: the one that ships, published ones, and the presets."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import torch

from densevit.checkpoints.hub import DEFAULT, DEFAULT_NAME
from densevit.checkpoints.native import Header, read_header
from densevit.checkpoints.published import PUBLISHED, Origin, Published, find_published
from densevit.config import did_you_mean
from densevit.encoder import NAMED_SIZES, EncoderConfig
from densevit.errors import ConfigError
from densevit.model import DenseModel, ModelConfig
from densevit.presets import PRESETS
from densevit_runtime.licences import PERMISSIVE

Weights = Literal["shipped", "published", "none"]

FAMILIES = {"setr": "SETR", "segmenter": "Segmenter", "dpt": "DPT"}
BYTES_PER_PARAMETER = 4
SHIPPED_LICENCES = ("Apache-2.0", "MIT")
"""SPDX identifiers of the model that ships, whose card says which of them is of which part."""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"(?P<number>\d{1,15}(\.\d{1,15})?) *(?P<unit>[KMG]I?)?B?", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A named model, by what can be known without building it.

    Attributes:
        name: as ``densevit.load`` or ``create_model`` takes it.
        weights: "shipped" with the package, "published" by others, or "none", for an architecture only.
        families: of its decoders, such as ("SETR", "DPT").
        tasks: kinds of its heads' tasks.
        licence: of the weights, in words where there are several; None if there are no weights.
        licences: its SPDX identifiers, or "unstated"; none if there are no weights.
        header: of the model that ships.
        published: the row of published weights.
    """

    name: str
    weights: Weights
    families: tuple[str, ...]
    tasks: tuple[str, ...]
    licence: str | None = None
    licences: tuple[str, ...] = ()
    header: Header | None = None
    published: Published | None = None

    @property
    def preset(self) -> str | None:
        """Name of the preset with its network; None for the model that ships."""
        if self.published is not None:
            return self.published.preset
        return self.name if self.name in PRESETS else None

    @property
    def permissive(self) -> bool:
        """Whether the licences of the weights allow any use; no weights, no licence."""
        return bool(self.licences) and PERMISSIVE.issuperset(self.licences)


def entries() -> list[Entry]:
    """Every named model: the one that ships, published ones, and the presets that have another name or no weights."""
    found: list[Entry] = []
    if DEFAULT.exists():
        header = read_header(DEFAULT)
        kinds = {config.decoder.kind.split("_")[0] for config in header.model.heads.values()}
        families = tuple(sorted(FAMILIES.get(kind, kind) for kind in kinds))
        tasks = tuple(sorted({task.kind for task in header.tasks.values()}))
        licence = header.card.licence
        found.append(Entry(DEFAULT_NAME, "shipped", families, tasks, licence, SHIPPED_LICENCES, header=header))
    for name in (*PUBLISHED, *(preset for preset in PRESETS if preset not in PUBLISHED)):
        if (row := find_published(name)) is None:
            found.append(Entry(name, "none", (PRESETS[name].family,), (PRESETS[name].task,)))
        else:
            facts = (row.family,), (row.task,), row.licence, (row.licence,)
            found.append(Entry(name, "published", *facts, published=row))
    return found


def select(
    *,
    task: str | None = None,
    licence: str | None = None,
    family: str | None = None,
    max_size: int | str | None = None,
    weights: str | None = None,
) -> list[Entry]:
    """The named models that pass every filter; see ``densevit.list_models``.

    Raises:
        ConfigError: if no model has the value of a filter, or ``max_size`` is no size.
    """
    known = entries()
    chosen = known
    for option, value, values_of in (
        ("task", task, lambda entry: entry.tasks),
        ("family", family, lambda entry: entry.families),
        ("licence", licence, _licences),
        ("weights", weights, lambda entry: (entry.weights,)),
    ):
        if value is not None:
            chosen = _having(option, value, values_of, known, chosen)
    if max_size is not None:
        most = num_bytes(max_size)
        chosen = [entry for entry in chosen if weights_size(entry) <= most]
    return chosen


def catalogue(**filters: Any) -> list[dict[str, Any]]:
    """One row of plain data per named model that passes the filters of ``select``; what is unknown is None."""
    return [_row(entry) for entry in select(**filters)]


def num_bytes(size: int | str) -> int:
    """Bytes of a size such as 500, "100 MB" or "1.5GiB".

    Raises:
        ConfigError: if it is none.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None:
        raise ConfigError(f"max_size is {size!r}, but a size is a number of bytes, or a text such as 500MB or 2GiB")
    return int(float(match["number"]) * _UNITS[(match["unit"] or "").upper()])


def weights_size(entry: Entry) -> int:
    """Bytes that the weights take in densevit: the file that ships, else float32 for every parameter."""
    return DEFAULT.stat().st_size if entry.header is not None else BYTES_PER_PARAMETER * num_parameters(entry)


def num_parameters(entry: Entry) -> int:
    """Parameters of the network."""
    return _count(_architecture(entry))


def encoder_name(config: EncoderConfig) -> str:
    """The usual name of an encoder, such as ViT-B/16, with the number of blocks where it has fewer."""
    sizes = {(s["embed_dim"], s["depth"], s["num_heads"]): name for name, s in NAMED_SIZES.items()}
    width = sizes.get((config.embed_dim, config.depth, config.num_heads), f"{config.embed_dim}x{config.depth}")
    blocks = config.taps[-1] + 1
    cut = f", first {blocks} blocks" if blocks < config.depth else ""
    return f"{'R50+' if config.stem else ''}ViT-{width}/{config.patch_size[0]}{cut}"


def _licences(entry: Entry) -> tuple[str, ...]:
    return (*entry.licences, "permissive") if entry.permissive else entry.licences


def _having(
    option: str,
    value: str,
    values_of: Callable[[Entry], Collection[str]],
    known: list[Entry],
    chosen: list[Entry],
) -> list[Entry]:
    """Those of ``chosen`` with a value, whose letters may be in either case and whose spaces may be dashes."""
    every = {_folded(one): one for entry in known for one in values_of(entry)}
    if (wanted := _folded(value)) not in every:
        accepted = ", ".join(sorted(every.values()))
        raise ConfigError(f"no model has the {option} {value!r}{did_you_mean(wanted, every)}; accepted: {accepted}")
    return [entry for entry in chosen if wanted in map(_folded, values_of(entry))]


def _folded(value: str) -> str:
    return value.strip().lower().replace(" ", "-").replace("_", "-")


def _architecture(entry: Entry) -> str:
    """What names the network: the preset, or the model that ships."""
    return entry.preset or entry.name


@cache
def _config(name: str) -> ModelConfig:
    if name == DEFAULT_NAME:
        return read_header(DEFAULT).model
    return ModelConfig.parse(PRESETS[name].model, source=f"preset {name}")


@cache
def _count(name: str) -> int:
    with torch.device("meta"):
        return DenseModel(_config(name)).num_parameters()


def _row(entry: Entry) -> dict[str, Any]:
    config = _config(_architecture(entry))
    return {
        "name": entry.name,
        "weights": entry.weights,
        "family": " + ".join(entry.families),
        "tasks": list(entry.tasks),
        "encoder": encoder_name(config.encoder),
        "heads": {head: part.decoder.kind for head, part in config.heads.items()},
        "parameters": num_parameters(entry),
        "bytes": weights_size(entry),
        "preset": entry.preset,
        "licence": entry.licence,
        "permissive": entry.permissive,
        **_published_facts(entry.published),
        **({} if entry.header is None else {"metrics": _shipped_metrics(entry.header)}),
    }


def _published_facts(row: Published | None) -> dict[str, Any]:
    """What others state about their weights; the same keys, with None or nothing, for models that have no row."""
    if row is None:
        texts = ("licence_of_code", "licence_source", "source_config", "protocol", "metrics_source", "downloaded_here")
        return {"aliases": [], "sources": [], "metrics": {}} | dict.fromkeys(texts)
    return {
        "aliases": list(row.aliases),
        "sources": [_source(origin) for origin in row.sources],
        "metrics": dict(row.metrics),
        "licence_of_code": row.licence_of_code,
        "licence_source": row.licence_source,
        "source_config": row.source_config,
        "protocol": row.protocol,
        "metrics_source": row.metrics_source,
        "downloaded_here": row.downloaded_here,
    }


def _source(origin: Origin) -> dict[str, Any]:
    facts = asdict(origin) | {"address": origin.address, "side_files": list(origin.side_files)}
    del facts["url"]  # the same as the address, where there is one
    return facts


def _shipped_metrics(header: Header) -> Mapping[str, float]:
    measured = header.card.metrics
    headlines = ((head, task.headline[0]) for head, task in header.tasks.items())
    return {f"{head} {name}": measured[head][name] for head, name in headlines if name in measured.get(head, {})}
