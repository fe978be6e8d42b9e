"""Weight files of others, read without ever running code that a file may hold."""

import logging
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from densevit.errors import CheckpointError

log = logging.getLogger(__name__)

# Bytes of JSON at the start of a safetensors file; the format's own limit.
MAX_HEADER = 100_000_000

# Where training scripts put the weights beside optimiser and arguments; the first present wins.
WRAPPERS = ("state_dict", "model", "model_ema", "ema", "state_dict_ema", "module", "teacher")

# What DataParallel and torch.compile write before every name.
PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        state: tensors by name, wrappers and prefixes taken off.
        meta: the plain data that mmsegmentation stores beside the weights, such as its config; else empty.
    """

    state: dict[str, Tensor]
    meta: Mapping[str, Any]


def read_state_dict(path: Path, *, require_finite: bool = True) -> dict[str, Tensor]:
    """The weights alone of what ``read_weights`` reads.

    Raises:
        CheckpointError: as there.
    """
    return read_weights(path, require_finite=require_finite).state


def read_weights(path: Path, *, require_finite: bool = True) -> WeightsFile:
    """Read the weights of a safetensors or torch.save file, told apart by content and not by suffix.

    Wrappers such as ``{"model": ...}`` and prefixes such as ``module.`` are taken off. Tensors are on the CPU, in the
    dtype of the file.

    Args:
        path: the file.
        require_finite: refuse weights that hold NaN or infinity.

    Raises:
        CheckpointError: if the file is missing, damaged, of another kind, needs code to be opened, or has no weights.
    """
    loaded = _load_safetensors(path) if _kind(path) == "safetensors" else _load_pickle(path)
    state = _strip_prefixes(_unwrap(loaded, path))
    if require_finite:
        bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if bad:
            raise CheckpointError(
                f"{path} has NaN or infinity in {_some(bad)}; weights must be finite; "
                "get another copy, or pass require_finite=False to look inside"
            )
    meta = loaded.get("meta") if isinstance(loaded, Mapping) else None
    return WeightsFile(state, meta if isinstance(meta, Mapping) else {})


def _kind(path: Path) -> Literal["safetensors", "pickle"]:
    """Tell the format by its first bytes, and check the length that a safetensors file states for its header."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; weights are a .safetensors file or one written by torch.save; check the path"
        ) from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder, but weights are one file; name the file inside it") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; a readable file is needed") from None
    # First, because the length of a header can look like the start of a pickle.
    if start[8:9] == b"{":
        header = int.from_bytes(start[:8], "little")
        if header > MAX_HEADER:
            raise CheckpointError(
                f"{path} states a safetensors header of {header} bytes, but at most {MAX_HEADER} are allowed; "
                "the file is damaged or hostile, get another copy"
            )
        if 8 + header > size:
            raise _damaged(path, f"its header needs {8 + header} bytes and the file has {size}")
        return "safetensors"
    if start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}):
        return "pickle"
    raise CheckpointError(
        f"{path} {_describe(start)}, but weights are a .safetensors file or one written by torch.save; "
        "download the file itself, or convert it"
    )


def _describe(start: bytes) -> str:
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the file it points to"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page"
    return f"starts with {start[:8]!r}"


def _damaged(path: Path, detail: object) -> CheckpointError:
    first_line = str(detail).strip().splitlines()[0] if str(detail).strip() else type(detail).__name__
    return CheckpointError(
        f"{path} is damaged or cut short ({first_line.rstrip('.')}); a whole file is needed; download or copy it again"
    )


def _load_safetensors(path: Path) -> object:
    try:
        return load_file(path, device="cpu")
    except Exception as error:  # a damaged header can fail in any way, from bad JSON to unknown dtypes
        raise _damaged(path, error) from None


def _load_pickle(path: Path) -> object:
    try:
        with path.open("rb") as file:  # given a path, torch would go by the suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needs = re.findall(r"GLOBAL (\S+)", str(error))
        if not needs and "Unsupported" not in str(error):
            raise _damaged(path, error) from None
        raise _unsafe(path, f"more than tensors ({needs[0]})" if needs else "more than tensors") from None
    except Exception as error:  # a damaged archive can fail in any way
        if "TorchScript" in str(error):
            raise _unsafe(path, "a TorchScript program") from None
        raise _damaged(path, error) from None


def _unsafe(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} holds {what}, and opening it could run code; only plain tensors are read; if you trust the file, "
        "load it once where it came from, take its state_dict(), and write that with safetensors.torch.save_file"
    )


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """Walk through the wrappers to the mapping of names to tensors; what stands beside the tensors is left."""
    while isinstance(loaded, Mapping):
        wrappers = [name for name in WRAPPERS if _holds_tensors(loaded.get(name))]
        if not wrappers:
            break
        if len(wrappers) > 1:
            log.warning("%s holds weights under %s; taking %r", path, ", ".join(wrappers), wrappers[0])
        loaded = loaded[wrappers[0]]
    if not _holds_tensors(loaded):
        found = f"keys {_some([str(key) for key in loaded])}" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise CheckpointError(
            f"{path} has no named tensors inside (found {found}); weights are a mapping of names to tensors, bare or "
            f"under one of {', '.join(WRAPPERS)}; save the model's state_dict()"
        )
    assert isinstance(loaded, Mapping)
    return {name: t.detach() for name, t in loaded.items() if isinstance(name, str) and isinstance(t, Tensor)}


def _holds_tensors(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    named = any(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    return named or any(_holds_tensors(value.get(name)) for name in WRAPPERS)


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _strip_prefixes({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return state


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
