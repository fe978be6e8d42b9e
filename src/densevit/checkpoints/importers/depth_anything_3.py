"""ByteDance-Seed/Depth-Anything-3, the two models for single photos: DA3MONO-LARGE and DA3METRIC-LARGE.

Both are DINOv2 and DPT with the same tensors; only the ``model_name`` of their config.json, or the name of their
repository, tells them apart. Fixed for this program: eps 1e-6 in the blocks and 1e-5 in the final norm on every tap,
positions resampled bicubically with DINOv2's offset of 0.1, no class token in the decoder, and the exponential at its
end. "mono" gives depth up to a factor and an offset, "metric" depth in metres for a focal length of 300 pixels.

The second output of their head, which finds the sky, is not read: the program fills the sky in with the 99th percentile
of the other depths, after the network. Depth itself is as the network gives it, in the sky too.

The models for several views (DA3-SMALL to DA3-GIANT, DA3NESTED) have attention across photos and are refused by name.
"""

import re

from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source
from densevit.checkpoints.importers.depth_anything import V2_TAPS
from densevit.checkpoints.importers.depth_anything_3_keys import CONFIG, HEAD, NET, NETWORK
from densevit.checkpoints.importers.dpt_rules import dpt_from_shapes, scratch
from densevit.checkpoints.importers.keys import KeyTable, check_keys
from densevit.checkpoints.importers.vit import positions, published_heads, timm_vit
from densevit.checkpoints.rename import Rule
from densevit.errors import CheckpointError
from densevit.inference_config import WholeProtocol
from densevit.presets import IMAGENET
from densevit.tasks import Depth

DEPTH = "heads.depth"
PROGRAM = "depth_anything_3"
RELEASES = ("mono", "metric")
NAMED = re.compile(r"\bda3[-_]?(mono|metric)", re.IGNORECASE)

CANONICAL_FOCAL_PX = 300.0
FINAL_NORM_EPS = 1e-5
MAX_DEPTH_M = 200.0
"""The largest depth that the program fills the sky with, in metres."""
LONG_SIDE = 504
"""To which the program resizes photos."""
SHORT_SIDE = LONG_SIDE * 3 // 4
"""That of a photo of the usual aspect."""

RULES = (
    *timm_vit("backbone.pretrained."),
    Rule("head.projects.{i}.{param}", f"{DEPTH}.reassemble.{{i}}.project.{{param}}"),
    Rule("head.resize_layers.{i}.{param}", f"{DEPTH}.reassemble.{{i}}.resample.{{param}}"),
    *scratch("head.scratch.", DEPTH),
    Rule("head.scratch.output_conv1.{param}", f"{DEPTH}.head.conv1.{{param}}"),
    Rule("head.scratch.output_conv2.0.{param}", f"{DEPTH}.head.conv2.{{param}}"),
    Rule("head.scratch.output_conv2.2.{param}", f"{DEPTH}.head.conv3.{{param}}"),
    Rule("head.scratch.sky_output_conv2.{rest}", reason="finds the sky, which is not filled in here"),
)


def read(source: Source) -> ImportedParts:
    """Import a model; its config or its name tells whether it gives metres."""
    config = dict(source.side.get("config.json", {}))
    net = _checked(source, config)
    renamed, shapes, encoder = source.renamed(RULES)
    num_channels = shapes.of(f"{DEPTH}.head.conv3.weight", 4)[0]
    if num_channels != 1:
        raise CheckpointError(
            f"{source.name} gives {num_channels} values for each pixel, but only depth can be reproduced; run the "
            f"model with {PROGRAM}"
        )
    taps = net.get("out_layers", V2_TAPS.get(encoder["depth"]))
    known = source.require(
        num_heads=published_heads(encoder["embed_dim"], encoder["depth"]), taps=None if taps is None else tuple(taps)
    )
    stated = NAMED.search(str(config.get("model_name", ""))) or NAMED.search(_own_name(source))
    release = source.release(stated and stated[1].lower(), RELEASES)
    head: Plain = {"kind": "depth", "activation": "exp"}
    head |= {"hidden_channels": shapes.of(f"{DEPTH}.head.conv2.weight", 4)[0]}
    decoder = dpt_from_shapes(shapes, DEPTH) | {"readout": "ignore", "fusion_up_to": "next_level", "head": head}
    encoder |= {
        **known,
        "norm_eps": source.get("norm_eps", 1e-6),
        "positions": positions(shapes, encoder, mode="bicubic", offset=0.1),
        "final_norm": True,
        "final_norm_eps": FINAL_NORM_EPS,
    }
    heads = {"depth": {"decoder": decoder, "out_channels": 1}}
    protocol = WholeProtocol(
        kind="depth_anything_3", net_size=(LONG_SIDE, LONG_SIDE), multiple=encoder["patch_size"][0]
    )
    provenance = f"Depth Anything 3, {source.file_name or source.name}"
    return ImportedParts(renamed, encoder, heads, IMAGENET, _task(source, release), SHORT_SIDE, protocol, provenance)


def _task(source: Source, release: str) -> Depth:
    if release == "mono":
        return Depth(quantity="relative_depth")
    limit = source.get("max_depth_m", MAX_DEPTH_M)
    return Depth(quantity="depth", max_depth_m=limit, canonical_focal_px=CANONICAL_FOCAL_PX)


def _checked(source: Source, config: Plain) -> Plain:
    """The encoder's part of a config.json, of which every key is known and every value can be reproduced."""

    def check(data: Plain, table: KeyTable, where: str) -> None:
        check_keys(data, table, where=where, source=source.name, program=PROGRAM)

    check(config, CONFIG, "config.json")
    network = dict(config.get("config") or {})
    check(network, NETWORK, "config.json")
    net, head = dict(network.get("net") or {}), dict(network.get("head") or {})
    if net:
        check(net, NET, "net of config.json")
    if head:
        check(head, HEAD, "head of config.json")
    return net


def _own_name(source: Source) -> str:
    """The last two parts of the address, one of which is the repository's name; folders above may have any name."""
    return "/".join(source.name.replace("\\", "/").split("/")[-2:])


IMPORTER = Importer(
    "Depth Anything 3",
    signatures=(("backbone.pretrained.*", "head.scratch.*"),),
    read=read,
    side_files=("config.json",),
)
