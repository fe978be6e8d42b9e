"""isl-org/DPT: DPT-Large, -Base and -Hybrid for depth and segmentation; the release holds bare state dicts.

Fixed for this program: LayerNorm eps 1e-6, bilinear positions on a square grid, taps without the final norm, statistics
of 0.5. No checkpoint has the constants that turn the disparity of the KITTI and NYU releases into metres; the
published file names tell the releases apart.
"""

from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, depth_task, segmentation
from densevit.checkpoints.importers.dpt_rules import depth_head, dpt_from_shapes, scratch, segmentation_head
from densevit.checkpoints.importers.vit import NORM_NOT_READ, positions, published_heads, timm_vit
from densevit.checkpoints.rename import Rule
from densevit.inference_config import WholeProtocol
from densevit.presets import HALF, KITTI, NYU
from densevit.tasks import Depth, Task
from densevit.types import Size

# (width, hybrid) -> 0-based indices of the tapped blocks.
TAPS = {(1024, False): (5, 11, 17, 23), (768, False): (2, 5, 8, 11), (768, True): (8, 11)}

RELEASES: dict[str, Plain] = {"midas": {}, "kitti": KITTI, "nyu": NYU}
# (height, width) at which each release is run, and the range of its training in metres.
NET_SIZES: dict[str, Size] = {"midas": (384, 384), "kitti": (352, 1216), "nyu": (480, 640)}
RANGES_M = {"kitti": 80.0, "nyu": 10.0}

PUBLISHED = {
    "dpt_large-midas-2f21e586.pt": "midas",
    "dpt_hybrid-midas-501f0c75.pt": "midas",
    "dpt_hybrid_kitti-cb926ef4.pt": "kitti",
    "dpt_hybrid_nyu-2ce69ec7.pt": "nyu",
    "dpt_hybrid_nyu_new-217f207d.pt": "nyu",
}
ADE20K = {"dpt_large-ade20k-b12dca68.pt", "dpt_hybrid-ade20k-53898607.pt"}


def _rules(head: str, *, segmentation: bool, num_stem: int) -> list[Rule]:
    """Names of the model; reassembly is counted from 1, and a hybrid has none for the first two levels."""
    main = segmentation_head if segmentation else depth_head
    rules = [
        Rule("pretrained.model.norm.{param}", reason=NORM_NOT_READ),
        *timm_vit("pretrained.model."),
        *scratch("scratch.", head),
        *main("scratch.output_conv", f"{head}.head"),
        *segmentation_head("auxlayer", f"{head}.aux_head"),
    ]
    for level in range(num_stem, 4):
        source, target = f"pretrained.act_postprocess{level + 1}", f"{head}.reassemble.{level - num_stem}"
        rules += [
            Rule(f"{source}.0.project.0.{{param}}", f"{target}.readout_project.{{param}}"),
            Rule(f"{source}.3.{{param}}", f"{target}.project.{{param}}"),
            Rule(f"{source}.4.{{param}}", f"{target}.resample.{{param}}"),
        ]
    return rules


def read(source: Source) -> ImportedParts:
    """Import a model. Its tensors tell its kind: segmentation has a batch norm in its head, the hybrid a stem."""
    is_hybrid = source.has("pretrained.model.patch_embed.backbone.*")
    segments = source.has("scratch.output_conv.1.*")
    name = "labels" if segments else "depth"
    head, num_stem = f"heads.{name}", 2 if is_hybrid else 0
    renamed, shapes, encoder = source.renamed(_rules(head, segmentation=segments, num_stem=num_stem))
    decoder = dpt_from_shapes(shapes, head, num_stem=num_stem)
    dim = encoder["embed_dim"]
    known = source.require(
        num_heads=published_heads(dim, encoder["depth"]),
        taps=TAPS.get((dim, is_hybrid)),
        # All published models project; without the projection, shapes do not tell "ignore" from "add".
        readout=decoder.get("readout"),
    )
    readout = known.pop("readout")
    rule = positions(shapes, encoder, mode="bilinear")
    encoder |= {**known, "norm_eps": source.get("norm_eps", 1e-6), "positions": rule}
    decoder |= {"readout": readout, "num_readout": 2 if encoder["dist_token"] else 1, "fusion_up_to": "double"}
    task: Task
    if segments:
        decoder["head"] = {"kind": "segmentation", "aux": "penultimate" if source.has("auxlayer.*") else "none"}
        num_classes = shapes.of(f"{head}.head.classifier.weight", 4)[0]
        dataset = source.get("dataset", "ade20k" if source.file_name in ADE20K else None)
        task = segmentation(num_classes, dataset=dataset, aux_weight=0.2)
        net_size: Size = (480, 480)
    else:
        decoder["head"], task, net_size = _depth(source, dim == 1024)
    heads = {name: {"decoder": decoder, "out_channels": task.out_channels}}
    protocol = WholeProtocol(kind="dpt", net_size=net_size, multiple=32, label_offset=1 if segments else 0)
    provenance = f"isl-org/DPT, {source.file_name or source.name}"
    return ImportedParts(renamed, encoder, heads, HALF, task, min(net_size), protocol, provenance)


def _depth(source: Source, is_large: bool) -> tuple[Plain, Depth, Size]:
    """The depth head's config, its task, and the (height, width) at which it is run."""
    head: Plain = {"kind": "depth", "up_to": "double", "activation": "none" if source.get("signed") else "relu"}
    constants = {key: source.get(key) for key in ("scale", "shift", "invert") if source.get(key) is not None}
    if constants:
        max_depth_m = source.get("max_depth_m", 10.0) if source.get("invert") else None
        return head | constants, depth_task(max_depth_m), NET_SIZES["midas"]
    # DPT-Large has one depth release, the hybrid three with the same shapes.
    known = PUBLISHED.get(source.file_name) or ("midas" if is_large else None)
    release = source.release(known, RELEASES)
    return head | RELEASES[release], depth_task(RANGES_M.get(release)), NET_SIZES[release]


IMPORTER = Importer("isl-org/DPT", signatures=(("pretrained.model.cls_token", "scratch.*"),), read=read)
