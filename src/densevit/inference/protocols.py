"""The published programs' ways from a photo to a result, to the letter; their facts are in ``densevit.inference_config``."""

from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.config import nearest
from densevit.encoder.positions import LearnedPositions
from densevit.errors import ConfigError, ShapeError
from densevit.inference import protocol_resize as sizes
from densevit.inference.protocol_resize import (
    opencv_cubic,
    opencv_linear,
    pillow_cubic,
    single_scale_size,
    tta_sizes,
    whole_size,
)
from densevit.inference.protocol_windows import Network, anchored_windows, clamped_windows, normalised, slide
from densevit.inference.separable_resize import Mode, Resize
from densevit.inference.tiled_logits import StitchedLogits, TiledLogits, full, whole
from densevit.inference.tta import TtaMean
from densevit.inference_config import ProtocolKind, WholeKind, WholeProtocol, WindowKind, WindowProtocol
from densevit.layers import resize
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Segmentation, Task
from densevit.types import Size

Protocol = WindowProtocol | WholeProtocol
KINDS: tuple[str, ...] = (*get_args(WindowKind), *get_args(WholeKind))


@torch.inference_mode()
def run(
    protocol: Protocol, model: DenseModel, head: str, task: Task, photo: NDArray[np.uint8], *, tta: bool = False
) -> Tensor:
    """The whole of ``field``: (K, H, W) float32 on the CPU. For those who need all of it; it may be large."""
    return full(field(protocol, model, head, task, photo, tta=tta)).cpu()


@torch.inference_mode()
def field(
    protocol: Protocol, model: DenseModel, head: str, task: Task, photo: NDArray[np.uint8], *, tta: bool = False
) -> TiledLogits:
    """One photo through one head, from the first resize to the photo's own size.

    Args:
        protocol: whose rules.
        model: in evaluation mode.
        head: its name.
        task: of the head.
        photo: uint8 (H, W, 3) RGB.
        tta: average the protocol's scales, each mirrored too; for labels by windows alone.

    Returns:
        Of the photo's size, tile by tile: logits (log probabilities with ``tta``), depth, or values.

    Raises:
        ConfigError: if there is no such test-time augmentation.
    """
    network = forward(protocol.kind, model, head)
    size = (photo.shape[0], photo.shape[1])
    labels = isinstance(task, Segmentation)
    if tta and (isinstance(protocol, WholeProtocol) or not labels):
        raise ConfigError(
            f"protocol {protocol.kind} has no multi-scale set for {task.kind}; leave tta off, or take segmentation "
            f"with one of {', '.join(get_args(WindowKind))}"
        )
    if isinstance(protocol, WholeProtocol):
        image = _normalised(model, _RESIZE[protocol.kind](photo, whole_size(protocol, size)))
        return whole_field(protocol, network, image, size=size, labels=labels)
    if not tta:
        image = _normalised(model, opencv_linear(photo, single_scale_size(protocol, size)))
        return window_field(protocol, network, image, size=size)
    views = TtaMean(probabilities=True)
    for image, mirrored in _views(protocol, model, photo):
        view = image.flip(-1) if mirrored else image
        views.add(window_field(protocol, network, view, size=size), mirrored=mirrored)
    return views.mean()


def forward(kind: ProtocolKind, model: DenseModel, head: str) -> Network:
    """What the source calls the model's forward pass: normalised images (B, 3, h, w) -> output, of the same size.

    The sources differ where a side is no multiple of the patch: see ``prepare``. Segmenter then resizes to the padded
    size and crops; mmsegmentation and SETR resize to the size as it was; transformers gives what its head gives.
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

    return Network(logits, resizes, cropped=kind == "segmenter")


def prepare(kind: ProtocolKind, model: DenseModel, images: Tensor) -> Tensor:
    """Normalised images (B, 3, h, w) -> the same with sides that the encoder takes.

    Segmenter, mmsegmentation and SETR pad with zeros right and below; transformers drops the odd pixels there.

    Raises:
        ShapeError: for the authors' DPT and Depth Anything, which do neither.
    """
    (h, w), (ph, pw) = images.shape[-2:], model.config.encoder.patch_size
    if not (h % ph or w % pw):
        return images
    if kind == "transformers":
        return images[..., : h - h % ph, : w - w % pw]
    if kind in ("dpt", "depth_anything"):
        raise ShapeError(
            f"image is {h} x {w} but protocol {kind} takes multiples of patch size {ph} x {pw}; resize it to such"
        )
    return F.pad(images, (0, -w % pw, 0, -h % ph))


def window_field(protocol: WindowProtocol, network: Network, images: Tensor, *, size: Size) -> StitchedLogits:
    """Normalised images (1, 3, h, w) -> logits of ``size``: windows, their mean, and the last resize."""
    if protocol.kind == "segmenter" and protocol.window:
        covering = sizes.cover_window((images.shape[-2], images.shape[-1]), protocol.window[0])
        images = resize(images, covering, align_corners=False)
    return merge_windows(protocol, network, images).resized(size)


def merge_windows(protocol: WindowProtocol, network: Network, images: Tensor) -> StitchedLogits:
    """Normalised images (1, 3, h, w) -> mean logits of (h, w) over the protocol's windows."""
    size = (images.shape[-2], images.shape[-1])
    if protocol.window is None or protocol.stride is None:
        return slide(network, images, [(slice(0, size[0]), slice(0, size[1]))])
    place = anchored_windows if protocol.kind == "segmenter" else clamped_windows
    return slide(network, images, place(size, protocol.window, protocol.stride))


def _views(protocol: WindowProtocol, model: DenseModel, photo: NDArray[np.uint8]) -> Iterator[tuple[Tensor, bool]]:
    for size in tta_sizes(protocol, (photo.shape[0], photo.shape[1])):
        image = _normalised(model, opencv_linear(photo, size))
        yield image, False
        yield image, True


_RESIZE: dict[WholeKind, Callable[[NDArray[np.uint8], Size], Tensor]] = {
    "dpt": opencv_cubic,
    "transformers": pillow_cubic,
    "depth_anything": opencv_cubic,
}
_FINAL: dict[WholeKind, tuple[tuple[Mode, bool], tuple[Mode, bool]]] = {
    "dpt": (("bicubic", False), ("bicubic", False)),
    "transformers": (("bilinear", False), ("bicubic", False)),
    "depth_anything": (("bilinear", True), ("bilinear", True)),
}


def whole_field(
    protocol: WholeProtocol, network: Network, images: Tensor, *, size: Size, labels: bool
) -> StitchedLogits:
    """Normalised images (1, 3, h, w) -> output of ``size`` by the source's interpolation for labels or for values."""
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
    """The protocol of a name: the one that came with the weights if it is of this kind, else one for the model's size.

    Raises:
        ConfigError: if there is no such protocol, or the model's positions do not tell its size.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no protocol {kind!r}{nearest(kind, KINDS)}")
    if stored is not None and stored.kind == kind:
        return stored
    positions = model.encoder.positions
    if not isinstance(positions, LearnedPositions):
        raise ConfigError(
            f"protocol {kind!r} needs the size of the training images, which rotary positions do not tell; "
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
