"""facebookresearch/dinov2: the heads that the authors trained on frozen encoders, for classes and for metric depth.

A released file holds one head: ``dinov2_vits14_ade20k_linear_head.pth`` (one tap), ``..._ade20k_ms_head.pth``
(four), ``..._nyu_linear_head.pth``, ``..._nyu_linear4_head.pth`` and ``..._nyu_dpt_head.pth``. Its encoder is another
file, ``dinov2_vits14_pretrain.pth``, which is looked for in the same folder unless ``encoder_weights`` names it.

Fixed for this program: eps 1e-6; positions resampled bicubically with an offset of 0.1, or with antialiasing where
there are registers; segmentation reads taps after the final norm, depth before it; photos keep their size and are
padded to whole patches inside the network. Linear depth heads average 256 depths up to 10 m for NYU and 80 m for KITTI,
and DPT heads end there: the ranges that dinov2/hub/depthers.py gives for the published weights. Its linear head has
ignored them since commit 53eeb55 and averages up to 80 m for NYU too, eight times too far; ``max_depth_m=80`` does so.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from densevit.checkpoints.encoder_names import read_encoder
from densevit.checkpoints.files import read_state_dict
from densevit.checkpoints.hub import resolve
from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, segmentation
from densevit.checkpoints.importers.depth_anything import V2_TAPS
from densevit.checkpoints.importers.dpt_rules import depth_head, dpt_from_shapes, openmmlab
from densevit.checkpoints.importers.vit import NORM_NOT_READ, positions, published_heads, timm_vit
from densevit.checkpoints.rename import Renamed, Rule
from densevit.checkpoints.shapes import Shapes
from densevit.errors import CheckpointError
from densevit.inference_config import WindowProtocol
from densevit.presets import DINOV2_SCALES, DINOV2_SIDES, IMAGENET
from densevit.tasks import Depth, Task

Kind = Literal["labels", "bins", "dpt"]

BACKBONE = "backbone."
FILES = re.compile(
    r"(?P<encoder>(?P<model>dinov2_vit[sblg]14)(_reg4)?)_(?P<data>ade20k|voc2012|nyu|kitti)_\w+_head\.pth"
)
URL = "https://dl.fbaipublicfiles.com/dinov2"

MIN_DEPTH_M = 1e-3
MAX_DEPTH_M = {"nyu": 10.0, "kitti": 80.0}
BATCH_NORM_EPS = 1e-5

# Short side of the photos of the data sets.
DEPTH_SIDES = {"nyu": 480, "kitti": 375}
LONG_SIDE = 1_000_000  # no bound: the short side decides


def complete(source: Source, path: Path) -> Source:
    """Add the encoder's tensors to a file that holds only a head.

    Raises:
        CheckpointError: if there is no such encoder.
    """
    if source.has(f"{BACKBONE}*"):
        return source
    if source.overrides.encoder_weights is not None:
        file = resolve(source.overrides.encoder_weights)
    else:
        file = _published_encoder(source, path)
    state = read_state_dict(file)
    renamed = read_encoder(state, str(file))
    encoder = {BACKBONE + name: tensor for name, tensor in renamed.tensors.items()}
    # What is not of the encoder keeps its name, so that it is reported or refused like the rest.
    encoder |= {BACKBONE + name: state[name] for name in (*renamed.ignored, *renamed.unused) if name in state}
    return replace(source, state=encoder | dict(source.state))


def _published_encoder(source: Source, path: Path) -> Path:
    """The encoder of a head with a published name, in the same folder."""
    option = "give --encoder-weights to `densevit convert` (encoder_weights=... in Python)"
    published = FILES.fullmatch(path.name)
    if published is None:
        raise CheckpointError(f"{source.name} holds a head of DINOv2 without its encoder; {option}")
    name = f"{published['encoder']}_pretrain.pth"
    if not (path.parent / name).is_file():
        raise CheckpointError(
            f"{source.name} holds a head of DINOv2 without its encoder; it is {URL}/{published['model']}/{name}; "
            f"put it at {path.parent / name}, or {option}"
        )
    return path.parent / name


def _rules(kind: Kind) -> list[Rule]:
    head = "heads.labels" if kind == "labels" else "heads.depth"
    encoder = [*timm_vit(BACKBONE)]
    if kind != "labels":
        encoder.insert(0, Rule(f"{BACKBONE}norm.{{param}}", reason=NORM_NOT_READ))
    if kind == "dpt":
        return [
            *encoder,
            *openmmlab("decode_head", head),
            Rule("decode_head.project.conv.{param}", f"{head}.head.projection.{{param}}"),
            *depth_head("decode_head.conv_depth.head", f"{head}.head"),
        ]
    name = "conv_seg" if kind == "labels" else "conv_depth"
    return [
        *encoder,
        Rule(f"decode_head.{name}.weight", f"{head}.head.weight", convert=_as_linear, note="1x1 convolution there"),
        Rule(f"decode_head.{name}.bias", f"{head}.head.bias"),
        Rule("decode_head.bn.{statistic}", f"{head}.bn.{{statistic}}")
        if kind == "labels"
        else Rule("decode_head.bn.{statistic}", reason="not applied by the authors' depth heads"),
    ]


def _as_linear(weight: torch.Tensor) -> torch.Tensor:
    return weight.flatten(1) if weight.ndim == 4 and weight.shape[2:] == (1, 1) else weight


def read(source: Source) -> ImportedParts:
    """Import a head with its encoder; its tensors tell its kind."""
    kind: Kind = "labels"
    if source.has("decode_head.conv_depth.*"):
        kind = "dpt" if source.has("decode_head.reassemble_blocks.*") else "bins"
    renamed, shapes, encoder = source.renamed(_rules(kind))
    published = FILES.fullmatch(source.file_name)
    data = published["data"] if published else None
    head, task = _labels(source, shapes, encoder, data) if kind == "labels" else _depth(source, shapes, encoder, data)
    num_taps = head.pop("num_taps")
    depth = encoder["depth"]
    last = tuple(range(depth - num_taps, depth)) if kind == "labels" or num_taps == 1 else V2_TAPS.get(depth)
    rule = positions(shapes, encoder, mode="bicubic")
    num_registers = shapes.of("encoder.reg_token", 3)[1] if shapes.has("encoder.reg_token") else 0
    rule |= {"antialias": True} if num_registers else {"offset": 0.1}
    encoder |= {
        **source.require(num_heads=published_heads(encoder["embed_dim"], depth), taps=last),
        "norm_eps": source.get("norm_eps", 1e-6),
        "num_registers": num_registers,
        "positions": rule,
        "final_norm": kind == "labels",
    }
    if kind == "labels":
        renamed = _fold_batch_norm(renamed, source.name)
        side, step = DINOV2_SIDES.get(num_taps, DINOV2_SIDES[4])
        window: Plain = {"base": (LONG_SIDE, side), "window": (side, side), "stride": (step, step)}
        window |= {"tta_scales": DINOV2_SCALES} if num_taps > 1 else {}
    else:
        side, window = DEPTH_SIDES.get(source.overrides.release or data or "nyu", 480), {"base": None}
    protocol = WindowProtocol.parse({"kind": "dinov2", **window}, source=source.name)
    name = "labels" if kind == "labels" else "depth"
    provenance = f"facebookresearch/dinov2, {source.file_name or source.name}"
    return ImportedParts(renamed, encoder, {name: head}, IMAGENET, task, side, protocol, provenance)


def _labels(source: Source, shapes: Shapes, encoder: Plain, data: str | None) -> tuple[Plain, Task]:
    num_classes, width = shapes.of("heads.labels.head.weight", 2)
    dataset = source.get("dataset", "ade20k" if data == "ade20k" else None)
    head = {"decoder": {"kind": "linear"}, "out_channels": num_classes}
    return head | {"num_taps": _num_taps(source, width, encoder["embed_dim"])}, segmentation(
        num_classes, dataset=dataset, denominator="all"
    )


def _depth(source: Source, shapes: Shapes, encoder: Plain, data: str | None) -> tuple[Plain, Task]:
    release = source.release(data, MAX_DEPTH_M) if source.overrides.max_depth_m is None else None
    limit = source.get("max_depth_m", MAX_DEPTH_M.get(release or ""))
    task = Depth(quantity="depth", min_depth_m=MIN_DEPTH_M, max_depth_m=limit)
    if not shapes.has("heads.depth.convs.0.weight"):
        num_bins, width = shapes.of("heads.depth.head.weight", 2)
        bins = {"num_bins": num_bins, "min_depth_m": MIN_DEPTH_M, "max_depth_m": limit}
        decoder: Plain = {"kind": "linear", "class_token": True, "up_scale": 4, "bins": bins}
        return {
            "decoder": decoder,
            "out_channels": 1,
            "num_taps": _num_taps(source, width, 2 * encoder["embed_dim"]),
        }, task
    decoder = dpt_from_shapes(shapes, "heads.depth")
    decoder |= source.require(readout=decoder.get("readout"))
    decoder["fusion_up_to"] = "double"
    decoder["head"] = {
        "kind": "depth",
        "up_to": "double",
        "projection": True,
        "hidden_channels": shapes.of("heads.depth.head.conv2.weight", 4)[0],
        "min_depth_m": MIN_DEPTH_M,
        "limit_m": limit,
        "align_corners": False,
    }
    return {"decoder": decoder, "out_channels": 1, "num_taps": 4}, task


def _num_taps(source: Source, width: int, of_one: int) -> int:
    if width % of_one:
        raise CheckpointError(
            f"{source.name} has a linear head on {width} channels, but the encoder gives {of_one} for each tap; give "
            "the encoder of this head by --encoder-weights (encoder_weights=... in Python)"
        )
    return width // of_one


def _fold_batch_norm(renamed: Renamed, source: str) -> Renamed:
    """Make the batch norm before the classifier part of it, computed in float64."""
    head, norm = "heads.labels.head", "heads.labels.bn"
    names = [f"{norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    missing = [name for name in (*names, f"{head}.bias") if name not in renamed.tensors]
    if missing:
        raise CheckpointError(f"{source} lacks {', '.join(missing)}, which a head of DINOv2 has; download it again")
    gamma, beta, mean, variance = (renamed.tensors[name].double() for name in names)
    weight, bias = renamed.tensors[f"{head}.weight"].double(), renamed.tensors[f"{head}.bias"].double()
    factor = gamma * torch.rsqrt(variance + BATCH_NORM_EPS)
    folded = {
        f"{head}.weight": (weight * factor).float(),
        f"{head}.bias": (bias + weight @ (beta - mean * factor)).float(),
    }
    drop = [*names, f"{norm}.num_batches_tracked"]
    return renamed.with_tensors(
        folded, "with the batch norm before it", drop=drop, absorbed=gamma.numel() + beta.numel()
    )


IMPORTER = Importer(
    title="facebookresearch/dinov2",
    signatures=(("decode_head.conv_depth.*",), ("decode_head.bn.*", "decode_head.conv_seg.*")),
    read=read,
    complete=complete,
)
