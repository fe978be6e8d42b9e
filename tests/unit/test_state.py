import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.errors import CheckpointError, DataError
from densevit.training.checkpoint import load_state, save_state
from densevit.training.seeds import restore_random_state
from tests.disks import files_up_to
from tests.factories import random_images, tiny_model


def save_three(folder: Path) -> None:
    """States of iterations 9, 10 and 100; as text, 100 would stand before 9."""
    model = tiny_model("segmenter_linear")
    for iteration in (9, 10, 100):
        save_state(folder, iteration, model, {"optimiser": {"step": iteration}})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save__keeps_the_last_two(tmp_path: Path) -> None:
    save_three(tmp_path)
    assert names(tmp_path) == ["state-00000010.pt", "state-00000100.pt"]


def test_load__gives_the_newest(tmp_path: Path) -> None:
    save_three(tmp_path)
    state = load_state(tmp_path)
    assert state is not None
    assert (state["iteration"], state["optimiser"]) == (100, {"step": 100})


@pytest.mark.parametrize("keep", [0, 100, -10])
def test_load__falls_back_from_a_damaged_state_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keep: int
) -> None:
    save_three(tmp_path)
    newest = tmp_path / "state-00000100.pt"
    newest.write_bytes(newest.read_bytes()[:keep])

    with caplog.at_level(logging.WARNING):
        state = load_state(tmp_path)

    assert state is not None
    assert state["iteration"] == 10
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith(f"cannot read {newest} (")
    assert caplog.messages[0].endswith("); trying the one before")


def test_load__refuses_when_every_state_is_damaged(tmp_path: Path) -> None:
    save_three(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"no state")
    with pytest.raises(CheckpointError) as caught:
        load_state(tmp_path)
    assert str(caught.value) == f"none of the 2 states in {tmp_path} can be read; train into a new folder"


@pytest.mark.parametrize("folder", ["", "not there"])
def test_load__gives_none_where_no_state_is(tmp_path: Path, folder: str) -> None:
    assert load_state(tmp_path / folder) is None


def test_load__runs_no_code_from_the_file(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"iteration": 1, "model": Evil()}, tmp_path / "state-00000001.pt")
    with pytest.raises(CheckpointError):
        load_state(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_save__on_a_full_disk_is_an_error_and_leaves_the_states_before(tmp_path: Path) -> None:
    save_three(tmp_path)

    refusal = r"state-00000200\.pt cannot be written \(File too large\); choose another place"
    with files_up_to(100_000), pytest.raises(DataError, match=refusal):
        save_state(tmp_path, 200, tiny_model("segmenter_linear"), {"more": torch.zeros(1_000_000)})

    assert names(tmp_path) == ["state-00000010.pt", "state-00000100.pt"]


def test_state__leaves_out_frozen_parameters_and_keeps_running_statistics(tmp_path: Path) -> None:
    model = tiny_model("setr_naive/mmseg")
    model.encoder.requires_grad_(False)

    save_state(tmp_path, 1, model, {})

    state = load_state(tmp_path)
    assert state is not None
    expected = {name for name in model.state_dict() if name.startswith("heads.")}
    assert set(state["model"]) == expected
    assert any("running_mean" in name for name in expected)


def test_state__restores_weights_and_statistics_exactly(tmp_path: Path) -> None:
    model = tiny_model("setr_naive/mmseg").train()
    model(random_images((2, 2)))
    save_state(tmp_path, 1, model, {})
    state = load_state(tmp_path)
    assert state is not None

    other = tiny_model("setr_naive/mmseg", seed=1)
    other.load_state_dict(state["model"])

    assert [n for n, v in other.state_dict().items() if not torch.equal(v, model.state_dict()[n])] == []


def test_restore__continues_the_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(5)
    save_state(tmp_path, 1, tiny_model("segmenter_linear"), {})
    expected = torch.rand(4)
    torch.manual_seed(6)

    state = load_state(tmp_path)
    assert state is not None
    restore_random_state(state)

    assert torch.equal(torch.rand(4), expected)


def test_restore__continues_an_optimiser_bit_for_bit(tmp_path: Path) -> None:
    def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        model(random_images((2, 2)))["main"].logits.square().mean().backward()
        optimiser.step()

    model = tiny_model("segmenter_linear")
    optimiser = torch.optim.AdamW(model.parameters())
    step(model, optimiser)
    save_state(tmp_path, 1, model, {"optimiser": optimiser.state_dict()})
    step(model, optimiser)

    again = tiny_model("segmenter_linear", seed=1)
    resumed = torch.optim.AdamW(again.parameters())
    state = load_state(tmp_path)
    assert state is not None
    again.load_state_dict(state["model"])
    resumed.load_state_dict(state["optimiser"])
    step(again, resumed)

    assert [n for n, v in again.state_dict().items() if not torch.equal(v, model.state_dict()[n])] == []


def test_load__notices_a_single_wrong_bit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_three(tmp_path)
    newest = tmp_path / "state-00000100.pt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1  # in the weights, which torch reads without a look at their checksum
    newest.write_bytes(data)

    state = load_state(tmp_path)

    assert state is not None
    assert state["iteration"] == 10
    assert caplog.messages[0].startswith(f"cannot read {newest} (the checksum of ")


def test_save__clears_away_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / ".densevit-0123.pt").write_bytes(b"half")
    (tmp_path / ".densevit-state-00000007.dcp").mkdir()
    save_three(tmp_path)
    assert names(tmp_path) == ["state-00000010.pt", "state-00000100.pt"]


def test_restore__continues_numpy_and_python_too(tmp_path: Path) -> None:
    # ruff: noqa: NPY002 - the global generator is what a user's data set may draw from
    np.random.seed(1)
    random.seed(1)
    save_state(tmp_path, 1, tiny_model("segmenter_linear"), {})
    expected = (np.random.rand(), random.random())
    np.random.seed(2)
    random.seed(2)

    state = load_state(tmp_path)
    assert state is not None
    restore_random_state(state)

    assert (np.random.rand(), random.random()) == expected


def test_load__takes_no_state_after_a_given_step(tmp_path: Path) -> None:
    save_three(tmp_path)
    state = load_state(tmp_path, before=99)
    assert state is not None
    assert state["iteration"] == 10
