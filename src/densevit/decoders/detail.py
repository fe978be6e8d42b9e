"""A branch of convolutions on the image itself, for structures thinner than a patch."""

from dataclasses import dataclass

from torch import Tensor, nn

from densevit.kernels.convolution import Conv2d
from densevit.layers import ConvBnRelu, resize
from densevit.types import Size
from densevit.upsampling.row_bands import RowsOf


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

    def rows(self, size: Size) -> RowsOf:
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
