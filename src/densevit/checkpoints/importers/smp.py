"""segmentation_models.pytorch's DPT on a ViT of timm ("tu-vit_..."), with the config.json of ``save_pretrained``.

Fixed for this program: taps before the final norm, a residual unit on the coarsest level too, batch norm, upsampling by
two with align_corners=True, positions resampled as timm does. It has no inference code, and stores no statistics
of images: those of the encoder's pre-training are assumed. With one output channel, whose sigmoid its users compare
with a half, a channel of zeros is added for the background: the labels and the probabilities are the same.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densevit.checkpoints.encoder_kinds import refuse_other_kinds
from densevit.checkpoints.encoder_names import split_positions, stored_tokens, with_zero_biases
from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, segmentation
from densevit.checkpoints.importers.dpt_rules import UNITS, dpt_from_shapes, segmentation_head
from densevit.checkpoints.importers.keys import check_keys
from densevit.checkpoints.importers.smp_keys import CONFIG
from densevit.checkpoints.importers.vit import NORM_NOT_READ, published_heads, timm_vit
from densevit.checkpoints.rename import Renamed, Rule
from densevit.checkpoints.shapes import Shapes
from densevit.checkpoints.timm_names import Architecture, architecture_of
from densevit.errors import CheckpointError
from densevit.presets import HALF
from densevit.types import Size

HEAD = "heads.labels"
NUM_LEVELS = 4
READOUTS = {"cat": "project", "add": "add", "ignore": "ignore"}
_log = logging.getLogger(__name__)


def _rules() -> tuple[Rule, ...]:
    rules = [
        Rule("encoder.model.norm.{param}", reason=NORM_NOT_READ),
        *timm_vit("encoder.model."),
        *segmentation_head("segmentation_head.head", f"{HEAD}.head"),
        Rule("classification_head.{rest}", reason="a classifier of whole images"),
        Rule("decoder.projection_blocks.{i}.project.0.{param}", f"{HEAD}.reassemble.{{i}}.readout_project.{{param}}"),
    ]
    block = "decoder.reassemble_blocks.{i}"
    rules += [
        Rule(f"{block}.project_to_out_channel.{{param}}", f"{HEAD}.reassemble.{{i}}.project.{{param}}"),
        Rule(f"{block}.upsample.{{param}}", f"{HEAD}.reassemble.{{i}}.resample.{{param}}"),
        Rule(f"{block}.project_to_feature_dim.weight", f"{HEAD}.convs.{{i}}.weight"),
    ]
    for level in range(NUM_LEVELS):  # fusions are counted from the coarsest level there
        fusion, target = f"decoder.fusion_blocks.{NUM_LEVELS - 1 - level}", f"{HEAD}.fusions.{level}"
        rules.append(Rule(f"{fusion}.project.{{param}}", f"{target}.project.{{param}}"))
        for number, unit in UNITS.items():
            layer = f"{fusion}.residual_conv_block{number}"
            rules.append(Rule(f"{layer}.conv_{{i}}.weight", f"{target}.{unit}.conv{{i}}.weight"))
            rules.append(Rule(f"{layer}.batch_norm_{{i}}.{{rest}}", f"{target}.{unit}.bn{{i}}.{{rest}}"))
    return tuple(rules)


RULES = _rules()


def read(source: Source) -> ImportedParts:
    """Import a model on an encoder that the config names, or on a plain ViT without rotary positions."""
    config = dict(source.side.get("config.json", {}))
    check_keys(config, CONFIG, where="config.json", source=source.name, program="segmentation_models.pytorch")
    name = str(config.get("encoder_name") or "").removeprefix("tu-")
    known = architecture_of(name, source.name) if name else None
    refuse_other_kinds(source.state, source.name, None if known is None else known.rotary)
    completed = replace(source, state=with_zero_biases(source.state))
    renamed, shapes, encoder = completed.renamed(RULES)
    added = sum(t.numel() for key, t in completed.state.items() if key not in source.state)
    renamed = replace(renamed, absorbed=-added)
    encoder |= _encoder(source, shapes, config, known, encoder)
    decoder = _decoder(source, shapes, config, encoder)
    renamed, num_classes = _two_classes(renamed, shapes, config, source)
    task = segmentation(num_classes, dataset=source.get("dataset"))
    heads = {"labels": {"decoder": decoder, "out_channels": num_classes}}
    short_side = _short_side(config, encoder)
    _log.warning(
        "%s does not say by which mean and deviation images were normalised; those of %s are taken",
        *(source.name, name or "most ViTs of timm, 0.5,"),
    )
    normalisation = dict(known.normalisation if known else HALF)
    provenance = f"segmentation_models.pytorch, {source.file_name or source.name}"
    return ImportedParts(renamed, encoder, heads, normalisation, task, short_side, None, provenance)


def _encoder(source: Source, shapes: Shapes, config: Plain, known: Architecture | None, encoder: Plain) -> Plain:
    """What is to be added to the encoder's config that shapes tell."""
    dim, depth = encoder["embed_dim"], encoder["depth"]
    if encoder["in_channels"] != 3:
        raise CheckpointError(
            f"{source.name} takes {encoder['in_channels']} channels, but segmentation_models.pytorch stores no "
            "statistics of images, so only those of RGB are known; run the model with segmentation_models.pytorch"
        )
    if known is None and encoder["pre_norm"]:
        raise CheckpointError(
            f"{source.name} has an encoder of CLIP's kind, whose activation no tensor tells; put the config.json of "
            "save_pretrained next to it"
        )
    heads = config.get("num_heads")
    if heads is None and "embed_dim" not in config:  # of another width, the name's own number of heads is kept
        heads = dim // known.head_dim if known else published_heads(dim, depth)
    facts = source.require(
        num_heads=heads,
        taps=_taps(config["encoder_output_indices"], depth) if "encoder_output_indices" in config else None,
        norm_eps=None if known is None else known.norm_eps,
    )
    if known is not None:
        facts["activation"] = known.activation
    tensors = {name.removeprefix("encoder."): t for name, t in shapes.tensors.items() if name.startswith("encoder.")}
    facts["num_registers"] = sum(name == "reg_token" for name, _ in stored_tokens(tensors))
    rotary = None if known is None else known.rotary
    if not shapes.has("encoder.pos_embed"):
        if rotary is None:
            raise CheckpointError(
                f"{source.name} has an encoder without position embeddings, and its config.json names none that has "
                "rotary ones; put the config.json of save_pretrained next to it"
            )
        return facts | {"positions": rotary}
    rows = shapes.of("encoder.pos_embed", 3)[1]
    grids = (_grid(config.get("img_size") or source.get("image_size"), encoder["patch_size"]), None)
    num_prefix, grid = split_positions(rows, stored_tokens(tensors), source.name, grids=grids)
    rule = {"kind": "learned", "grid": grid, "num_prefix": num_prefix, "antialias": True, "rotary": rotary}
    return facts | {"positions": rule}


def _grid(image_size: Any, patch_size: Size) -> Size | None:
    """The token grid of an image size, a number or a pair."""
    if image_size is None:
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height // patch_size[0], width // patch_size[1]


def _taps(indices: Any, depth: int) -> tuple[int, ...]:
    """The tapped blocks: evenly spread by default; timm returns them in ascending order, however they are listed."""
    if indices is None:
        indices = [depth * level // NUM_LEVELS - 1 for level in range(1, NUM_LEVELS + 1)]
    return tuple(sorted({index + depth if index < 0 else index for index in indices}))


def _decoder(source: Source, shapes: Shapes, config: Plain, encoder: Plain) -> Plain:
    levels = shapes.count(f"{HEAD}.reassemble.{{}}.")
    patch = encoder["patch_size"][0]
    if levels != NUM_LEVELS or len(encoder["taps"]) != NUM_LEVELS:
        raise CheckpointError(
            f"{source.name} has a decoder of {levels} levels on {len(encoder['taps'])} blocks, but only "
            f"{NUM_LEVELS} on {NUM_LEVELS} can be reproduced; run the model with segmentation_models.pytorch"
        )
    if patch not in (4, 8, 16, 32) or encoder["patch_size"][1] != patch:
        raise CheckpointError(
            f"{source.name} has patches of {patch} x {encoder['patch_size'][1]} pixels, at which the levels of its "
            "decoder do not have whole factors; only 4, 8, 16 and 32 can be reproduced"
        )
    decoder = dpt_from_shapes(shapes, HEAD)
    num_prefix = int(encoder["cls_token"]) + int(encoder["dist_token"]) + encoder["num_registers"]
    projects = decoder.get("readout") == "project"
    stated = READOUTS.get(str(config["decoder_readout"])) if "decoder_readout" in config else None
    readout = "project" if projects else source.require(readout=stated)["readout"]
    if projects and shapes.of(f"{HEAD}.reassemble.0.readout_project.weight", 2)[1] == encoder["embed_dim"]:
        raise CheckpointError(
            f"{source.name} has decoder_readout 'cat' on an encoder without prefix tokens, and so a layer that DPT "
            "does not have; run the model with segmentation_models.pytorch"
        )
    if readout == "add" and num_prefix == 0:
        readout = "ignore"  # as there
    return decoder | {
        "factors": [patch / 2**level for level in range(2, NUM_LEVELS + 2)],
        "readout": readout,
        "num_readout": max(num_prefix, 1),
        "coarsest_unit": True,
        "head": {"kind": "segmentation"},
    }


def _two_classes(renamed: Renamed, shapes: Shapes, config: Plain, source: Source) -> tuple[Renamed, int]:
    """The number of classes; a single channel becomes the second of two."""
    name = f"{HEAD}.head.classifier"
    num_channels = shapes.of(f"{name}.weight", 4)[0]
    activation = config.get("activation")
    harmless = (
        (None, "identity", "softmax", "softmax2d", "logsoftmax") if num_channels > 1 else (None, "identity", "sigmoid")
    )
    if activation not in harmless:
        raise CheckpointError(
            f"{source.name} has activation={activation!r} on {num_channels} channels by its config.json; only one "
            "label for each pixel can be reproduced; run the model with segmentation_models.pytorch"
        )
    if num_channels > 1:
        return renamed, num_channels
    tensors = {f"{name}.{param}": renamed.tensors[f"{name}.{param}"] for param in ("weight", "bias")}
    widened: Mapping[str, Tensor] = {key: torch.cat((torch.zeros_like(t), t)) for key, t in tensors.items()}
    note = "zeros for the background"
    return renamed.with_tensors(widened, note, absorbed=-sum(t.numel() for t in tensors.values())), 2


def _short_side(config: Plain, encoder: Plain) -> int:
    """Of the training images as far as they are known: 512 where neither the config nor learned positions tell."""
    rule: Any = encoder["positions"]
    grid = _grid(config.get("img_size"), encoder["patch_size"])
    if grid is None and isinstance(rule, dict):
        grid = rule["grid"]
    return 512 if grid is None else min(n * p for n, p in zip(grid, encoder["patch_size"], strict=True))


IMPORTER = Importer(
    "segmentation_models.pytorch",
    signatures=(("encoder.model.patch_embed.*", "decoder.reassemble_blocks.*", "segmentation_head.head.*"),),
    read=read,
    side_files=("config.json",),
)
