"""The cases of every suite that is measured in worker processes: literal tables."""

from dataclasses import dataclass
from typing import Any, Literal

from densevit.encoder.config import Width
from densevit.types import Size
from densevit_lab.benchmark import training
from densevit_lab.benchmark.decode import FORMS
from densevit_lab.benchmark.peers import PEERS
from densevit_lab.benchmark.record import TORCH
from densevit_lab.benchmark.workloads import WorkloadSpec


@dataclass(frozen=True)
class Case:
    """What is measured in turns on one image.

    Attributes:
        peer: the workload that ours are compared with; None for ours only. Its weights are converted for ours first.
        ours: by name in the record; under ``TORCH`` a model that runs once with each engine.
        image_size: of the image file. For depth it is the network's: transformers resizes by torchvision or by Pillow,
            which round differently, and without a resize the outputs can be compared closely.
    """

    title: str
    peer: WorkloadSpec | None
    ours: dict[str, WorkloadSpec]
    image_size: Size = (512, 512)
    quick: bool = False


def _against(
    peer: str,
    title: str,
    options: dict[str, Any],
    *,
    size: Size = (512, 512),
    output: Literal["labels", "depth"] = "labels",
    protocol: str | None = None,
    quick: bool = False,
) -> Case:
    theirs = WorkloadSpec(kind="peer", title=PEERS[peer], source=peer, options=options, output=output)
    ours = WorkloadSpec(kind="ours", protocol=protocol, output=output)
    return Case(title, theirs, {TORCH: ours}, size, quick)


def _mmseg(title: str, config: str, *, quick: bool = False) -> Case:
    return _against("mmseg", title, {"config": config}, protocol="mmseg", quick=quick)


def _mmseg_windows(title: str, config: str) -> Case:
    options = {"config": config, "num_classes": 19, "image": 768, "stride": 512, "scale": (2048, 1024)}
    return _against("mmseg", f"{title}, 1024 x 2048 by windows", options, size=(1024, 2048), protocol="mmseg")


def _official(
    title: str, width: Width, *, num_classes: int = 150, window: int = 512, size: Size = (512, 512), quick: bool = False
) -> Case:
    options = {"width": width, "num_classes": num_classes, "window": window, "stride": 512}
    return _against("segmenter", title, options, size=size, protocol="segmenter", quick=quick)


def _depth(title: str, model: str, side: int, *, quick: bool = False) -> Case:
    name = "transformers"
    return _against(name, title, {"model": model}, size=(side, side), output="depth", protocol=name, quick=quick)


PEER_CASES: dict[str, Case] = {
    "segmenter-ti-mmseg": _mmseg("Segmenter-Ti, 512", "segmenter-ti", quick=True),
    "segmenter-s-mmseg": _mmseg("Segmenter-S, 512", "segmenter-s", quick=True),
    "segmenter-b-mmseg": _mmseg("Segmenter-B, 512", "segmenter-b"),
    "segmenter-ti-official": _official("Segmenter-Ti, 512", "Ti", quick=True),
    "segmenter-s-official": _official("Segmenter-S, 512", "S"),
    "segmenter-b-official": _official("Segmenter-B, 512", "B"),
    "setr-naive-l-mmseg": _mmseg("SETR-Naive ViT-L, 512", "setr-naive-l"),
    "setr-pup-l-mmseg": _mmseg("SETR-PUP ViT-L, 512", "setr-pup-l"),
    "setr-mla-l-mmseg": _mmseg("SETR-MLA ViT-L, 512", "setr-mla-l"),
    "dpt-l-depth-transformers": _depth("DPT-Large depth, 384", "dpt-large", 384),
    "depth-anything-s-transformers": _depth("Depth-Anything-V2-Small, 518", "depth-anything-v2-small", 518, quick=True),
    "dpt-b-smp": _against("smp", "DPT-B, 512", {"num_classes": 150}),
    "segmenter-b-windows-official": _official(
        "Segmenter-B, 1024 x 2048 by windows", "B", num_classes=19, window=768, size=(1024, 2048)
    ),
    "segmenter-b-windows-mmseg": _mmseg_windows("Segmenter-B", "segmenter-b"),
    "setr-pup-l-windows-mmseg": _mmseg_windows("SETR-PUP ViT-L", "setr-pup-l-cityscapes"),
}
"""Our predictions against those of other programs."""


_TITLES = {
    "default": "the default model, 512",
    "default-best": "the default model at quality best, 512",
    "segmenter-ti-mask": "Segmenter-Ti, 512",
    "segmenter-s-mask": "Segmenter-S, 512",
    "segmenter-b-mask": "Segmenter-B, 512",
    "setr-pup-l-ade20k": "SETR-PUP ViT-L, 512",
    "dpt-base-ade20k": "DPT-Base labels, 512",
    "depth-anything-s": "Depth-Anything-V2-Small, 518",
    "dpt-large-depth": "DPT-Large depth, 384",
}
_QUICK = ("default", "segmenter-ti-mask", "segmenter-s-mask")


def _own(name: str) -> Case:
    source, best = name.removesuffix("-best"), name.endswith("-best")
    spec = WorkloadSpec(kind="ours", source=source, output="all", quality="best" if best else None)
    return Case(_TITLES[name], None, {TORCH: spec}, quick=name in _QUICK)


SELF_CASES = {name: _own(name) for name in _TITLES}
"""The default model and presets of every size, with their own inference settings."""


def _decode(num_classes: int, grid: Size, size: Size) -> Case:
    title = f"{num_classes} classes, {grid[0]} x {grid[1]} to {size[0]} x {size[1]}"
    options = {"num_classes": num_classes, "grid": grid, "size": size}
    peer, *ours = (WorkloadSpec(kind="decode", title=form, source=form, options=options) for form in FORMS)
    return Case(title, peer, {spec.source: spec for spec in ours}, quick=True)


DECODE_CASES: dict[str, Case] = {
    "ade20k": _decode(150, (32, 32), (512, 512)),
    "cityscapes": _decode(19, (64, 128), (1024, 2048)),
    "camvid": _decode(11, (22, 30), (360, 480)),
}
"""Upsampling and arg max in several forms, against the first of them."""


def _training(width: Width, decoder: str, *, quick: bool = False) -> Case:
    height, width_px = training.SIZE
    title = f"Segmenter-{width}, {decoder} decoder, batch {training.BATCH} of {height} x {width_px}"
    options = {"width": width, "decoder": decoder}
    peer, ours = (
        WorkloadSpec(kind="training", title=program, source=program, options=options, output="depth")
        for program in (training.OFFICIAL, training.OURS)
    )
    return Case(title, peer, {TORCH: ours}, quick=quick)


TRAINING_CASES: dict[str, Case] = {
    "segmenter-ti-linear": _training("Ti", "linear", quick=True),
    "segmenter-ti-mask": _training("Ti", "mask"),
    "segmenter-s-linear": _training("S", "linear"),
    "segmenter-s-mask": _training("S", "mask"),
}
"""A training step against the official arithmetic."""

SUITES = {"peers": PEER_CASES, "self": SELF_CASES, "decode": DECODE_CASES, "training": TRAINING_CASES}
