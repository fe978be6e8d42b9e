"""fudan-zvg/SETR, the paper's own code: Naive, PUP and MLA.

Fixed for this program: LayerNorm eps 1e-6, bilinear positions on a square grid, taps without the final norm, ImageNet
statistics, and the tap indices of the two depths that were published.
"""

import re
from typing import Literal

from densevit.checkpoints.importers.base import ImportedParts, Importer, Plain, Source, update
from densevit.checkpoints.importers.class_names import segmentation
from densevit.checkpoints.importers.vit import NORM_NOT_READ, positions, published_heads, timm_vit, without_class_token
from densevit.checkpoints.rename import Renamed, Rule, rename
from densevit.checkpoints.shapes import Shapes, encoder_facts
from densevit.errors import CheckpointError
from densevit.inference_config import WindowProtocol
from densevit.presets import IMAGENET

HEAD = "heads.labels"
Kind = Literal["naive", "pup", "mla"]

UNUSED_CLASSIFIER = "built by the base class of the heads, never called"

# 0-based blocks. Depth -> taps of the auxiliary heads; the main head reads the last block.
AUX_TAPS: dict[Kind, dict[int, tuple[int, ...]]] = {
    "naive": {24: (9, 14, 19), 12: (2, 5, 8)},
    "pup": {24: (9, 14, 19, 23), 12: (4, 7, 9, 11)},
}
MLA_TAPS = {24: (5, 11, 17, 23), 12: (2, 5, 8, 11)}

# Training size -> (long, short) bounds to which the evaluation resizes images, and the stride of its windows.
PROTOCOLS = {512: ((2048, 512), 341), 768: ((2049, 1025), 512), 480: ((520, 520), 320)}


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


UP_RULES: dict[Kind, tuple[Rule, ...]] = {"naive": _up_rules(1), "pup": _up_rules(4)}


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


MLA_RULES = _mla_rules()


def read(source: Source) -> ImportedParts:
    """Import a model whose decoder is recognised by its tensors."""
    mla = source.has("backbone.mla.*")
    kind: Kind = "mla" if mla else "pup" if source.has("decode_head.conv_4.*") else "naive"
    renamed = rename(source.state, MLA_RULES if mla else UP_RULES[kind])
    shapes = Shapes(renamed.tensors, source.name)
    facts = encoder_facts(shapes)
    rule = positions(shapes, facts, mode="bilinear")
    taps, head = _mla(source, shapes, facts) if mla else _up(source, shapes, facts, kind)
    renamed, absorbed = fold_biases(renamed)
    if mla:
        renamed, rule, dropped = without_class_token(renamed, rule)
        absorbed |= dropped
    size = rule["grid"][0] * facts["patch_size"][0]
    base, stride = PROTOCOLS.get(size, (None, size * 2 // 3))
    encoder = facts | {
        **source.require(num_heads=published_heads(facts["embed_dim"], facts["depth"])),
        "norm_eps": source.get("norm_eps", 1e-6),
        "positions": rule,
        "taps": taps,
        "cls_token": not mla,
    }
    return ImportedParts(
        renamed,
        encoder,
        {"labels": head},
        IMAGENET,
        segmentation(head["out_channels"], dataset=source.get("dataset"), denominator="all"),
        base[1] if base else size,
        WindowProtocol(kind="setr", base=base, window=(size, size), stride=(stride, stride)),
        f"fudan-zvg/SETR, {source.file_name or source.name}",
        absorbed,
    )


def _up(source: Source, shapes: Shapes, facts: Plain, kind: Kind) -> tuple[tuple[int, ...], Plain]:
    """The encoder's taps and the head of Naive and PUP, whose main head reads the last block."""
    num_aux = shapes.count(f"{HEAD}.aux_heads.{{}}.")
    published = AUX_TAPS[kind].get(facts["depth"]) if num_aux else ()
    aux = tuple(source.require(aux_taps=published)["aux_taps"])
    if len(aux) != num_aux:
        raise CheckpointError(
            f"{source.name} has {num_aux} auxiliary heads, each of which reads one block, but the blocks {aux} were "
            "given; change --aux-taps (aux_taps=... in Python)"
        )
    num_classes, channels, *_ = shapes.of(f"{HEAD}.head.classifier.weight", 4)
    last = facts["depth"] - 1
    decoder = {"kind": f"setr_{kind}", "channels": channels, "form": "paper", "aux_taps": tuple(range(num_aux))}
    return tuple(sorted({*aux, last})), {"decoder": decoder, "out_channels": num_classes, "taps": (*aux, last)}


def _mla(source: Source, shapes: Shapes, facts: Plain) -> tuple[tuple[int, ...], Plain]:
    """The encoder's taps and the head of MLA."""
    decoder = {
        "kind": "setr_mla",
        "channels": shapes.of(f"{HEAD}.smooths.0.0.weight", 4)[0],
        "head_channels": shapes.of(f"{HEAD}.streams.0.0.0.weight", 4)[0],
        "form": "paper",
        "aux": shapes.has(f"{HEAD}.aux_heads.0.weight"),
    }
    taps = source.require(taps=MLA_TAPS.get(facts["depth"]))["taps"]
    return tuple(taps), {"decoder": decoder, "out_channels": shapes.of(f"{HEAD}.classifier.weight", 4)[0]}


def fold_biases(renamed: Renamed) -> tuple[Renamed, dict[str, tuple[int, str]]]:
    """Subtract the bias of every convolution from the running mean of its batch norm, which gives the same values."""
    folded, notes, absorbed = {}, {}, {}
    biases = [name for name in renamed.tensors if re.fullmatch(r".*\.convs\.\d+\.0\.bias", name)]
    for name in biases:
        mean = name.removesuffix("0.bias") + "1.running_mean"
        bias, old = renamed.tensors[name], renamed.tensors.get(mean)
        if old is None or old.shape != bias.shape:
            continue  # require_total reports it
        folded[mean], notes[mean] = old - bias, "less the bias of the convolution before it"
        absorbed[renamed.sources[name][0]] = (bias.numel(), "folded into the running mean after it")
    return update(renamed, folded, notes, *biases), absorbed


IMPORTER = Importer("fudan-zvg/SETR", marks=(("backbone.patch_embed.proj.weight", "decode_head.*"),), read=read)
