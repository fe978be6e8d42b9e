"""The facts of a source's own way from a photo to a result: sizes, windows, scales. See ``inference.protocols``."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from densevit.config import Config
from densevit.types import Size

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


class HeadInference(Config):
    """How a head sees photos in a way of its own.

    Attributes:
        short_side: target of the shorter side, in pixels.
        window: side of the square windows that the resized photo is run in; none: it is run whole.
        flip: average with what is said of the mirrored photo.
    """

    short_side: PositiveInt
    window: PositiveInt | None = None
    flip: bool = False


class InferenceConfig(Config):
    """Resize so that the short side is about ``short_side``, keeping the aspect, each side rounded to the patch size.

    Attributes:
        short_side: target of the shorter side, in pixels.
        max_long_side: bound on the longer side, in pixels; panoramas and strips are shrunk to it.
        window: side of the square windows that the resized photo is run in, rounded to the patch size; neighbours share
            half or more. None: it is run whole. An encoder is at its best on as many patches as it was trained on.
        flip: average with what is said of the mirrored photo.
        heads: those that see photos in a way of their own; a number is the short side of photos that are run whole.
    """

    short_side: int = Field(default=512, gt=0)
    max_long_side: int = Field(default=2048, gt=0)
    window: PositiveInt | None = None
    flip: bool = False
    heads: dict[str, PositiveInt | HeadInference] = Field(default_factory=dict)

    @property
    def single_pass(self) -> bool:
        """Whether a photo is run whole and as it is."""
        return self.window is None and not self.flip

    def size_for(self, image_size: Size, patch_size: Size) -> Size:
        """The input size (H, W) for an image: at least one patch, and never more than ``max_long_side`` rounded up."""
        scale = min(self.short_side / min(image_size), self.max_long_side / max(image_size))
        height, width = (max(round(n * scale / p), 1) * p for n, p in zip(image_size, patch_size, strict=True))
        return height, width

    def passes(self, heads: Iterable[str]) -> "list[tuple[InferenceConfig, tuple[str, ...]]]":
        """The passes of the encoder that some heads need: those that see photos in one way share one."""
        ways = {head: self.of(head) for head in heads}
        different = [fit for index, fit in enumerate(ways.values()) if fit not in list(ways.values())[:index]]
        return [(fit, tuple(head for head, own in ways.items() if own == fit)) for fit in different]

    def of(self, head: str) -> "InferenceConfig":
        """How one head sees photos."""
        own = self.heads.get(head)
        if isinstance(own, HeadInference):
            return self.model_copy(update={**dict(own), "heads": {}})
        return self.model_copy(update={"heads": {}}) if own is None else self.at(own)

    def whole(self) -> "InferenceConfig":
        """The same sizes, with photos whole and as they are."""
        sides = {head: self.of(head).short_side for head in self.heads}
        return self.model_copy(update={"window": None, "flip": False, "heads": sides})

    def at(self, short_side: int) -> "InferenceConfig":
        """Photos whole and as they are at another short side, for all heads."""
        return InferenceConfig(short_side=short_side, max_long_side=self.max_long_side)
