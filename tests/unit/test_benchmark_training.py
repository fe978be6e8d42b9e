"""The suite "training": both sides make the same step."""

from pathlib import Path

import numpy as np
import pytest

from densevit_lab.benchmark import training
from densevit_lab.benchmark.measure import compare
from densevit_lab.benchmark.sides import SideSpec, build_side
from densevit_lab.benchmark.suites import Options, open_suite


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "BATCH", 2)
    monkeypatch.setattr(training, "SIZE", (32, 48))
    monkeypatch.setitem(training.NAMED_SIZES, "Ti", {"embed_dim": 64, "depth": 2, "num_heads": 1})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("decoder", ["linear", "mask"])
def test_sides__have_the_same_loss_and_gradients_step_after_step(decoder: str, tmp_path: Path) -> None:
    facts = {"kind": "training", "options": {"width": "Ti", "decoder": decoder}, "output": "depth"}
    sides = [build_side(SideSpec.parse({"source": s, **facts})) for s in (training.OFFICIAL, training.OURS)]
    losses = []
    for _ in range(3):
        theirs, ours = (np.asarray(side.predict(tmp_path)) for side in sides)
        assert theirs.size > 10_000
        assert compare(ours, theirs, values=True).passed
        losses.append(float(ours[0]))

    assert losses == sorted(losses, reverse=True)


def test_suite__demands_what_it_measures() -> None:
    suite = open_suite("training", Options(quick=True), lambda _: None)

    assert list(suite.cases) == list(training.TRAINING_CASES)
    assert set(suite.quick) <= set(suite.cases)
    assert all(case.bars.eager and case.bars.memory for case in suite.cases.values())
