"""Names of DPT's decoder that several programs share, and what its shapes tell."""

from typing import Any

from densevit.checkpoints.importers.base import Plain
from densevit.checkpoints.rename import Rule
from densevit.checkpoints.shapes import Shapes

UNUSED_SKIP = "residual unit of the coarsest skip, which has no path to join"
_UNITS = ((1, "skip_unit"), (2, "unit"))


def scratch(prefix: str, head: str) -> tuple[Rule, ...]:
    """Names in isl-org/DPT and Depth Anything, which count levels from 1, finest first."""
    return (
        Rule(f"{prefix}refinenet4.resConfUnit1.{{rest}}", reason=UNUSED_SKIP),
        *(
            rule
            for k in range(4)
            for rule in (
                Rule(f"{prefix}layer{k + 1}_rn.weight", f"{head}.convs.{k}.weight"),
                Rule(f"{prefix}refinenet{k + 1}.out_conv.{{param}}", f"{head}.fusions.{k}.project.{{param}}"),
                *(
                    Rule(f"{prefix}refinenet{k + 1}.resConfUnit{unit}.{{rest}}", f"{head}.fusions.{k}.{name}.{{rest}}")
                    for unit, name in _UNITS
                ),
            )
        ),
    )


def hf_neck(head: str, *, num_stem: int = 0) -> tuple[Rule, ...]:
    """Names in transformers, which counts fusions from the coarsest level; a hybrid lacks the first reassemblies."""
    stage = "neck.reassemble_stage"
    return (
        Rule("neck.fusion_stage.layers.0.residual_layer1.{rest}", reason=UNUSED_SKIP),
        *(
            rule
            for level in range(num_stem, 4)
            for target in (f"{head}.reassemble.{level - num_stem}",)
            for rule in (
                Rule(f"{stage}.layers.{level}.projection.{{param}}", f"{target}.project.{{param}}"),
                Rule(f"{stage}.layers.{level}.resize.{{param}}", f"{target}.resample.{{param}}"),
                Rule(f"{stage}.readout_projects.{level}.0.{{param}}", f"{target}.readout_project.{{param}}"),
            )
        ),
        Rule("neck.convs.{i}.weight", f"{head}.convs.{{i}}.weight"),
        *(
            rule
            for k in range(4)
            for source in (f"neck.fusion_stage.layers.{3 - k}",)
            for rule in (
                Rule(f"{source}.projection.{{param}}", f"{head}.fusions.{k}.project.{{param}}"),
                *(
                    Rule(
                        f"{source}.residual_layer{unit}.{theirs}{{i}}.{{rest}}",
                        f"{head}.fusions.{k}.{name}.{ours}{{i}}.{{rest}}",
                    )
                    for unit, name in _UNITS
                    for theirs, ours in (("convolution", "conv"), ("batch_norm", "bn"))
                ),
            )
        ),
    )


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


def dpt_facts(shapes: Shapes, head: str, *, num_stem: int = 0) -> Plain:
    """What names and shapes tell about the decoder; of the readout only whether it projects."""
    channels = tuple(shapes.of(f"{head}.convs.{level}.weight", 4)[1] for level in range(4))
    facts: dict[str, Any] = {
        "kind": "dpt",
        "channels": channels,
        "fusion_channels": shapes.of(f"{head}.fusions.0.project.weight", 4)[0],
        "batch_norm": shapes.has(f"{head}.fusions.0.unit.bn1.weight"),
        "residual_bias": shapes.has(f"{head}.fusions.0.unit.conv1.bias"),
        "stem_channels": channels[:num_stem],
    }
    if shapes.has(f"{head}.reassemble.0.readout_project.weight"):
        facts["readout"] = "project"
    return facts
