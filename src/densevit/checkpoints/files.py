"""Read weights files of any program without running code that a file may hold."""

import io
import logging
import mmap
import pickle
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from densevit.checkpoints.pickle_check import PickleCheck
from densevit.checkpoints.pickle_stubs import PICKLE_STUBS
from densevit.checkpoints.prefixes import some, strip_prefixes
from densevit.checkpoints.shards import is_index, join_shards, refuse_single_shard
from densevit.errors import CheckpointError
from densevit.io import atomic_path
from densevit_runtime.io.decode import reason

log = logging.getLogger(__name__)

SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}
"""Of files of weights."""

# Bytes of JSON at the start of a safetensors file, as limited by the format.
MAX_HEADER = 100_000_000

# Keys of the weights in a checkpoint that also holds optimiser and arguments; the first present wins.
WRAPPERS = ("state_dict", "model", "model_ema", "ema", "state_dict_ema", "module", "teacher")

# Levels of wrappers inside wrappers; a hostile pickle can contain itself.
MAX_NESTING = 4


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        state: tensors by name, without wrappers and prefixes.
        meta: metadata that mmsegmentation stores with the weights, such as its config; else empty.
    """

    state: dict[str, Tensor]
    meta: Mapping[str, Any]


def read_state_dict(path: Path, *, require_finite: bool = True) -> dict[str, Tensor]:
    """The tensors of ``read_weights``.

    Raises:
        CheckpointError: as ``read_weights``.
    """
    return read_weights(path, require_finite=require_finite).state


def read_weights(path: Path, *, require_finite: bool = True) -> WeightsFile:
    """Read a safetensors or torch.save file, recognised by its content, or all shards of an index.

    Wrappers such as ``{"model": ...}`` and prefixes such as ``module.`` are removed. Tensors are on the CPU, in the
    dtype of the file.

    Args:
        path: the file, or the index of a model in several files.
        require_finite: refuse weights that hold NaN or infinity.

    Raises:
        CheckpointError: if the file is missing, damaged, of another kind, has no weights, or opening it would run code.
    """
    if is_index(path.name):
        named, loaded = join_shards(path, lambda shard: _read_names(shard)[0]), None
    else:
        refuse_single_shard(path)
        named, loaded = _read_names(path)
    state = strip_prefixes(named, path)
    if require_finite:
        bad = [name for name, tensor in state.items() if not is_finite(tensor)]
        if bad:
            raise CheckpointError(
                f"{path} has NaN or infinity in {some(bad)}; weights must be finite; "
                "get another copy, or pass require_finite=False to inspect them"
            )
    meta = loaded.get("meta") if isinstance(loaded, Mapping) else None
    return WeightsFile(state, meta if isinstance(meta, Mapping) else {})


def _read_names(path: Path) -> tuple[dict[str, Tensor], object]:
    """The tensors of one file under its own names, and all that it holds."""
    loaded = _load_safetensors(path) if _kind(path) == "safetensors" else load_pickle(path)
    state = _unwrap(loaded, path)
    _check_storage(state, path)
    return state, loaded


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, *, internal: bool = False
) -> None:
    """Write tensors to a safetensors file; see ``densevit.io.atomic_path``.

    Raises:
        DataError: if it cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path, internal=internal) as temporary:
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:  # such as a full disk
            raise OSError(str(error)) from error


def _kind(path: Path) -> Literal["safetensors", "pickle"]:
    """Recognise the format by its first bytes, and check the header length that a safetensors file states."""
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # opening a folder fails by itself
            raise CheckpointError(f"{path} is a device or a pipe, but weights are one file; save it to a file first")
        size = status.st_size
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; give the path of a .safetensors file or of one written by torch.save"
        ) from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder, but weights are one file; name the file inside it") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from None
    # Safetensors goes first, because a header length can look like the start of a pickle.
    if start[8:9] == b"{":
        header = int.from_bytes(start[:8], "little")
        if header > MAX_HEADER:
            raise CheckpointError(
                f"{path} states a safetensors header of {header} bytes, but at most {MAX_HEADER} are allowed; "
                "the file is damaged or hostile; download it again"
            )
        if 8 + header > size:
            raise _damaged(path, f"its header needs {8 + header} bytes but the file has {size}")
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
    return CheckpointError(f"{path} is damaged or cut short ({first_line.rstrip('.')}); download or copy it again")


def _load_safetensors(path: Path) -> object:
    try:
        return load_file(path, device="cpu")
    except Exception as error:  # a damaged header can fail in any way, from bad JSON to unknown dtypes
        raise _damaged(path, error) from None


def load_pickle(path: Path) -> object:
    """What torch.save wrote, after a check of what reading it would make; no code of the file is run.

    Raises:
        CheckpointError: if the file is damaged, claims more than it holds, or holds more than tensors.
    """
    try:
        _check_pickle(path)
        # Given a path, torch would go by the suffix.
        with path.open("rb") as file, torch.serialization.safe_globals(PICKLE_STUBS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        classes = re.findall(r"GLOBAL (\S+)", str(error))
        if not classes and "Unsupported" not in str(error):
            raise _damaged(path, error) from None
        raise _unsafe(path, f"more than tensors ({classes[0]})" if classes else "more than tensors") from None
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive can fail in any way
        if "TorchScript" in str(error):
            raise _unsafe(path, "a TorchScript program") from None
        raise _damaged(path, error) from None


def _check_pickle(path: Path) -> None:
    """Bound what ``torch.load`` would make of a file, in either format of torch.save."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
                check = PickleCheck(size, None)
                # A magic number, the version, facts about the machine, the weights, and the keys of their storages.
                _ = all(check.follow(stream) for _ in range(5))
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > size:
            raise CheckpointError(
                f"{path} unpacks from {size} bytes to {unpacked}, but torch.save does not compress; "
                "the file is of another program or hostile; get another copy"
            )
        if len({entry.filename.lower() for entry in entries}) != len(entries):  # torch ignores case
            raise _damaged(path, "two entries of the archive have one name")
        root = entries[0].filename.partition("/")[0] if entries else ""
        sizes = {entry.filename: entry.file_size for entry in entries}
        if f"{root}/data.pkl" in sizes:
            prefix = f"{root}/data/"
            records = {name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)}
            pickled = archive.read(f"{root}/data.pkl")
            PickleCheck(len(pickled), records).follow(io.BytesIO(pickled))


def _check_storage(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are no plain arrays or larger than the file can hold, before their values are read."""
    odd = [name for name, tensor in state.items() if not _is_plain(tensor)]
    if odd:
        raise CheckpointError(
            f"{path} has sparse, nested, quantised or valueless tensors ({some(odd)}); weights are plain arrays; "
            "convert them with the program that wrote the file"
        )
    size, stated = path.stat().st_size, sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if stated > 2 * size:  # tied weights are named twice
        raise CheckpointError(
            f"{path} has {size} bytes, but its tensors claim {stated}; it is damaged or hostile; download it again"
        )


def _is_plain(tensor: Tensor) -> bool:
    odd = tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized
    return not odd and tensor.device.type == "cpu"


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    values = tensor.float() if tensor.element_size() == 1 else tensor
    # A sum needs no memory, and is not finite if a value is not; sums that overflow are looked at value by value.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def _unsafe(path: Path, content: str) -> CheckpointError:
    return CheckpointError(
        f"{path} holds {content}, and opening it could run code; if you trust the file, load it with the program that "
        "wrote it, and write its state_dict() with safetensors.torch.save_file"
    )


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """The mapping of names to tensors inside all wrappers; other values next to the tensors are dropped."""
    for level in range(MAX_NESTING):
        wrappers = [
            name
            for name in WRAPPERS
            if isinstance(loaded, Mapping) and _holds_tensors(loaded.get(name), MAX_NESTING - 1 - level)
        ]
        if not wrappers:
            break
        if len(wrappers) > 1:
            log.warning("%s holds weights under %s; taking %r", path, ", ".join(wrappers), wrappers[0])
        assert isinstance(loaded, Mapping)
        loaded = loaded[wrappers[0]]
    if not _holds_tensors(loaded, 0):
        content = f"keys {some([str(key) for key in loaded])}" if isinstance(loaded, Mapping) else type(loaded).__name__
        if isinstance(loaded, Mapping) and {"state", "param_groups"} <= set(loaded):
            content = "the state of an optimiser"
        raise CheckpointError(
            f"{path} has no named tensors inside (found {content}); weights are a mapping of names to tensors, bare or "
            f"under one of {', '.join(WRAPPERS)}; save the model's state_dict()"
        )
    assert isinstance(loaded, Mapping)
    return {name: t.detach() for name, t in loaded.items() if isinstance(name, str) and isinstance(t, Tensor)}


def _holds_tensors(value: object, depth: int) -> bool:
    """Whether a mapping has named tensors, itself or in its wrappers down to a depth."""
    if not isinstance(value, Mapping):
        return False
    named = any(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    return named or (depth > 0 and any(_holds_tensors(value.get(name), depth - 1) for name in WRAPPERS))
