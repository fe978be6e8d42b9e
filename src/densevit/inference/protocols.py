"""Inference exactly as the published programs do it; their settings are ``inference_config.Protocol``."""

from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.config import nearest
from densevit.encoder.positions import LearnedPositions
from densevit.errors import ConfigError, ShapeError
from densevit.inference.protocol_resize import (
    centre_padded,
    cover_window,
    opencv_cubic,
    opencv_linear,
    opencv_twice,
    pillow,
    single_scale_size,
    tta_sizes,
    whole_size,
)
from densevit.inference.protocol_windows import Network, anchored_starts, normalised, slide, window_slices
from densevit.inference.separable_resize import Mode, Resize
from densevit.inference.sliding_window import clamped_starts
from densevit.inference.tiled_logits import StitchedLogits, TiledLogits, whole
from densevit.inference.tta import TtaMean
from densevit.inference_config import (
    Protocol,
    ProtocolKind,
    WholeKind,
    WholeProtocol,
    WindowKind,
    WindowProtocol,
    checked_input_size,
)
from densevit.layers import resize
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Task
from densevit.types import Size

WINDOW_KINDS: tuple[str, ...] = get_args(WindowKind)
KINDS: tuple[str, ...] = (*WINDOW_KINDS, *get_args(WholeKind))


@torch.inference_mode()
def tiled_logits(
    protocol: Protocol, model: DenseModel, head: str, task: Task, image: NDArray[np.uint8], *, tta: bool = False
) -> TiledLogits:
    """Run one image through one head, from the first resize back to the image's own size.

    Args:
        protocol: whose rules.
        model: in evaluation mode.
        head: its name.
        task: of the head.
        image: uint8 (H, W, 3) RGB.
        tta: average the protocol's scales, each mirrored too; only for labels, and protocols with windows.

    Returns:
        Logits (log probabilities with ``tta``), depth or values, of the image's size.
    """
    network = forward(protocol.kind, model, head)
    size = (image.shape[0], image.shape[1])
    if isinstance(protocol, WholeProtocol):
        pixels = centre_padded(_normalised(model, _resized(protocol, image)), protocol.pad_multiple)
        return whole_logits(protocol, network, pixels, size=size, labels=task.averages_probabilities)
    if not tta:
        pixels = _normalised(model, opencv_linear(image, checked_input_size(single_scale_size(protocol, size), size)))
        return window_logits(protocol, network, pixels, size=size)
    mean = TtaMean(probabilities=True)
    for scaled_size in tta_sizes(protocol, size):
        pixels = _normalised(model, opencv_linear(image, checked_input_size(scaled_size, size)))
        for mirrored in (False, True):
            view = pixels.flip(-1) if mirrored else pixels
            mean.add(window_logits(protocol, network, view, size=size), mirrored=mirrored)
    return mean.mean()


def forward(kind: ProtocolKind, model: DenseModel, head: str) -> Network:
    """The forward pass of the source's own model: normalised images (B, 3, h, w) -> output of the same size.

    The sources differ where a side is not a multiple of the patch size: see ``prepare``. Segmenter then resizes to the
    padded size and crops; mmsegmentation and SETR resize to the original size; transformers returns its head's size.
    """
    decoder, positions, config = model.decoder(head), model.tap_positions[head], model.config.heads[head].decoder
    patch = model.config.encoder.patch_size
    corners = decoder.align_corners

    def logits(images: Tensor) -> Tensor:
        prepared = prepare(kind, model, images)
        taps = model.encoder(prepared, model.needed_blocks((head,))).select(positions)
        height, width = images.shape[-2:]
        to_pixels = kind == "segmenter" or (kind != "transformers" and prepared.shape[-2:] == (height, width))
        return (decoder.decode_coarse(taps) if to_pixels else decoder(taps)).logits

    def resizes(grid: Size, size: Size) -> tuple[Resize, Resize]:
        factor = config.transformers_upsampling
        if kind == "transformers" and factor is not None:
            target = (grid[0] * factor, grid[1] * factor)
        elif kind == "segmenter":
            target = (size[0] + -size[0] % patch[0], size[1] + -size[1] % patch[1])
        else:
            target = size
        rows, columns = (Resize(old, new, align_corners=corners) for old, new in zip(grid, target, strict=True))
        return rows, columns

    return Network(logits, resizes, cropped=kind == "segmenter", align_corners=kind == "mmseg" and corners)


def prepare(kind: ProtocolKind, model: DenseModel, images: Tensor) -> Tensor:
    """Make the sides of normalised images (B, 3, h, w) multiples of the patch size.

    Segmenter, mmsegmentation and SETR pad with zeros to the right and below, DINOv2 half on either side; transformers
    drops pixels there.

    Raises:
        ShapeError: for the original DPT and Depth Anything, which do neither.
    """
    (h, w), (ph, pw) = images.shape[-2:], model.config.encoder.patch_size
    if not (h % ph or w % pw):
        return images
    if kind == "transformers":
        return images[..., : h - h % ph, : w - w % pw]
    if kind == "dinov2":  # the output is of the padded image, and resized to that without padding
        return centre_padded(images, ph)
    if kind in ("dpt", "depth_anything", "depth_anything_3"):
        raise ShapeError(f"image is {h} x {w} but protocol {kind} takes multiples of patch size {ph} x {pw}; resize it")
    return F.pad(images, (0, -w % pw, 0, -h % ph))


def window_logits(protocol: WindowProtocol, network: Network, images: Tensor, *, size: Size) -> StitchedLogits:
    """Logits of ``size`` for normalised images (1, 3, h, w): windows, their mean, and the last resize."""
    if protocol.kind == "segmenter" and protocol.window:
        covering = cover_window((images.shape[-2], images.shape[-1]), protocol.window[0])
        images = resize(images, covering, align_corners=False)
    return merge_windows(protocol, network, images).resized(size, align_corners=network.align_corners)


def merge_windows(protocol: WindowProtocol, network: Network, images: Tensor) -> StitchedLogits:
    """Logits of (h, w) for normalised images (1, 3, h, w): the mean over the protocol's windows."""
    size = (images.shape[-2], images.shape[-1])
    if protocol.window is None or protocol.stride is None:
        return slide(network, images, [(slice(0, size[0]), slice(0, size[1]))])
    starts = anchored_starts if protocol.kind == "segmenter" else clamped_starts
    return slide(network, images, window_slices(starts, size, protocol.window, protocol.stride))


def _resized(protocol: WholeProtocol, image: NDArray[np.uint8]) -> Tensor:
    """The image (H, W, 3) at the protocol's input size: (3, h, w) in [0, 1]."""
    image_size = (image.shape[0], image.shape[1])
    size = checked_input_size(whole_size(protocol, image_size), image_size)
    if protocol.kind == "depth_anything_3":
        return opencv_twice(image, max(protocol.net_size), size)
    return pillow(image, size, protocol.resample) if protocol.kind == "transformers" else opencv_cubic(image, size)


# How each whole-image protocol resizes labels and values back to the image.
_FINAL: dict[WholeKind, tuple[tuple[Mode, bool], tuple[Mode, bool]]] = {
    "dpt": (("bicubic", False), ("bicubic", False)),
    "transformers": (("bilinear", False), ("bicubic", False)),
    "depth_anything": (("bilinear", True), ("bilinear", True)),
    "depth_anything_3": (("bilinear", False), ("bilinear", False)),  # its program leaves maps at the network's size
}


def whole_logits(
    protocol: WholeProtocol, network: Network, images: Tensor, *, size: Size, labels: bool
) -> StitchedLogits:
    """Output of ``size`` for normalised images (1, 3, h, w), by the source's interpolation for labels or values."""
    mode, align_corners = _FINAL[protocol.kind][0 if labels else 1]
    logits = network.logits(images)[0]
    heights, widths = (
        (inner, Resize(inner.new, new, mode, align_corners))
        for inner, new in zip(
            network.resizes((logits.shape[-2], logits.shape[-1]), (images.shape[-2], images.shape[-1])),
            size,
            strict=True,
        )
    )
    return whole(logits, heights, widths)


def _normalised(model: DenseModel, image: Tensor) -> Tensor:
    return normalised(image, model.mean, model.std)


def choose(kind: str, stored: Protocol | None, model: ModelConfig) -> Protocol:
    """The protocol of a name: the one stored with the weights if it is of this kind, else one for the model's size.

    Raises:
        ConfigError: if there is no such protocol, or the model's position embedding does not say its size.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no protocol {kind!r}{nearest(kind, KINDS)}")
    if stored is not None and stored.kind == kind:
        return stored
    positions = model.encoder.positions
    if not isinstance(positions, LearnedPositions):
        raise ConfigError(
            f"protocol {kind!r} needs the size of the training images, which rotary positions do not say; "
            "pass a WindowProtocol or WholeProtocol with the size"
        )
    height, width = (n * p for n, p in zip(positions.grid, model.encoder.patch_size, strict=True))
    if kind in get_args(WindowKind):
        side = min(height, width)
        step = max(side - 32, 1) if kind == "segmenter" else max(side * 2 // 3, 1)
        facts = {"kind": kind, "base": (4 * side, side), "window": (side, side), "stride": (step, step)}
        return WindowProtocol.parse(facts)
    multiple = 32 if kind == "dpt" else model.encoder.patch_size[0]
    return WholeProtocol.parse({"kind": kind, "net_size": (height, width), "multiple": multiple})
