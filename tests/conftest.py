"""What all tests share: quiet and repeatable surroundings, a tiny data set, and a model trained on it."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before torch is imported, and for the processes that tests start: tiny models are slower with threads than without.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import torch

from densevit.cli.main import main
from densevit.data import DATASETS
from densevit.decoders import DECODERS
from densevit.tasks import TASKS
from tests.e2e.commands import Outcome
from tests.e2e.scenes import HEADS, recipe, write_dataset
from tests.factories import write_small_default

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# The same examples every time, on any machine; a slow one is no failure.
hypothesis.settings.register_profile("densevit", derandomize=True, deadline=None)
hypothesis.settings.load_profile("densevit")


@pytest.fixture(autouse=True)
def plugin_tables() -> Iterator[None]:
    """What a test adds to the tables of parts is gone after it."""
    tables = (DECODERS, TASKS, DATASETS)
    kept = [(dict(table), dict(table.origins)) for table in tables]
    yield
    for table, (rows, origins) in zip(tables, kept, strict=True):
        if dict(table) != rows:
            table.clear()
            table.update(rows)
        table.origins = origins


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """Run ``densevit ARGUMENTS`` in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level  # the command line puts its own in their place
    monkeypatch.setenv("DENSEVIT_DEBUG", "")
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["densevit", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        written = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, written.out, written.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of a few kilobytes, where mounting is allowed."""
    if sys.platform != "linux":
        pytest.skip("tmpfs is Linux's")
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        return place

    yield mount
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


@pytest.fixture(scope="session")
def small_default_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See ``write_small_default``."""
    return write_small_default(tmp_path_factory.mktemp("weights") / "default.safetensors")


@pytest.fixture
def small_default(small_default_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process "default" is a model with the heads of the one that ships, which takes no time."""
    monkeypatch.setattr("densevit.checkpoints.hub.DEFAULT", small_default_file)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes to train on and three to evaluate on, with masks, depth and a coarser view of the classes."""
    return write_dataset(tmp_path_factory.mktemp("data") / "scenes")


@pytest.fixture(scope="session")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a head of each family, a coarse one and depth, trained just enough to tell things apart."""
    from densevit.training.config import TrainConfig
    from densevit.training.resolve_config import complete
    from densevit.training.train import train

    # without the bound, or with some other seeds, rounding decides whether the depth head gets beyond a constant
    facts = {"optim": {"lr": 3e-3, "head_lr_mult": 4.0, "clip_norm": 1.0}, "seed": 1}
    config = recipe(dataset, *HEADS, iterations=50, card={"name": "tiny", "licence": "Apache-2.0"}, **facts)
    return train(TrainConfig.parse(complete(config)), tmp_path_factory.mktemp("runs") / "tiny")
