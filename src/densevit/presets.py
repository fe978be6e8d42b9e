"""Named models: a flat table of facts.

``densevit models`` prints it; ``model: {preset: NAME}`` starts a training from it.
"""

from dataclasses import dataclass
from typing import Any

from densevit.config import nearest
from densevit.encoder.vit import NAMED_SIZES, Width
from densevit.errors import ConfigError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}

Plain = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """A named model, as plain config data.

    Attributes:
        family: "SETR", "Segmenter", "DPT" or "Depth Anything".
        model: data of a ``ModelConfig`` with one head; ``out_channels`` as published.
        short_side: of the image that the model was published for, pixels.
        task: kind of the head's task.
        task_facts: the task's facts beyond its classes.
    """

    family: str
    model: Plain
    short_side: int
    task: str
    task_facts: Plain

    @property
    def num_classes(self) -> int:
        """Output channels of the published model."""
        (head,) = self.model["heads"].values()
        return int(head["out_channels"])


def _vit(
    width: Width, *, patch: int = 16, image: int, taps: tuple[int, ...], mode: str = "bilinear", **facts: Any
) -> Plain:
    positions = {"kind": "learned", "grid": (image // patch, image // patch), "num_prefix": 1, "mode": mode}
    return {**NAMED_SIZES[width], "patch_size": patch, "positions": positions, "taps": taps, **facts}


def _model(head: str, encoder: Plain, decoder: Plain, out_channels: int, normalisation: Plain) -> Plain:
    heads = {head: {"decoder": decoder, "out_channels": out_channels}}
    return {"encoder": encoder, "heads": heads, "normalisation": normalisation}


def _setr(decoder: Plain, *, width: Width = "L", image: int, classes: int) -> Preset:
    """mmsegmentation's form: ImageNet statistics, taps without final norm."""
    last = NAMED_SIZES[width]["depth"]
    four: tuple[int, ...] = {"L": (9, 14, 19, 23), "B": (4, 7, 9, 11)}[width]
    if decoder["kind"] == "setr_mla":
        four = tuple(last * i // 4 - 1 for i in (1, 2, 3, 4))
        encoder = _vit(width, image=image, taps=four, cls_token=False)
        encoder["positions"]["num_prefix"] = 0
    else:
        encoder = _vit(width, image=image, taps=four)
    return Preset("SETR", _model("labels", encoder, decoder, classes, IMAGENET), image, "segmentation", {})


def _segmenter(width: Width, kind: str, *, patch: int = 16, image: int = 512, classes: int = 150) -> Preset:
    """The authors' form: LayerNorm eps 1e-5 everywhere, final norm, statistics of 0.5."""
    taps = (NAMED_SIZES[width]["depth"] - 1,)
    encoder = _vit(width, patch=patch, image=image, taps=taps, norm_eps=1e-5, final_norm=True, drop_path=0.1)
    return Preset("Segmenter", _model("labels", encoder, {"kind": kind}, classes, HALF), image, "segmentation", {})


def _dpt(width: Width, task: str, *, hybrid: bool = False) -> Preset:
    """The authors' form: bilinear positions from a 24 x 24 grid, statistics of 0.5."""
    channels = {"L": (256, 512, 1024, 1024), "B": (96, 192, 384, 768)}[width] if not hybrid else (256, 512, 768, 768)
    last = NAMED_SIZES[width]["depth"]
    taps = (8, 11) if hybrid else tuple(last * i // 4 - 1 for i in (1, 2, 3, 4))
    stem: Plain = {"stem": {}} if hybrid else {}
    encoder = _vit(width, image=384, taps=taps, **stem)
    segmentation = task == "segmentation"
    decoder: Plain = {
        "kind": "dpt",
        "channels": channels,
        "batch_norm": segmentation,
        "fusion_up_to": "double",
        "stem_channels": (256, 512) if hybrid else (),
        "head": {"kind": "segmentation", "aux": "penultimate"}
        if segmentation
        else {"kind": "depth", "up_to": "double"},
    }
    facts: Plain = {"aux_weight": 0.2} if segmentation else {"quantity": "disparity"}
    model = _model("labels" if segmentation else "depth", encoder, decoder, 150 if segmentation else 1, HALF)
    return Preset("DPT", model, 480 if segmentation else 384, task, facts)


def _depth_anything(width: Width, channels: tuple[int, ...], fusion: int) -> Preset:
    """The V2 release: DINOv2 with its final norm on four taps."""
    depth = NAMED_SIZES[width]["depth"]
    taps = (4, 11, 17, 23) if width == "L" else tuple(depth * i // 4 - 1 for i in (1, 2, 3, 4))
    encoder = _vit(width, patch=14, image=518, taps=taps, mode="bicubic", layer_scale=1.0, final_norm=True)
    encoder["positions"]["offset"] = 0.1
    decoder: Plain = {
        "kind": "dpt",
        "channels": channels,
        "fusion_channels": fusion,
        "readout": "ignore",
        "fusion_up_to": "next_level",
        "head": {"kind": "depth", "up_to": "image"},
    }
    model = _model("depth", encoder, decoder, 1, IMAGENET)
    return Preset("Depth Anything", model, 518, "depth", {"quantity": "disparity"})


NAIVE: Plain = {"kind": "setr_naive", "aux_taps": (0, 1, 2)}
PUP: Plain = {"kind": "setr_pup", "aux_taps": (0, 1, 2)}
MLA: Plain = {"kind": "setr_mla", "aux": True}

PRESETS: dict[str, Preset] = {
    "setr-naive-l-ade20k": _setr({**NAIVE, "aux_convs": 2}, image=512, classes=150),
    "setr-pup-l-ade20k": _setr(PUP, image=512, classes=150),
    "setr-mla-l-ade20k": _setr(MLA, image=512, classes=150),
    "setr-naive-l-cityscapes": _setr(NAIVE, image=768, classes=19),
    "setr-pup-l-cityscapes": _setr(PUP, image=768, classes=19),
    "setr-mla-l-cityscapes": _setr(MLA, image=768, classes=19),
    "setr-naive-b": _setr(NAIVE, width="B", image=512, classes=150),
    "setr-pup-b": _setr(PUP, width="B", image=512, classes=150),
    "setr-mla-b": _setr(MLA, width="B", image=512, classes=150),
    "segmenter-ti-mask": _segmenter("Ti", "segmenter_mask"),
    "segmenter-s-mask": _segmenter("S", "segmenter_mask"),
    "segmenter-s-linear": _segmenter("S", "segmenter_linear"),
    "segmenter-b-mask": _segmenter("B", "segmenter_mask"),
    "segmenter-b-linear": _segmenter("B", "segmenter_linear"),
    "segmenter-b8-linear": _segmenter("B", "segmenter_linear", patch=8),
    "segmenter-l-mask-640": _segmenter("L", "segmenter_mask", image=640),
    "segmenter-l-mask-cityscapes": _segmenter("L", "segmenter_mask", image=768, classes=19),
    "dpt-base-ade20k": _dpt("B", "segmentation"),
    "dpt-large-ade20k": _dpt("L", "segmentation"),
    "dpt-hybrid-ade20k": _dpt("B", "segmentation", hybrid=True),
    "dpt-base-depth": _dpt("B", "depth"),
    "dpt-large-depth": _dpt("L", "depth"),
    "dpt-hybrid-depth": _dpt("B", "depth", hybrid=True),
    "depth-anything-s": _depth_anything("S", (48, 96, 192, 384), 64),
    "depth-anything-b": _depth_anything("B", (96, 192, 384, 768), 128),
    "depth-anything-l": _depth_anything("L", (256, 512, 1024, 1024), 256),
}


def preset(name: str) -> Preset:
    """A row of the table.

    Raises:
        ConfigError: if there is none, with the nearest name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]
