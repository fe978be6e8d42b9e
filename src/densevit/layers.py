"""Small layers that decoders share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels.convolution import Conv2d, Filter
from densevit.kernels.dispatch import hooked, use_kernel
from densevit.kernels.int8.convolution import Int8Filter
from densevit.types import Size


class StridedConv(nn.Conv2d):
    """Strided 3x3 convolution that pads its input explicitly.

    With the convolution's own padding, bfloat16 gradients of a map that becomes a single pixel contain uninitialised
    memory on processors with AVX-512 BF16 (torch 2.14).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, ceil(h / stride), ceil(w / stride))."""
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; the size of the map is kept, or halved (rounded up) by a stride.

    Attributes:
        int8: convolution and batch norm by integers, from ``use_int8``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, halve: bool = False) -> None:
        if halve:
            conv: nn.Conv2d = StridedConv(in_channels, out_channels, kernel_size, stride=2, bias=False)
        else:
            conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        super().__init__(
            conv,
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )
        self.margin = kernel_size // 2
        self.int8: Int8Filter | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out_channels, h, w), or half that size; in inference the norm is folded in."""
        return self.ready()(x)

    def ready(self) -> Callable[..., Tensor]:
        """``forward`` for many maps: computations that depend only on the weights are done once, here.

        The returned function also takes ``inner_rows``: it then omits the rows that need padding above or below, for
        maps that are computed in bands.
        """
        conv, norm, relu = self
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
        if torch.is_grad_enabled() or not foldable(norm) or isinstance(conv, StridedConv):
            return self._plain
        return partial(self.int8 or Filter(*fold(conv, norm)), relu=True)

    def _plain(self, x: Tensor, *, inner_rows: bool = False) -> Tensor:
        conv, norm, relu = self
        x = conv(x)
        if inner_rows:
            x = x[:, :, self.margin : x.shape[2] - self.margin]
        out: Tensor = relu(norm(x))
        return out


class ResidualUnit(nn.Module):
    """ReLU and 3x3 convolution, twice, added to the input (RefineNet, Lin et al. 2017).

    Attributes:
        int8: both convolutions with their batch norms by integers, from ``use_int8``.
    """

    def __init__(self, channels: int, *, batch_norm: bool, bias: bool) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        self.conv1 = Conv2d(channels, channels, 3, bias=bias)
        self.conv2 = Conv2d(channels, channels, 3, bias=bias)
        self.bn1 = norm(channels)
        self.bn2 = norm(channels)
        self.int8: tuple[Int8Filter, Int8Filter] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, F, h, w)."""
        filters = self._filters(x)
        if filters is not None:
            first, second = filters
            return second(first(x, relu_first=True, relu=True), residual=x)
        y = self.bn1(self.conv1(F.relu(x)))
        return self.bn2(self.conv2(F.relu(y, inplace=not torch.is_grad_enabled()))) + x

    def _filters(self, x: Tensor) -> tuple[Filter, Filter] | None:
        """Both convolutions with their batch norms for CPU inference; None where something needs the single steps."""
        layers = (self.conv1, self.bn1, self.conv2, self.bn2)
        if not use_kernel(x, *self.parameters()) or not foldable(self.bn1) or not foldable(self.bn2):
            return None
        if any(hooked(layer) for layer in layers) or not type(self.conv1) is type(self.conv2) is Conv2d:
            return None
        return self.int8 or (Filter(*fold(self.conv1, self.bn1)), Filter(*fold(self.conv2, self.bn2)))


def foldable(norm: nn.Module) -> bool:
    """Whether a layer is nothing, or a batch norm that is the same for every batch."""
    if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm):
        return not norm.training and norm.running_mean is not None and norm.running_var is not None
    return isinstance(norm, nn.Identity)


def fold(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution that includes the batch norm, or nothing, that follows it in inference."""
    if isinstance(norm, nn.Identity):
        return conv.weight, conv.bias
    assert isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return conv.weight * factor[:, None, None, None], norm.bias - shift * factor


@torch.no_grad()
def use_int8(module: nn.Module) -> None:
    """Let the wide convolutions in a module run with integers in CPU inference, where that is faster.

    Their weights, and the statistics of batch norms after them, are those of now.
    """
    match module:
        case ResidualUnit():
            if Int8Filter.suits(module.conv1.weight):
                first, second = fold(module.conv1, module.bn1), fold(module.conv2, module.bn2)
                module.int8 = Int8Filter(*first), Int8Filter(*second)
        case ConvBnRelu():
            conv, norm, _ = module
            assert isinstance(conv, nn.Conv2d)
            if Int8Filter.suits(conv.weight) and not isinstance(conv, StridedConv):
                module.int8 = Int8Filter(*fold(conv, norm))
        case Conv2d():
            if Int8Filter.suits(module.weight):
                module.int8 = Int8Filter(module.weight, module.bias)
        case _:
            for child in module.children():
                use_int8(child)


def learned_resampling(channels: int, factor: float) -> nn.Module:
    """Convolution that resizes a map by a whole factor, transposed, or by 1 over one, strided; the identity for 1."""
    if factor > 1:
        return nn.ConvTranspose2d(channels, channels, round(factor), stride=round(factor))
    if factor == 1:
        return nn.Identity()
    return StridedConv(channels, channels, 3, stride=round(1 / factor))


@dataclass(frozen=True, slots=True)
class DetailMaps:
    """What ``Detail`` gives for an image of H x W.

    Attributes:
        fine: (B, width, H / 2, W / 2), not projected to the F channels of the pathway yet, which would be larger.
        coarse: (B, F, H / 4, W / 4).
        project: width to F channels, 1x1.
    """

    fine: Tensor
    coarse: Tensor
    project: nn.Module

    def rows(self, size: Size) -> Callable[[int, int], Tensor]:
        """Rows of the fine map, resized to ``size`` and projected."""
        resized = resize(self.fine, size, align_corners=False)

        def rows(start: int, stop: int) -> Tensor:
            projected: Tensor = self.project(resized[:, :, start:stop])
            return projected

        return rows


class Detail(nn.Module):
    """Maps of the image at half and at a quarter of its size, which are added to a decoder's finest maps.

    A frozen encoder's tokens say little about what is thinner than a patch, such as cracks, membranes and wires. As in
    BiSeNet (Yu et al. 2018), a few convolutions on the image keep such detail, and the tokens say what it means.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(ConvBnRelu(in_channels, width, 3, halve=True), ConvBnRelu(width, width, 3))
        self.coarse = nn.Sequential(ConvBnRelu(width, 2 * width, 3, halve=True), ConvBnRelu(2 * width, 2 * width, 3))
        self.project_fine = Conv2d(width, out_channels, 1)
        self.project_coarse = Conv2d(2 * width, out_channels, 1)

    def forward(self, image: Tensor) -> DetailMaps:
        """Normalised images (B, in_channels, H, W) -> maps for a pathway of ``out_channels``."""
        fine = self.fine(image)
        return DetailMaps(fine, self.project_coarse(self.coarse(fine)), self.project_fine)


def resize(x: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Bilinear resize of (B, K, h, w) to ``size``, without antialiasing; the identity for the same size."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners, antialias=False)


def upsample(x: Tensor, factor: int, *, align_corners: bool = False) -> Tensor:
    """Bilinear upsampling of (B, K, h, w) to (B, K, h * factor, w * factor)."""
    return resize(x, (x.shape[-2] * factor, x.shape[-1] * factor), align_corners=align_corners)
