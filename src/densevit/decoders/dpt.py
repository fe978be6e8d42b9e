"""DPT: tokens are reassembled into maps at four strides and fused from coarse to fine by residual units.

Source: Ranftl et al. 2021, "Vision Transformers for Dense Prediction", section 3; the Depth Anything form (Yang et al.
2024) differs in where each fusion and the depth head upsample to.
"""

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from densevit.config import Config
from densevit.decoders.base import Decoder, DecoderConfig
from densevit.kernels.convolution import Conv2d
from densevit.kernels.linear import Linear
from densevit.layers import ConvBnRelu, resize
from densevit.types import DenseOutput, Size, Taps
from densevit.upsampling.neighbours import neighbours

Readout = Literal["ignore", "add", "project"]
UpTo = Literal["double", "next_level"]


class SegmentationHead(Config):
    """3x3 convolution, batch norm, ReLU, dropout, 1x1 classifier; logits at the stride of the last fusion.

    Attributes:
        align_corners: of the resize to the image that follows: True in the authors' code, False in mmseg's.
        aux: auxiliary head on the last fusion output, on the one before it (the paper), or none.
    """

    kind: Literal["segmentation"] = "segmentation"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    align_corners: bool = True
    aux: Literal["none", "last", "penultimate"] = "none"


class DepthHead(Config):
    """3x3 convolution to half the width, upsampling, 3x3 convolution, ReLU, 1x1 convolution to one value.

    Attributes:
        up_to: upsample by two, or to the image (patch size times grid; Depth Anything, and any patch size).
        hidden_channels: width before the last convolution.
        projection: a further 3x3 convolution and ReLU in front (transformers' ``add_projection``).
        activation: "relu" for values >= 0, "none" for signed ones, "sigmoid" for values in (0, max_depth_m).
        scale, shift, invert: with ``invert`` the value d becomes 1 / max(scale * d + shift, 1e-8), which turns the
            disparity of the KITTI and NYU releases into metres.
        max_depth_m: factor after a sigmoid, in metres.
    """

    kind: Literal["depth"] = "depth"
    up_to: Literal["double", "image"] = "image"
    hidden_channels: int = Field(default=32, gt=0)
    projection: bool = False
    activation: Literal["relu", "none", "sigmoid"] = "relu"
    scale: float = 1.0
    shift: float = 0.0
    invert: bool = False
    max_depth_m: float = Field(default=1.0, gt=0)


class RegressionHead(Config):
    """Like the depth head without an activation, for any number of channels (surface normals, say)."""

    kind: Literal["regression"] = "regression"
    up_to: Literal["double", "image"] = "image"
    hidden_channels: int = Field(default=32, gt=0)


class DptConfig(DecoderConfig):
    """DPT.

    Attributes:
        channels: width of the reassembled maps, finest first.
        factors: size of each reassembled map over the token grid: a whole number, or 1 over one.
        fusion_channels: width F of the fusion pathway.
        readout: use of the class token: "ignore", "add", or "project" it with every patch token.
        tap_norm: a LayerNorm of each level's own on its tokens, as SETR has it. Not in the paper; frozen encoders whose
            raw taps have channels a hundred times larger than others (CLIP) need it to train well.
        tap_dropout: rate at which whole channels of the tokens are dropped in training, drawn per level and image.
        pool: patch tokens are averaged in squares of this side first. Not in the paper; a head that sees less detail
            judges the size of a whole scene better, and costs less.
        num_readout: prefix tokens averaged by "add" (2 for distilled DeiT); "project" reads the first alone.
        batch_norm: in the residual units; the default for segmentation.
        residual_bias: biases of the residual units' convolutions; by default present without batch norm.
        fusion_up_to: upsample by two, or to the size of the next finer level (Depth Anything; any grid).
        stem_channels: widths of the encoder's stem maps, which then are the first levels (DPT-Hybrid).
    """

    kind: Literal["dpt"] = "dpt"
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (256, 512, 1024, 1024)
    factors: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (4, 2, 1, 0.5)
    fusion_channels: int = Field(default=256, gt=1)
    readout: Readout = "project"
    tap_norm: bool = False
    tap_dropout: float = Field(default=0.0, ge=0, lt=1)
    pool: int = Field(default=1, ge=1)
    num_readout: int = Field(default=1, ge=1)
    batch_norm: bool = False
    residual_bias: bool | None = None
    fusion_up_to: UpTo = "next_level"
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
        """Taps read: four, less those that the stem gives."""
        return 4 - len(self.stem_channels)

    @property
    def num_readout_tokens(self) -> int:
        """Prefix tokens read."""
        return {"ignore": 0, "add": self.num_readout, "project": 1}[self.readout]


BAND_ROWS = 32
"""Rows of its largest maps that a segmentation head makes at once where only the result is asked for."""


class Reassemble(nn.Module):
    """Tokens -> map at a multiple or a fraction of the token grid: readout, 1x1 projection, resampling."""

    def __init__(self, config: DptConfig, embed_dim: int, level: int) -> None:
        super().__init__()
        self.readout = config.readout
        self.num_readout, self.pool = config.num_readout, config.pool
        channels = config.channels[level]
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6) if config.tap_norm else nn.Identity()
        if self.readout == "project":
            self.readout_project = Linear(2 * embed_dim, embed_dim)
        self.dropout = nn.Dropout2d(config.tap_dropout)
        self.project = nn.Conv2d(embed_dim, channels, 1)
        self.resample = _resample(channels, config.factors[level])

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
            h, w = (-(-n // self.pool) for n in grid)  # rounded up; adaptive, so that an odd grid keeps its extent
            maps = F.adaptive_avg_pool2d(maps, (h, w))  # (B, C, h, w) of the smaller grid
        return self.resample(self.project(self.dropout(maps)))


def _resample(channels: int, factor: float) -> nn.Module:
    if factor > 1:
        return nn.ConvTranspose2d(channels, channels, round(factor), stride=round(factor))
    if factor == 1:
        return nn.Identity()
    return ReducingConv(channels, channels, 3, stride=round(1 / factor))


class ReducingConv(nn.Conv2d):
    """3x3 convolution with a stride, on a map that is padded beforehand.

    Padded by the convolution itself, bfloat16 gradients of a map that becomes a single pixel are wrong on processors
    with AVX-512 BF16 (torch 2.14): they hold what lay in memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, ceil(h / stride), ceil(w / stride))."""
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class ResidualUnit(nn.Module):
    """ReLU and 3x3 convolution, twice, added to the input as it came."""

    def __init__(self, channels: int, *, batch_norm: bool, bias: bool) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, bias=bias)
        self.conv2 = Conv2d(channels, channels, 3, bias=bias)
        self.bn1 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.bn2 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, F, h, w)."""
        y = self.bn1(self.conv1(F.relu(x)))
        return self.bn2(self.conv2(F.relu(y, inplace=not torch.is_grad_enabled()))) + x


class Fusion(nn.Module):
    """Adds a level's map to the path so far, refines, upsamples (align_corners=True) and projects.

    The 1x1 projection runs before the upsampling, with which it commutes; outputs agree up to rounding.
    """

    def __init__(self, channels: int, *, batch_norm: bool, bias: bool, coarsest: bool) -> None:
        super().__init__()
        self.skip_unit = None if coarsest else ResidualUnit(channels, batch_norm=batch_norm, bias=bias)
        self.unit = ResidualUnit(channels, batch_norm=batch_norm, bias=bias)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, level: Tensor, path: Tensor | None, size: Size | None) -> Tensor:
        """Level (B, F, h, w), path (B, F, h, w) or None -> (B, F, *size), twice the path's size without ``size``."""
        x = self.refine(level, path)
        return resize(x, size or (2 * x.shape[-2], 2 * x.shape[-1]), align_corners=True)

    def refine(self, level: Tensor, path: Tensor | None) -> Tensor:
        """The same before the upsampling: (B, F, h, w)."""
        if path is None or self.skip_unit is None:
            x = level
        else:
            skip = resize(level, (path.shape[-2], path.shape[-1]), align_corners=False)
            x = path + self.skip_unit(skip)
        return self.project(self.unit(x))


class _Segmentation(nn.Module):
    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = ConvBnRelu(channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, image_size: Size) -> Tensor:
        return self.classifier(self.dropout(self.conv(x)))

    def by_bands(self, x: Tensor, size: Size) -> Tensor:
        """``forward`` of x upsampled to ``size``, in evaluation, a band of rows at a time: equal up to rounding.

        The map of ``size`` and its convolution, the largest of the decoder, never exist as a whole.
        """
        low, high, share = neighbours(x.shape[-2], size[0], True, x.device)
        shape = (x.shape[0], self.classifier.out_channels, *size)
        logits = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        run = self.conv.ready()
        for top in range(0, size[0], BAND_ROWS):
            bottom = min(top + BAND_ROWS, size[0])
            above, below = top - 1, bottom + 1  # a row more on either side, for the convolution
            start, stop = max(above, 0), min(below, size[0])
            weight = share[start:stop, None].to(x.dtype)
            rows = torch.lerp(x[:, :, low[start:stop]], x[:, :, high[start:stop]], weight)  # (B, F, rows, w)
            band = resize(rows, (stop - start, size[1]), align_corners=True)  # (B, F, rows, size[1])
            band = F.pad(band, (0, 0, start - above, below - stop))
            logits[:, :, top:bottom] = self.classifier(run(band, inner_rows=True))
        return logits


class _Regression(nn.Module):
    """The convolutions that depth and plain regression share; depth adds what its config says to the values."""

    def __init__(self, channels: int, out_channels: int, config: DepthHead | RegressionHead) -> None:
        super().__init__()
        self.config = config
        depth = config if isinstance(config, DepthHead) else None
        self.projection = Conv2d(channels, channels, 3) if depth and depth.projection else None
        self.conv1 = Conv2d(channels, channels // 2, 3)
        self.conv2 = Conv2d(channels // 2, config.hidden_channels, 3)
        self.conv3 = nn.Conv2d(config.hidden_channels, out_channels, 1)
        if depth and depth.activation == "relu" and self.conv3.bias is not None:
            nn.init.ones_(self.conv3.bias)  # a negative start would be zero everywhere and get no gradient

    def forward(self, x: Tensor, image_size: Size) -> Tensor:
        if self.projection is not None:
            x = F.relu(self.projection(x))
        x = self.conv1(x)  # (B, F / 2, h', w')
        size = image_size if self.config.up_to == "image" else (2 * x.shape[-2], 2 * x.shape[-1])
        x = self.conv3(F.relu(self.conv2(resize(x, size, align_corners=True))))  # (B, K, *size)
        return self._activate(x, self.config) if isinstance(self.config, DepthHead) else x

    @staticmethod
    def _activate(x: Tensor, config: DepthHead) -> Tensor:
        if config.activation == "relu":
            x = F.relu(x)
        elif config.activation == "sigmoid":
            x = torch.sigmoid(x) * config.max_depth_m
        if config.invert:
            x = 1.0 / (config.scale * x + config.shift).clamp(min=1e-8)
        return x


class Dpt(Decoder):
    """Reassemble four levels, fuse them from coarse to fine, and read the finest with a head for the task.

    Differs from the paper: nothing but what the config says. Differs from mmseg: nothing with fusion_up_to="double"
    and a segmentation head of align_corners=False. The residual unit that the published code builds on the coarsest
    skip is never used there and does not exist here.
    """

    def __init__(self, config: DptConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        width, num_stem = config.fusion_channels, len(config.stem_channels)
        bias = (not config.batch_norm) if config.residual_bias is None else config.residual_bias
        self.fusion_up_to = config.fusion_up_to
        self.num_stem = num_stem
        self.reassemble = nn.ModuleList(Reassemble(config, embed_dim, level) for level in range(num_stem, 4))
        self.convs = nn.ModuleList(Conv2d(c, width, 3, bias=False) for c in config.channels)
        self.fusions = nn.ModuleList(
            Fusion(width, batch_norm=config.batch_norm, bias=bias, coarsest=level == 3) for level in range(4)
        )
        self.aux_from: str | None = None
        if isinstance(config.head, SegmentationHead):
            self.align_corners = config.head.align_corners
            self.head: nn.Module = _Segmentation(width, out_channels, config.head.dropout)
            if config.head.aux != "none":
                self.aux_from = config.head.aux
                self.aux_head = _Segmentation(width, out_channels, config.head.dropout)
        else:
            self.align_corners = True
            self.head = _Regression(width, out_channels, config.head)

    def levels(self, taps: Taps) -> list[Tensor]:
        """The reassembled maps, finest first, each (B, F, h_level, w_level)."""
        maps = list(taps.stem_maps[: self.num_stem])
        maps += [
            module(tokens, prefix, taps.grid)
            for module, tokens, prefix in zip(self.reassemble, taps.tokens, taps.prefix, strict=True)
        ]
        return [conv(x) for conv, x in zip(self.convs, maps, strict=True)]

    def paths(self, taps: Taps) -> list[Tensor]:
        """The fusion outputs, finest first, each (B, F, h', w')."""
        levels = self.levels(taps)
        paths: list[Tensor] = []
        for _ in range(4):
            paths.insert(0, self._fuse(levels, paths[0] if paths else None))
            levels.pop()
        return paths

    def _fuse(self, levels: list[Tensor], path: Tensor | None) -> Tensor:
        """Fuse the last of the levels that are left, the coarsest."""
        index = len(levels) - 1
        finer = levels[index - 1] if index and self.fusion_up_to == "next_level" else None
        size = None if finer is None else (finer.shape[-2], finer.shape[-1])
        fused: Tensor = self.fusions[index](levels[index], path, size)
        return fused

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Logits at an eighth of the patch's stride (segmentation), or values at the head's own size."""
        paths = self.paths(taps)
        logits = self.head(paths[0], taps.image_size)
        if self.aux_from is None or not with_aux:
            return DenseOutput(logits)
        return DenseOutput(logits, (self.aux_head(paths[0 if self.aux_from == "last" else 1], taps.image_size),))

    def decode_coarse(self, taps: Taps) -> DenseOutput:
        """As ``decode``; a segmentation head makes its largest maps band by band."""
        # Compilers and exporters plan memory themselves.
        if not isinstance(self.head, _Segmentation) or torch.compiler.is_compiling():
            return self.decode(taps, with_aux=False)
        levels = self.levels(taps)
        path: Tensor | None = None
        while len(levels) > 1:
            path = self._fuse(levels, path)
            levels.pop()
        finest: Fusion = self.fusions[0]  # type: ignore[assignment]
        x = finest.refine(levels.pop(), path)
        del path  # before the bands take their memory
        return DenseOutput(self.head.by_bands(x, (2 * x.shape[-2], 2 * x.shape[-1])))
