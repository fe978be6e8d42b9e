"""Small layers that three rooms or more share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels.convolution import Filter
from densevit.types import Size


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; the size of the map is kept."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )
        self.margin = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out_channels, h, w); in inference the norm is part of the convolution's weights."""
        return self.ready()(x)

    def ready(self) -> Callable[..., Tensor]:
        """``forward`` for many maps: what depends on the weights alone is done here.

        What is returned also takes ``inner_rows``, for maps made in bands: it leaves out the rows that need padding
        above or below.
        """
        conv, norm, relu = self
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
        mean, variance = norm.running_mean, norm.running_var
        if norm.training or torch.is_grad_enabled() or mean is None or variance is None:
            return self._plain
        factor = norm.weight * torch.rsqrt(variance + norm.eps)
        folded = Filter(conv.weight * factor[:, None, None, None], norm.bias - mean * factor)

        def run(x: Tensor, *, inner_rows: bool = False) -> Tensor:
            found: Tensor = relu(folded(x, inner_rows=inner_rows))
            return found

        return run

    def _plain(self, x: Tensor, *, inner_rows: bool = False) -> Tensor:
        conv, norm, relu = self
        x = conv(x)
        found: Tensor = relu(norm(x[:, :, self.margin : x.shape[2] - self.margin] if inner_rows else x))
        return found


def resize(x: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Bilinear resize of (B, K, h, w) to ``size``, without antialiasing; the identity when the size is right."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners, antialias=False)


def upsample(x: Tensor, factor: int, *, align_corners: bool = False) -> Tensor:
    """Bilinear upsampling of (B, K, h, w) to (B, K, h * factor, w * factor)."""
    return resize(x, (x.shape[-2] * factor, x.shape[-1] * factor), align_corners=align_corners)
