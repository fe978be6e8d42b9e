"""The heads of DPT: the layers after the last fusion, which depend on the task."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from densevit.config import Config, PositiveWidth
from densevit.kernels.convolution import Conv2d
from densevit.layers import ConvBnRelu, resize
from densevit.types import Size


class SegmentationHead(Config):
    """3x3 convolution, batch norm, ReLU, dropout, 1x1 classifier; logits at the stride of the last fusion.

    Attributes:
        align_corners: of the following resize to the image: True in the authors' code, False in mmseg's.
        aux: auxiliary head on the last fusion output, on the penultimate one (the paper), or none.
    """

    kind: Literal["segmentation"] = "segmentation"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    align_corners: bool = True
    aux: Literal["none", "last", "penultimate"] = "none"


class DepthHead(Config):
    """3x3 convolution to half the width, upsampling, 3x3 convolution, ReLU, 1x1 convolution to one value.

    Attributes:
        up_to: upsample by two, or to the image size (Depth Anything; works for any patch size).
        hidden_channels: width before the last convolution.
        projection: whether a 3x3 convolution and ReLU come first (transformers' ``add_projection``).
        activation: "relu" for values >= 0, "none" for signed ones, "sigmoid" for values in (0, max_depth_m), "exp" for
            the exponential of the network's logarithms (Depth Anything 3).
        scale, shift, invert: with ``invert`` the value d becomes 1 / max(scale * d + shift, 1e-8), which converts the
            disparity of the KITTI and NYU releases to metres.
        max_depth_m: factor after a sigmoid, in metres.
        min_depth_m: added after a ReLU, in metres (DINOv2).
        limit_m: upper bound on the values, in metres (DINOv2), or none.
        align_corners: of the following resize to the image: False in DINOv2.
    """

    kind: Literal["depth"] = "depth"
    up_to: Literal["double", "image"] = "image"
    hidden_channels: PositiveWidth = 32
    projection: bool = False
    activation: Literal["relu", "none", "sigmoid", "exp"] = "relu"
    scale: float = 1.0
    shift: float = 0.0
    invert: bool = False
    max_depth_m: float = Field(default=1.0, gt=0)
    min_depth_m: float = Field(default=0.0, ge=0)
    limit_m: float | None = Field(default=None, gt=0)
    align_corners: bool = True


class RegressionHead(Config):
    """The depth head without activation, for any number of channels (such as surface normals)."""

    kind: Literal["regression"] = "regression"
    up_to: Literal["double", "image"] = "image"
    hidden_channels: PositiveWidth = 32


class SegmentationConvs(nn.Module):
    """The layers of a ``SegmentationHead``."""

    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = ConvBnRelu(channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, image_size: Size) -> Tensor:
        """(B, F, h', w') -> (B, K, h', w')."""
        return self.classifier(self.dropout(self.conv(x)))


class RegressionConvs(nn.Module):
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
        """(B, F, h', w') -> (B, K, H, W), or at twice (h', w')."""
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
        elif config.activation == "exp":
            x = torch.exp(x)
        if config.limit_m is not None:
            x = x.clamp(max=config.limit_m)
        return 1.0 / (config.scale * x + config.shift).clamp(min=1e-8) if config.invert else x
