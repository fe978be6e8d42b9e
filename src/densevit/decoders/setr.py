"""SETR: Naive, Progressive UPsampling (PUP) and Multi-Level feature Aggregation (MLA).

Source: Zheng et al. 2021, "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with
Transformers", section 3.3. Two published forms exist, the authors' repository and mmsegmentation's; ``form`` selects
one where they differ. A 1x1 classifier commutes with bilinear upsampling, whose weights sum to one, so here it always
runs before the upsampling that follows it; outputs agree with the published order up to rounding.
"""

from itertools import pairwise
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from densevit.config import PositiveWidth
from densevit.decoders.base import Decoder, DecoderConfig
from densevit.layers import ConvBnRelu, upsample
from densevit.types import DenseOutput, Taps
from densevit.upsampling.row_bands import upsample_and_classify

Form = Literal["paper", "mmseg"]

BAND_ROWS = 8
"""Rows of SETR-PUP's largest maps that ``decode_coarse`` computes at once; small, so that they stay in the cache."""

NORM_EPS = 1e-6
"""Epsilon of the LayerNorm that each head applies to its raw tap, in both forms."""


def classifier(in_channels: int, num_channels: int, kernel_size: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """The last convolution of a head; its weights are drawn from a normal distribution with a deviation of 0.01."""
    conv = nn.Conv2d(in_channels, num_channels, kernel_size, padding=kernel_size // 2, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class UpHead(nn.Module):
    """LayerNorm, then ``num_convs`` times convolution, batch norm, ReLU and bilinear upsampling, and the classifier."""

    def __init__(
        self,
        embed_dim: int,
        channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        num_convs: int,
        up_scale: int,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.up_scale, self.align_corners = up_scale, align_corners
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        widths = [embed_dim] + [channels] * num_convs
        self.convs = nn.ModuleList(ConvBnRelu(a, b, kernel_size) for a, b in pairwise(widths))
        self.classifier = classifier(channels, out_channels)

    def forward(self, taps: Taps, index: int) -> Tensor:
        """Tap ``index`` -> (B, K, h * up_scale ** num_convs, w * up_scale ** num_convs)."""
        x = self.normed_map(taps, index)  # (B, C, h, w)
        for conv in self.convs[:-1]:
            x = self._upsample(conv(x))
        return self._upsample(self.classifier(self.convs[-1](x)))

    def coarse(self, taps: Taps, index: int) -> Tensor:
        """``forward`` of two or more convolutions in evaluation, without its last upsampling and in less memory."""
        x = self.normed_map(taps, index)  # (B, C, h, w)
        for conv in self.convs[:-2]:
            x = self._upsample(conv(x))
        x = self.convs[-2](x)
        last = cast(ConvBnRelu, self.convs[-1])
        return upsample_and_classify(
            x, self.up_scale, last, self.classifier, align_corners=self.align_corners, band_rows=BAND_ROWS
        )

    def _upsample(self, x: Tensor) -> Tensor:
        return upsample(x, self.up_scale, align_corners=self.align_corners)

    def normed_map(self, taps: Taps, index: int) -> Tensor:
        """Tap ``index`` after LayerNorm, as a map (B, C, h, w)."""
        return self.norm(taps.tokens[index]).transpose(1, 2).unflatten(2, taps.grid)


class SetrNaiveConfig(DecoderConfig):
    """SETR-Naive.

    Attributes:
        channels: width between the two 1x1 convolutions.
        form: "paper" keeps the logits at the token grid; "mmseg" upsamples them by 4 in the head.
        aux_taps: positions of the taps that get an auxiliary head; the main head reads the last tap.
        aux_convs: convolutions of an auxiliary head in mmseg's form (1 for Cityscapes, 2 for ADE20K).
        align_corners: of the upsampling in the heads and of the resize to the image, as in mmsegmentation's configs.
    """

    kind: Literal["setr_naive"] = "setr_naive"
    channels: PositiveWidth = 256
    form: Form = "mmseg"
    aux_taps: tuple[int, ...] = ()
    aux_convs: int = Field(default=1, gt=0)
    align_corners: bool = False

    @property
    def aux_positions(self) -> tuple[int, ...]:
        """Positions of the taps that auxiliary heads read."""
        return self.aux_taps

    def num_parts(self, num_taps: int) -> int:
        """The convolutions of the auxiliary heads, and the main head."""
        return 1 + len(self.aux_taps) * (1 if self.form == "paper" else self.aux_convs)


class SetrNaive(Decoder):
    """Two 1x1 convolutions on the last tap.

    Differs from the paper: nothing in form "paper". Differs from mmseg: nothing in form "mmseg".
    """

    last_tap_only = True

    def __init__(self, config: SetrNaiveConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        scale = 1 if config.form == "paper" else 4
        aux_convs = 1 if config.form == "paper" else config.aux_convs

        def head(num_convs: int) -> UpHead:
            return UpHead(
                embed_dim,
                config.channels,
                out_channels,
                kernel_size=1,
                num_convs=num_convs,
                up_scale=scale,
                align_corners=config.align_corners,
            )

        self.aux_taps, self.align_corners = config.aux_taps, config.align_corners
        self.head = head(1)
        self.aux_heads = nn.ModuleList(head(aux_convs) for _ in config.aux_taps)

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Logits at the patch's stride ("paper") or a quarter of it ("mmseg"); auxiliary heads of the same kind."""
        aux = zip(self.aux_heads, self.aux_taps, strict=True) if with_aux else ()
        return DenseOutput(self.head(taps, -1), tuple(head(taps, index) for head, index in aux))


class SetrPupConfig(DecoderConfig):
    """SETR-PUP.

    Attributes:
        channels: width of the four stages.
        form: affects only the auxiliary heads: "paper" has one 3x3 convolution, upsampled by 4; "mmseg" has more.
        aux_taps: positions of the taps that get an auxiliary head; the authors' code lists the main tap too.
        aux_convs: convolutions of an auxiliary head in mmseg's form, each upsampled by 4.
        align_corners: of the upsampling in the heads and of the resize to the image, as in mmsegmentation's configs.
    """

    kind: Literal["setr_pup"] = "setr_pup"
    channels: PositiveWidth = 256
    form: Form = "mmseg"
    aux_taps: tuple[int, ...] = ()
    aux_convs: int = Field(default=2, gt=0)
    align_corners: bool = False

    @property
    def aux_positions(self) -> tuple[int, ...]:
        """Positions of the taps that auxiliary heads read."""
        return self.aux_taps

    def num_parts(self, num_taps: int) -> int:
        """The convolutions of the auxiliary heads, and the main head."""
        return 1 + len(self.aux_taps) * (1 if self.form == "paper" else self.aux_convs)


class SetrPup(Decoder):
    """Four times 3x3 convolution and upsampling by 2, on the last tap.

    Differs from the paper: its convolutions have a bias, which the batch norm after them absorbs.
    Differs from mmseg: nothing.
    """

    last_tap_only = True

    def __init__(self, config: SetrPupConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        aux_convs = 1 if config.form == "paper" else config.aux_convs

        def head(num_convs: int, up_scale: int) -> UpHead:
            return UpHead(
                embed_dim,
                config.channels,
                out_channels,
                kernel_size=3,
                num_convs=num_convs,
                up_scale=up_scale,
                align_corners=config.align_corners,
            )

        self.aux_taps, self.align_corners = config.aux_taps, config.align_corners
        self.head = head(4, 2)
        self.aux_heads = nn.ModuleList(head(aux_convs, 4) for _ in config.aux_taps)

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Logits at a sixteenth of the patch's stride (full resolution for patch 16); shorter auxiliary heads."""
        aux = zip(self.aux_heads, self.aux_taps, strict=True) if with_aux else ()
        return DenseOutput(self.head(taps, -1), tuple(head(taps, index) for head, index in aux))

    def decode_coarse(self, taps: Taps) -> DenseOutput:
        """Logits at an eighth of the patch's stride if the last upsampling would reach the image's own size."""
        if taps.patch_size != (16, 16):
            return self.decode(taps, with_aux=False)
        return DenseOutput(self.head.coarse(taps, -1))


class SetrMlaConfig(DecoderConfig):
    """SETR-MLA.

    Attributes:
        channels: width of the top-down pathway.
        head_channels: width of each of the four upsampled streams.
        form: "paper" upsamples the streams with align_corners=True, classifies by a 3x3 convolution and has auxiliary
            heads without bias; "mmseg" has a 1x1 classifier and auxiliary heads with bias.
        aux: whether each output of the top-down pathway gets an auxiliary head.
        align_corners: of the upsampling of the logits in form "mmseg", and of the resize to the image in both.
    """

    kind: Literal["setr_mla"] = "setr_mla"
    channels: PositiveWidth = 256
    head_channels: PositiveWidth = 128
    form: Form = "mmseg"
    aux: bool = False
    align_corners: bool = False

    def num_parts(self, num_taps: int) -> int:
        """One level per tap."""
        return num_taps


class SetrMla(Decoder):
    """Top-down sums of the projected taps; each partial sum is convolved, upsampled by 4, and all are concatenated.

    Levels run from the shallowest tap to the deepest, in parameters and in auxiliary outputs.

    Differs from the paper: its text sums the streams; its code concatenates them, as here.
    Differs from mmseg: there the levels run from the deepest to the shallowest.
    """

    def __init__(self, config: SetrMlaConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        self.form, self.align_corners = config.form, config.align_corners
        width, head = config.channels, config.head_channels
        levels = range(num_taps)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim, eps=NORM_EPS) for _ in levels)
        self.laterals = nn.ModuleList(ConvBnRelu(embed_dim, width, 1) for _ in levels)
        self.smooths = nn.ModuleList(ConvBnRelu(width, width, 3) for _ in levels)
        self.streams = nn.ModuleList(
            nn.Sequential(ConvBnRelu(width, head, 3), ConvBnRelu(head, head, 3)) for _ in levels
        )
        self.classifier = classifier(num_taps * head, out_channels, 3 if config.form == "paper" else 1)
        self.aux_heads = nn.ModuleList(
            classifier(width, out_channels, bias=config.form == "mmseg") for _ in levels if config.aux
        )

    def pyramid(self, taps: Taps) -> list[Tensor]:
        """Per level (B, channels, h, w), shallowest first; each is the sum of this level and all deeper ones."""
        total: Tensor | None = None
        outputs: list[Tensor] = []
        for level in reversed(range(len(self.norms))):
            x = self.norms[level](taps.tokens[level]).transpose(1, 2).unflatten(2, taps.grid)  # (B, C, h, w)
            lateral = self.laterals[level](x)
            total = lateral if total is None else total + lateral
            outputs.append(self.smooths[level](total))
        return outputs[::-1]

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Logits at a quarter of the patch's stride; auxiliary logits (B, K, h, w) per level, shallowest first."""
        pyramid = self.pyramid(taps)
        streams = [stream(x) for stream, x in zip(self.streams, pyramid, strict=True)]
        if self.form == "mmseg":
            logits = upsample(self.classifier(torch.cat(streams, dim=1)), 4, align_corners=self.align_corners)
        else:
            logits = self.classifier(torch.cat([upsample(x, 4, align_corners=True) for x in streams], dim=1))
        aux = zip(self.aux_heads, pyramid, strict=False) if with_aux else ()
        return DenseOutput(logits, tuple(head(x) for head, x in aux))
