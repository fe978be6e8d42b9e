"""fudan-zvg/SETR, the paper's own code: Naive, PUP and MLA.

Fixed for this program: LayerNorm eps 1e-6, bilinear positions on a square grid, taps without the final norm, ImageNet
statistics, and the tap indices of the two depths that were published.
"""

import re
from typing import Literal

from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, segmentation
from densevit.checkpoints.importers.vit import NORM_NOT_READ, positions, published_heads, timm_vit, without_class_token
from densevit.checkpoints.rename import Renamed, Rule
from densevit.checkpoints.shapes import Shapes
from densevit.errors import CheckpointError
from densevit.inference_config import WindowProtocol
from densevit.presets import ADE20K, CITYSCAPES, IMAGENET, PASCAL_CONTEXT

HEAD = "heads.labels"
Kind = Literal["naive", "pup", "mla"]
UNUSED_CLASSIFIER = "built by the base class of the heads, never called"

# Side of the training images -> bounds of the resize and stride of the windows.
WINDOWS = {data.image: data for data in (ADE20K, CITYSCAPES, PASCAL_CONTEXT)}

# Depth -> 0-based blocks: the taps of MLA, and of the auxiliary heads of the others, whose main head reads the last.
MLA_TAPS = {24: (5, 11, 17, 23), 12: (2, 5, 8, 11)}
AUX_TAPS: dict[Kind, dict[int, tuple[int, ...]]] = {
    "naive": {24: (9, 14, 19), 12: (2, 5, 8)},
    "pup": {24: (9, 14, 19, 23), 12: (4, 7, 9, 11)},
}


def _up_head(source: str, target: str, num_convs: int) -> tuple[Rule, ...]:
    """Names of a head whose convolution number ``num_convs`` is the classifier."""
    return (
        Rule(f"{source}.norm.{{param}}", f"{target}.norm.{{param}}"),
        Rule(f"{source}.conv_{num_convs}.{{param}}", f"{target}.classifier.{{param}}"),
        Rule(f"{source}.conv_{{i}}.{{param}}", f"{target}.convs.{{i}}.0.{{param}}"),
        Rule(f"{source}.syncbn_fc_{{i}}.{{statistic}}", f"{target}.convs.{{i}}.1.{{statistic}}"),
        Rule(f"{source}.conv_seg.{{param}}", reason=UNUSED_CLASSIFIER),
    )


ENCODER = (Rule("backbone.norm.{param}", reason=NORM_NOT_READ), *timm_vit("backbone."))


def _up_rules(num_convs: int) -> tuple[Rule, ...]:
    """Names of the main head and of the auxiliary heads, which have one convolution in both decoders."""
    return (
        *ENCODER,
        *_up_head("decode_head", f"{HEAD}.head", num_convs),
        *_up_head("auxiliary_head.{k}", f"{HEAD}.aux_heads.{{k}}", 1),
    )


def _mla_rules() -> tuple[Rule, ...]:
    """Names of SETR-MLA, which numbers levels from 2 to 5, shallowest first."""
    rules = [
        *ENCODER,
        Rule("backbone.norm_{i}.{param}", f"{HEAD}.norms.{{i}}.{{param}}"),
        Rule("decode_head.cls.{param}", f"{HEAD}.classifier.{{param}}"),
        Rule("decode_head.conv_seg.{param}", reason=UNUSED_CLASSIFIER),
        Rule("auxiliary_head.{k}.aux.weight", f"{HEAD}.aux_heads.{{k}}.weight"),
        Rule("auxiliary_head.{k}.conv_seg.{param}", reason=UNUSED_CLASSIFIER),
    ]
    for k in range(4):
        rules.append(Rule(f"backbone.mla.mla_p{k + 2}_1x1.{{i}}.{{rest}}", f"{HEAD}.laterals.{k}.{{i}}.{{rest}}"))
        rules.append(Rule(f"backbone.mla.mla_p{k + 2}.{{i}}.{{rest}}", f"{HEAD}.smooths.{k}.{{i}}.{{rest}}"))
        # Convolution, batch norm, ReLU, convolution, batch norm.
        for number, layer in {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1"}.items():
            source = f"decode_head.mlahead.head{k + 2}.{number}"
            rules.append(Rule(f"{source}.{{rest}}", f"{HEAD}.streams.{k}.{layer}.{{rest}}"))
    return tuple(rules)


RULES: dict[Kind, tuple[Rule, ...]] = {"naive": _up_rules(1), "pup": _up_rules(4), "mla": _mla_rules()}


def read(source: Source) -> ImportedParts:
    """Import a model whose decoder is recognised by its tensors."""
    kind: Kind = "pup" if source.has("decode_head.conv_4.*") else "naive"
    if source.has("backbone.mla.*"):
        kind = "mla"
    renamed, shapes, encoder = source.renamed(RULES[kind])
    renamed = fold_biases(renamed)
    depth = encoder["depth"]
    rule = positions(shapes, encoder, mode="bilinear")
    head = setr_head(shapes, kind, "paper")
    if kind == "mla":
        taps = tuple(source.require(taps=MLA_TAPS.get(depth))["taps"])
        renamed, rule = without_class_token(renamed, rule)
    else:
        head["taps"] = (*_aux_blocks(source, kind, depth, len(head["decoder"]["aux_taps"])), depth - 1)
        taps = tuple(sorted(set(head["taps"])))
    size = rule["grid"][0] * encoder["patch_size"][0]
    published = WINDOWS.get(size)
    base, stride = (published.base, published.stride) if published else (None, size * 2 // 3)
    encoder |= {
        **source.require(num_heads=published_heads(encoder["embed_dim"], depth)),
        "norm_eps": source.get("norm_eps", 1e-6),
        "positions": rule,
        "taps": taps,
        "cls_token": kind != "mla",
    }
    task = segmentation(head["out_channels"], dataset=source.get("dataset"), denominator="all")
    short_side = base[1] if base else size
    protocol = WindowProtocol(kind="setr", base=base, window=(size, size), stride=(stride, stride))
    provenance = f"fudan-zvg/SETR, {source.file_name or source.name}"
    return ImportedParts(renamed, encoder, {"labels": head}, IMAGENET, task, short_side, protocol, provenance)


def setr_head(shapes: Shapes, kind: Kind, form: Literal["paper", "mmseg"]) -> Plain:
    """The head's config without its taps; the auxiliary heads of Naive and PUP read the first of them in order."""
    if kind == "mla":
        classifier = f"{HEAD}.classifier.weight"
        decoder: Plain = {
            "channels": shapes.of(f"{HEAD}.smooths.0.0.weight", 4)[0],
            "head_channels": shapes.of(f"{HEAD}.streams.0.0.0.weight", 4)[0],
            "aux": shapes.has(f"{HEAD}.aux_heads.0.weight"),
        }
    else:
        classifier = f"{HEAD}.head.classifier.weight"
        num_aux = shapes.count(f"{HEAD}.aux_heads.{{}}.")
        decoder = {"channels": shapes.of(classifier, 4)[1], "aux_taps": tuple(range(num_aux))}
    decoder |= {"kind": f"setr_{kind}", "form": form}
    return {"decoder": decoder, "out_channels": shapes.of(classifier, 4)[0]}


def _aux_blocks(source: Source, kind: Kind, depth: int, num_aux: int) -> tuple[int, ...]:
    """The block that each auxiliary head of Naive or PUP reads."""
    blocks = tuple(source.require(aux_taps=AUX_TAPS[kind].get(depth) if num_aux else ())["aux_taps"])
    if len(blocks) != num_aux:
        raise CheckpointError(
            f"{source.name} has {num_aux} auxiliary heads, each of which reads one block, but the blocks {blocks} were "
            "given; change --aux-taps of `densevit convert` (aux_taps=... in Python)"
        )
    return blocks


def fold_biases(renamed: Renamed) -> Renamed:
    """Subtract the bias of every convolution from the running mean of its batch norm, which gives the same values."""
    folded, absorbed = {}, 0
    biases = [name for name in renamed.tensors if re.fullmatch(r".*\.convs\.\d+\.0\.bias", name)]
    for name in biases:
        mean = name.removesuffix("0.bias") + "1.running_mean"
        bias, old = renamed.tensors[name], renamed.tensors.get(mean)
        if old is None or old.shape != bias.shape:
            continue  # require_total reports it
        folded[mean] = old - bias
        absorbed += bias.numel()
    return renamed.with_tensors(folded, "less the bias of the convolution before it", drop=biases, absorbed=absorbed)


IMPORTER = Importer(
    "fudan-zvg/SETR",
    signatures=tuple(("backbone.patch_embed.proj.weight", head) for head in ("decode_head.conv_0.*", "backbone.mla.*")),
    read=read,
)
