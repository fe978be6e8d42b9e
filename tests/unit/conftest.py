"""A publisher of weights for the tests that load models by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from densevit.checkpoints.published import PUBLISHED, Published
from tests.publisher import Place
from tests.web_server import Server, serve, use_as_hub


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def place(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    running.paths.clear()
    running.requests.clear()
    monkeypatch.setenv("DENSEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DENSEVIT_MIRROR", running.url)
    use_as_hub(running, tmp_path / "hub", monkeypatch)
    return Place(running, tmp_path / "cache", monkeypatch)


@pytest.fixture
def row(place: Place, tmp_path: Path) -> Published:
    """A released file whose name has the first digits of its hash."""
    return place.publish(PUBLISHED["setr-pup-l-ade20k"], tmp_path / "origin")
