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

from densevit.errors import ConfigError, DataError
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


# Strips


def layout(_index: int) -> list[tuple[int, int]]:
    return [(0, 4), (1, 2)]


def stored(folder: Path, *, strips: int = 1) -> StripStore:
    store = StripStore(folder, {"a": 1}, layout)
    for index in range(strips):
        with store.strip(index) as strip:
            strip.add(0, np.arange(4, dtype=np.uint8))
            strip.add(1, np.ones(2, np.uint8))
    return store


def test_unfinished_strips__do_not_count(tmp_path: Path) -> None:
    spool = StripStore(tmp_path / "s", {"a": 1}, layout)
    unfinished = spool.strip(0)
    unfinished.__enter__().add(0, np.zeros(4))
    assert spool.done() == 0
    unfinished.__exit__(RuntimeError, RuntimeError(), None)
    assert spool.done() == 0
    stored(tmp_path / "s")
    assert StripStore(tmp_path / "s", {"a": 1}, layout).done() == 1
    assert list(spool.blocks(0, 1)) == [b"\1\1"]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in a header": lambda data: data[:7],
    "cut in a block": lambda data: data[: len(data) // 2 + 3],
    "without its last block": lambda data: data[: 16 + int.from_bytes(data[4:12], "little")],
    "too long": lambda data: data + b"x",
    "other output": lambda data: flipped(data, 0),
    "length of exabytes": lambda data: flipped(data, 11),
    "other checksum": lambda data: flipped(data, 13),
    "other values": lambda data: flipped(data, 20),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_strip__is_computed_again(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = stored(tmp_path / "s", strips=3)
    path = tmp_path / "s" / "000001.strip"
    path.write_bytes(damage(path.read_bytes()))

    assert store.done() == 1
    assert not path.exists()
    assert "strip 2 of the unfinished run is damaged" in caplog.text


def test_strip_with_values_of_another_size__is_computed_again(tmp_path: Path) -> None:
    store = stored(tmp_path / "s", strips=0)
    with store.strip(0) as strip:
        strip.add(0, np.zeros(10_000_000, np.uint8))
        strip.add(1, np.ones(2, np.uint8))

    assert store.done() == 0


def test_folder_in_the_place_of_a_strip__is_removed(tmp_path: Path) -> None:
    store = stored(tmp_path / "s")
    (tmp_path / "s" / "000001.strip" / "deep").mkdir(parents=True)

    assert store.done() == 1
    assert stored(tmp_path / "s", strips=2).done() == 2


def test_strip_that_is_damaged_later__is_deleted_and_named(tmp_path: Path) -> None:
    store = stored(tmp_path / "s")
    path = tmp_path / "s" / "000000.strip"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(DataError, match=r"000000\.strip is damaged .* has been deleted; run the same command again"):
        list(store.blocks(0, 1))
    assert store.done() == 0


@pytest.mark.parametrize("text", ["", "5", "[" * 100_000, '{"a": 1}x', '{"\ud800": 2}', "\xff"])
def test_odd_key_of_an_unfinished_run__starts_again(text: str, tmp_path: Path) -> None:
    stored(tmp_path / "s")
    (tmp_path / "s" / "key.json").write_bytes(text.encode("latin-1", "replace"))

    assert StripStore(tmp_path / "s", {"a": 1}, layout).done() == 0
    assert StripStore(tmp_path / "s", {"a": 1}, layout).done() == 0


def test_damaged_strip__does_not_change_the_result(
    model: Predictor, expected: NDArray[Any], tif: Path, tmp_path: Path
) -> None:
    def stop(done: int, _of: int) -> None:
        interrupt(done, 2)

    with pytest.raises(KeyboardInterrupt):
        model.predict_raster(tif, tmp_path / "out", config=CONFIG, progress=stop)
    (strip,) = (tmp_path / "out").glob(".*/000000.strip")
    strip.write_bytes(strip.read_bytes()[:-5])
    steps: list[int] = []
    model.predict_raster(tif, tmp_path / "out", config=CONFIG, progress=lambda done, _: steps.append(done))

    assert steps == [0, 1, 2, 3]
    assert np.array_equal(read(tmp_path / "out" / "area.main.labels.tif"), expected)
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == ["area.json", "area.main.labels.tif"]


def test_output_that_another_run_streams_to__is_refused(model: Predictor, tif: Path, tmp_path: Path) -> None:
    def again(done: int, _of: int) -> None:
        if done == 1:
            with pytest.raises(ConfigError, match=r"area\.densevit-partial is in use by this process; wait until it"):
                model.predict_raster(tif, tmp_path / "out", config=CONFIG)

    model.predict_raster(tif, tmp_path / "out", config=CONFIG, progress=again)
