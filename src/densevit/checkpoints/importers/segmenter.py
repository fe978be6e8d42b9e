"""rstrudel/segmenter: ``checkpoint.pth`` with ``variant.yml`` beside it.

Fixed for this source: LayerNorm eps 1e-5 throughout, bilinear positions, the final norm on the last block, statistics
of 0.5 for ViT and rounded ImageNet ones for DeiT, decoder heads of 64 channels for the published widths.
"""

from typing import Any

from torch import Tensor

from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Shapes, Source
from densevit.checkpoints.importers.class_names import segmentation
from densevit.checkpoints.importers.vit import (
    HEAD_OF_PRETRAINING,
    encoder_facts,
    known_image_size,
    positions,
    published_heads,
    timm_vit,
)
from densevit.checkpoints.rename import Rule, rename
from densevit.inference_config import InferenceConfig, WindowProtocol
from densevit.presets import HALF, ROUNDED_IMAGENET

HEAD = "heads.labels"
BASES = {"ade20k": (2048, 512), "cityscapes": (2048, 1024), "pascal_context": (4160, 520)}
"""(long, short) bounds to which the evaluation resizes photos."""


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(-2, -1)


TRANSPOSED = "transposed: x @ W there, x @ W.T here"

RULES = (
    *timm_vit("encoder."),
    Rule("encoder.norm.{param}", "encoder.norm.{param}"),
    Rule("encoder.head.{param}", reason=HEAD_OF_PRETRAINING),
    Rule("encoder.head_dist.{param}", reason=HEAD_OF_PRETRAINING),
    Rule("encoder.pre_logits.{rest}", reason=HEAD_OF_PRETRAINING),
    Rule("head.{param}", reason=HEAD_OF_PRETRAINING),
    Rule("decoder.head.{param}", f"{HEAD}.head.{{param}}"),
    Rule("decoder.cls_emb", f"{HEAD}.class_tokens"),
    Rule("decoder.proj_dec.{param}", f"{HEAD}.proj_dec.{{param}}"),
    Rule("decoder.blocks.{i}.{rest}", f"{HEAD}.blocks.{{i}}.{{rest}}"),
    Rule("decoder.decoder_norm.{param}", f"{HEAD}.norm.{{param}}"),
    Rule("decoder.proj_patch", f"{HEAD}.proj_patch.weight", convert=_transposed, note=TRANSPOSED),
    Rule("decoder.proj_classes", f"{HEAD}.proj_classes.weight", convert=_transposed, note=TRANSPOSED),
    Rule("decoder.mask_norm.{param}", f"{HEAD}.mask_norm.{{param}}"),
)


def read(source: Source) -> ImportedParts:
    """Linear and mask transformer decoders on ViT and DeiT."""
    renamed = rename(source.state, RULES)
    shapes = Shapes(renamed.tensors, source.name)
    net, data, run = (_section(source, name) for name in ("net_kwargs", "dataset_kwargs", "inference_kwargs"))
    facts = encoder_facts(shapes)
    dim, depth = facts["embed_dim"], facts["depth"]
    heads = source.facts(num_heads=net.get("n_heads") or published_heads(dim, depth))
    image_size = known_image_size(source, facts, net.get("image_size"))
    rule = positions(shapes, facts, mode="bilinear", image_size=image_size, keep_equal_count=True)
    kind = net.get("normalization") or ("deit" if facts["dist_token"] else "vit")
    decoder, num_classes = _decoder(source, shapes, net.get("decoder") or {})
    window = int(data.get("crop_size") or run.get("window_size") or rule["grid"][0] * facts["patch_size"][0])
    dataset = source.fact("dataset", data.get("dataset"))
    short = int(run.get("im_size") or BASES.get(dataset, (0, window))[1])
    # Only for the data sets of the source is it known how far a photo may be enlarged.
    base = (short * BASES[dataset][0] // BASES[dataset][1], short) if dataset in BASES else None
    encoder = facts | {
        **heads,
        "positions": rule,
        "norm_eps": source.fact("norm_eps", 1e-5),
        "taps": (depth - 1,),
        "final_norm": True,
        "drop_path": net.get("drop_path_rate") or 0.0,
    }
    return ImportedParts(
        renamed,
        {
            "encoder": encoder,
            "heads": {"labels": {"decoder": decoder, "out_channels": num_classes}},
            "normalisation": ROUNDED_IMAGENET if kind == "deit" else HALF,
        },
        segmentation(num_classes, dataset=dataset),
        InferenceConfig(short_side=short),
        WindowProtocol(
            kind="segmenter",
            base=base,
            window=(window, window),
            stride=(max(window - 32, 1), max(window - 32, 1)),
        ),
        f"rstrudel/segmenter, {source.file_name or source.name}",
    )


def _section(source: Source, name: str) -> Plain:
    section: Any = source.side.get("variant.yml", {}).get(name)
    return dict(section) if isinstance(section, dict) else {}


def _decoder(source: Source, shapes: Shapes, config: Plain) -> tuple[Plain, int]:
    """The decoder's config and K."""
    if shapes.has(f"{HEAD}.head.weight"):
        return {"kind": "segmenter_linear"}, shapes.of(f"{HEAD}.head.weight", 2)[0]
    _, num_classes, dim = shapes.of(f"{HEAD}.class_tokens", 3)
    # The source's own rule; it leaves no other choice for widths below 64, whose heads must be told.
    num_heads = source.facts(decoder_heads=dim // 64 or None)["decoder_heads"]
    decoder = {
        "kind": "segmenter_mask",
        "depth": shapes.count(f"{HEAD}.blocks.{{}}."),
        "num_heads": num_heads,
        "dropout": config.get("dropout", 0.1),
        "drop_path": config.get("drop_path_rate") or 0.0,
    }
    return decoder, num_classes


IMPORTER = Importer(
    title="rstrudel/segmenter",
    marks=(
        ("encoder.patch_embed.proj.weight", "decoder.head.weight"),
        ("encoder.patch_embed.proj.weight", "decoder.cls_emb"),
    ),
    read=read,
    beside=("variant.yml",),
)
