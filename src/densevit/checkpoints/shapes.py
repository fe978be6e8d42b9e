"""What the shapes of a checkpoint's tensors tell about its model."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from densevit.errors import CheckpointError


class Shapes:
    """Shapes of renamed tensors; a tensor that is absent or has another number of axes is an error of the file."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self.tensors = tensors
        self.source = source

    def of(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            CheckpointError: if it is absent, empty, or has another number of axes.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.ndim != ndim or not tensor.numel():
            problem = "no such tensor" if tensor is None else f"the shape {tuple(tensor.shape)}"
            raise CheckpointError(
                f"{self.source} has {problem} for {name}, which needs {ndim} axes; the file is incomplete or of "
                "another model; download it again"
            )
        return tuple(tensor.shape)

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self.tensors

    def count(self, template: str) -> int:
        """Number of indices n for which ``template.format(n)`` begins a name; they must run from 0.

        Raises:
            CheckpointError: if there are gaps.
        """
        head, tail = (re.escape(part) for part in template.split("{}"))
        indices = {int(match[1]) for name in self.tensors if (match := re.match(rf"{head}(\d+){tail}", name))}
        if indices != set(range(len(indices))):
            raise CheckpointError(
                f"{self.source} has {template.format('N')} for N = {', '.join(map(str, sorted(indices)[:8]))}, but "
                "they must run from 0 without gaps; the file is incomplete; download it again"
            )
        return len(indices)


def encoder_from_shapes(shapes: Shapes, prefix: str = "encoder.") -> dict[str, Any]:
    """The part of an ``EncoderConfig`` that shapes tell: all but heads, taps, positions, activation and epsilon."""
    (dim,) = shapes.of(f"{prefix}blocks.0.norm1.weight", 1)
    hidden_rows, _ = shapes.of(f"{prefix}blocks.0.mlp.fc1.weight", 2)
    _, hidden_dim = shapes.of(f"{prefix}blocks.0.mlp.fc2.weight", 2)
    _, in_channels, *patch_size = shapes.of(f"{prefix}patch_embed.proj.weight", 4)
    encoder: dict[str, Any] = {
        "embed_dim": dim,
        "depth": shapes.count(f"{prefix}blocks.{{}}."),
        "patch_size": tuple(patch_size),
        "in_channels": in_channels,
        "mlp": "swiglu" if hidden_rows == 2 * hidden_dim else "mlp",
        "mlp_ratio": mlp_ratio(hidden_dim, dim),
        "pre_norm": shapes.has(f"{prefix}norm_pre.weight"),
        "patch_bias": shapes.has(f"{prefix}patch_embed.proj.bias"),
        "qkv_bias": shapes.has(f"{prefix}blocks.0.attn.qkv.bias"),
        "attn_norm": shapes.has(f"{prefix}blocks.0.attn.norm.weight"),
        "mlp_norm": shapes.has(f"{prefix}blocks.0.mlp.norm.weight"),
        "layer_scale": 1.0 if shapes.has(f"{prefix}blocks.0.ls1.gamma") else None,  # the weights overwrite it
        "cls_token": shapes.has(f"{prefix}cls_token"),
        "dist_token": shapes.has(f"{prefix}dist_token"),
    }
    if shapes.has(f"{prefix}patch_embed.stem_conv.weight"):
        stem_channels, in_channels, *_ = shapes.of(f"{prefix}patch_embed.stem_conv.weight", 4)
        stages = [f"{prefix}patch_embed.stages.{stage}" for stage in range(3)]
        encoder["stem"] = {
            "layers": tuple(shapes.count(f"{stage}.{{}}.") for stage in stages),
            "channels": tuple(shapes.of(f"{stage}.0.conv3.weight", 4)[0] for stage in stages),
            "stem_channels": stem_channels,
        }
        encoder |= {"patch_size": (16, 16), "in_channels": in_channels}
    return encoder


def mlp_ratio(hidden_dim: int, dim: int) -> float:
    """The mlp_ratio that gives exactly ``hidden_dim`` when multiplied by ``dim`` and rounded down."""
    ratio = hidden_dim / dim
    return ratio if int(dim * ratio) == hidden_dim else math.nextafter(ratio, math.inf)
