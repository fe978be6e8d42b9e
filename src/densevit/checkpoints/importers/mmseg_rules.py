"""Names of mmsegmentation's heads. SETR-MLA from its neck on, and DPT's fusion, list the deepest level first."""

from functools import partial
from itertools import chain

import torch

from densevit.checkpoints.encoder_names import MMSEG_BLOCK
from densevit.checkpoints.importers.dpt_rules import openmmlab
from densevit.checkpoints.importers.mmseg_keys import Kind
from densevit.checkpoints.importers.setr_paper import HEAD
from densevit.checkpoints.importers.vit import MMSEG_VIT
from densevit.checkpoints.rename import Renamed, Rule, prefixed


def _conv_bn(source: str, target: str) -> tuple[Rule, Rule]:
    """mmcv's ConvModule -> our pair of convolution and batch norm."""
    return (
        Rule(f"{source}.conv.weight", f"{target}.0.weight"),
        Rule(f"{source}.bn.{{statistic}}", f"{target}.1.{{statistic}}"),
    )


def _up_head(source: str, target: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{source}.norm.{{param}}", f"{target}.norm.{{param}}"),
        *_conv_bn(f"{source}.up_convs.{{i}}.0", f"{target}.convs.{{i}}"),
        Rule(f"{source}.conv_seg.{{param}}", f"{target}.classifier.{{param}}"),
    )


def _dpt_head() -> tuple[Rule, ...]:
    return (
        *openmmlab("decode_head", HEAD),
        *_conv_bn("decode_head.project", f"{HEAD}.head.conv"),
        Rule("decode_head.conv_seg.{param}", f"{HEAD}.head.classifier.{{param}}"),
    )


_AS_LINEAR = partial(torch.flatten, start_dim=1)
_HEADS: dict[Kind, tuple[Rule, ...]] = {
    "up": (
        *_up_head("decode_head", f"{HEAD}.head"),
        *_up_head("auxiliary_head.{k}", f"{HEAD}.aux_heads.{{k}}"),
    ),
    "mla": (
        Rule("neck.norm.{i}.{param}", f"{HEAD}.norms.{{i}}.{{param}}"),
        *_conv_bn("neck.mla.channel_proj.{i}", f"{HEAD}.laterals.{{i}}"),
        *chain(*(_conv_bn(f"neck.mla.feat_extract.{3 - k}", f"{HEAD}.smooths.{k}") for k in range(4))),
        *chain(*(_conv_bn(f"decode_head.up_convs.{3 - k}.{{i}}", f"{HEAD}.streams.{k}.{{i}}") for k in range(4))),
        Rule("decode_head.conv_seg.{param}", f"{HEAD}.classifier.{{param}}"),
        *(Rule(f"auxiliary_head.{3 - k}.conv_seg.{{param}}", f"{HEAD}.aux_heads.{k}.{{param}}") for k in range(4)),
    ),
    "mask": (
        Rule("decode_head.cls_emb", f"{HEAD}.class_tokens"),
        Rule("decode_head.dec_proj.{param}", f"{HEAD}.proj_dec.{{param}}"),
        *prefixed(MMSEG_BLOCK, "decode_head.", f"{HEAD}."),
        Rule("decode_head.decoder_norm.{param}", f"{HEAD}.norm.{{param}}"),
        Rule("decode_head.patch_proj.weight", f"{HEAD}.proj_patch.weight"),
        Rule("decode_head.classes_proj.weight", f"{HEAD}.proj_classes.weight"),
        Rule("decode_head.mask_norm.{param}", f"{HEAD}.mask_norm.{{param}}"),
    ),
    "linear": (
        Rule("decode_head.conv_seg.weight", f"{HEAD}.head.weight", convert=_AS_LINEAR, note="1x1 convolution there"),
        Rule("decode_head.conv_seg.bias", f"{HEAD}.head.bias"),
    ),
    "dpt": _dpt_head(),
}
RULES = {kind: (*MMSEG_VIT, *rules) for kind, rules in _HEADS.items()}


def reverse_streams(renamed: Renamed) -> Renamed:
    """Reorder the input of SETR-MLA's classifier: four streams, deepest first there and last here."""
    name = f"{HEAD}.classifier.weight"
    weight = renamed.tensors.get(name)
    if weight is None or weight.ndim != 4 or weight.shape[1] % 4:
        return renamed  # require_total reports it
    reversed_ = torch.cat(weight.chunk(4, dim=1)[::-1], dim=1)
    return renamed.with_tensors({name: reversed_}, "input channels in our order of levels")
