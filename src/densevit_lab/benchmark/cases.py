"""The comparisons and what is demanded of each: one literal table."""

from dataclasses import dataclass
from typing import Any, Literal

from densevit.config import Config
from densevit.types import Size


class Bars(Config):
    """What densevit has to reach in a case; None where nothing is demanded.

    Attributes:
        eager: ratio of medians of CPU seconds, one thread, with plain torch.
        best: the same with the best engine.
        memory: the peer's transient memory over ours, with plain torch.
        share: of the machine's GEMM peak, with plain torch.
        best_share: the same with the best engine.
    """

    eager: float | None = None
    best: float | None = None
    memory: float | None = None
    share: float | None = None
    best_share: float | None = None


@dataclass(frozen=True)
class Case:
    """One model on one photo, by a peer and by us.

    Attributes:
        title: model and image size.
        peer: key in ``PEERS``.
        options: which model the peer builds.
        bars: see there.
        protocol: the program whose steps we follow, so that the outputs can be compared; None for our own way.
        image_size: of the photo. For depth it is the network's: transformers resizes by torchvision or by Pillow, which
            round differently, and without a resize the outputs can be compared closely.
        output: what is compared.
        quick: part of a quick run.
    """

    title: str
    peer: str
    options: dict[str, Any]
    bars: Bars
    protocol: str | None
    image_size: Size = (512, 512)
    output: Literal["labels", "depth"] = "labels"
    quick: bool = False


def _bars(eager: float, best: float, memory: float | None = None, *, shares: bool = True) -> Bars:
    return Bars(
        eager=eager, best=best, memory=memory, share=0.65 if shares else None, best_share=0.70 if shares else None
    )


TI, S, B = _bars(5, 6.5, 6, shares=False), _bars(2.5, 3.3, 6), _bars(1.9, 2.1, 6)
SETR, DPT, WINDOWS = _bars(1.6, 1.8, 4), _bars(1.05, 1.15), _bars(2, 2.2)


def _mmseg(title: str, config: str, bars: Bars, *, quick: bool = False) -> Case:
    return Case(title, "mmseg", {"config": config}, bars, "mmseg", quick=quick)


def _official(title: str, width: str, bars: Bars, *, quick: bool = False) -> Case:
    options = {"width": width, "num_classes": 150, "window": 512, "stride": 512}
    return Case(title, "segmenter", options, bars, "segmenter", quick=quick)


STREET = (1024, 2048)
_STREET_WINDOWS = {"num_classes": 19, "image": 768, "stride": 512, "scale": (2048, 1024)}

CASES: dict[str, Case] = {
    "segmenter-ti-mmseg": _mmseg("Segmenter-Ti, 512", "segmenter-ti", TI, quick=True),
    "segmenter-s-mmseg": _mmseg("Segmenter-S, 512", "segmenter-s", S, quick=True),
    "segmenter-b-mmseg": _mmseg("Segmenter-B, 512", "segmenter-b", B),
    "segmenter-ti-official": _official("Segmenter-Ti, 512", "Ti", TI, quick=True),
    "segmenter-s-official": _official("Segmenter-S, 512", "S", S),
    "segmenter-b-official": _official("Segmenter-B, 512", "B", B),
    "setr-naive-l-mmseg": _mmseg("SETR-Naive ViT-L, 512", "setr-naive-l", SETR),
    "setr-pup-l-mmseg": _mmseg("SETR-PUP ViT-L, 512", "setr-pup-l", SETR),
    "setr-mla-l-mmseg": _mmseg("SETR-MLA ViT-L, 512", "setr-mla-l", SETR),
    "dpt-l-depth-transformers": Case(
        "DPT-Large depth, 384", "transformers", {"model": "dpt-large"}, DPT, "transformers", (384, 384), output="depth"
    ),
    "depth-anything-s-transformers": Case(
        "Depth-Anything-V2-Small, 518",
        "transformers",
        {"model": "depth-anything-v2-small"},
        DPT,
        "transformers",
        (518, 518),
        output="depth",
        quick=True,
    ),
    "dpt-b-smp": Case("DPT-B, 512", "smp", {"num_classes": 150}, _bars(1.05, 1.15, 6), None),
    "segmenter-b-windows-official": Case(
        "Segmenter-B, 1024 x 2048 by windows",
        "segmenter",
        {"width": "B", "num_classes": 19, "window": 768, "stride": 512},
        WINDOWS,
        "segmenter",
        STREET,
    ),
    "segmenter-b-windows-mmseg": Case(
        "Segmenter-B, 1024 x 2048 by windows",
        "mmseg",
        {"config": "segmenter-b", **_STREET_WINDOWS},
        WINDOWS,
        "mmseg",
        STREET,
    ),
    "setr-pup-l-windows-mmseg": Case(
        "SETR-PUP ViT-L, 1024 x 2048 by windows",
        "mmseg",
        {"config": "setr-pup-l-cityscapes", **_STREET_WINDOWS},
        WINDOWS,
        "mmseg",
        STREET,
    ),
}
