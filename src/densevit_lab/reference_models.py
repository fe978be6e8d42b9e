"""The page on published weights, made from the table that downloads go by."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from densevit.checkpoints.catalogue import catalogue
from densevit.checkpoints.published import PUBLISHED, Origin, Published
from densevit_lab.reference_text import MADE, Row, escape, table

INTRODUCTION = """\
# Published models

Models whose weights others publish and densevit reads, by the name that `densevit.load`, `--model` and
`densevit.create_model` take. `densevit models` lists them with the model that ships and the architectures without
weights, and filters by `--task`, `--family`, `--licence`, `--max-size` and `--weights`; `densevit models --json` has
all that is on this page. Where several names are given, they mean the same model.

- **Licences** are of the weights; "unstated" means that their authors state none: ask them before you use or share the
  weights. The data that a model was trained on may have its own terms.
- **Metrics** are those of the publisher, with the protocol given; what is published in percent is a fraction here. TTA
  is with several scales and mirror images. densevit has not measured them.
- **Files** are checked against their SHA-256, or against its first digits where the publisher writes no more than
  these into the file's name. The word "none" means that nobody was found to state it: then the hash of the first
  download is kept in your cache, later ones must equal it, and it is reported as unverified.
"""
NOT_DOWNLOADED = """\
- densevit's authors have not downloaded the files of {count} of the {total} models: addresses, sizes and hashes are
  those of the sources named below, and the tests use tensors of the same names and shapes.

"""
MODELS = ("name", "encoder", "parameters", "licence of the weights", "metrics")
FILES = ("name", "file", "bytes", "SHA-256", "hash, size and revision are stated by")
SOURCES = ("name", "published as", "protocol", "metrics are stated by", "licence is stated by", "licence of the code")


def models_page() -> str:
    """Every row of the table, by family."""
    missing = sum(not row.downloaded_here for row in PUBLISHED.values())
    page = MADE + INTRODUCTION + NOT_DOWNLOADED.format(total=len(PUBLISHED), count=missing)
    built = {row["name"]: row for row in catalogue(weights="published")}
    for family, group in groupby(sorted(PUBLISHED.values(), key=lambda row: row.family), lambda row: row.family):
        rows = list(group)
        page += f"## {family}\n\n{table(MODELS, [_model(row, built[row.name]) for row in rows])}"
        page += f"### Files of {family}\n\n"
        page += table(FILES, [_file(row, origin) for row in rows for origin in row.sources])
        page += f"### Sources of {family}\n\n{table(SOURCES, [_sources(row) for row in rows])}"
    return page.rstrip() + "\n"


def _model(row: Published, built: Mapping[str, Any]) -> Row:
    spellings = dict.fromkeys((row.name, *row.aliases))
    if row.preset not in PUBLISHED:
        spellings[row.preset] = None
    names = ", ".join(f"`{name}`" for name in spellings)
    metrics = ", ".join(f"{name} {value:g}" for name, value in row.metrics.items()) or "none published"
    return names, built["encoder"], f"{built['parameters'] / 1e6:.1f} M", row.licence, escape(metrics)


def _file(row: Published, origin: Origin) -> Row:
    file = f"[{origin.address.rpartition('/')[2]}]({origin.address})"
    with_it = "".join(f", `{name}`" for name in origin.side_files)
    size = "none" if origin.bytes is None else f"{origin.bytes:,}"
    prefix = f"`{origin.sha256_prefix}`..." if origin.sha256_prefix else "none"
    sha256 = f"`{origin.sha256}`" if origin.sha256 else prefix
    return f"`{row.name}`", file + with_it, size, sha256, escape(origin.hash_source)


def _sources(row: Published) -> Row:
    stated = (row.source_config, row.protocol, row.metrics_source, row.licence_source, row.licence_of_code)
    return (f"`{row.name}`", *map(escape, stated))
