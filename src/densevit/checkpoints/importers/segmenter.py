"""rstrudel/segmenter: ``checkpoint.pth`` with ``variant.yml`` next to it.

Fixed for this program: LayerNorm eps 1e-5 throughout, bilinear positions, the final norm on the last block, statistics
of 0.5 for ViT and rounded ImageNet ones for DeiT, decoder heads of 64 channels for the published widths.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from densevit.checkpoints.encoder_names import PRETRAINING_HEAD
from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, segmentation
from densevit.checkpoints.importers.keys import KeyTable, check_keys
from densevit.checkpoints.importers.segmenter_keys import DATASET, DECODER, INFERENCE, NET, VARIANT
from densevit.checkpoints.importers.vit import positions, published_heads, timm_vit, training_image_size
from densevit.checkpoints.rename import Rule
from densevit.checkpoints.shapes import Shapes
from densevit.inference_config import WindowProtocol
from densevit.presets import HALF, ROUNDED_IMAGENET

HEAD = "heads.labels"
BASES = {"ade20k": (2048, 512), "cityscapes": (2048, 1024), "pascal_context": (4160, 520)}
"""(long, short) bounds to which the evaluation resizes images."""


_TRANSPOSE = partial(torch.transpose, dim0=-2, dim1=-1)
TRANSPOSED = "transposed: x @ W there, x @ W.T here"

RULES = (
    *timm_vit("encoder."),
    Rule("head.{param}", reason=PRETRAINING_HEAD),
    Rule("decoder.head.{param}", f"{HEAD}.head.{{param}}"),
    Rule("decoder.cls_emb", f"{HEAD}.class_tokens"),
    Rule("decoder.proj_dec.{param}", f"{HEAD}.proj_dec.{{param}}"),
    Rule("decoder.blocks.{i}.{rest}", f"{HEAD}.blocks.{{i}}.{{rest}}"),
    Rule("decoder.decoder_norm.{param}", f"{HEAD}.norm.{{param}}"),
    Rule("decoder.proj_patch", f"{HEAD}.proj_patch.weight", convert=_TRANSPOSE, note=TRANSPOSED),
    Rule("decoder.proj_classes", f"{HEAD}.proj_classes.weight", convert=_TRANSPOSE, note=TRANSPOSED),
    Rule("decoder.mask_norm.{param}", f"{HEAD}.mask_norm.{{param}}"),
)


def read(source: Source) -> ImportedParts:
    """Import a linear or mask transformer decoder on ViT or DeiT."""
    renamed, shapes, encoder = source.renamed(RULES)
    variant = source.side.get("variant.yml", {})
    _check(source, "variant.yml", variant, VARIANT)
    sections = {"net_kwargs": NET, "dataset_kwargs": DATASET, "inference_kwargs": INFERENCE}
    net, data, inference = (_section(source, variant, name, table) for name, table in sections.items())
    dim, depth = encoder["embed_dim"], encoder["depth"]
    heads = source.require(num_heads=net.get("n_heads") or published_heads(dim, depth))
    image_size = training_image_size(source, encoder, net.get("image_size"))
    rule = positions(shapes, encoder, mode="bilinear", image_size=image_size, keep_equal_count=True)
    kind = data.get("normalization") or net.get("normalization") or ("deit" if encoder["dist_token"] else "vit")
    stated = _section(source, net, "decoder", DECODER)
    head = segmenter_head(
        source, shapes, dropout=stated.get("dropout", 0.1), drop_path=stated.get("drop_path_rate") or 0.0
    )
    window = int(data.get("crop_size") or inference.get("window_size") or rule["grid"][0] * encoder["patch_size"][0])
    dataset = source.get("dataset", data.get("dataset"))
    short = int(inference.get("im_size") or BASES.get(dataset, (0, window))[1])
    # The bound on the long side is only known for the data sets of the paper.
    base = (short * BASES[dataset][0] // BASES[dataset][1], short) if dataset in BASES else None
    stride = max(window - 32, 1)
    encoder |= {
        **heads,
        "positions": rule,
        "norm_eps": source.get("norm_eps", 1e-5),
        "taps": (depth - 1,),
        "final_norm": True,
        "drop_path": net.get("drop_path_rate") or 0.0,
    }
    normalisation = ROUNDED_IMAGENET if kind == "deit" else HALF
    task = segmentation(head["out_channels"], dataset=dataset)
    protocol = WindowProtocol(kind="segmenter", base=base, window=(window, window), stride=(stride, stride))
    provenance = f"rstrudel/segmenter, {source.file_name or source.name}"
    return ImportedParts(renamed, encoder, {"labels": head}, normalisation, task, short, protocol, provenance)


def _section(source: Source, config: Mapping[str, Any], name: str, table: KeyTable) -> Plain:
    """A part of the config, checked; empty if it is not there."""
    stated = config.get(name)
    section = dict(stated) if isinstance(stated, dict) else {}
    _check(source, f"variant.yml, {name}", section, table)
    return section


def _check(source: Source, where: str, section: Mapping[str, Any], table: KeyTable) -> None:
    check_keys(section, table, where=where, source=source.name, program="rstrudel/segmenter")


def segmenter_head(source: Source, shapes: Shapes, *, num_heads: int | None = None, **settings: Any) -> Plain:
    """The head's config, in which the mask transformer has the settings.

    Without a number of heads, the program's rule gives it, except for widths below 64.
    """
    if not shapes.has(f"{HEAD}.class_tokens"):
        num_classes = shapes.of(f"{HEAD}.head.weight", 2)[0]
        return {"decoder": {"kind": "segmenter_linear"}, "out_channels": num_classes}
    _, num_classes, dim = shapes.of(f"{HEAD}.class_tokens", 3)
    decoder = {
        "kind": "segmenter_mask",
        "depth": shapes.count(f"{HEAD}.blocks.{{}}."),
        "num_heads": source.require(decoder_heads=num_heads or dim // 64 or None)["decoder_heads"],
        **settings,
    }
    return {"decoder": decoder, "out_channels": num_classes}


IMPORTER = Importer(
    title="rstrudel/segmenter",
    signatures=(
        ("encoder.patch_embed.proj.weight", "decoder.head.weight"),
        ("encoder.patch_embed.proj.weight", "decoder.cls_emb"),
    ),
    read=read,
    side_files=("variant.yml",),
)
