"""What a run leaves on the disk: models that stand by themselves and are no larger than needed, and few states."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from densevit.checkpoints.native import Storage, load_bundle, save_bundle
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from densevit.training.run.log import read_log
from densevit.training.train import train
from tests.e2e.scenes import recipe, write_model


def frozen(dataset: Path, model: Path, **facts: Any) -> TrainConfig:
    raw = recipe(dataset, "setr", **{"iterations": 4, "eval_every": 2, **facts})
    return TrainConfig.parse(complete(raw | {"init": str(model), "freeze": "encoder"}))


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose encoder is stored as the one that ships is: matrices in int8, vectors in float16."""
    whole = load_bundle(write_model(tmp_path_factory.mktemp("models") / "float32.safetensors", "setr"))
    path = tmp_path_factory.mktemp("models") / "rounded.safetensors"
    save_bundle(whole, path, Storage(int8=("encoder.blocks.*.weight",), float16=("encoder.*",)))
    return path


def test_frozen_encoder__is_stored_as_it_came(dataset: Path, rounded: Path, tmp_path: Path) -> None:
    model = train(frozen(dataset, rounded), tmp_path / "run")
    origin = load_bundle(rounded).model.encoder.state_dict()
    saved = load_bundle(model).model.encoder.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in origin.items())
    with safe_open(model, framework="pt") as file, safe_open(rounded, framework="pt") as first:
        dtypes = {name: file.get_slice(name).get_dtype() for name in first.keys() if name.startswith("encoder.")}  # noqa: SIM118
        assert dtypes == {name: first.get_slice(name).get_dtype() for name in dtypes}
        assert "I8" in dtypes.values()


def test_encoder__that_was_not_rounded_is_stored_whole(dataset: Path, tmp_path: Path) -> None:
    origin = write_model(tmp_path / "float32.safetensors", "setr")
    model = train(frozen(dataset, origin), tmp_path / "run")
    saved = load_bundle(model).model.encoder.state_dict()
    assert all(torch.equal(v, saved[n]) for n, v in load_bundle(origin).model.encoder.state_dict().items())


@pytest.mark.parametrize("select", ["last", "best"])
def test_best_and_finished_model__share_their_bytes_where_they_are_equal(
    dataset: Path, rounded: Path, tmp_path: Path, select: str
) -> None:
    out = train(frozen(dataset, rounded, select=select), tmp_path / "run").parent
    at = max(row["iteration"] for row in read_log(out / "log.jsonl") if row["event"] == "best")
    one, other = (out / f"{name}.safetensors" for name in ("best", "model"))
    assert one.samefile(other) == (select == "best" or at == 4)


def test_finished_run__keeps_one_state_of_the_heads_alone(dataset: Path, rounded: Path, tmp_path: Path) -> None:
    facts = {"checkpoint_every": 1, "ema": 0.9}
    out = train(frozen(dataset, rounded, **facts), tmp_path / "run").parent
    (path,) = (out / "states").iterdir()
    state = torch.load(path)
    assert path.name == "state-00000004.pt"
    assert {name.split(".")[0] for name in (*state["model"], *state["average"])} == {"heads"}
    heads = sum(v.numel() for n, v in load_bundle(rounded).model.state_dict().items() if n.startswith("heads."))
    assert path.stat().st_size < 4 * 4 * heads + 100_000  # weights, average and two moments
    kept = train(frozen(dataset, rounded, keep_states=3, **facts), tmp_path / "kept").parent
    assert len(list((kept / "states").iterdir())) == 3


def test_finished_model__opens_without_the_one_that_it_came_from(
    dataset: Path, rounded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Path(shutil.copy(rounded, tmp_path / "default.safetensors"))
    monkeypatch.setattr("densevit.checkpoints.hub.DEFAULT", origin)
    raw = frozen(dataset, origin).plain() | {"init": "default"}
    model = train(TrainConfig.parse(raw), tmp_path / "run")
    before = load_bundle(model).model.state_dict()
    write_model(origin.with_name("other.safetensors"), "setr", seed=5).replace(origin)  # another default ships
    after = load_bundle(model).model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
