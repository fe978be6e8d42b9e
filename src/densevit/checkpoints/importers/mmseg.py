"""mmsegmentation 0.x and 1.x: SETR, Segmenter and DPT on its VisionTransformer.

The config is read, as data, from the checkpoint's ``meta`` or from a ``.py`` file next to it. Without one the
values of the released configs are used: SETR has eps 1e-6 and bilinear positions, Segmenter eps 1e-6 (1e-5 in the
decoder), bicubic positions and the final norm, DPT eps 1e-5 and bicubic positions. The bias of the patch projection is
kept, which mmsegmentation itself drops from release 1.2 on.
"""

from collections.abc import Sequence

from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, segmentation
from densevit.checkpoints.importers.dpt_rules import dpt_from_shapes
from densevit.checkpoints.importers.mmseg_config import MmsegConfig, layer_norm_eps
from densevit.checkpoints.importers.mmseg_keys import NAIVE, PUP, Kind
from densevit.checkpoints.importers.mmseg_rules import RULES, reverse_streams
from densevit.checkpoints.importers.python_config import Settings
from densevit.checkpoints.importers.segmenter import segmenter_head
from densevit.checkpoints.importers.setr_paper import HEAD, WINDOWS, setr_head
from densevit.checkpoints.importers.vit import positions, published_heads, training_image_size, without_class_token
from densevit.checkpoints.shapes import Shapes
from densevit.errors import CheckpointError
from densevit.inference_config import WindowProtocol
from densevit.presets import HALF, IMAGENET
from densevit.types import Size

# The tensors by which a head is recognised; the linear one has none of them.
SIGNATURES: dict[Kind, str] = {
    "mla": "neck.mla.*",
    "up": "decode_head.up_convs.*",
    "mask": "decode_head.cls_emb",
    "dpt": "decode_head.reassemble_blocks.*",
}
# Depth -> out_indices of the released configs; Segmenter reads the last block.
TAPS: dict[Kind, dict[int, tuple[int, ...]]] = {
    "up": {24: (9, 14, 19, 23)},
    "mla": {24: (5, 11, 17, 23)},
    "dpt": {12: (2, 5, 8, 11)},
}
# Image size -> resize bounds (long, short) and strides of the released configs.
BASES = {side: data.base for side, data in WINDOWS.items()} | {640: (2560, 640)}
SETR_STRIDES = {side: data.stride for side, data in WINDOWS.items()}
SEGMENTER_STRIDES = {512: 480, 640: 608}


def read(source: Source) -> ImportedParts:
    """Import a model whose head is recognised by its tensors, from shapes, config and overrides."""
    data = Settings(source.side.get("mmseg", {}), source.name)
    config = MmsegConfig(data, source.side.get("meta", {}), source.name)
    kind: Kind = next((name for name, pattern in SIGNATURES.items() if source.has(pattern)), "linear")
    config.check_model(kind)
    renamed, shapes, encoder = source.renamed(RULES[kind])
    depth = encoder["depth"]
    is_segmenter = kind in ("mask", "linear")
    released: Plain = {
        "taps": (depth - 1,) if is_segmenter else TAPS[kind].get(depth),
        "mode": "bilinear" if kind in ("up", "mla") else "bicubic",
        "norm_eps": 1e-5 if kind == "dpt" else 1e-6,
        "cls_token": kind != "mla",
    }
    backbone = released | config.backbone(depth)
    stated = config.part("backbone")
    known = source.require(
        num_heads=stated.get("num_heads") or published_heads(encoder["embed_dim"], depth), taps=backbone["taps"]
    )
    image_size = training_image_size(source, encoder, stated.get("img_size"))
    rule = positions(shapes, encoder, mode=backbone["mode"], image_size=image_size, keep_equal_count=True)
    readers = {"up": _up, "mla": _mla, "mask": _segmenter, "linear": _segmenter, "dpt": _dpt}
    head = readers[kind](source, shapes, config, known["taps"])
    if kind == "mla":
        renamed = reverse_streams(renamed)
    if not backbone["cls_token"]:
        renamed, rule = without_class_token(renamed, rule)
    encoder |= {
        "num_heads": known["num_heads"],
        "positions": rule,
        "norm_eps": source.get("norm_eps", backbone["norm_eps"]),
        "taps": tuple(sorted(set(head["taps"]))),
        "final_norm": shapes.has("encoder.norm.weight"),
        "cls_token": backbone["cls_token"],
        "drop_path": stated.get("drop_path_rate") or 0.0,
    }
    if encoder["final_norm"] and encoder["taps"] != (depth - 1,):
        raise CheckpointError(
            f"{source.name} taps the blocks {encoder['taps']} and has a final norm, which mmsegmentation applies to "
            f"block {depth - 1} only; only a head on that block can be reproduced; run the model with mmsegmentation"
        )
    if head["out_channels"] == 1:
        raise CheckpointError(
            f"{source.name} has one output channel (num_classes=1, or out_channels=1), whose sigmoid mmsegmentation "
            "compares with a threshold; only a channel for each class can be reproduced; run the model with "
            "mmsegmentation"
        )
    size = (rule["grid"][0] * encoder["patch_size"][0], rule["grid"][1] * encoder["patch_size"][1])
    protocol = _protocol(config, kind, size)
    names = {"dataset": source.get("dataset", config.dataset), "classes": config.classes}
    task = segmentation(head["out_channels"], **names, denominator="all", aux_weight=0.4)
    normalisation = config.normalisation or (HALF if is_segmenter else IMAGENET)
    short_side = protocol.base[1] if protocol.base else min(size)
    provenance = f"mmsegmentation, {source.file_name or source.name}"
    return ImportedParts(renamed, encoder, {"labels": head}, normalisation, task, short_side, protocol, provenance)


def _up(source: Source, shapes: Shapes, config: MmsegConfig, taps: Sequence[int]) -> Plain:
    """The head of SETR-Naive or PUP, where ``in_index`` is a position among the taps, by default the last."""
    is_pup = shapes.of(f"{HEAD}.head.convs.0.0.weight", 4)[-1] == 3
    setr = setr_head(shapes, "pup" if is_pup else "naive", "mmseg")
    num_aux = len(setr["decoder"]["aux_taps"])
    stated = [head.get("in_index", -1) for head in config.aux_heads] if config.model else list(range(num_aux))
    wanted = [*stated, config.part("decode_head").get("in_index", -1)]
    if len(stated) != num_aux or not all(isinstance(i, int) and -len(taps) <= i < len(taps) for i in wanted):
        raise CheckpointError(
            f"{source.name} has {num_aux} auxiliary heads, and by its config its heads read positions {wanted} of the "
            f"tapped blocks {tuple(taps)}; config and weights must agree; give the config of these weights"
        )
    if config.model:
        config.check("decode_head", config.part("decode_head"), PUP if is_pup else NAIVE)
        for head in config.aux_heads:
            config.check("auxiliary_head", head, NAIVE)
    if num_aux:
        setr["decoder"]["aux_convs"] = shapes.count(f"{HEAD}.aux_heads.0.convs.{{}}.")
    setr["decoder"]["align_corners"] = config.align_corners
    return setr | {"taps": tuple(taps[i] for i in wanted)}


def _mla(source: Source, shapes: Shapes, config: MmsegConfig, taps: Sequence[int]) -> Plain:
    """The head of SETR-MLA, which reads every level in order, and so do its auxiliary heads."""
    for index, head in enumerate(config.aux_heads):
        if (read := head.get("in_index", -1)) != index:
            raise CheckpointError(
                f"{source.name} has auxiliary_head.in_index={read!r}, but only {index} can be reproduced there; "
                "run the model with mmsegmentation"
            )
    setr = setr_head(shapes, "mla", "mmseg")
    setr["decoder"]["align_corners"] = config.align_corners
    return setr | {"taps": tuple(taps)}


def _segmenter(source: Source, shapes: Shapes, config: MmsegConfig, taps: Sequence[int]) -> Plain:
    """The head of Segmenter, which reads one tap."""
    stated = config.part("decode_head")
    head = segmenter_head(
        source,
        shapes,
        num_heads=stated.get("num_heads"),
        norm_eps=layer_norm_eps(stated.get("norm_cfg")),
        dropout=stated.get("drop_rate", 0.0),
        drop_path=stated.get("drop_path_rate", 0.1),
    )
    return head | {"taps": (taps[stated.get("in_index", -1)],)}


def _dpt(source: Source, shapes: Shapes, config: MmsegConfig, taps: Sequence[int]) -> Plain:
    """The head of DPT, which ends at half the size of the image and has no auxiliary head."""
    decoder = dpt_from_shapes(shapes, HEAD)
    if "readout" not in decoder:
        stated = config.part("decode_head").get("readout_type", "ignore") if config.model else None
        decoder |= source.require(readout=stated)
    dropout = config.part("decode_head").get("dropout_ratio", 0.1)
    head = {"kind": "segmentation", "align_corners": config.align_corners, "dropout": dropout}
    decoder |= {"fusion_up_to": "double", "head": head}
    num_classes = shapes.of(f"{HEAD}.head.classifier.weight", 4)[0]
    return {"decoder": decoder, "out_channels": num_classes, "taps": tuple(taps)}


def _protocol(config: MmsegConfig, kind: Kind, image_size: Size) -> WindowProtocol:
    """The evaluation that the config states, else that of the released configs for this image size."""
    side = image_size[0]
    window, stride = config.window or (None, None)
    if config.window is None and kind != "dpt":
        strides = SEGMENTER_STRIDES if kind in ("mask", "linear") else SETR_STRIDES
        step = strides.get(side, side * 2 // 3)
        window, stride = image_size, (step, step)
    # Released DPT has the position grid of its pre-training, but runs at the size of its training.
    base = BASES.get(512 if kind == "dpt" else side) if config.pipeline is None else config.base
    return WindowProtocol(kind="mmseg", base=base, window=window, stride=stride)


IMPORTER = Importer(
    title="mmsegmentation",
    signatures=(("backbone.patch_embed.projection.weight", "decode_head.*"),),
    read=read,
    side_files=("*.py",),
)
