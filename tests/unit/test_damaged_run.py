"""Run folders that are damaged, or hold files of other programs: resuming and replaying work or say what is wrong."""

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from densevit.errors import CheckpointError, ConfigError, DensevitError
from densevit.training.checkpoint import states_in
from densevit.training.config import TrainConfig
from densevit.training.hooks import TrainHooks
from densevit.training.nonfinite_batches import replay
from densevit.training.resolve_config import complete
from densevit.training.run.log import read_log
from densevit.training.train import train
from tests.e2e.scenes import recipe


def run_config(dataset: Path, *heads: str, **facts: Any) -> TrainConfig:
    facts = {"iterations": 4, "checkpoint_every": 1, "keep_states": 2, **facts}
    return TrainConfig.parse(complete(recipe(dataset, *(heads or ("coarse",)), **facts)))


class Poison(TrainHooks):
    """Makes the inputs of the first step not finite."""

    def before_step(self, iteration: int, batches: Any) -> None:
        if iteration == 0:
            for micro_batch in batches:
                micro_batch[0].inputs[0, 0, 0, 0] = float("nan")


@pytest.fixture(scope="module")
def stopped(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two of four steps, the first of which had a batch that was not finite."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    train(run_config(dataset, iterations=2), out, hooks=Poison())
    return out


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def saved(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def compressed(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return file.getvalue()


UNREADABLE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "text": lambda _: b"not a state",
    "list": lambda _: saved([1, 2]),
    "weights only": lambda _: saved({"weight": torch.zeros(3)}),
    "other program": lambda _: saved({"iteration": "5", "model": {}}),
    "negative": lambda _: saved({"iteration": -5, "model": {}}),
    "compressed": compressed,
}


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_last_state_that_is_none__is_passed_over(
    damage: Callable[[bytes], bytes], run: Path, dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = states_in(run / "states")[-1]
    last.write_bytes(damage(last.read_bytes()))

    train(run_config(dataset), run, resume=True)

    assert f"cannot read {last}" in caplog.text
    assert [row["iteration"] for row in read_log(run / "log.jsonl") if row["event"] == "step"] == [1, 2, 3, 4]


def test_states_that_are_none__are_an_error(run: Path, dataset: Path) -> None:
    for path in states_in(run / "states"):
        path.write_bytes(saved({"epoch": 3, "state_dict": {}}))
    with pytest.raises(CheckpointError, match=r"none of the 2 states in .* can be read; train into a new folder"):
        train(run_config(dataset), run, resume=True)


def changed(key: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, key: value}


def without_a_weight(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "model": dict(list(state["model"].items())[1:])}


def with_another_weight(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "model": {**state["model"], "heads.other.weight": torch.zeros(1)}}


OTHER: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "without a weight": without_a_weight,
    "with another weight": with_another_weight,
    "weights of numbers": lambda state: {**state, "model": dict.fromkeys(state["model"], 5)},
    **{f"{key} {value!r:.20}": changed(key, value) for key in ("moved", "bad") for value in (None, "x", float("inf"))},
    **{f"{key} {value!r}": changed(key, value) for key in ("figures", "optimiser") for value in (None, 5, [1])},
    "random numbers": changed("torch_rng", torch.zeros(3)),
    "random numbers of numpy": changed("numpy_rng", 5),
    "random numbers of Python": changed("python_rng", (1, 2)),
    **{f"no {key}": lambda state, key=key: {k: v for k, v in state.items() if k != key} for key in ("moved", "world")},
}  # fmt: skip


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_state_of_another_model__is_an_error(change: Callable[[Any], Any], run: Path, dataset: Path) -> None:
    for path in states_in(run / "states"):
        path.write_bytes(saved(change(torch.load(path))))
    with pytest.raises(CheckpointError, match=r"the states in .* are those of another model or optimiser; resume with"):
        train(run_config(dataset), run, resume=True)


def test_state_of_other_heads__is_an_error(run: Path, dataset: Path) -> None:
    with pytest.raises(CheckpointError, match="are those of another model or optimiser"):
        train(run_config(dataset, "dpt"), run, resume=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("environment.json", "[" * 100_000),
        ("environment.json", '{"name": "conda", "channels": []}'),
        ("environment.json", '{"id": 5, "sessions": [5, "x", null], "told": {"step": 1e400}}'),
        ("environment.json", '{"id": "\\ud800", "sessions": {}, "told": {}}'),
        ("log.jsonl", "[" * 100_000),
        ("log.jsonl", '{"event": "step", "iteration": 1, "seconds": "x"}\n{"event": "step", "iteration": 1e9}\n5\n'),
        ("log.jsonl", '{"event": "\\ud800", "iteration": 1}\n'),
        ("config.yaml", "\udcff: ["),
        ("config.yaml", "services: {web: {image: nginx}}"),
    ],
)
def test_odd_files_in_the_folder__do_not_stop_a_resumed_run(name: str, text: str, run: Path, dataset: Path) -> None:
    (run / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert train(run_config(dataset), run, resume=True).exists()
    json.loads((run / "environment.json").read_text())


def test_model__that_was_changed_after_the_run_wrote_it_is_kept(run: Path, dataset: Path) -> None:
    (run / "model.safetensors").write_bytes(b"tuned by hand")
    with pytest.raises(ConfigError, match=r"model\.safetensors, which somebody changed .* move it away and resume"):
        train(run_config(dataset), run, resume=True)
    assert (run / "model.safetensors").read_bytes() == b"tuned by hand"


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    "name", ["dataset-2.yaml", "environment.json", "log.jsonl", "report.html", "model.safetensors"]
)
def test_files_of_others__are_not_replaced(name: str, resume: bool, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("of another program")
    data = {split: {"root": str(dataset), "split": split} for split in ("train", "val")}
    sources = [{**data, "heads": [head]} for head in ("coarse", "depth")]
    config = run_config(dataset, "coarse", "depth", sources=sources)
    with pytest.raises(ConfigError, match=rf"run holds {name} but no config.yaml, .*; choose another --out"):
        train(config, tmp_path / "run", resume=resume)
    assert [path.read_text() for path in (tmp_path / "run").iterdir()] == ["of another program"]


# Replays


def bad_batch(run: Path) -> Path:
    return next((run / "bad").glob("*.safetensors"))


def test_replay__of_a_sound_file_works(run: Path) -> None:
    assert replay(bad_batch(run))[0].startswith("step 1, micro-batch 0, process 0; with the weights after 1 steps")


RECORDS: tuple[Any, ...] = (
    5, [], {}, {"grids": 5}, {"grids": [5]}, {"grids": [[6]]}, {"grids": [["x", 8]]}, {"grids": [[1e400, 8]]},
    {"grids": [[6, 7]]}, {"steps_before": "x"}, {"steps_before": -1}, {"steps_before": 2**70}, {"of": None},
    {"micro_batch": []}, {"process": 1.5},
)  # fmt: skip


@pytest.mark.parametrize("change", RECORDS, ids=str)
def test_replay__with_an_odd_record_is_an_error(change: Any, run: Path) -> None:
    path = bad_batch(run).with_suffix(".json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **change} if isinstance(change, dict) and change else change))
    with pytest.raises(CheckpointError, match=r"pass one that (the|this) run has written to its folder bad/"):
        replay(bad_batch(run))


BATCHES: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "no targets": lambda tensors: {"0/inputs": tensors["0/inputs"]},
    "no inputs": lambda tensors: {"0/coarse": tensors["0/coarse"]},
    "other size": lambda tensors: {**tensors, "0/inputs": torch.zeros(4, 3, 48, 56)},
    "other channels": lambda tensors: {**tensors, "0/inputs": torch.zeros(4, 1, 48, 64)},
    "other batch": lambda tensors: {**tensors, "0/inputs": torch.zeros(3, 3, 48, 64)},
    "a number": lambda tensors: {**tensors, "0/inputs": torch.tensor(1.0)},
    "flat": lambda tensors: {**tensors, "0/coarse": tensors["0/coarse"].flatten()},
    "empty": lambda tensors: {**tensors, "0/inputs": torch.zeros(0, 3, 48, 64), "0/coarse": torch.zeros(0, 48, 64)},
    "float targets": lambda tensors: {**tensors, "0/coarse": tensors["0/coarse"].double()},
    "integer inputs": lambda tensors: {**tensors, "0/inputs": torch.zeros(4, 3, 48, 64, dtype=torch.long)},
    "ids out of range": lambda tensors: {**tensors, "0/coarse": torch.full_like(tensors["0/coarse"], 1000)},
}


@pytest.mark.parametrize("change", BATCHES.values(), ids=BATCHES)
def test_replay__of_another_batch_is_an_error(change: Any, run: Path) -> None:
    tensors = change(load_file(bad_batch(run)))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, bad_batch(run))
    with pytest.raises(DensevitError):
        replay(bad_batch(run))


@pytest.mark.parametrize("seed", range(8))
def test_replay__of_a_damaged_file_is_an_error_or_works(seed: int, run: Path) -> None:
    draw, path = random.Random(seed), bad_batch(run)
    data = bytearray(path.read_bytes())
    if seed % 2:
        del data[draw.randrange(len(data)) :]
    else:
        data[draw.randrange(200)] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    with suppress(DensevitError):
        assert replay(path)


@pytest.mark.parametrize("text", ["5", "services: {web: {image: nginx}}", "a: [", "\0"])
def test_replay__in_a_folder_of_another_program_is_an_error(text: str, run: Path) -> None:
    (run / "config.yaml").write_text(text)
    with pytest.raises(ConfigError):
        replay(bad_batch(run))


def test_replay__with_states_of_another_model_is_an_error(run: Path) -> None:
    for path in states_in(run / "states"):
        path.write_bytes(saved(without_a_weight(torch.load(path)) | {"moved": 0}))
    with pytest.raises(CheckpointError, match="are those of another model or optimiser"):
        replay(bad_batch(run))
