"""Names of DPT's decoder that several programs share, and what its shapes tell."""

from typing import Any

from densevit.checkpoints.importers.base import Plain
from densevit.checkpoints.rename import Rule
from densevit.checkpoints.shapes import Shapes

UNUSED_SKIP = "residual unit of the coarsest skip, which has no path to join"
UNITS = {1: "skip_unit", 2: "unit"}


def scratch(prefix: str, head: str) -> list[Rule]:
    """Names in isl-org/DPT and Depth Anything, which count levels from 1, finest first."""
    rules = [Rule(f"{prefix}refinenet4.resConfUnit1.{{rest}}", reason=UNUSED_SKIP)]
    for k in range(4):
        source, target = f"{prefix}refinenet{k + 1}", f"{head}.fusions.{k}"
        rules.append(Rule(f"{prefix}layer{k + 1}_rn.weight", f"{head}.convs.{k}.weight"))
        rules.append(Rule(f"{source}.out_conv.{{param}}", f"{target}.project.{{param}}"))
        for number, unit in UNITS.items():
            rules.append(Rule(f"{source}.resConfUnit{number}.{{rest}}", f"{target}.{unit}.{{rest}}"))
    return rules


def hf_neck(head: str, *, num_stem: int = 0) -> list[Rule]:
    """Names in transformers, which counts fusions from the coarsest level; a hybrid lacks the first reassemblies."""
    rules = [
        Rule("neck.fusion_stage.layers.0.residual_layer1.{rest}", reason=UNUSED_SKIP),
        Rule("neck.convs.{i}.weight", f"{head}.convs.{{i}}.weight"),
    ]
    stage = "neck.reassemble_stage"
    for level in range(num_stem, 4):
        target = f"{head}.reassemble.{level - num_stem}"
        rules += [
            Rule(f"{stage}.layers.{level}.projection.{{param}}", f"{target}.project.{{param}}"),
            Rule(f"{stage}.layers.{level}.resize.{{param}}", f"{target}.resample.{{param}}"),
            Rule(f"{stage}.readout_projects.{level}.0.{{param}}", f"{target}.readout_project.{{param}}"),
        ]
    for k in range(4):
        source, target = f"neck.fusion_stage.layers.{3 - k}", f"{head}.fusions.{k}"
        rules.append(Rule(f"{source}.projection.{{param}}", f"{target}.project.{{param}}"))
        for number, unit in UNITS.items():
            layer = f"{source}.residual_layer{number}"
            rules.append(Rule(f"{layer}.convolution{{i}}.{{rest}}", f"{target}.{unit}.conv{{i}}.{{rest}}"))
            rules.append(Rule(f"{layer}.batch_norm{{i}}.{{rest}}", f"{target}.{unit}.bn{{i}}.{{rest}}"))
    return rules


def openmmlab(source: str, head: str) -> list[Rule]:
    """Names of reassembly and fusion in mmsegmentation and DINOv2, which count fusions from the coarsest level."""
    blocks = f"{source}.reassemble_blocks"
    rules = [
        Rule(f"{blocks}.projects.{{i}}.conv.{{param}}", f"{head}.reassemble.{{i}}.project.{{param}}"),
        Rule(f"{blocks}.resize_layers.{{i}}.{{param}}", f"{head}.reassemble.{{i}}.resample.{{param}}"),
        Rule(f"{blocks}.readout_projects.{{i}}.0.{{param}}", f"{head}.reassemble.{{i}}.readout_project.{{param}}"),
        Rule(f"{source}.convs.{{i}}.conv.weight", f"{head}.convs.{{i}}.weight"),
    ]
    for k in range(4):
        fusion, target = f"{source}.fusion_blocks.{3 - k}", f"{head}.fusions.{k}"
        rules.append(Rule(f"{fusion}.project.conv.{{param}}", f"{target}.project.{{param}}"))
        for number, unit in UNITS.items():
            for part in ("conv", "bn"):
                layer = f"{fusion}.res_conv_unit{number}.conv{{i}}.{part}"
                rules.append(Rule(f"{layer}.{{rest}}", f"{target}.{unit}.{part}{{i}}.{{rest}}"))
    return rules


def segmentation_head(source: str, target: str) -> tuple[Rule, ...]:
    """Names of a segmentation head: convolution, batch norm, ReLU, dropout, classifier."""
    return (
        Rule(f"{source}.0.weight", f"{target}.conv.0.weight"),
        Rule(f"{source}.1.{{statistic}}", f"{target}.conv.1.{{statistic}}"),
        Rule(f"{source}.4.{{param}}", f"{target}.classifier.{{param}}"),
    )


def depth_head(source: str, target: str) -> tuple[Rule, ...]:
    """Names of a depth head: three convolutions, upsampling after the first, ReLU after the second."""
    return tuple(
        Rule(f"{source}.{index}.{{param}}", f"{target}.conv{k}.{{param}}") for k, index in ((1, 0), (2, 2), (3, 4))
    )


def dpt_from_shapes(shapes: Shapes, head: str, *, num_stem: int = 0) -> Plain:
    """What names and shapes tell about the decoder; of the readout only whether it projects."""
    channels = tuple(shapes.of(f"{head}.convs.{level}.weight", 4)[1] for level in range(4))
    decoder: dict[str, Any] = {
        "kind": "dpt",
        "channels": channels,
        "fusion_channels": shapes.of(f"{head}.fusions.0.project.weight", 4)[0],
        "batch_norm": shapes.has(f"{head}.fusions.0.unit.bn1.weight"),
        "residual_bias": shapes.has(f"{head}.fusions.0.unit.conv1.bias"),
        "stem_channels": channels[:num_stem],
    }
    if shapes.has(f"{head}.reassemble.0.readout_project.weight"):
        decoder["readout"] = "project"
    return decoder
