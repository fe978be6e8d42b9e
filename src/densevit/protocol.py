"""The facts of a source's own way from a photo to a result: sizes, windows, scales. See ``inference.protocols``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from densevit.config import Config

WindowKind = Literal["segmenter", "mmseg", "setr"]
WholeKind = Literal["dpt", "transformers", "depth_anything"]
ProtocolKind = WindowKind | WholeKind

TTA_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The multi-scale set of SETR, Segmenter and mmsegmentation; each scale is run as it is and mirrored."""

Pair = tuple[PositiveInt, PositiveInt]


class WindowProtocol(Config):
    """Segmentation by windows: resize, run window by window, average the logits, resize to the photo.

    Attributes:
        kind: whose rules: "segmenter" for rstrudel/segmenter, "mmseg" for mmsegmentation, "setr" for fudan-zvg/SETR.
        base: (long, short) bounds of the photo's sides, in pixels; it is resized to touch one of them. None leaves the
            photo as it is.
        window: (height, width) of a window; None runs the whole photo at once.
        stride: (rows, columns) from window to window.
        tta_scales: factors on ``base`` with test-time augmentation.
        tta_of: what the factors apply to: "base", or the "photo" itself as mmsegmentation does from 1.0 on.
    """

    kind: WindowKind
    base: Pair | None
    window: Pair | None = None
    stride: Pair | None = None
    tta_scales: tuple[PositiveFloat, ...] = Field(default=TTA_SCALES, min_length=1)
    tta_of: Literal["base", "photo"] = "base"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.window is None) != (self.stride is None):
            raise ValueError(f"window is {self.window} and stride {self.stride}, but they come together; give both")
        if self.window and self.stride and (self.stride[0] > self.window[0] or self.stride[1] > self.window[1]):
            raise ValueError(f"stride {self.stride} exceeds the window {self.window} and would leave gaps")
        if self.kind == "segmenter" and (self.window is None or self.window[0] != self.window[1]):
            raise ValueError(f"protocol segmenter needs a square window, but window is {self.window}")
        return self


class WholeProtocol(Config):
    """The whole photo in one pass: resize, run, resize to the photo.

    Attributes:
        kind: whose rules: "dpt" for isl-org/DPT, "transformers" for its image processors, "depth_anything" for
            Depth-Anything-V2.
        net_size: (height, width) that the resize aims at, in pixels.
        multiple: of which both sides are.
        keep_aspect: resize both sides by one factor.
        label_offset: what the source's program adds to every label it writes.
    """

    kind: WholeKind
    net_size: Pair
    multiple: PositiveInt
    keep_aspect: bool = True
    label_offset: int = 0


Protocol = Annotated[WindowProtocol | WholeProtocol, Field(discriminator="kind")]


def parse_protocol(data: Mapping[str, Any]) -> WindowProtocol | WholeProtocol:
    """Plain data -> the class of its ``kind``.

    Raises:
        ConfigError: if it is no valid protocol.
    """
    return (WindowProtocol if data.get("kind") in get_args(WindowKind) else WholeProtocol).parse(data)
