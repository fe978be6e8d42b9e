"""Weights in several files: what the index says is checked against its shards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file
from torch import Tensor

from densevit.checkpoints.files import read_state_dict
from densevit.checkpoints.hub import resolve
from densevit.checkpoints.open import import_file
from densevit.checkpoints.shards import index_of, is_index, tensors_by_shard
from densevit.errors import CheckpointError
from tests.parity.foreign import HF, state_of, write_transformers

STATE = {f"blocks.{i}.weight": torch.full((2, 3), float(i)) for i in range(4)}
NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write_shards(folder: Path, state: dict[str, Tensor] = STATE, *, pickles: bool = False) -> Path:
    """Two shards and their index, whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, suffix = ("pytorch_model", "bin") if pickles else ("model", "safetensors")
    names = sorted(state)
    shard_of = {name: f"{stem}-0000{1 + (i >= len(names) // 2)}-of-00002.{suffix}" for i, name in enumerate(names)}
    for shard in set(shard_of.values()):
        part = {name: state[name].contiguous() for name in names if shard_of[name] == shard}
        (torch.save if pickles else save_file)(part, folder / shard)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 96}, "weight_map": shard_of}))
    return index


def change_map(index: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(index.read_text())
    change(data["weight_map"])
    index.write_text(json.dumps(data))


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_state_dict(path)
    return str(error.value)


@pytest.mark.parametrize("pickles", [False, True])
def test_index__gives_the_tensors_of_all_shards(pickles: bool, tmp_path: Path) -> None:
    state = read_state_dict(write_shards(tmp_path, pickles=pickles))

    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())


def test_prefix__of_one_shard_only_is_kept(tmp_path: Path) -> None:
    state = {"model.a": torch.ones(2), "z.b": torch.ones(2)}

    assert read_state_dict(write_shards(tmp_path, state)).keys() == state.keys()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("pickles", [False, True])
def test_folder_with_shards__is_a_checkpoint(pickles: bool, named: bool, tmp_path: Path) -> None:
    whole = import_file(str(write_transformers(tmp_path / "whole"))).bundle.model.state_dict()
    write_transformers(tmp_path / "parts")
    (tmp_path / "parts" / "model.safetensors").unlink()
    index = write_shards(tmp_path / "parts", state_of(HF), pickles=pickles)

    parts = import_file(str(index if named else index.parent)).bundle.model.state_dict()

    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize(
    "shard",
    ["../model-00001-of-00002.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", 3, "..\\x", "C:x"],
)
def test_shard__outside_the_folder_is_refused(shard: object, tmp_path: Path) -> None:
    index = write_shards(tmp_path / "model")
    change_map(index, lambda shard_of: shard_of.update({"blocks.0.weight": shard}))

    assert "but shards are files in its own folder" in refusal(index)


def test_index__does_not_name_an_index(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    change_map(index, lambda shard_of: shard_of.update({"x": index.name}))

    assert "but shards are files in its own folder" in refusal(index)


def test_shard__that_is_missing_is_named(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    (tmp_path / NAMES[1]).unlink()

    assert refusal(index) == f"{index} names {NAMES[1]}, which is not in its folder; download every shard into it"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda m: m.update({"blocks.0.weight": NAMES[1]}),
            f"{NAMES[0]} holds what the index does not state for it: b",
        ),
        (lambda m: m.update({"blocks.9.weight": NAMES[0]}), f"{NAMES[0]} lacks blocks.9.weight;"),
        (lambda m: m.pop("blocks.3.weight"), f"{NAMES[1]} holds what the index does not state for it: blocks.3.weight"),
    ],
)
def test_index__that_does_not_fit_its_shards_is_refused(
    change: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path
) -> None:
    index = write_shards(tmp_path)
    change_map(index, change)

    assert words in refusal(index)


def test_tensor__in_two_shards_is_refused(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    save_file(STATE, tmp_path / NAMES[1])

    assert f"{NAMES[1]} holds what the index does not state for it: blocks.0.weight, blocks.1.weight" in refusal(index)


def test_shard__that_is_damaged_is_refused(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    (tmp_path / NAMES[0]).write_bytes((tmp_path / NAMES[0]).read_bytes()[:-4])

    assert f"{tmp_path / NAMES[0]} is damaged or cut short" in refusal(index)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "{", "[" * 100_000])
def test_index__that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)

    assert "download it again" in refusal(index)


def test_index__of_too_many_shards_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"a{i}": f"{i}.bin" for i in range(1001)}}))

    with pytest.raises(CheckpointError, match="1001 shards, but at most 1000"):
        tensors_by_shard(index)


def test_one_shard__is_not_taken_for_the_model(tmp_path: Path) -> None:
    write_shards(tmp_path)

    assert refusal(tmp_path / NAMES[0]) == (
        f"{tmp_path / NAMES[0]} is one of several shards and lacks the tensors of the others; name their index, "
        "model.safetensors.index.json, or the folder"
    )


def test_folder__without_the_index_asks_for_it(tmp_path: Path) -> None:
    write_shards(tmp_path).unlink()

    with pytest.raises(
        CheckpointError, match=r"2 shards of a model, but not their index, model.safetensors.index.json"
    ):
        import_file(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("model-00001-of-00003.safetensors", "model.safetensors.index.json"),
        ("model.fp16-00002-of-00003.safetensors", "model.fp16.safetensors.index.json"),
        ("pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"),
        ("model-00001-of-00001.safetensors", None),
        ("model.safetensors", None),
    ],
)
def test_index_of__a_shard(name: str, index: str | None) -> None:
    assert index_of(name) == index
    assert index is None or is_index(index)


class Hub:
    """Copies files from a folder into its cache, as huggingface_hub does with those of a repository."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache = repository, cache

    def __call__(self, repo: str, name: str, *, revision: str | None = None) -> str:
        if not (self.repository / name).exists():
            raise errors.EntryNotFoundError.__new__(errors.EntryNotFoundError)
        copy = self.cache / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((self.repository / name).read_bytes())
        return str(copy)


@pytest.mark.parametrize(("folder", "address"), [("", "hf://o/n"), ("v2", "hf://o/n/v2/model.safetensors.index.json")])
def test_hub__is_asked_for_every_shard(
    folder: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path / "repository" / folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Hub(tmp_path / "repository", tmp_path / "cache"))

    assert read_state_dict(resolve(address)).keys() == STATE.keys()


def test_hub__without_a_shard_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "repository")
    (tmp_path / "repository" / NAMES[1]).unlink()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Hub(tmp_path / "repository", tmp_path / "cache"))

    with pytest.raises(CheckpointError, match=f"names the shard {NAMES[1]}, which the repository does not have"):
        resolve("hf://o/n")
