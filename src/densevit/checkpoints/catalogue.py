"""The models that can be loaded by name, as plain rows: the one that ships, and the presets."""

from typing import Any

import torch

from densevit.checkpoints.hub import DEFAULT, DEFAULT_NAME
from densevit.checkpoints.native import read_header
from densevit.encoder import NAMED_SIZES, EncoderConfig
from densevit.model import DenseModel, ModelConfig
from densevit.presets import PRESETS

FAMILIES = {"setr": "SETR", "segmenter": "Segmenter", "dpt": "DPT"}


def catalogue() -> list[dict[str, Any]]:
    """One row per model: name, family, encoder, parameters, weights (file or None), licence, heads, headlines."""
    rows: list[dict[str, Any]] = []
    if DEFAULT.exists():
        header = read_header(DEFAULT)
        headlines = [
            (head, name, header.card.metrics[head][name])
            for head, task in header.tasks.items()
            if (name := task.headline[0]) in header.card.metrics.get(head, {})
        ]
        row = _row(DEFAULT_NAME, header.model, header.card.licence, headlines)
        rows.append(row | {"weights": DEFAULT.name, "bytes": DEFAULT.stat().st_size})
    for name, entry in PRESETS.items():
        model = ModelConfig.parse(entry.model, source=f"preset {name}")
        rows.append(_row(name, model, "-", []) | {"family": entry.family})
    return rows


def _row(name: str, model: ModelConfig, licence: str, headlines: list[tuple[str, str, float]]) -> dict[str, Any]:
    with torch.device("meta"):
        parameters = DenseModel(model).num_parameters()
    kinds = {head: config.decoder.kind for head, config in model.heads.items()}
    families = {FAMILIES.get(kind.split("_")[0], kind) for kind in kinds.values()}
    return {
        "name": name,
        "family": " + ".join(sorted(families)),
        "encoder": encoder_name(model.encoder),
        "parameters": parameters,
        "weights": None,
        "licence": licence,
        "heads": kinds,
        "headlines": headlines,
    }


def encoder_name(config: EncoderConfig) -> str:
    """The usual name of an encoder, such as ViT-B/16, with the number of blocks where it has fewer."""
    sizes = {(s["embed_dim"], s["depth"], s["num_heads"]): name for name, s in NAMED_SIZES.items()}
    width = sizes.get((config.embed_dim, config.depth, config.num_heads), f"{config.embed_dim}x{config.depth}")
    blocks = config.taps[-1] + 1
    cut = f", first {blocks} blocks" if blocks < config.depth else ""
    return f"{'R50+' if config.stem else ''}ViT-{width}/{config.patch_size[0]}{cut}"
