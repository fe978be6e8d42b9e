"""How a native checkpoint stores tensors: as they are, in float16, or as int8 with one scale per output channel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from densevit.errors import CheckpointError

SCALE_SUFFIX = ".int8_scale"

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Accepted dtypes of weights; others than float32 are converted to it."""


def check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    """Compare the names and shapes of a file with those of a model.

    Raises:
        CheckpointError: if they differ.
    """
    missing = sorted(set(expected) - set(shapes))
    unexpected = sorted(set(shapes) - set(expected))
    wrong = [name for name in expected if name in shapes and shapes[name] != tuple(expected[name].shape)]
    if missing or unexpected or wrong:
        raise CheckpointError(
            f"{path} does not fit its own config: {len(missing)} tensors missing ({', '.join(missing[:3])}), "
            f"{len(unexpected)} unknown ({', '.join(unexpected[:3])}), {len(wrong)} of another shape "
            f"({', '.join(wrong[:3])}); download the file again"
        )


def read_tensor(file: Any, name: str, expected: Tensor, path: Path, scales: set[str]) -> Tensor:
    """Read a tensor in the dtype that the model computes with.

    Args:
        file: an open safetensors file.
        name: of the tensor.
        expected: the model's own, of the same shape.
        path: of the file, for messages.
        scales: names of the scales in the file.

    Raises:
        CheckpointError: naming the tensor, if it is stored in another way than ``save_bundle`` does.
    """
    tensor: Tensor = file.get_tensor(name)
    scale_name = name + SCALE_SUFFIX
    scale = file.get_tensor(scale_name) if scale_name in scales else None
    if not expected.is_floating_point():
        accepted = scale is None and tensor.dtype == expected.dtype
    elif scale is None:
        accepted = tensor.dtype in FLOATS
    else:
        rows = tensor.shape[:1] if tensor.ndim >= 2 else None
        accepted = tensor.dtype == torch.int8 and scale.dtype in FLOATS and scale.shape == rows
    if not accepted:
        weights = "float16, bfloat16, float32, float64, or int8 with a scale for each row"
        wanted = weights if expected.is_floating_point() else _dtype(expected)
        scaled = "" if scale is None else f" with scales of shape {tuple(scale.shape)} and dtype {_dtype(scale)}"
        raise CheckpointError(
            f"{path} has {name} of shape {tuple(tensor.shape)} and dtype {_dtype(tensor)}{scaled}; "
            f"{wanted} is accepted; convert it or get another copy"
        )
    if scale is not None:
        return dequantise_rows(tensor, scale.float())
    return tensor.float() if expected.is_floating_point() else tensor


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (out, ...) -> int8 of the same shape and float32 scales (out,).

    The scale is the largest magnitude over 127, or a neighbouring float if that reproduces the row exactly, so weights
    that were dequantised from int8 lose nothing.
    """
    rows = weight.float().flatten(1)
    base = rows.abs().amax(dim=1) / 127
    base = torch.where(base > 0, base, torch.ones_like(base))
    best_scale, best_error = base, torch.full_like(base, torch.inf)
    up, down = torch.full_like(base, torch.inf), torch.zeros_like(base)
    candidates = [base]
    for direction in (up, down):
        candidates += [base.nextafter(direction), base.nextafter(direction).nextafter(direction)]
    for scale in candidates:
        error = (_round_rows(rows, scale) * scale[:, None] - rows).abs().amax(dim=1)
        best_scale = torch.where(error < best_error, scale, best_scale)
        best_error = torch.minimum(error, best_error)
        if not best_error.any():
            break
    return _round_rows(rows, best_scale).to(torch.int8).view(weight.shape), best_scale


def exact_storage(tensor: Tensor) -> Literal["int8", "float16", "plain"]:
    """The smallest storage that gives a float tensor back to the bit."""
    if tensor.ndim >= 2:
        for rows in (tensor[:1], tensor):  # most tensors that were never rounded show it in their first row
            if not torch.equal(dequantise_rows(*quantise_rows(rows)), rows):
                break
        else:
            return "int8"
    return "float16" if torch.equal(tensor.half().float(), tensor) else "plain"


def dequantise_rows(weight: Tensor, scale: Tensor) -> Tensor:
    """int8 (out, ...) and scales (out,) -> float32 weights."""
    return weight.float() * scale.view(-1, *[1] * (weight.ndim - 1))


def _round_rows(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows / scale[:, None]).round().clamp(-127, 127)
