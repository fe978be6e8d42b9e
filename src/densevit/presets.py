"""Named models as a flat table of config data.

``densevit models`` prints it; ``model: {preset: NAME}`` in a training config uses a row.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from densevit.config import nearest
from densevit.encoder.config import NAMED_SIZES, Width
from densevit.errors import ConfigError
from densevit.inference_config import TTA_SCALES

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Segmenter rounds the statistics to two decimals on 0..255; mmsegmentation does not.
ROUNDED_IMAGENET = {
    "mean": tuple(value / 255 for value in (123.68, 116.28, 103.53)),
    "std": tuple(value / 255 for value in (58.40, 57.12, 57.38)),
}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}

Plain = dict[str, Any]
Figures = dict[str, float]


@dataclass(frozen=True)
class Preset:
    """A named model, as plain config data.

    Attributes:
        family: "SETR", "Segmenter", "DPT", "DINOv2" or "Depth Anything".
        model: data of a ``ModelConfig`` with one head; ``out_channels`` as published.
        short_side: short side of the image that the model was published for, in pixels.
        task: kind of the head's task.
        task_facts: the task's config beyond its classes.
        protocol: data of the ``Protocol`` with which it was evaluated: resize, window, stride, scales.
        figures: published metrics with that protocol, mIoU in percent; "TTA" with all scales and flips.
    """

    family: str
    model: Plain
    short_side: int
    task: str
    task_facts: Plain
    protocol: Plain
    figures: Figures = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Output channels of the published model."""
        (head,) = self.model["heads"].values()
        return int(head["out_channels"])


def _vit(
    width: Width,
    *,
    patch: int = 16,
    image: int,
    taps: tuple[int, ...],
    mode: str = "bilinear",
    keep_equal_count: bool = False,
    **facts: Any,
) -> Plain:
    num_prefix = int(facts.get("cls_token", True)) + int(facts.get("dist_token", False))
    positions: Plain = {"kind": "learned", "grid": (image // patch, image // patch), "num_prefix": num_prefix}
    positions |= {"mode": mode, "keep_equal_count": keep_equal_count}
    return {**NAMED_SIZES[width], "patch_size": patch, "positions": positions, "taps": taps, **facts}


def _quarters(width: Width) -> tuple[int, ...]:
    """The last block of each quarter of the encoder."""
    return tuple(NAMED_SIZES[width]["depth"] * i // 4 - 1 for i in (1, 2, 3, 4))


def _model(head: str, encoder: Plain, decoder: Plain, out_channels: int, normalisation: Plain, **facts: Any) -> Plain:
    heads = {head: {"decoder": decoder, "out_channels": out_channels, **facts}}
    return {"encoder": encoder, "heads": heads, "normalisation": normalisation}


@dataclass(frozen=True)
class Data:
    """A dataset's settings in the published training and evaluation.

    Attributes:
        num_classes: number of classes.
        image: side of the training crop and of the inference window, in pixels.
        stride: stride of the windows in SETR's code.
        base: (long, short) bounds to which images are resized.
    """

    num_classes: int
    image: int
    stride: int
    base: tuple[int, int]


ADE20K = Data(150, 512, 341, (2048, 512))
CITYSCAPES = Data(19, 768, 512, (2049, 1025))
PASCAL_CONTEXT = Data(60, 480, 320, (520, 520))

MMSEG_LOSS: Plain = {"aux_weight": 0.4, "denominator": "all"}
MIDAS_LOSS: Plain = {"quantity": "disparity", "trim": 0.2, "gradient_weight": 0.5}


def _windows(kind: str, base: tuple[int, int], window: int, stride: int, **facts: Any) -> Plain:
    return {"kind": kind, "base": base, "window": (window, window), "stride": (stride, stride), **facts}


def _miou(single: float, tta: float | None = None) -> Figures:
    return {"mIoU": single} if tta is None else {"mIoU": single, "mIoU TTA": tta}


def _setr(decoder: Plain, data: Data, figures: Figures, *, width: Width = "L") -> Preset:
    """mmsegmentation's form: ImageNet statistics, taps without final norm."""
    mla = decoder["kind"] == "setr_mla"
    four = _quarters(width) if mla else {"L": (9, 14, 19, 23), "B": (4, 7, 9, 11)}[width]
    encoder = _vit(width, image=data.image, taps=four, keep_equal_count=True, cls_token=not mla)
    protocol = _windows("mmseg", data.base, data.image, data.stride)
    model = _model("labels", encoder, decoder, data.num_classes, IMAGENET)
    return Preset("SETR", model, data.image, "segmentation", MMSEG_LOSS, protocol, figures)


def _setr_paper(kind: str, data: Data, figures: Figures, *, width: Width = "L", scales: int = 6) -> Preset:
    """The form of the authors' code, where PUP also has an auxiliary head on the main tap."""
    last = NAMED_SIZES[width]["depth"]
    blocks: dict[str, dict[Width, tuple[int, ...]]] = {
        "naive": {"L": (9, 14, 19), "B": (2, 5, 8)},
        "pup": {"L": (9, 14, 19, 23), "B": (4, 7, 9, 11)},
        "mla": {"L": (5, 11, 17, 23), "B": (2, 5, 8, 11)},
    }
    aux = blocks[kind][width]
    decoder: Plain = {"kind": f"setr_{kind}", "form": "paper"}
    if kind == "mla":
        encoder, taps = _vit(width, image=data.image, taps=aux, cls_token=False), aux
        decoder["aux"] = True
    else:
        encoder, taps = _vit(width, image=data.image, taps=tuple(sorted({*aux, last - 1}))), (*aux, last - 1)
        decoder["aux_taps"] = tuple(range(len(aux)))
    protocol = _windows("setr", data.base, data.image, data.stride, tta_scales=TTA_SCALES[:scales])
    model = _model("labels", encoder, decoder, data.num_classes, IMAGENET, taps=taps)
    return Preset("SETR", model, data.image, "segmentation", MMSEG_LOSS, protocol, figures)


def _segmenter(
    width: Width,
    kind: str,
    figures: Figures,
    *,
    patch: int = 16,
    data: Data = ADE20K,
    image: int | None = None,
    base: tuple[int, int] = (2048, 512),
    deit: bool = False,
) -> Preset:
    """The authors' form: LayerNorm eps 1e-5 everywhere, final norm, statistics of 0.5 (DeiT: rounded ImageNet's)."""
    side = image or data.image
    taps = (NAMED_SIZES[width]["depth"] - 1,)
    facts: Plain = {"norm_eps": 1e-5, "final_norm": True, "drop_path": 0.1, "dist_token": deit}
    encoder = _vit(width, patch=patch, image=side, taps=taps, keep_equal_count=True, **facts)
    decoder: Plain = {"kind": f"segmenter_{kind}"}
    model = _model("labels", encoder, decoder, data.num_classes, ROUNDED_IMAGENET if deit else HALF)
    protocol = _windows("segmenter", base, side, side - 32)
    return Preset("Segmenter", model, side, "segmentation", {}, protocol, figures)


def _segmenter_mmseg(width: Width, kind: str, figures: Figures, *, image: int = 512) -> Preset:
    """mmsegmentation's form: LayerNorm eps 1e-6 in the encoder, bicubic positions, drop path in the decoder too."""
    taps = (NAMED_SIZES[width]["depth"] - 1,)
    facts: Plain = {"final_norm": True, "drop_path": 0.1}
    encoder = _vit(width, image=image, taps=taps, mode="bicubic", keep_equal_count=True, **facts)
    decoder: Plain = {"kind": f"segmenter_{kind}"}
    if kind == "mask":
        decoder |= {"dropout": 0.0, "drop_path": 0.1}
    model = _model("labels", encoder, decoder, 150, HALF)
    protocol = _windows("mmseg", (4 * image, image), image, image - 32)
    return Preset("Segmenter", model, image, "segmentation", {"denominator": "all"}, protocol, figures)


def _dpt(
    width: Width,
    task: str,
    figures: Figures,
    *,
    hybrid: bool = False,
    net_size: tuple[int, int] | None = None,
    metric: Plain | None = None,
    max_depth_m: float | None = None,
    num_classes: int = 150,
) -> Preset:
    """The authors' form: bilinear positions from a 24 x 24 grid, statistics of 0.5.

    ``metric`` holds the constants that convert a depth model's disparity to metres.
    """
    channels = {"L": (256, 512, 1024, 1024), "B": (96, 192, 384, 768)}[width] if not hybrid else (256, 512, 768, 768)
    stem: Plain = {"stem": {}} if hybrid else {}
    encoder = _vit(width, image=384, taps=(8, 11) if hybrid else _quarters(width), **stem)
    segmentation = task == "segmentation"
    if segmentation:
        head: Plain = {"kind": "segmentation", "aux": "penultimate"}
        facts: Plain = {"aux_weight": 0.2}
    else:
        head = {"kind": "depth", "up_to": "double", **(metric or {})}
        facts = MIDAS_LOSS if metric is None else {"quantity": "depth", "max_depth_m": max_depth_m}
    decoder: Plain = {"kind": "dpt", "channels": channels, "batch_norm": segmentation, "fusion_up_to": "double"}
    decoder |= {"stem_channels": (256, 512) if hybrid else (), "head": head}
    size = net_size or ((480, 480) if segmentation else (384, 384))
    protocol: Plain = {"kind": "dpt", "net_size": size, "multiple": 32, "label_offset": int(segmentation)}
    model = _model("labels" if segmentation else "depth", encoder, decoder, num_classes if segmentation else 1, HALF)
    return Preset("DPT", model, min(size), task, facts, protocol, figures)


def _dpt_mmseg(figures: Figures) -> Preset:
    """mmsegmentation's form of DPT-Base: LayerNorm eps 1e-5, bicubic positions, no auxiliary head, whole images."""
    encoder = _vit("B", image=224, taps=_quarters("B"), mode="bicubic", keep_equal_count=True, norm_eps=1e-5)
    decoder: Plain = {"kind": "dpt", "channels": (96, 192, 384, 768), "batch_norm": True, "fusion_up_to": "double"}
    decoder["head"] = {"kind": "segmentation", "align_corners": False}
    model = _model("labels", encoder, decoder, 150, IMAGENET)
    protocol: Plain = {"kind": "mmseg", "base": (2048, 512)}
    return Preset("DPT", model, 512, "segmentation", {"denominator": "all"}, protocol, figures)


def _dpt_dinov2(width: Width, data: Literal["nyu", "kitti"], rmse: float) -> Preset:
    """DPT on DINOv2 as transformers publishes it: metres from whole photos, padded to whole patches."""
    farthest, short_side = {"nyu": (10.0, 480), "kitti": (80.0, 375)}[data]
    taps = (4, 11, 17, 23) if width == "L" else _quarters(width)
    channels = tuple(NAMED_SIZES[width]["embed_dim"] // divisor for divisor in (8, 4, 2, 1))
    mlp: Plain = {"mlp": "swiglu", "mlp_ratio": 8 / 3} if width == "g" else {}
    encoder = _vit(width, patch=14, image=518, taps=taps, mode="bicubic", layer_scale=1.0, **mlp)
    decoder: Plain = {"kind": "dpt", "channels": channels, "residual_bias": False, "fusion_up_to": "double"}
    decoder["head"] = {"kind": "depth", "up_to": "double", "projection": True}
    model = _model("depth", encoder, decoder, 1, IMAGENET)
    facts: Plain = {"quantity": "depth", "max_depth_m": farthest}
    protocol: Plain = {"kind": "transformers", "net_size": (384, 384), "multiple": 1, "keep_aspect": False}
    protocol |= {"resize": False, "pad_multiple": 14}
    return Preset("DPT", model, short_side, "depth", facts, protocol, {"RMSE": rmse})


# Of DINOv2's segmentation by one tap and by four: side of windows and photos, and stride; scales, each also mirrored.
DINOV2_SIDES = {1: (512, 341), 4: (640, 320)}
DINOV2_SCALES = (1.0, 1.32, 1.73, 2.28, 3.0)


def _dinov2(width: Width, data: str, head: str, figure: float) -> Preset:
    """DINOv2's own heads on a frozen encoder: a linear layer on one tap or four, or DPT for depth."""
    blocks = NAMED_SIZES[width]["depth"]
    labels, one = data == "ade20k", head == "linear"
    taps = (blocks - 1,) if one else (4, 11, 17, 23) if width == "L" else _quarters(width)
    if head == "ms":
        taps = tuple(range(blocks - 4, blocks))
    mlp: Plain = {"mlp": "swiglu", "mlp_ratio": 8 / 3} if width == "g" else {}
    encoder = _vit(width, patch=14, image=518, taps=taps, mode="bicubic", layer_scale=1.0, final_norm=labels, **mlp)
    encoder["positions"]["offset"] = 0.1
    if labels:
        side, step = DINOV2_SIDES[len(taps)]
        scales: Plain = {} if one else {"tta_scales": DINOV2_SCALES}
        protocol = _windows("dinov2", (1_000_000, side), side, step, **scales)
        model = _model("labels", encoder, {"kind": "linear"}, 150, IMAGENET)
        name = "mIoU" if one else "mIoU TTA"
        return Preset("DINOv2", model, side, "segmentation", {"denominator": "all"}, protocol, {name: figure})
    farthest, short_side = {"nyu": (10.0, 480), "kitti": (80.0, 375)}[data]
    decoder: Plain = {"kind": "linear", "class_token": True, "up_scale": 4, "bins": {"max_depth_m": farthest}}
    if head == "dpt":
        channels = tuple(NAMED_SIZES[width]["embed_dim"] // divisor for divisor in (8, 4, 2, 1))
        decoder = {"kind": "dpt", "channels": channels, "residual_bias": False, "fusion_up_to": "double"}
        decoder["head"] = {"kind": "depth", "up_to": "double", "projection": True, "align_corners": False}
        decoder["head"] |= {"min_depth_m": 1e-3, "limit_m": farthest}
    facts: Plain = {"quantity": "depth", "max_depth_m": farthest}
    family = "DPT" if head == "dpt" else "DINOv2"
    model = _model("depth", encoder, decoder, 1, IMAGENET)
    return Preset(family, model, short_side, "depth", facts, {"kind": "dinov2", "base": None}, {"RMSE": figure})


# Published figures of DINOv2's heads, from the smallest encoder to the largest.
DINOV2_FIGURES: dict[tuple[str, str], tuple[float, ...]] = {
    ("ade20k", "linear"): (44.3, 47.3, 47.7, 49.0),
    ("ade20k", "ms"): (47.2, 51.3, 53.1, 53.0),
    ("nyu", "linear"): (0.449, 0.399, 0.384, 0.344),
    ("nyu", "linear4"): (0.417, 0.362, 0.333, 0.298),
    ("nyu", "dpt"): (0.356, 0.317, 0.293, 0.279),
    ("kitti", "linear"): (3.10, 2.90, 2.78, 2.62),
    ("kitti", "linear4"): (2.86, 2.59, 2.50, 2.35),
    ("kitti", "dpt"): (2.34, 2.23, 2.14, 2.11),
}
DINOV2_WIDTHS: dict[str, Width] = {"small": "S", "base": "B", "large": "L", "giant": "g"}


def _depth_anything(
    width: Width, figures: Figures, *, taps: tuple[int, ...] | None = None, max_depth_m: float | None = None
) -> Preset:
    """DINOv2 with its final norm on four taps: relative inverse depth, or metres with a sigmoid up to a maximum."""
    channels, fusion = DEPTH_ANYTHING_WIDTHS[width]
    taps = taps or ((4, 11, 17, 23) if width == "L" else _quarters(width))
    encoder = _vit(width, patch=14, image=518, taps=taps, mode="bicubic", layer_scale=1.0, final_norm=True)
    encoder["positions"]["offset"] = 0.1
    head: Plain = {"kind": "depth", "up_to": "image"}
    facts: Plain = {"quantity": "disparity"}
    if max_depth_m is not None:
        head |= {"activation": "sigmoid", "max_depth_m": max_depth_m}
        facts = {"quantity": "depth", "max_depth_m": max_depth_m}
    decoder: Plain = {"kind": "dpt", "channels": channels, "fusion_channels": fusion, "readout": "ignore"}
    decoder |= {"fusion_up_to": "next_level", "head": head}
    model = _model("depth", encoder, decoder, 1, IMAGENET)
    protocol: Plain = {"kind": "depth_anything", "net_size": (518, 518), "multiple": 14}
    return Preset("Depth Anything", model, 518, "depth", facts, protocol, figures)


def _depth_anything_3(facts: Plain) -> Preset:
    """DINOv2-L and DPT with the exponential at the end; the final norm has an epsilon of its own."""
    plain = _depth_anything("L", {})
    plain.model["encoder"]["final_norm_eps"] = 1e-5
    plain.model["heads"]["depth"]["decoder"]["head"]["activation"] = "exp"
    protocol: Plain = {"kind": "depth_anything_3", "net_size": (504, 504), "multiple": 14}
    return Preset("Depth Anything", plain.model, 378, "depth", facts, protocol)


def _depth_anything_v1(width: Width, *values: float) -> Preset:
    """The V1 release, which taps the last four blocks, with AbsRel and delta1 on data sets that it did not train on."""
    datasets = ("KITTI", "NYUv2", "Sintel", "DDAD", "ETH3D", "DIODE")
    names = [f"{data} {metric}" for data in datasets for metric in ("AbsRel", "delta1")]
    depth = NAMED_SIZES[width]["depth"]
    figures = dict(zip(names, values, strict=True))
    return _depth_anything(width, figures, taps=tuple(range(depth - 4, depth)))


# Width of the encoder -> channels of the four levels, and of the fusion.
DEPTH_ANYTHING_WIDTHS: dict[Width, tuple[tuple[int, ...], int]] = {
    "S": ((48, 96, 192, 384), 64),
    "B": ((96, 192, 384, 768), 128),
    "L": ((256, 512, 1024, 1024), 256),
}
NAIVE: Plain = {"kind": "setr_naive", "aux_taps": (0, 1, 2)}
PUP: Plain = {"kind": "setr_pup", "aux_taps": (0, 1, 2)}
MLA: Plain = {"kind": "setr_mla", "aux": True}
KITTI: Plain = {"scale": 0.00006016, "shift": 0.00579, "invert": True}
NYU: Plain = {"scale": 0.000305, "shift": 0.1378, "invert": True}


def _dpt_metric(metric: Plain, *values: float) -> Preset:
    """DPT-Hybrid in metres, with the metrics on the data set of ``metric``."""
    names = ("delta1", "delta2", "delta3", "AbsRel", "SqRel", "RMSE", "RMSElog", "SILog", "log10")
    figures = dict(zip(names, values, strict=True))
    size, farthest = ((352, 1216), 80.0) if metric is KITTI else ((480, 640), 10.0)
    return _dpt("B", "depth", figures, hybrid=True, net_size=size, metric=metric, max_depth_m=farthest)


def _zero_shot(*values: float) -> Figures:
    """Metrics on datasets that were not trained on; "> 1.25" is 1 - delta1 in percent."""
    names = ("DIW WHDR", "ETH3D AbsRel", "Sintel AbsRel", "KITTI > 1.25", "NYU > 1.25", "TUM > 1.25")
    return dict(zip(names, values, strict=True))


# Where SETR published several results, these are the ones of the longest schedule and the largest batch.
PRESETS: dict[str, Preset] = {
    "setr-naive-l-ade20k": _setr({**NAIVE, "aux_convs": 2}, ADE20K, _miou(48.28, 49.56)),
    "setr-pup-l-ade20k": _setr(PUP, ADE20K, _miou(48.24, 49.99)),
    "setr-mla-l-ade20k": _setr(MLA, ADE20K, _miou(47.39, 49.37)),
    "setr-naive-l-cityscapes": _setr(NAIVE, CITYSCAPES, _miou(78.10, 80.22)),
    "setr-pup-l-cityscapes": _setr(PUP, CITYSCAPES, _miou(79.21, 81.02)),
    "setr-mla-l-cityscapes": _setr(MLA, CITYSCAPES, _miou(77.00, 79.59)),
    "setr-naive-b": _setr(NAIVE, ADE20K, {}, width="B"),
    "setr-pup-b": _setr(PUP, ADE20K, {}, width="B"),
    "setr-mla-b": _setr(MLA, ADE20K, {}, width="B"),
    "setr-paper-naive-l-cityscapes": _setr_paper("naive", CITYSCAPES, _miou(77.90)),
    "setr-paper-pup-l-cityscapes": _setr_paper("pup", CITYSCAPES, _miou(79.34)),
    "setr-paper-mla-l-cityscapes": _setr_paper("mla", CITYSCAPES, _miou(77.24)),
    "setr-paper-naive-b-cityscapes": _setr_paper("naive", CITYSCAPES, _miou(76.25), width="B"),
    "setr-paper-pup-b-cityscapes": _setr_paper("pup", CITYSCAPES, _miou(78.02), width="B"),
    "setr-paper-mla-b-cityscapes": _setr_paper("mla", CITYSCAPES, _miou(76.87), width="B"),
    "setr-paper-naive-deit-cityscapes": _setr_paper("naive", CITYSCAPES, _miou(78.66), width="B"),
    "setr-paper-pup-deit-cityscapes": _setr_paper("pup", CITYSCAPES, _miou(79.45), width="B"),
    "setr-paper-mla-deit-cityscapes": _setr_paper("mla", CITYSCAPES, _miou(78.98), width="B"),
    "setr-paper-naive-l-ade20k": _setr_paper("naive", ADE20K, _miou(48.06, 48.80), scales=3),
    "setr-paper-pup-l-ade20k": _setr_paper("pup", ADE20K, _miou(48.62, 50.09)),
    "setr-paper-mla-l-ade20k": _setr_paper("mla", ADE20K, _miou(48.64, 50.28), scales=3),
    "setr-paper-pup-deit-ade20k": _setr_paper("pup", ADE20K, _miou(46.34, 47.30), width="B"),
    "setr-paper-mla-deit-ade20k": _setr_paper("mla", ADE20K, _miou(46.15, 47.71), width="B", scales=3),
    "setr-paper-naive-l-pascal-context": _setr_paper("naive", PASCAL_CONTEXT, _miou(52.89, 53.61)),
    "setr-paper-pup-l-pascal-context": _setr_paper("pup", PASCAL_CONTEXT, _miou(54.37, 55.27)),
    "setr-paper-mla-l-pascal-context": _setr_paper("mla", PASCAL_CONTEXT, _miou(55.01, 55.83)),
    "setr-paper-pup-deit-pascal-context": _setr_paper("pup", PASCAL_CONTEXT, _miou(52.00, 52.50), width="B"),
    "setr-paper-mla-deit-pascal-context": _setr_paper("mla", PASCAL_CONTEXT, _miou(52.91, 53.74), width="B"),
    "segmenter-ti-mask": _segmenter("Ti", "mask", _miou(38.1, 38.8)),
    "segmenter-s-mask": _segmenter("S", "mask", _miou(45.3, 46.9)),
    "segmenter-s-linear": _segmenter("S", "linear", {}),
    "segmenter-b-mask": _segmenter("B", "mask", _miou(48.5, 50.0)),
    "segmenter-b-linear": _segmenter("B", "linear", {}),
    "segmenter-b8-linear": _segmenter("B", "linear", _miou(49.5, 50.5), patch=8),
    "segmenter-b8-mask": _segmenter("B", "mask", {}, patch=8),
    "segmenter-b-deit-linear": _segmenter("B", "linear", _miou(47.1, 48.1), deit=True),
    "segmenter-b-deit-mask": _segmenter("B", "mask", _miou(48.7, 50.1), deit=True),
    "segmenter-l-mask-640": _segmenter("L", "mask", _miou(51.8, 53.6), image=640, base=(2560, 640)),
    "segmenter-l-mask-pascal-context": _segmenter(
        "L", "mask", _miou(58.1, 59.0), data=PASCAL_CONTEXT, base=(4160, 520)
    ),
    "segmenter-l-mask-cityscapes": _segmenter("L", "mask", _miou(79.1, 81.3), data=CITYSCAPES, base=(2048, 1024)),
    "segmenter-mmseg-ti-mask": _segmenter_mmseg("Ti", "mask", _miou(39.99, 40.83)),
    "segmenter-mmseg-s-linear": _segmenter_mmseg("S", "linear", _miou(45.75, 46.82)),
    "segmenter-mmseg-s-mask": _segmenter_mmseg("S", "mask", _miou(46.19, 47.85)),
    "segmenter-mmseg-b-mask": _segmenter_mmseg("B", "mask", _miou(49.60, 51.07)),
    "segmenter-mmseg-l-mask-640": _segmenter_mmseg("L", "mask", _miou(52.16, 53.65), image=640),
    "dpt-base-ade20k": _dpt("B", "segmentation", {}),
    "dpt-large-ade20k": _dpt("L", "segmentation", {"mIoU": 47.63, "aAcc": 82.70}),
    "dpt-hybrid-ade20k": _dpt("B", "segmentation", {"mIoU": 49.02, "aAcc": 83.11}, hybrid=True),
    "dpt-hybrid-pascal-context": _dpt("B", "segmentation", {"mIoU": 60.46, "aAcc": 82.83}, hybrid=True, num_classes=60),
    "dpt-mmseg-base-ade20k": _dpt_mmseg(_miou(46.97, 48.34)),
    "dpt-base-depth": _dpt("B", "depth", {}),
    "dpt-large-depth": _dpt("L", "depth", _zero_shot(10.82, 0.089, 0.270, 8.46, 8.32, 9.97)),
    "dpt-hybrid-depth": _dpt("B", "depth", _zero_shot(11.06, 0.093, 0.274, 11.56, 8.69, 10.89), hybrid=True),
    "dpt-hybrid-kitti": _dpt_metric(KITTI, 0.959, 0.995, 0.999, 0.062, 0.222, 2.575, 0.092, 8.282, 0.027),
    "dpt-hybrid-nyu": _dpt_metric(NYU, 0.904, 0.988, 0.998, 0.109, 0.054, 0.357, 0.129, 9.521, 0.045),
    "dpt-hybrid-nyu-new": _dpt_metric(NYU, 0.905, 0.988, 0.998, 0.109, 0.055, 0.357, 0.129, 9.427, 0.045),
    "dpt-dinov2-small-nyu": _dpt_dinov2("S", "nyu", 0.356),
    "dpt-dinov2-small-kitti": _dpt_dinov2("S", "kitti", 2.34),
    "dpt-dinov2-base-nyu": _dpt_dinov2("B", "nyu", 0.317),
    "dpt-dinov2-base-kitti": _dpt_dinov2("B", "kitti", 2.23),
    "dpt-dinov2-large-nyu": _dpt_dinov2("L", "nyu", 0.293),
    "dpt-dinov2-large-kitti": _dpt_dinov2("L", "kitti", 2.14),
    "dpt-dinov2-giant-nyu": _dpt_dinov2("g", "nyu", 0.279),
    "dpt-dinov2-giant-kitti": _dpt_dinov2("g", "kitti", 2.11),
    **{
        f"dinov2-{size}-{data}-{head}": _dinov2(width, data, head, figure)
        for (data, head), figures in DINOV2_FIGURES.items()
        for (size, width), figure in zip(DINOV2_WIDTHS.items(), figures, strict=True)
    },
    "depth-anything-s": _depth_anything("S", {"DA-2K": 95.3}),
    "depth-anything-b": _depth_anything("B", {"DA-2K": 97.0}),
    "depth-anything-l": _depth_anything("L", {"DA-2K": 97.1}),
    "depth-anything-v1-small": _depth_anything_v1(
        "S", 0.080, 0.936, 0.053, 0.972, 0.464, 0.739, 0.247, 0.768, 0.127, 0.885, 0.076, 0.939
    ),
    "depth-anything-v1-base": _depth_anything_v1(
        "B", 0.080, 0.939, 0.046, 0.979, 0.432, 0.756, 0.232, 0.786, 0.126, 0.884, 0.069, 0.946
    ),
    "depth-anything-v1-large": _depth_anything_v1(
        "L", 0.076, 0.947, 0.043, 0.981, 0.458, 0.760, 0.230, 0.789, 0.127, 0.882, 0.066, 0.952
    ),
    "depth-anything-v2-metric-indoor-small": _depth_anything("S", {}, max_depth_m=20.0),
    "depth-anything-v2-metric-indoor-base": _depth_anything("B", {}, max_depth_m=20.0),
    "depth-anything-v2-metric-indoor-large": _depth_anything("L", {}, max_depth_m=20.0),
    "depth-anything-v2-metric-outdoor-small": _depth_anything("S", {}, max_depth_m=80.0),
    "depth-anything-v2-metric-outdoor-base": _depth_anything("B", {}, max_depth_m=80.0),
    "depth-anything-v2-metric-outdoor-large": _depth_anything("L", {}, max_depth_m=80.0),
    "depth-anything-3-mono-large": _depth_anything_3({"quantity": "relative_depth"}),
    "depth-anything-3-metric-large": _depth_anything_3(
        {"quantity": "depth", "max_depth_m": 200.0, "canonical_focal_px": 300.0}
    ),
}


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ConfigError: if there is none; the message suggests the nearest name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]
