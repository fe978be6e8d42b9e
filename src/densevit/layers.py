"""Small layers that decoders share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels.convolution import Conv2d, Filter
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
        """(B, C, h, w) -> (B, out_channels, h, w); in inference the norm is folded into the convolution."""
        return self.ready()(x)

    def ready(self) -> Callable[..., Tensor]:
        """``forward`` for many maps: computations that depend only on the weights are done once, here.

        The returned function also takes ``inner_rows``: it then omits the rows that need padding above or below, for
        maps that are computed in bands.
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
            out: Tensor = relu(folded(x, inner_rows=inner_rows))
            return out

        return run

    def _plain(self, x: Tensor, *, inner_rows: bool = False) -> Tensor:
        conv, norm, relu = self
        x = conv(x)
        if inner_rows:
            x = x[:, :, self.margin : x.shape[2] - self.margin]
        out: Tensor = relu(norm(x))
        return out


class ResidualUnit(nn.Module):
    """ReLU and 3x3 convolution, twice, added to the input (RefineNet, Lin et al. 2017)."""

    def __init__(self, channels: int, *, batch_norm: bool, bias: bool) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        self.conv1 = Conv2d(channels, channels, 3, bias=bias)
        self.conv2 = Conv2d(channels, channels, 3, bias=bias)
        self.bn1 = norm(channels)
        self.bn2 = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, F, h, w)."""
        y = self.bn1(self.conv1(F.relu(x)))
        return self.bn2(self.conv2(F.relu(y, inplace=not torch.is_grad_enabled()))) + x


class StridedConv(nn.Conv2d):
    """Strided 3x3 convolution that pads its input explicitly.

    With the convolution's own padding, bfloat16 gradients of a map that becomes a single pixel contain uninitialised
    memory on processors with AVX-512 BF16 (torch 2.14).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, ceil(h / stride), ceil(w / stride))."""
        return super().forward(F.pad(x, (1, 1, 1, 1)))


def learned_resampling(channels: int, factor: float) -> nn.Module:
    """Convolution that resizes a map by a whole factor, transposed, or by 1 over one, strided; the identity for 1."""
    if factor > 1:
        return nn.ConvTranspose2d(channels, channels, round(factor), stride=round(factor))
    if factor == 1:
        return nn.Identity()
    return StridedConv(channels, channels, 3, stride=round(1 / factor))


def resize(x: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Bilinear resize of (B, K, h, w) to ``size``, without antialiasing; the identity for the same size."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners, antialias=False)


def upsample(x: Tensor, factor: int, *, align_corners: bool = False) -> Tensor:
    """Bilinear upsampling of (B, K, h, w) to (B, K, h * factor, w * factor)."""
    return resize(x, (x.shape[-2] * factor, x.shape[-1] * factor), align_corners=align_corners)
