"""DPT: tokens are reassembled into maps at four strides and fused from coarse to fine by residual units.

Source: Ranftl et al. 2021, "Vision Transformers for Dense Prediction", section 3. Depth Anything (Yang et al. 2024)
differs in the sizes to which each fusion and the depth head upsample.
"""

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from densevit.config import PositiveWidth, bounded
from densevit.decoders.base import Decoder, DecoderConfig
from densevit.decoders.dpt_heads import DepthHead as DepthHead
from densevit.decoders.dpt_heads import RegressionHead as RegressionHead
from densevit.decoders.dpt_heads import SegmentationHead as SegmentationHead
from densevit.kernels.convolution import Conv2d
from densevit.kernels.linear import Linear
from densevit.layers import ConvBnRelu, ResidualUnit, learned_resampling, resize, upsample
from densevit.types import DenseOutput, Size, Taps
from densevit.upsampling.row_bands import upsample_and_classify

Factor = Annotated[float, Field(ge=1 / 64, le=64)]
BAND_ROWS = 32
"""Rows of its largest maps that a segmentation head computes at once in ``decode_coarse``."""


class DptConfig(DecoderConfig):
    """DPT.

    Attributes:
        channels: widths of the reassembled maps, finest first.
        factors: size of each reassembled map relative to the token grid: a whole number, or 1 over one.
        fusion_channels: width F of the fusion pathway.
        readout: use of the class token: "ignore", "add", or "project" it together with every patch token.
        tap_norm: whether each level has a LayerNorm on its tokens, as in SETR. Not in the paper; frozen encoders whose
            raw taps have channels a hundred times larger than others (CLIP) need it to train well.
        tap_dropout: rate at which whole channels of the tokens are dropped in training, drawn per level and image.
        pool: side of the squares over which patch tokens are averaged first. Not in the paper; a head that sees less
            detail judges the scale of a whole scene better, and costs less.
        num_readout: prefix tokens averaged by "add" (2 for distilled DeiT); "project" reads only the first.
        batch_norm: whether the residual units have batch norm; usual for segmentation.
        residual_bias: whether the residual units' convolutions have biases; by default where there is no batch norm.
        coarsest_unit: whether the coarsest level has a residual unit of its own, as in segmentation_models.pytorch.
        fusion_up_to: upsample by two, or to the size of the next finer level (Depth Anything; any grid).
        stem_channels: widths of the encoder's stem maps, which then are the first levels (DPT-Hybrid).
    """

    kind: Literal["dpt"] = "dpt"
    channels: tuple[PositiveWidth, PositiveWidth, PositiveWidth, PositiveWidth] = (256, 512, 1024, 1024)
    factors: tuple[Factor, Factor, Factor, Factor] = (4, 2, 1, 0.5)
    fusion_channels: Annotated[int, bounded("width")] = Field(default=256, gt=1)
    readout: Literal["ignore", "add", "project"] = "project"
    tap_norm: bool = False
    tap_dropout: float = Field(default=0.0, ge=0, lt=1)
    pool: PositiveWidth = 1
    num_readout: PositiveWidth = 1
    batch_norm: bool = False
    residual_bias: bool | None = None
    coarsest_unit: bool = False
    fusion_up_to: Literal["double", "next_level"] = "next_level"
    stem_channels: tuple[int, ...] = ()
    head: Annotated[SegmentationHead | DepthHead | RegressionHead, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stem_channels and self.stem_channels != self.channels[: len(self.stem_channels)]:
            raise ValueError(f"channels {self.channels} must begin with stem_channels {self.stem_channels}")
        if wrong := [f for f in self.factors if max(f, 1 / f) != round(max(f, 1 / f))]:
            raise ValueError(f"factors {wrong} are neither whole numbers nor 1 over whole numbers")
        return self

    @property
    def num_levels(self) -> int:
        """Number of taps read: four, minus the levels that come from the stem."""
        return 4 - len(self.stem_channels)

    @property
    def num_readout_tokens(self) -> int:
        """Number of prefix tokens read."""
        return {"ignore": 0, "add": self.num_readout, "project": 1}[self.readout]

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Channels of the stem maps read."""
        return self.stem_channels

    @property
    def transformers_upsampling(self) -> int:
        """Factor by which transformers upsamples the logits: DPT's segmentation head there ends with it."""
        return 2 if self.head.kind == "segmentation" else 1


class Reassemble(nn.Module):
    """Tokens to a map at a multiple or a fraction of the token grid: readout, 1x1 projection, resampling."""

    def __init__(self, config: DptConfig, embed_dim: int, level: int) -> None:
        super().__init__()
        self.readout = config.readout
        self.num_readout, self.pool = config.num_readout, config.pool
        channels = config.channels[level]
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6) if config.tap_norm else nn.Identity()
        if self.readout == "project":
            self.readout_project = Linear(2 * embed_dim, embed_dim)
        self.dropout = nn.Dropout2d(config.tap_dropout)
        self.project = Conv2d(embed_dim, channels, 1)
        self.resample = learned_resampling(channels, config.factors[level])

    def forward(self, tokens: Tensor, prefix: Tensor, grid: Size) -> Tensor:
        """Tokens (B, N, C) and prefix (B, P, C) -> (B, channels, h_level, w_level)."""
        tokens, prefix = self.norm(tokens), self.norm(prefix)
        if self.readout == "add":
            tokens = tokens + prefix[:, : self.num_readout].mean(dim=1, keepdim=True)
        elif self.readout == "project":
            pairs = torch.cat((tokens, prefix[:, :1].expand_as(tokens)), dim=-1)  # (B, N, 2 C)
            tokens = F.gelu(self.readout_project(pairs))  # (B, N, C)
        maps = tokens.transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
        if self.pool > 1:
            h, w = (-(-n // self.pool) for n in grid)  # rounded up
            maps = F.adaptive_avg_pool2d(maps, (h, w))  # (B, C, h, w); adaptive, so that an odd grid keeps its extent
        return self.resample(self.project(self.dropout(maps)))


class Fusion(nn.Module):
    """Adds a level to the path, refines and projects; the upsampling that follows has align_corners=True.

    In the paper the 1x1 projection comes after the upsampling. They commute, so outputs agree up to rounding.
    """

    def __init__(self, channels: int, *, batch_norm: bool, bias: bool, skip: bool) -> None:
        super().__init__()
        self.skip_unit = ResidualUnit(channels, batch_norm=batch_norm, bias=bias) if skip else None
        self.unit = ResidualUnit(channels, batch_norm=batch_norm, bias=bias)
        self.project = Conv2d(channels, channels, 1)

    def forward(self, level: Tensor, path: Tensor | None) -> Tensor:
        """Level (B, F, h', w') and path (B, F, h, w), or None for the coarsest level -> (B, F, h, w)."""
        if path is not None:
            level = resize(level, (path.shape[-2], path.shape[-1]), align_corners=False)
        x = level if self.skip_unit is None else self.skip_unit(level)
        return self.project(self.unit(x if path is None else path + x))


class _Segmentation(nn.Module):
    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = ConvBnRelu(channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, image_size: Size) -> Tensor:
        return self.classifier(self.dropout(self.conv(x)))


class _Regression(nn.Module):
    """The convolutions that depth and regression share; depth applies an activation to their output."""

    def __init__(self, channels: int, out_channels: int, config: DepthHead | RegressionHead) -> None:
        super().__init__()
        self.config = config
        depth = config if isinstance(config, DepthHead) else None
        self.projection = Conv2d(channels, channels, 3) if depth and depth.projection else None
        self.conv1 = Conv2d(channels, channels // 2, 3)
        self.conv2 = Conv2d(channels // 2, config.hidden_channels, 3)
        self.conv3 = Conv2d(config.hidden_channels, out_channels, 1)
        if depth and depth.activation == "relu" and self.conv3.bias is not None:
            nn.init.ones_(self.conv3.bias)  # ReLU would give negative initial values no gradient

    def forward(self, x: Tensor, image_size: Size) -> Tensor:
        if self.projection is not None:
            x = self.projection(x, relu=True)
        x = self.conv1(x)  # (B, F / 2, h', w')
        size = image_size if self.config.up_to == "image" else (2 * x.shape[-2], 2 * x.shape[-1])
        x = self.conv3(self.conv2(resize(x, size, align_corners=True), relu=True)).float()  # (B, K, *size)
        config = self.config
        if not isinstance(config, DepthHead):
            return x
        if config.activation == "relu":
            x = F.relu(x)
            x = x + config.min_depth_m if config.min_depth_m else x
        elif config.activation == "sigmoid":
            x = torch.sigmoid(x) * config.max_depth_m
        if config.limit_m is not None:
            x = x.clamp(max=config.limit_m)
        return 1.0 / (config.scale * x + config.shift).clamp(min=1e-8) if config.invert else x


class Dpt(Decoder):
    """Reassemble four levels, fuse them from coarse to fine, and read the finest with a head for the task.

    Differs from the paper: only in what the config says. Differs from mmseg: not at all with fusion_up_to="double" and
    a segmentation head of align_corners=False. The published code builds a residual unit for the coarsest skip and
    never uses it; here it does not exist without coarsest_unit.
    """

    def __init__(self, config: DptConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        width, num_stem = config.fusion_channels, len(config.stem_channels)
        bias = (not config.batch_norm) if config.residual_bias is None else config.residual_bias
        self.fusion_up_to, self.num_stem = config.fusion_up_to, num_stem
        self.reassemble = nn.ModuleList(Reassemble(config, embed_dim, level) for level in range(num_stem, 4))
        self.convs = nn.ModuleList(Conv2d(c, width, 3, bias=False) for c in config.channels)
        self.fusions = nn.ModuleList(
            Fusion(width, batch_norm=config.batch_norm, bias=bias, skip=level < 3 or config.coarsest_unit)
            for level in range(4)
        )
        self.aux = "none"
        if isinstance(config.head, SegmentationHead):
            self.aux, self.align_corners = config.head.aux, config.head.align_corners
            self.head: nn.Module = _Segmentation(width, out_channels, config.head.dropout)
            if self.aux != "none":
                self.aux_head = _Segmentation(width, out_channels, config.head.dropout)
        else:
            self.align_corners = not isinstance(config.head, DepthHead) or config.head.align_corners
            self.head = _Regression(width, out_channels, config.head)

    def levels(self, taps: Taps) -> list[Tensor]:
        """The reassembled maps, finest first, each (B, F, h_level, w_level)."""
        maps = list(taps.stem_maps[: self.num_stem])
        for module, tokens, prefix in zip(self.reassemble, taps.tokens, taps.prefix, strict=True):
            maps.append(module(tokens, prefix, taps.grid))
        return [conv(x) for conv, x in zip(self.convs, maps, strict=True)]

    def fuse(self, taps: Taps) -> tuple[Tensor, Tensor]:
        """Outputs (B, F, h', w') of the last fusion, not upsampled yet, and of the penultimate one, upsampled."""
        levels = self.levels(taps)
        path: Tensor | None = None
        for index in (3, 2, 1):
            path = self.fusions[index](levels.pop(), path)  # popped, so that the level's memory is freed
            path = self.upsample_path(path, levels[-1])
        assert path is not None
        return self.fusions[0](levels.pop(), path), path

    def upsample_path(self, path: Tensor, finer: Tensor | None) -> Tensor:
        """Upsample a fusion's output by two, or to the next finer level if there is one and the config says so."""
        if finer is None or self.fusion_up_to == "double":
            return upsample(path, 2, align_corners=True)
        return resize(path, (finer.shape[-2], finer.shape[-1]), align_corners=True)

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Logits at an eighth of the patch's stride (segmentation), or values at the head's own size."""
        fused, penultimate = self.fuse(taps)
        last = self.upsample_path(fused, None)
        logits = self.head(last, taps.image_size)
        if self.aux == "none" or not with_aux:
            return DenseOutput(logits)
        aux_input = last if self.aux == "last" else penultimate
        return DenseOutput(logits, (self.aux_head(aux_input, taps.image_size),))

    def decode_coarse(self, taps: Taps) -> DenseOutput:
        """``decode`` in evaluation; a segmentation head computes its largest maps band by band."""
        head = self.head
        if not isinstance(head, _Segmentation):
            return self.decode(taps, with_aux=False)
        fused = self.fuse(taps)[0]  # the penultimate output is freed before the bands need memory
        return DenseOutput(
            upsample_and_classify(fused, 2, head.conv, head.classifier, align_corners=True, band_rows=BAND_ROWS)
        )
