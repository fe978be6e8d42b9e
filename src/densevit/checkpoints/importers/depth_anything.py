"""DepthAnything/Depth-Anything-V2 and V1, the authors' releases: bare state dicts, relative or metric.

Fixed for this program: DINOv2 with eps 1e-6 on a square grid, positions resampled bicubically with DINOv2's offset of
0.1, the final norm on every tap, ImageNet statistics. V1 and V2, relative and metric have the same tensors; the
published file names tell them apart.
"""

import re

from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, depth_task
from densevit.checkpoints.importers.dpt_rules import dpt_from_shapes, scratch
from densevit.checkpoints.importers.vit import positions, published_heads, timm_vit
from densevit.checkpoints.rename import Rule
from densevit.inference_config import WholeProtocol
from densevit.presets import IMAGENET

HEAD = "heads.depth"
MAX_DEPTH_M = {"hypersim": 20.0, "vkitti": 80.0}

# Depth of the encoder -> 0-based indices of the blocks that V2 taps; V1 taps the last four.
V2_TAPS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 40: (9, 19, 29, 39)}

# Release -> the names of its files.
RELEASES = {
    "v1": r"depth_anything_vit[sbl]14\.pth",
    "v2": r"depth_anything_v2_vit[sblg]\.pth",
    "hypersim": r"depth_anything_v2_metric_hypersim_vit[sblg]\.pth",
    "vkitti": r"depth_anything_v2_metric_vkitti_vit[sblg]\.pth",
}

RULES = (
    *timm_vit("pretrained."),
    Rule("depth_head.projects.{i}.{param}", f"{HEAD}.reassemble.{{i}}.project.{{param}}"),
    Rule("depth_head.resize_layers.{i}.{param}", f"{HEAD}.reassemble.{{i}}.resample.{{param}}"),
    Rule("depth_head.readout_projects.{i}.0.{param}", f"{HEAD}.reassemble.{{i}}.readout_project.{{param}}"),
    *scratch("depth_head.scratch.", HEAD),
    Rule("depth_head.scratch.output_conv1.{param}", f"{HEAD}.head.conv1.{{param}}"),
    Rule("depth_head.scratch.output_conv2.0.{param}", f"{HEAD}.head.conv2.{{param}}"),
    Rule("depth_head.scratch.output_conv2.2.{param}", f"{HEAD}.head.conv3.{{param}}"),
)


def read(source: Source) -> ImportedParts:
    """Import a model; its release tells the taps, and whether it predicts disparity or metres."""
    renamed, shapes, encoder = source.renamed(RULES)
    depth = encoder["depth"]
    published = next((release for release, name in RELEASES.items() if re.fullmatch(name, source.file_name)), None)
    if published is None and source.overrides.max_depth_m is not None:
        published = "v2"  # V1 has no metric release with these tensors
    release = source.release(published, RELEASES)
    known = source.require(
        num_heads=published_heads(encoder["embed_dim"], depth),
        taps=tuple(range(max(depth - 4, 0), depth)) if release == "v1" else V2_TAPS.get(depth),
    )
    max_depth_m = source.get("max_depth_m", MAX_DEPTH_M.get(release))
    head: Plain = {"kind": "depth", "up_to": "image", "hidden_channels": shapes.of(f"{HEAD}.head.conv2.weight", 4)[0]}
    if max_depth_m is not None:
        head |= {"activation": "sigmoid", "max_depth_m": max_depth_m}
    decoder = dpt_from_shapes(shapes, HEAD)
    decoder |= {"readout": decoder.get("readout", "ignore"), "fusion_up_to": "next_level", "head": head}
    encoder |= {
        **known,
        "norm_eps": source.get("norm_eps", 1e-6),
        "positions": positions(shapes, encoder, mode="bicubic", offset=0.1),
        "final_norm": True,
    }
    heads = {"depth": {"decoder": decoder, "out_channels": 1}}
    protocol = WholeProtocol(kind="depth_anything", net_size=(518, 518), multiple=encoder["patch_size"][0])
    provenance = f"DepthAnything, {source.file_name or source.name}"
    return ImportedParts(renamed, encoder, heads, IMAGENET, depth_task(max_depth_m), 518, protocol, provenance)


IMPORTER = Importer("Depth Anything", signatures=(("pretrained.cls_token", "depth_head.*"),), read=read)
