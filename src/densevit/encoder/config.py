"""The config of the encoder."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from densevit.blocks import Activation, MlpKind
from densevit.config import Config, PositiveWidth, bounded
from densevit.encoder.hybrid import HybridStem
from densevit.encoder.positions import LearnedPositions, RotaryPositions

Width = Literal["Ti", "S", "B", "L", "g"]

NAMED_SIZES: dict[Width, dict[str, int]] = {
    "Ti": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "S": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "B": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "L": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "g": {"embed_dim": 1536, "depth": 40, "num_heads": 24},
}


class EncoderConfig(Config):
    """A plain ViT.

    Attributes:
        depth: blocks of the full model; those after the last tap are not built.
        norm_eps: epsilon of every LayerNorm. Codebases differ (1e-12 to 1e-5), and so do their outputs.
        pre_norm: whether there is a LayerNorm before the first block (CLIP).
        attn_norm: whether attention has a LayerNorm before its projection (EVA-02 of CLIP), after NormFormer.
        mlp_norm: whether a SwiGLU has one before its last layer (EVA-02 B and L).
        layer_scale: initial value of LayerScale, or none.
        taps: 0-based indices of the blocks whose outputs are returned, increasing.
        final_norm: whether taps pass through the final LayerNorm (Segmenter, DINOv2) or are the raw residual stream
            (SETR, DPT).
        final_norm_eps: epsilon of the final LayerNorm where it is not ``norm_eps`` (Depth Anything 3).
        drop_path: rate at the last block of the full model, growing linearly from 0 at the first.
        stem: DPT-Hybrid's convolutional stem instead of the patch projection.
    """

    embed_dim: PositiveWidth
    depth: Annotated[int, Field(gt=0), bounded("blocks")]
    num_heads: int = Field(gt=0)
    patch_size: tuple[PositiveWidth, PositiveWidth] = (16, 16)
    in_channels: PositiveWidth = 3
    mlp: MlpKind = "mlp"
    mlp_ratio: Annotated[float, bounded("width")] = Field(default=4.0, gt=0)
    activation: Activation = "gelu"
    norm_eps: float = Field(default=1e-6, gt=0)
    pre_norm: bool = False
    patch_bias: bool = True
    qkv_bias: bool = True
    attn_norm: bool = False
    mlp_norm: bool = False
    layer_scale: float | None = None
    cls_token: bool = True
    dist_token: bool = False
    num_registers: Annotated[int, bounded("width")] = Field(default=0, ge=0)
    positions: Annotated[LearnedPositions | RotaryPositions, Field(discriminator="kind")]
    taps: tuple[int, ...] = Field(min_length=1)
    final_norm: bool = False
    final_norm_eps: float | None = Field(default=None, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    stem: HybridStem | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        if list(self.taps) != sorted(set(self.taps)) or self.taps[0] < 0 or self.taps[-1] >= self.depth:
            raise ValueError(f"taps {self.taps} must be increasing block indices in 0..{self.depth - 1}")
        if isinstance(self.positions, LearnedPositions) and self.positions.num_prefix > self.num_prefix:
            raise ValueError(
                f"positions.num_prefix {self.positions.num_prefix} exceeds {self.num_prefix} prefix tokens"
            )
        if self.rotary is not None and (self.embed_dim // self.num_heads) % 4:
            raise ValueError("rotary positions need a head width that is a multiple of 4")
        if self.final_norm_eps is not None and not self.final_norm:
            raise ValueError("final_norm_eps is of the final norm, which final_norm leaves out; leave it out too")
        if self.mlp_norm and self.mlp != "swiglu":
            raise ValueError("mlp_norm is of the feed-forward 'swiglu' only; leave it out")
        if self.stem is not None and self.patch_size != (16, 16):
            raise ValueError("the hybrid stem has stride 16; patch_size must be 16")
        return self

    @model_validator(mode="before")
    @classmethod
    def _square_patch(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("patch_size"), int):
            return data | {"patch_size": (data["patch_size"], data["patch_size"])}
        return data

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.embed_dim // self.num_heads

    @property
    def rotary(self) -> RotaryPositions | None:
        """The rotary embedding, be it the only one or in addition to learned positions; None if there is none."""
        return self.positions if isinstance(self.positions, RotaryPositions) else self.positions.rotary

    @property
    def num_prefix(self) -> int:
        """Number of class, distillation and register tokens."""
        return int(self.cls_token) + int(self.dist_token) + self.num_registers


def vit_config(
    width: Width, *, patch_size: int = 16, image_size: int = 224, taps: tuple[int, ...] | None = None, **facts: object
) -> EncoderConfig:
    """The config of a named size, with learned positions for square images; by default the last block is the tap."""
    size = NAMED_SIZES[width]
    grid = image_size // patch_size
    defaults: dict[str, object] = {
        **size,
        "patch_size": patch_size,
        "positions": {"kind": "learned", "grid": (grid, grid)},
        "taps": taps or (size["depth"] - 1,),
    }
    return EncoderConfig.parse(defaults | facts, source=f"ViT-{width}/{patch_size}")
