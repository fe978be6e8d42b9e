"""transformers: DPT (plain, hybrid, DINOv2; depth, segmentation) and Depth Anything (V1, V2, metric), with config.json.

Fixed for this program: a square grid of positions, bilinear for DPT's own encoder and bicubic for DINOv2; DPT's taps
come before the final norm of its own encoder, while DINOv2's config says whether its taps pass through it; the stem
standardises its weights by the root of variance + 1e-8. What a config does not state has the default of its config
class.
"""

import logging
import re
from typing import Any

from densevit.checkpoints.importers import transformers_keys as keys
from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, depth_task, segmentation
from densevit.checkpoints.importers.dpt_rules import depth_head, dpt_from_shapes, hf_neck, segmentation_head
from densevit.checkpoints.importers.keys import KeyTable, check_keys
from densevit.checkpoints.importers.other_kinds import refuse_model_type
from densevit.checkpoints.importers.transformers_keys import DEPTH_ANYTHING, DINOV2, HYBRID_DPT, PLAIN_DPT
from densevit.checkpoints.importers.transformers_processor import preprocessing
from densevit.checkpoints.importers.vit import NORM_NOT_READ, hf_vit, positions
from densevit.checkpoints.rename import Renamed, Rule
from densevit.checkpoints.shapes import Shapes
from densevit.errors import CheckpointError
from densevit.inference_config import WholeProtocol
from densevit.presets import IMAGENET
from densevit.tasks import Task

_log = logging.getLogger(__name__)

STEM = "encoder.patch_embed"
BIT = "dpt.embeddings.backbone.bit"

DPT_ENCODER = (
    Rule("dpt.embeddings.projection.{param}", f"{STEM}.proj.{{param}}"),  # after the hybrid stem
    Rule(f"{BIT}.embedder.convolution.weight", f"{STEM}.stem_conv.weight"),
    Rule(f"{BIT}.embedder.norm.{{param}}", f"{STEM}.stem_norm.{{param}}"),
    Rule(f"{BIT}.encoder.stages.{{i}}.layers.{{j}}.{{rest}}", f"{STEM}.stages.{{i}}.{{j}}.{{rest}}"),
    Rule("dpt.layernorm.{param}", reason=NORM_NOT_READ),
    *hf_vit("dpt.", gated=False),
)

DINO_ENCODER = hf_vit("backbone.", gated=True)
DINO_ENCODER_BEFORE_NORM = (Rule("backbone.layernorm.{param}", reason=NORM_NOT_READ), *DINO_ENCODER)

# Releases of DPT on DINOv2: maximum depth in metres, and the short side of the photos they were trained on, in pixels.
# Source: facebookresearch/dinov2, dinov2/hub/depthers.py, and the data sets' own image sizes.
DINO_RELEASES = {"nyu": (10.0, 480), "kitti": (80.0, 375)}


def read(source: Source) -> ImportedParts:
    """Import a model whose class is recognised by its tensors."""
    config = dict(source.side.get("config.json", {}))
    refuse_model_type(config, source.name)
    stated: Any = config.get("backbone_config")
    backbone = stated if isinstance(stated, dict) else {}
    if source.has("dpt.*"):
        is_hybrid = source.has(f"{BIT}.*")
        _check(source, config, HYBRID_DPT if is_hybrid else PLAIN_DPT)
        if is_hybrid:
            _check(source, backbone, keys.BIT, "backbone_config of config.json")
        return _dpt(source, config)
    is_dpt = source.has("head.head.*")
    if is_dpt and (kind := backbone.get("model_type", "dinov2")) != "dinov2":
        raise CheckpointError(
            f"{source.name} is a DPT of transformers on the backbone {kind!r} (backbone_config), but only its plain "
            "ViT, its hybrid and DINOv2 can be reproduced; run the model with transformers"
        )
    _check(source, config, keys.DINO_DPT if is_dpt else DEPTH_ANYTHING)
    _check(source, backbone, keys.DINOV2_OF_DPT if is_dpt else DINOV2, "backbone_config of config.json")
    return _dpt(source, config, dino=backbone) if is_dpt else _depth_anything(source, config)


def _check(source: Source, config: Plain, table: KeyTable, where: str = "config.json") -> None:
    """Refuse what cannot be reproduced; null stands for the default, as there."""
    stated = {key: value for key, value in config.items() if value is not None}
    check_keys(stated, table, where=where, source=source.name, program="transformers")


def _dpt(source: Source, config: Plain, dino: Plain | None = None) -> ImportedParts:
    """A DPT; ``dino`` is the config of its encoder where that is DINOv2, empty if there is no config."""
    segments, num_stem = source.has("head.head.1.*"), 2 if source.has(f"{BIT}.*") else 0
    name = "labels" if segments else "depth"
    head = f"heads.{name}"
    normed = bool(dino.get("apply_layernorm", True)) if dino else False
    rules = (
        *(DPT_ENCODER if dino is None else DINO_ENCODER if normed else DINO_ENCODER_BEFORE_NORM),
        *hf_neck(head, num_stem=num_stem),
        *(segmentation_head if segments else depth_head)("head.head", f"{head}.head"),
        Rule("head.projection.{param}", f"{head}.head.projection.{{param}}"),
        *segmentation_head("auxiliary_head.head", f"{head}.aux_head"),
    )
    renamed, shapes, encoder = source.renamed(rules)
    if num_stem:
        encoder["stem"]["standardisation"] = "var_plus_eps"
    encoder |= (
        _own_encoder(source, config, shapes, encoder, num_stem)
        if dino is None
        else _dino_encoder(source, dino, shapes, encoder) | {"final_norm": normed}
    )
    decoder = dpt_from_shapes(shapes, head, num_stem=num_stem) | ({} if num_stem else _factors(config))
    readout = decoder.get("readout") or config.get("readout_type")
    decoder |= source.require(readout=readout) | {"fusion_up_to": "double"}
    max_depth_m, photo_side = (None, None) if dino is None else DINO_RELEASES[_dino_release(source)]
    task: Task = depth_task(None if dino is None else source.get("max_depth_m", max_depth_m))
    if segments:
        decoder["head"] = {
            "kind": "segmentation",
            "aux": "last" if shapes.has(f"{head}.aux_head.classifier.weight") else "none",
            "dropout": config.get("semantic_classifier_dropout", 0.1),
        }
        num_classes = shapes.of(f"{head}.head.classifier.weight", 4)[0]
        weight = config.get("auxiliary_loss_weight", 0.4)
        task = segmentation(num_classes, classes=_labels(config), dataset=source.get("dataset"), aux_weight=weight)
    else:
        decoder["head"] = _depth_head(shapes, head)
    heads = {name: {"decoder": decoder, "out_channels": task.out_channels}}
    published: Plain = {"size": 480 if segments else 384, "resample": 2}  # bilinear
    normalisation, protocol = _preprocessing(source, **(published if dino is None else _whole_photo(encoder)))
    short_side = photo_side if photo_side and not protocol.resize else min(protocol.net_size)
    provenance = f"transformers, {source.name}"
    return ImportedParts(renamed, encoder, heads, normalisation, task, short_side, protocol, provenance)


def _own_encoder(source: Source, config: Plain, shapes: Shapes, encoder: Plain, num_stem: int) -> Plain:
    """The encoder that is part of transformers' DPT."""
    listed = config.get("backbone_out_indices") or (2, 5, 8, 11)
    known = _require_stated(
        source,
        config,
        num_heads=config.get("num_attention_heads", 12),
        # A hybrid does not use the first two. The encoder returns blocks in ascending order, however they are listed.
        taps=tuple(sorted(set(listed[num_stem:]))),
        norm_eps=config.get("layer_norm_eps", 1e-12),
    )
    return known | {"positions": positions(shapes, encoder, mode="bilinear")}


def _dino_encoder(source: Source, backbone: Plain, shapes: Shapes, encoder: Plain) -> Plain:
    """DINOv2, but for the final norm."""
    known = _require_stated(
        source,
        backbone,
        num_heads=backbone.get("num_attention_heads", 12),
        taps=_taps(backbone, encoder["depth"]),
        norm_eps=backbone.get("layer_norm_eps", 1e-6),
    )
    return known | {"positions": positions(shapes, encoder, mode="bicubic")}


def _dino_release(source: Source) -> str:
    """The release of a DPT on DINOv2 by its name; its weights do not tell it."""
    former_name = source.side.get("config.json", {}).get("_name_or_path")
    published = re.search(r"[-_](nyu|kitti)\b", f"{source.name} {former_name}")
    if published is None and source.overrides.release is None:
        _log.warning(
            "%s does not say which release of DPT on DINOv2 it is; depths up to 80 m are taken for valid, which "
            "matters in metrics and training only; give --release nyu or kitti to `densevit convert` (release=... in "
            "Python)",
            source.name,
        )
        return "kitti"
    return source.release(published and published[1], DINO_RELEASES)


def _whole_photo(encoder: Plain) -> Plain:
    """The published processor of DPT on DINOv2: pixels in 0 to 255, not resized, padded to whole patches."""
    return {
        "do_resize": False,
        "do_rescale": False,
        "do_pad": True,
        "size_divisor": encoder["patch_size"][0],
        "image_mean": [255 * value for value in IMAGENET["mean"]],
        "image_std": [255 * value for value in IMAGENET["std"]],
    }


def _require_stated(source: Source, config: Plain, **values: Any) -> Plain:
    """The values of a config and its defaults, none of which is known without a config."""
    return source.require(**(values if config else dict.fromkeys(values)))


def _factors(config: Plain) -> Plain:
    return {"factors": config["reassemble_factors"]} if config.get("reassemble_factors") else {}


def _depth_head(shapes: Shapes, head: str) -> Plain:
    projects = shapes.has(f"{head}.head.projection.weight")
    hidden = shapes.of(f"{head}.head.conv2.weight", 4)[0]
    return {"kind": "depth", "up_to": "double", "projection": projects, "hidden_channels": hidden}


def _depth_anything(source: Source, config: Plain) -> ImportedParts:
    head = "heads.depth"
    small = {"num_attention_heads": 6, "out_indices": [9, 10, 11, 12]}  # the class's default backbone
    backbone: Plain = (config.get("backbone_config") or small) if config else {}
    normed = backbone.get("apply_layernorm", True)
    rules = (
        *(DINO_ENCODER if normed else DINO_ENCODER_BEFORE_NORM),
        *hf_neck(head),
        Rule("head.conv{i}.{param}", f"{head}.head.conv{{i}}.{{param}}"),
    )
    renamed, shapes, encoder = source.renamed(rules)
    encoder |= _dino_encoder(source, backbone, shapes, encoder) | {"final_norm": normed}
    depth = _depth_head(shapes, head) | {"up_to": "image"}
    factor = float(config.get("max_depth") or 1)
    metric = config.get("depth_estimation_type", "relative") == "metric"
    max_depth_m = source.get("max_depth_m", factor if metric else None)
    if max_depth_m is not None:
        depth |= {"activation": "sigmoid", "max_depth_m": max_depth_m}
    elif factor != 1:
        renamed = _scaled(renamed, f"{head}.head.conv3", factor)
    decoder = dpt_from_shapes(shapes, head) | _factors(config)
    decoder |= {"readout": "ignore", "fusion_up_to": "next_level", "head": depth}
    heads = {"depth": {"decoder": decoder, "out_channels": 1}}
    normalisation, protocol = _preprocessing(
        source,
        size=518,
        ensure_multiple_of=encoder["patch_size"][0],
        keep_aspect_ratio=True,
        image_mean=IMAGENET["mean"],
        image_std=IMAGENET["std"],
    )
    short_side, provenance = min(protocol.net_size), f"transformers, {source.name}"
    task = depth_task(max_depth_m)
    return ImportedParts(renamed, encoder, heads, normalisation, task, short_side, protocol, provenance)


def _scaled(renamed: Renamed, name: str, factor: float) -> Renamed:
    """Fold ``max_depth`` into a convolution; only a ReLU is between, which commutes with a positive factor."""
    names = [f"{name}.{param}" for param in ("weight", "bias") if f"{name}.{param}" in renamed.tensors]
    note = f"times max_depth, {factor:g}"
    return renamed.with_tensors({key: renamed.tensors[key] * factor for key in names}, note)


def _taps(backbone: Plain, depth: int) -> tuple[int, ...] | None:
    """0-based indices of the tapped blocks: stage 1 is block 0, and negative numbers count from the last."""
    indices = backbone.get("out_indices")
    if indices is None and backbone.get("out_features"):
        indices = [int(str(stage).removeprefix("stage")) for stage in backbone["out_features"]]
    return tuple(index + depth if index < 0 else index - 1 for index in indices) if indices else None


def _labels(config: Plain) -> list[Any]:
    """Class names by index, unless they are the library's placeholders."""
    names: Any = config.get("id2label")
    if not isinstance(names, dict) or not all(str(key).isdigit() for key in names):
        return []
    ordered = [names[key] for key in sorted(names, key=int)]
    return [] if all(str(name).startswith("LABEL_") for name in ordered) else ordered


def _preprocessing(source: Source, **published: Any) -> tuple[Plain, WholeProtocol]:
    """The statistics and the resizing of the image processor, or the given ones of the published models."""
    return preprocessing(source.side.get("preprocessor_config.json", {}), source.name, published)


IMPORTER = Importer(
    title="transformers",
    signatures=(("dpt.embeddings.*", "neck.*"), ("backbone.embeddings.*", "neck.*")),
    read=read,
    side_files=("config.json", "preprocessor_config.json"),
)
