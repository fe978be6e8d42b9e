"""The metrics and the protocol of a preset, as its published weights state them."""

from densevit.inference_config import WholeProtocol, parse_protocol
from densevit.presets import PRESETS

IN_PERCENT = ("mIoU", "mIoU TTA", "aAcc", "DA-2K", "DIW WHDR", "KITTI > 1.25", "NYU > 1.25", "TUM > 1.25")


def metrics_of(preset: str, data: str = "") -> dict[str, float]:
    """The published metrics of a preset by data set and name, fractions where the publisher gives percent.

    Args:
        preset: its name.
        data: the data set of all of them; empty where every metric's name begins with one.
    """
    named = PRESETS[preset].figures.items()
    return {f"{data} {key}".strip(): round(value / 100, 6) if key in IN_PERCENT else value for key, value in named}


def protocol_of(preset: str) -> str:
    """The protocol with which a preset was measured, in words."""
    protocol = parse_protocol(PRESETS[preset].protocol)
    if isinstance(protocol, WholeProtocol) and not protocol.resize:
        return f"whole image, padded to sides that are multiples of {protocol.pad_multiple}"
    if isinstance(protocol, WholeProtocol) and protocol.kind == "depth_anything_3":
        return f"whole image resized to a long side of {max(protocol.net_size)}, sides multiples of {protocol.multiple}"
    if isinstance(protocol, WholeProtocol):
        return f"whole image resized to {_size(protocol.net_size)}, sides multiples of {protocol.multiple}"
    resized = "not resized"
    if protocol.base is not None:
        resized = f"resized to sides of at most {protocol.base[1]} and {protocol.base[0]}"
        if protocol.kind == "dinov2":  # whose long side is free
            resized = f"resized to a short side of {min(protocol.base)}"
    if protocol.window is None or protocol.stride is None:
        return f"whole image {resized}"
    return f"image {resized}, windows of {_size(protocol.window)}, stride {protocol.stride[0]}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
