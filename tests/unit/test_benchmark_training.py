"""The suite "training": both programs make the same step."""

from pathlib import Path

import numpy as np
import pytest

from densevit_lab.benchmark import training
from densevit_lab.benchmark.measure import compare
from densevit_lab.benchmark.workloads import WorkloadSpec, build_workload


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "BATCH", 2)
    monkeypatch.setattr(training, "SIZE", (32, 48))
    monkeypatch.setitem(training.NAMED_SIZES, "Ti", {"embed_dim": 64, "depth": 2, "num_heads": 1})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("decoder", ["linear", "mask"])
def test_programs__have_the_same_loss_and_gradients_step_after_step(decoder: str, tmp_path: Path) -> None:
    options = {"width": "Ti", "decoder": decoder}
    official, densevit = (
        build_workload(WorkloadSpec(kind="training", source=program, options=options))
        for program in (training.OFFICIAL, training.OURS)
    )
    losses = []
    for _ in range(3):
        theirs, ours = np.asarray(official(tmp_path)), np.asarray(densevit(tmp_path))
        assert theirs.size > 10_000
        assert compare(ours, theirs, values=True).passed
        losses.append(float(ours[0]))

    assert losses == sorted(losses, reverse=True)
