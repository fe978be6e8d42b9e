"""The options of DPT's heads: classes, depth, or values of any number of channels."""

from typing import Literal

from pydantic import Field

from densevit.config import Config, PositiveWidth


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
        activation: "relu" for values >= 0, "none" for signed ones, "sigmoid" for values in (0, max_depth_m).
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
    activation: Literal["relu", "none", "sigmoid"] = "relu"
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
