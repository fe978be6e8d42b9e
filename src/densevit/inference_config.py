"""What a checkpoint says about running it: image sizes, windows and mirror images, or a published protocol."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
    model_validator,
)

from densevit.config import Config, PositiveWidth, bounded
from densevit.errors import ConfigError
from densevit.limits import limits, too_much
from densevit.types import Size

WindowKind = Literal["segmenter", "mmseg", "setr", "dinov2"]
WholeKind = Literal["dpt", "transformers", "depth_anything", "depth_anything_3"]
ProtocolKind = WindowKind | WholeKind
Quality = Literal["fast", "best"]
"""How a photo is run where a checkpoint knows two ways: whole and once, or with windows and mirror images."""
DEFAULT_QUALITY: Quality = "fast"
Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Pillow's filters."""

TTA_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The multi-scale set of SETR, Segmenter and mmsegmentation; each scale is run plain and mirrored."""

Pair = tuple[PositiveWidth, PositiveWidth]
Scale = Annotated[PositiveFloat, bounded("scale")]


MAX_OVERLAP = 32
"""Windows along one side that a pixel may be in; the published protocols have up to 3."""


def checked_input_size(input_size: Size, image_size: Size) -> Size:
    """The size (H, W) that an image is resized to, within the budget.

    Raises:
        ConfigError: if the image is enlarged beyond it.
    """
    height, width = input_size
    if height * width > max(limits().input_pixels, image_size[0] * image_size[1]):
        claim = f"the image of {image_size[0]} x {image_size[1]} would be enlarged to {height} x {width} pixels"
        raise ConfigError(too_much(claim, "input_pixels"))
    return input_size


class HeadInference(Config):
    """How one head sees images, where it differs from the rest of the model.

    Attributes:
        short_side: target length of the shorter side, in pixels.
        window: side of the square windows that the resized image is run in; without it the image is run whole.
        flip: average with the result for the mirrored image.
    """

    short_side: PositiveWidth
    window: PositiveWidth | None = None
    flip: bool = False


def _from_short_side(value: Any) -> Any:
    """``480`` is short for ``{short_side: 480}``."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return {"short_side": value} if is_number else value


class InferenceConfig(Config):
    """Resize so that the short side is about ``short_side``; the aspect is kept up to rounding to the patch size.

    It is stored in checkpoints and run configs under the key ``fit``.

    Attributes:
        short_side: target length of the shorter side, in pixels.
        max_long_side: upper bound on the longer side, in pixels; panoramas and strips are shrunk to it.
        window: side of the square windows that the resized image is run in, rounded to the patch size; neighbours
            share at least half. Without it the image is run whole. An encoder is at its best on as many patches as
            it was trained on.
        flip: average with the result for the mirrored image.
        heads: settings of single heads, which replace ``short_side``, ``window`` and ``flip``; a number is the short
            side of images that are run whole.
        fast: short sides of single heads at quality "fast", where images are run whole and once. All other settings
            are those of quality "best", and of heads that are not named here at either.
    """

    short_side: PositiveWidth = 512
    max_long_side: PositiveWidth = 2048
    window: PositiveWidth | None = None
    flip: bool = False
    heads: dict[str, Annotated[HeadInference, BeforeValidator(_from_short_side)]] = Field(default_factory=dict)
    fast: dict[str, PositiveWidth] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_absent(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``fast`` if there is none, as checkpoints have always been written."""
        data: dict[str, Any] = serialise(self)
        return {key: value for key, value in data.items() if key != "fast" or value}

    @field_serializer("heads")
    def _shortest(self, heads: dict[str, HeadInference]) -> dict[str, Any]:
        """Heads that run images whole are written as a number, as checkpoints have always held them."""
        return {head: own.model_dump() if own.window or own.flip else own.short_side for head, own in heads.items()}

    @property
    def single_pass(self) -> bool:
        """Whether an image is run whole and once."""
        return self.window is None and not self.flip

    @property
    def window_side(self) -> int:
        """Side of windows at the image's own pixels: the size of image that the encoder is best at."""
        return self.window or self.short_side

    def input_size(self, image_size: Size, patch_size: Size) -> Size:
        """The input size (H, W) for an image: at least one patch, and at most ``max_long_side`` rounded up.

        In whole numbers, so that a size halfway between two multiples of the patch size is rounded (to the even one)
        in the same way for every image, and by every engine that runs an exported graph.
        """
        shorter, longer = min(image_size), max(image_size)
        too_long = self.short_side * longer > self.max_long_side * shorter
        new, old = (self.max_long_side, longer) if too_long else (self.short_side, shorter)
        height, width = (
            max(round(Fraction(n * new, old * p)), 1) * p for n, p in zip(image_size, patch_size, strict=True)
        )
        return height, width

    def groups(self, heads: Iterable[str]) -> "list[tuple[InferenceConfig, tuple[str, ...]]]":
        """Heads that see images in the same way, and so share encoder passes, each group with its settings."""
        names: dict[HeadInference, list[str]] = {}
        for head in heads:
            names.setdefault(self._settings(head), []).append(head)
        return [(self.for_head(group[0]), tuple(group)) for group in names.values()]

    def for_head(self, head: str) -> "InferenceConfig":
        """The settings of one head at quality "best", as those of a model that has no other."""
        return self.model_copy(update={**dict(self._settings(head)), "heads": {}, "fast": {}})

    def _settings(self, head: str) -> HeadInference:
        own = HeadInference(short_side=self.short_side, window=self.window, flip=self.flip)
        return self.heads.get(head, own)

    def at_quality(self, quality: Quality) -> "InferenceConfig":
        """The settings of one quality, as those of a model that knows one way to run each head."""
        fast = self.fast if quality == "fast" else {}
        heads = self.heads | {head: HeadInference(short_side=side) for head, side in fast.items()}
        return self.model_copy(update={"heads": heads, "fast": {}})

    def differs_by_quality(self, heads: Iterable[str]) -> bool:
        """Whether a head is run in another way at quality "fast" than at "best"."""
        fast = self.at_quality("fast")
        return any(fast._settings(head) != self._settings(head) for head in heads)

    def whole(self) -> "InferenceConfig":
        """Images run whole and once: at the sizes of quality "fast" where there are any, else at the same sizes."""
        ways = self.at_quality("fast")
        heads = {head: HeadInference(short_side=own.short_side) for head, own in ways.heads.items()}
        return ways.model_copy(update={"window": None, "flip": False, "heads": heads})

    def at(self, short_side: int) -> "InferenceConfig":
        """Images run whole and once at another short side, for all heads."""
        return InferenceConfig(short_side=short_side, max_long_side=self.max_long_side)


class WindowProtocol(Config):
    """Whole photos, or windows of them: resize, run window by window, average the logits, resize to the image.

    Attributes:
        kind: whose rules: "segmenter" for rstrudel/segmenter, "mmseg" for mmsegmentation, "setr" for fudan-zvg/SETR,
            "dinov2" for the heads of facebookresearch/dinov2.
        base: (long, short) bounds of the image's sides, in pixels; it is resized to touch one of them. None keeps
            its size.
        window: (height, width) of a window; None runs the whole image at once.
        stride: (rows, columns) from window to window.
        tta_scales: factors on ``base`` with test-time augmentation.
        tta_of: what the factors apply to: "base", or the "photo" itself as mmsegmentation does from 1.0 on.
    """

    kind: WindowKind
    base: Pair | None
    window: Pair | None = None
    stride: Pair | None = None
    tta_scales: tuple[Scale, ...] = Field(default=TTA_SCALES, min_length=1, max_length=64)
    tta_of: Literal["base", "photo"] = "base"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.window is None) != (self.stride is None):
            raise ValueError(f"window is {self.window} and stride {self.stride}, but they come together; give both")
        if self.window and self.stride and (self.stride[0] > self.window[0] or self.stride[1] > self.window[1]):
            raise ValueError(f"stride {self.stride} exceeds the window {self.window} and would leave gaps")
        if (
            self.window
            and self.stride
            and any(w > MAX_OVERLAP * s for w, s in zip(self.window, self.stride, strict=True))
        ):
            raise ValueError(
                f"stride {self.stride} is tiny for the window {self.window}; at least 1 / {MAX_OVERLAP} is accepted"
            )
        if self.kind == "segmenter" and (self.window is None or self.window[0] != self.window[1]):
            raise ValueError(f"protocol segmenter needs a square window, but window is {self.window}")
        return self


class WholeProtocol(Config):
    """The whole photo in one pass: resize, run, resize to the image.

    Attributes:
        kind: whose rules: "dpt" for isl-org/DPT, "transformers" for its image processors, "depth_anything" for
            Depth-Anything-V2, "depth_anything_3" for Depth-Anything-3.
        net_size: (height, width) that the resize aims at, in pixels.
        multiple: both sides become multiples of it.
        keep_aspect: resize both sides by one factor.
        label_offset: the number that the source's program adds to every label it writes.
        resample: the filter of transformers' resize; the other programs have one of their own.
        resize: whether transformers resizes at all; else images keep their size.
        pad_multiple: transformers pads the normalised image with zeros, half on either side, so that its sides become
            multiples of it; the output is of the padded image, as there.
    """

    kind: WholeKind
    net_size: Pair
    multiple: PositiveWidth
    keep_aspect: bool = True
    label_offset: int = Field(default=0, ge=0, le=255)
    resample: Resampling = "bicubic"
    resize: bool = True
    pad_multiple: PositiveWidth = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        own = (self.resample, self.resize, self.pad_multiple)
        if self.kind != "transformers" and own != ("bicubic", True, 1):
            raise ValueError(f"resample, resize and pad_multiple belong to transformers, but kind is {self.kind}")
        return self


Protocol = Annotated[WindowProtocol | WholeProtocol, Field(discriminator="kind")]


def parse_protocol(data: Mapping[str, Any]) -> WindowProtocol | WholeProtocol:
    """Turn plain data into the class of its ``kind``.

    Raises:
        ConfigError: if it is not a valid protocol.
    """
    return (WindowProtocol if data.get("kind") in get_args(WindowKind) else WholeProtocol).parse(data)
