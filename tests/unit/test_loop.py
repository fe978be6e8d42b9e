"""The loop and its parts in one process: precision, bad batches, what is computed again, how a batch is cut."""

import json
import logging
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from densevit.errors import ConfigError, DataError, DensevitError
from densevit.training import sharded_checkpoint as sharded
from densevit.training.batches import Batch
from densevit.training.datasets import open_sources
from densevit.training.distributed import SyncBatchNorm, join_processes, synchronise_batch_norms
from densevit.training.hooks import TrainHooks
from densevit.training.nonfinite_batches import replay
from densevit.training.seeds import seed_everything
from densevit.training.signals import Stopped
from densevit.training.train import train
from tests.factories import random_images, tiny_model
from tests.unit.runs import config, same, weights


def steps(run: Path) -> list[dict[str, Any]]:
    return [
        row for line in (run / "log.jsonl").read_text().splitlines() if (row := json.loads(line))["event"] == "step"
    ]


# The state on the disk


def test_state__has_the_keys_of_the_first_version(dataset: Path, tmp_path: Path) -> None:
    train(config(dataset, "coarse", iterations=1, ema=0.5), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "states" / "state-00000001.pt")
    assert set(state) - {"cuda_rng"} == {
        "iteration", "model", "torch_rng", "numpy_rng", "python_rng", "weighting", "optimiser", "average", "moved",
        "bad", "unseen", "figures", "scaler", "world",
    }  # fmt: skip


# What is computed again


def test_checkpointed_blocks__give_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    models = [
        train(config(dataset, "coarse", encoder={"drop_path": 0.5}, checkpoint_blocks=on), tmp_path / str(on))
        for on in (False, True)
    ]
    assert same(*map(weights, models))


def test_checkpointed_blocks__keep_fewer_tensors() -> None:
    def kept(checkpointing: bool) -> int:
        model = tiny_model("segmenter_linear").train()
        model.encoder.checkpointing = checkpointing
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(random_images((4, 4)))
        return sum(sizes)

    assert kept(True) < 0.6 * kept(False)


# Bad batches


class Poison(TrainHooks):
    """Makes the losses of some steps NaN by their images."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def before_step(self, iteration: int, batches: Sequence[Sequence[Batch]]) -> None:
        if iteration in self.steps:
            batches[0][0].inputs[0, :, 0, 0] = torch.nan


def test_bad_step__changes_nothing_and_is_kept(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    facts: dict[str, Any] = {"schedule": {"kind": "constant"}, "ema": 0.5, "checkpoint_every": 1, "keep_states": 2}
    run = config(dataset, "dpt", iterations=4, max_bad_steps=2, **facts)
    with caplog.at_level(logging.WARNING):
        train(run, tmp_path / "run", hooks=Poison(1, 3))

    states = {n: torch.load(tmp_path / "run" / "states" / f"state-{n:08}.pt") for n in (3, 4)}
    assert [message.split(":")[0] for message in caplog.messages] == ["step 2 was skipped", "step 4 was skipped"]
    assert same(states[3]["model"], states[4]["model"])  # also the means of batch norm
    assert same(states[3]["average"], states[4]["average"])
    assert [row["iteration"] for row in steps(tmp_path / "run")] == [1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "run" / "bad").iterdir()) == [
        f"step-0000000{n}-0-0.{kind}" for n in (2, 4) for kind in ("json", "safetensors")
    ]
    facts = json.loads((tmp_path / "run" / "bad" / "step-00000004-0-0.json").read_text())
    assert (facts["steps_before"], facts["losses"]) == (3, {"dpt": "nan"})


def test_bad_steps_in_a_row__stop_the_run_which_can_be_replayed_and_resumed(dataset: Path, tmp_path: Path) -> None:
    run = config(dataset, "coarse", iterations=4, max_bad_steps=2, checkpoint_every=100)
    whole = train(config(dataset, "coarse", iterations=2), tmp_path / "whole")
    with pytest.raises(DensevitError) as caught:
        train(run, tmp_path / "run", hooks=Poison(1, 2))
    assert str(caught.value).startswith(
        "losses or gradients were not finite in 2 steps in a row, the last of them step 3 (losses nan); lower optim.lr"
    )

    lines = replay(tmp_path / "run" / "bad" / "step-00000002-0-0.safetensors")

    assert lines[0] == "step 2, micro-batch 0, process 0; with the weights after 3 steps"
    assert "0/inputs: 4 x 3 x 48 x 64, " in lines[1]
    assert lines[1].endswith(", 3 not finite")
    assert "float32: loss/coarse nan" in lines
    assert "float32: first output that is not finite: encoder.patch_embed.proj" in lines
    assert "float32: weights that are not finite: 0" in lines
    assert whole.exists()
    train(run, tmp_path / "run", resume=True)
    assert [row["iteration"] for row in steps(tmp_path / "run")] == [1, 2, 3, 4]


def test_replay__says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    file = tmp_path / "bad" / "step-00000001-0-0.safetensors"
    with pytest.raises(
        DensevitError, match=r"step-00000001-0-0.json cannot be read .* pass one that the run has written"
    ):
        replay(file)


def test_fp16__lowers_the_scale_where_gradients_overflow_and_calls_no_batch_bad(dataset: Path, tmp_path: Path) -> None:
    run = config(dataset, "coarse", iterations=3, precision="fp16", weighting={"weights": {"coarse": 3e3}})
    train(run, tmp_path / "run")

    state = torch.load(tmp_path / "run" / "states" / "state-00000003.pt")
    assert state["scaler"]["scale"] < 65536
    assert not (tmp_path / "run" / "bad").exists()


# Compiling


def test_compile__without_a_compiler_says_what_to_do(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing(torch._dynamo.exc.BackendCompilerFailed):
        def __init__(self) -> None:
            Exception.__init__(self, "no working C++ compiler found")

    def fail(*_: object) -> Any:
        raise Missing

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    with pytest.raises(ConfigError) as caught:
        train(config(dataset, "coarse", compile=True), tmp_path / "run")
    assert str(caught.value) == (
        "compile is on but the model cannot be compiled (no working C++ compiler found); it needs a C++ compiler on "
        "the CPU and Triton on a GPU; install it, or set compile: false"
    )


# Stopping


def test_signal__in_an_evaluation_saves_and_repeats_it(dataset: Path, tmp_path: Path) -> None:
    class Terminate(TrainHooks):
        def on_eval_progress(self, done: int, total: int) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    run = config(dataset, "coarse", iterations=4, eval_every=2)
    whole = train(run, tmp_path / "whole")
    with pytest.raises(Stopped) as caught:
        train(run, tmp_path / "run", hooks=Terminate())
    assert caught.value.code == 143
    assert str(caught.value) == (
        "stopped after 2 of 4 steps; the state is saved; continue with densevit train --resume --out "
        f"{tmp_path / 'run'}"
    )

    resumed = train(run, tmp_path / "run", resume=True)

    assert same(weights(whole), weights(resumed))
    logs = [
        [
            (row["iteration"], row["mIoU"])
            for row in map(json.loads, (path.parent / "log.jsonl").open())
            if "mIoU" in row
        ]
        for path in (whole, resumed)
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(("size", "shard"), [("8k", False), ("40k", False), ("400k", False), ("400k", True)])
def test_full_disk__stops_the_run_with_a_message(
    size: str, shard: bool, dataset: Path, small_disk: Callable[[str], Path]
) -> None:
    place = small_disk(size)

    with pytest.raises(DataError, match=r"cannot be written .*; .*free"):
        train(config(dataset, "coarse", iterations=40, checkpoint_every=1, shard=shard), place / "run")

    assert not list(place.rglob(".densevit-*"))


# How a batch is cut


def test_parts__of_all_processes_and_micro_batches_make_the_batch(dataset: Path) -> None:
    tasks: dict[str, Any]
    run = config(dataset, "coarse")
    tasks = dict(run.tasks)
    (whole,) = open_sources(run, tasks, None)
    halves = run.model_copy(update={"accumulate": 2})
    parts = [open_sources(halves, tasks, None, rank=rank, world=2)[0] for rank in range(2)]
    for step in range(3):
        cut = [parts[rank][step * 2 + number].inputs for number in range(2) for rank in range(2)]
        assert torch.equal(torch.cat(cut), whole[step].inputs)


def test_batch__that_cannot_be_cut_is_refused(dataset: Path) -> None:
    run = config(dataset, "coarse", accumulate=2)
    with pytest.raises(ConfigError) as caught:
        open_sources(run, dict(run.tasks), None, rank=0, world=3)
    assert str(caught.value) == (
        "batch_size is 4 but 3 processes with 2 micro-batches each share it; set sources[].batch_size to a multiple of "
        "6, or change accumulate"
    )


def test_batch__of_a_data_set_that_draws_by_itself_is_the_same_again(dataset: Path) -> None:
    class Noisy:
        def __init__(self, inner: Any) -> None:
            self.inner, self.classes = inner, inner.classes

        def __len__(self) -> int:
            return len(self.inner)

        def __getitem__(self, index: int) -> Any:
            sample = self.inner[index]
            noise: NDArray[np.uint8] = np.random.randint(0, 9, sample.image.shape).astype(np.uint8)  # noqa: NPY002
            return replace(sample, image=sample.image // 2 + noise)

    run = config(dataset, "coarse")
    (source,) = open_sources(run, dict(run.tasks), None)
    source.dataset = Noisy(source.dataset)
    seed_everything(1)
    first = source[3].inputs
    seed_everything(2)
    assert torch.equal(source[3].inputs, first)
    assert not torch.equal(source[4].inputs, first)


# Processes


def test_sync_batch_norm__is_batch_norm_with_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, pull = torch.randn(2, 3, 8, 5, 4, generator=generator).unbind(0)
    outcomes = []
    for synchronised in (False, True):
        norm = nn.Sequential(nn.BatchNorm2d(8))
        with torch.no_grad():
            norm[0].weight.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1))
        x = (0.1 * maps + 3).requires_grad_()  # a mean far from zero, where the mean of squares would cancel
        with join_processes("cpu", shard=True, timeout_s=60) as group:
            if synchronised:
                synchronise_batch_norms(norm, group.device)
                assert isinstance(norm[0], SyncBatchNorm)
            for _ in range(2):
                y = norm(x)
            (y * pull).sum().backward()
        assert x.grad is not None
        outcomes.append([y.detach(), x.grad, *(p.grad for p in norm.parameters()), *norm.buffers()])
        outcomes[-1].append(norm.eval()(x.detach()))
    for plain, own in zip(*outcomes, strict=True):
        torch.testing.assert_close(own, plain, atol=2e-5, rtol=1e-5)


def test_table_of_contents__of_a_sharded_state_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    (tmp_path / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(pickle.UnpicklingError, match="does not belong in a table of contents"):
        sharded._Reader(tmp_path).read_metadata()
    assert not (tmp_path / "touched").exists()
