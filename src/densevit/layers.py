"""Small layers that three rooms or more share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.types import Size


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; the size of the map is kept."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, *, inner_rows: bool = False) -> Tensor:
        """(B, C, h, w) -> (B, out_channels, h, w); in inference the norm is part of the convolution's weights.

        With ``inner_rows``, for maps made in bands, the rows are left out that need padding above or below.
        """
        conv, norm, relu = self
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
        rows, columns = int(conv.padding[0]), int(conv.padding[1])
        mean, variance = norm.running_mean, norm.running_var
        if norm.training or torch.is_grad_enabled() or mean is None or variance is None:
            plain: Tensor = conv(x)
            plain = plain[:, :, rows : plain.shape[2] - rows] if inner_rows else plain
            return relu(norm(plain))
        factor = norm.weight * torch.rsqrt(variance + norm.eps)
        weight = conv.weight * factor[:, None, None, None]
        padding = (0 if inner_rows else rows, columns)
        folded: Tensor = relu(F.conv2d(x, weight, norm.bias - mean * factor, padding=padding))
        return folded


def resize(x: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Bilinear resize of (B, K, h, w) to ``size``, without antialiasing; the identity when the size is right."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners, antialias=False)


def upsample(x: Tensor, factor: int, *, align_corners: bool = False) -> Tensor:
    """Bilinear upsampling of (B, K, h, w) to (B, K, h * factor, w * factor)."""
    return resize(x, (x.shape[-2] * factor, x.shape[-1] * factor), align_corners=align_corners)
