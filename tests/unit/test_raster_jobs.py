"""Rasters that stream, disturbed: killed runs go on, and what cannot be written or read leaves nothing half done."""

import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from densevit.errors import DataError
from densevit.inference.predictor import Predictor
from densevit.inference.raster import job as streaming
from densevit.inference.raster.job import RasterConfig
from densevit.inference.raster.resume import LogitCache, StripStore, StripWriter
from densevit.tasks import Depth
from tests.unit.predictors import photo, predictor
from tests.unit.rasters import CONFIG, SIDES, WINDOWS, bands, leftovers, read, write

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> Predictor:
    return predictor()


@pytest.fixture(scope="module")
def expected(model: Predictor) -> NDArray[Any]:
    labels = model.predict(photo(*SIDES), windows=WINDOWS).labels
    assert len(np.unique(labels)) > 2
    return labels


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return write(tmp_path / "area.tif", bands())


# Interruptions

KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.unit.rasters import CONFIG
from tests.unit.predictors import predictor
def progress(done, of):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
predictor().predict_raster({source!r}, {folder!r}, config=CONFIG, progress=progress)
"""


def interrupt(done: int, at: int) -> None:
    if done == at:
        raise KeyboardInterrupt


def test_killed_run__goes_on_where_it_stopped(
    model: Predictor, expected: NDArray[Any], tif: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    script = KILLED.format(root=str(ROOT), source=str(tif), folder=str(out))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert leftovers(out) == []

    steps: list[int] = []
    model.predict_raster(tif, out, config=CONFIG, progress=lambda done, _: steps.append(done))

    assert steps == [2, 3]
    assert np.array_equal(read(out / "area.main.labels.tif"), expected)
    assert leftovers(out) == ["area.json", "area.main.labels.tif"]


def test_other_settings_or_model__start_anew(
    model: Predictor, tif: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(done: int, _of: int) -> None:
        interrupt(done, 1)

    with pytest.raises(KeyboardInterrupt):
        model.predict_raster(tif, tmp_path / "out", config=CONFIG, progress=stop)
    other = RasterConfig(windows=WINDOWS.model_copy(update={"blend": "uniform"}))
    steps: list[int] = []
    with caplog.at_level(logging.WARNING):
        model.predict_raster(tif, tmp_path / "out", config=other, progress=lambda done, _: steps.append(done))

    assert steps[0] == 0
    assert "deleting an unfinished run with different settings; starting again" in caplog.text


def test_batch__does_not_matter_for_going_on(model: Predictor, tif: Path, tmp_path: Path) -> None:
    def stop(done: int, _of: int) -> None:
        interrupt(done, 1)

    with pytest.raises(KeyboardInterrupt):
        model.predict_raster(tif, tmp_path, config=CONFIG, progress=stop)
    steps: list[int] = []
    other = RasterConfig(windows=WINDOWS.model_copy(update={"batch": 3}))
    model.predict_raster(tif, tmp_path, config=other, progress=lambda done, _: steps.append(done))

    assert steps[0] == 1


# Errors


def test_folder_that_cannot_be_written__is_an_error(model: Predictor, tif: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match=r"folder .* cannot be made .*; choose another name"):
        model.predict_raster(tif, tmp_path / "file" / "out", config=CONFIG)


@pytest.mark.parametrize("when", ["strip", "scratch", "result"])
def test_full_disk__is_an_error_and_leaves_nothing_half(
    when: str, model: Predictor, tif: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        if when == "strip":
            patch.setattr(StripWriter, "add", full)
        if when == "scratch":
            patch.setattr(streaming, "HELD_BYTES", 1000)
            patch.setattr(LogitCache, "_write", full)
        if when == "result":
            patch.setattr("densevit.io.raster_write._write_tiff", full)
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); .*free some space"):
            model.predict_raster(tif, out, config=CONFIG)
        assert leftovers(out) == []

    model.predict_raster(tif, out, config=CONFIG)  # with room again
    assert leftovers(out) == ["area.json", "area.main.labels.tif"]


@pytest.mark.parametrize("size", ["16k", "400k", "1400k"])
def test_small_disk__is_an_error_and_leaves_nothing_half(
    size: str, tif: Path, small_disk: Callable[[str], Path]
) -> None:
    model, place = predictor("dpt/ignore, depth", Depth()), small_disk(size)

    with pytest.raises(DataError, match=r"cannot be (written|made) .*; "):
        model.predict_raster(tif, place / "out", config=CONFIG)

    assert [p for p in place.rglob("area*")] == []  # noqa: C416


def test_vanished_source__is_an_error_and_going_on_works(
    model: Predictor, expected: NDArray[Any], tif: Path, tmp_path: Path
) -> None:
    out, hidden = tmp_path / "out", tmp_path / "hidden.tif"

    def hide(done: int, _of: int) -> None:
        if done == 1:
            tif.rename(hidden)

    with pytest.raises(DataError, match="has vanished or changed while it was read; put it back"):
        model.predict_raster(tif, out, config=CONFIG, progress=hide)
    assert leftovers(out) == []

    hidden.rename(tif)
    model.predict_raster(tif, out, config=CONFIG)
    assert np.array_equal(read(out / "area.main.labels.tif"), expected)


def test_damaged_tile__is_an_error(model: Predictor, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", bands(), compress="deflate")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])

    with pytest.raises(DataError, match=r"a\.tif cannot be read \(.*\); a GeoTIFF, COG, TIFF or PNG .*; copy it again"):
        model.predict_raster(path, tmp_path / "out", config=CONFIG)
    assert leftovers(tmp_path / "out") == []


def test_unfinished_strips__do_not_count(tmp_path: Path) -> None:
    spool = StripStore(tmp_path / "s", {"a": 1})
    unfinished = spool.strip(0)
    unfinished.__enter__().add(0, np.zeros(4))
    assert spool.done() == 0
    unfinished.__exit__(RuntimeError, RuntimeError(), None)
    assert spool.done() == 0
    with spool.strip(0) as strip:
        strip.add(0, np.arange(4, dtype=np.uint8))
        strip.add(1, np.ones(2, np.uint8))
    assert StripStore(tmp_path / "s", {"a": 1}).done() == 1
    assert list(spool.blocks(0, 1)) == [b"\1\1"]
