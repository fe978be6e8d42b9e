"""The convolutional stem of DPT-Hybrid: the first three stages of a ResNetV2-50, then a projection to tokens.

Source: ViT-Hybrid (Dosovitskiy et al. 2021, R50+ViT-B/16) as used by DPT (Ranftl et al. 2021, section 3.1).
The bottlenecks are not pre-activated; every convolution has standardised weights and TensorFlow's "same" padding.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from densevit.config import Config, bounded

Layers = Annotated[int, Field(gt=0), bounded("blocks")]
Channels = Annotated[int, Field(gt=0, multiple_of=32), bounded("width")]  # group norm has 32 groups

Standardisation = Literal["std_plus_eps", "var_plus_eps"]


class HybridStem(Config):
    """The convolutional stem.

    Attributes:
        layers: number of bottlenecks per stage.
        channels: width after each stage, at strides 4, 8 and 16.
        stem_channels: width after the first convolution, at stride 2.
        standardisation: "std_plus_eps" is (w - mean) / (std + 1e-5), as in the official release; "var_plus_eps" is
            (w - mean) / sqrt(var + 1e-8), as in transformers and later timm.
    """

    layers: tuple[Layers, Layers, Layers] = (3, 4, 9)
    channels: tuple[Channels, Channels, Channels] = (256, 512, 1024)
    stem_channels: Channels = 64
    standardisation: Standardisation = "std_plus_eps"


class StdConv(nn.Conv2d):
    """Convolution with "same" padding whose filters are standardised to zero mean and unit variance."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, standardisation: Standardisation
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=stride, bias=False)
        self.standardisation = standardisation

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, ceil(h / stride), ceil(w / stride))."""
        x = pad_same(x, self.kernel_size[0], self.stride[0], value=0.0)
        return F.conv2d(x, self.standardised(), stride=self.stride)

    def standardised(self) -> Tensor:
        """The filters that are applied."""
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        scale = var.sqrt() + 1e-5 if self.standardisation == "std_plus_eps" else (var + 1e-8).sqrt()
        return (self.weight - mean) / scale


def pad_same(x: Tensor, kernel: int, stride: int, *, value: float) -> Tensor:
    """Pad to an output of ceil(size / stride); if the padding is odd, the extra pixel is right and below."""
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    top, left = total[0] // 2, total[1] // 2
    return F.pad(x, (left, total[1] - left, top, total[0] - top), value=value)


class GroupNorm(nn.GroupNorm):
    """Group norm with 32 groups and eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels, eps=1e-5)


class Shortcut(nn.Module):
    """Projection of the residual path where a stage changes width or stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, standardisation: Standardisation) -> None:
        super().__init__()
        self.conv = StdConv(in_channels, out_channels, 1, stride=stride, standardisation=standardisation)
        self.norm = GroupNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h / stride, w / stride)."""
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions at a quarter of the width, plus the shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, standardisation: Standardisation) -> None:
        super().__init__()
        middle = out_channels // 4
        self.conv1 = StdConv(in_channels, middle, 1, standardisation=standardisation)
        self.norm1 = GroupNorm(middle)
        self.conv2 = StdConv(middle, middle, 3, stride=stride, standardisation=standardisation)
        self.norm2 = GroupNorm(middle)
        self.conv3 = StdConv(middle, out_channels, 1, standardisation=standardisation)
        self.norm3 = GroupNorm(out_channels)
        changes = in_channels != out_channels or stride != 1
        self.downsample = Shortcut(in_channels, out_channels, stride, standardisation) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.downsample(x))


class HybridEmbed(nn.Module):
    """Embeds an image as a token map at stride 16; also returns the maps at strides 4 and 8 for the decoder."""

    def __init__(self, config: HybridStem, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        rule = config.standardisation
        self.stem_conv = StdConv(in_channels, config.stem_channels, 7, stride=2, standardisation=rule)
        self.stem_norm = GroupNorm(config.stem_channels)
        stages, width = [], config.stem_channels
        for index, (depth, channels) in enumerate(zip(config.layers, config.channels, strict=True)):
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(width, channels, 2 if index > 0 and block == 0 else 1, rule))
                width = channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.proj = nn.Conv2d(width, embed_dim, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, channels, H, W) -> map (B, C, H / 16, W / 16), and the maps at strides 4 and 8."""
        x = F.relu(self.stem_norm(self.stem_conv(images)))
        x = F.max_pool2d(pad_same(x, 3, 2, value=float("-inf")), 3, stride=2)  # (B, stem, H / 4, W / 4)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.proj(x), tuple(maps[:2])
