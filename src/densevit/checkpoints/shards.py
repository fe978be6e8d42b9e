"""Weights in several files: an index such as ``model.safetensors.index.json`` names the shard of every tensor.

This is the layout of huggingface_hub and transformers, for safetensors and for pickles.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from torch import Tensor

from densevit.checkpoints.prefixes import some
from densevit.errors import CheckpointError
from densevit.plain_data import parse_json_config, read_text
from densevit_runtime.io.decode import reason

MAX_SHARDS = 1000
_INDEX = re.compile(r".+\.(safetensors|bin)\.index\.json")
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.(?P<suffix>safetensors|bin)")


def is_index(name: str) -> bool:
    """Whether a file name is that of an index."""
    return _INDEX.fullmatch(name) is not None


def index_of(name: str) -> str | None:
    """The usual name of the index of a shard; None for a file that is no shard, or the only one."""
    match = _SHARD.fullmatch(name)
    if match is None or int(match["count"]) < 2:
        return None
    return f"{match['stem']}.{match['suffix']}.index.json"


def refuse_single_shard(path: Path) -> None:
    """Refuse one shard for the whole.

    Raises:
        CheckpointError: if the file is one of several.
    """
    if (index := index_of(path.name)) is not None:
        raise CheckpointError(
            f"{path} is one of several shards and lacks the tensors of the others; name their index, {index}, or the "
            "folder"
        )


def tensors_by_shard(index: Path) -> dict[str, set[str]]:
    """Read an index: the names of the tensors in each shard, by the name of its file.

    Raises:
        CheckpointError: if the index cannot be read, or names files outside its folder.
    """
    try:
        data = parse_json_config(read_text(index))
    except FileNotFoundError:
        raise CheckpointError(f"{index} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the index {index} cannot be read ({reason(error)}); download it again") from None
    shard_of = data.get("weight_map") if isinstance(data, Mapping) else None
    if not isinstance(shard_of, Mapping) or not shard_of:
        raise CheckpointError(
            f"the index {index} has no weight_map, which names the file of every tensor; download it again"
        )
    shards: dict[str, set[str]] = defaultdict(set)
    for tensor, shard in shard_of.items():
        if not _is_plain_name(shard):
            raise CheckpointError(
                f"the index {index} has {str(shard)[:80]!r} as the file of {str(tensor)[:80]}, but shards are files in "
                "its own folder; the index is damaged or hostile; download it again"
            )
        shards[shard].add(tensor)
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(f"the index {index} names {len(shards)} shards, but at most {MAX_SHARDS} are read")
    return dict(shards)


def _is_plain_name(shard: object) -> bool:
    """Whether a shard is a file name without a folder, on any system, and no index itself."""
    if not isinstance(shard, str) or shard in ("", ".", "..") or is_index(shard):
        return False
    return PurePosixPath(shard).name == shard == PureWindowsPath(shard).name


def join_shards(index: Path, read: Callable[[Path], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all shards.

    Args:
        index: path of the index.
        read: reads one shard; its names are those of the file.

    Raises:
        CheckpointError: if a shard is missing, or its tensors are not those that the index states.
    """
    joined: dict[str, Tensor] = {}
    shards = tensors_by_shard(index)
    if missing := [name for name in shards if not (index.parent / name).exists()]:
        raise CheckpointError(
            f"{index} names {some(sorted(missing))}, which {'is' if len(missing) == 1 else 'are'} not in its folder; "
            "download every shard into it"
        )
    for name, stated in sorted(shards.items()):
        tensors = read(index.parent / name)
        for problem, names in {
            "lacks": stated - tensors.keys(),
            "holds what the index does not state for it:": tensors.keys() - stated,
        }.items():
            if names:
                raise CheckpointError(
                    f"{index.parent / name} {problem} {some(sorted(names))}; index and shards are of different "
                    "models, or damaged; download them again"
                )
        joined |= tensors
    return joined
