"""Zip archives, depth in all its formats, bands, and lists."""

import multiprocessing
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import FolderConfig, FolderDataset, Sample
from densevit.errors import ConfigError, DataError
from densevit.io import (
    ZipPath,
    find_images,
    place,
    read_bands,
    read_depth,
    read_image,
    read_json,
    read_labels,
    read_lines,
    read_values,
)
from densevit_runtime.io import zipped as zip_module
from tests.contract import fakes
from tests.unit.rasters import write_array

PHOTO = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


# Archives


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A photo, a mask, values and a text, in folders."""
    folder = tmp_path / "set"
    fakes.save(PHOTO, folder / "images" / "train" / "b.png")
    fakes.save(PHOTO, folder / "images" / "train" / "a.jpg")
    fakes.save(PHOTO[:, :, 0], folder / "masks" / "train" / "a.png")
    np.save(folder / "values.npy", np.ones((2, 3, 1), np.float32))
    (folder / "notes.txt").write_text("one\n\n two \n")
    return fakes.pack(folder, tmp_path / "set.zip")


def test_zip_path__walks_like_a_path(archive: Path) -> None:
    root = place(archive)
    train = root / "images" / "train"
    assert str(train) == f"{archive}!/images/train"
    assert sorted(path.name for path in root.iterdir()) == ["images", "masks", "notes.txt", "values.npy"]
    assert [(path.name, path.stem, path.suffix) for path in train.iterdir()] == [
        ("a.jpg", "a", ".jpg"),
        ("b.png", "b", ".png"),
    ]
    assert (train.is_dir(), train.is_file(), (train / "a.jpg").is_file(), (train / "c").exists()) == (
        True,
        False,
        True,
        False,
    )
    assert (train / "a.jpg").parent == train
    assert (root / "notes.txt").stat().st_size == 11
    assert place(str(train)) == train
    assert pickle.loads(pickle.dumps(train)) == train
    assert isinstance(pickle.loads(pickle.dumps(train)), ZipPath)


def test_readers__take_paths_into_archives(archive: Path) -> None:
    root = place(archive)
    np.testing.assert_array_equal(read_image(root / "images" / "train" / "b.png"), PHOTO)
    np.testing.assert_array_equal(read_image(Path(f"{archive}!/images/train/b.png")), PHOTO)
    np.testing.assert_array_equal(read_labels(root / "masks" / "train" / "a.png"), PHOTO[:, :, 0])
    np.testing.assert_array_equal(read_values(root / "values.npy"), np.ones((2, 3, 1)))
    np.testing.assert_array_equal(read_bands(root / "images" / "train" / "b.png", bands=(3, 1)), PHOTO[:, :, [2, 0]])
    assert read_lines(root / "notes.txt", "a word") == ["one", "two"]
    assert [path.name for path in find_images([f"{archive}!/images/train"])] == ["a.jpg", "b.png"]


def test_archive__cannot_be_written(archive: Path) -> None:
    with pytest.raises(OSError, match="read only"):
        (place(archive) / "notes.txt").open("w")


def test_folder__that_is_named_like_an_archive_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.zip").mkdir()
    assert not isinstance(place(tmp_path / "a.zip"), ZipPath)


def test_archive__that_is_written_anew_is_read_anew(archive: Path) -> None:
    notes = place(archive) / "notes.txt"
    assert notes.read_text() == "one\n\n two \n"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("notes.txt", "another text, longer")
    assert notes.read_text() == "another text, longer"


def test_backslashes__of_other_systems_separate_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("images\\train\\x.txt", "x")
    assert (place(tmp_path / "a.zip") / "images" / "train" / "x.txt").read_text() == "x"


def _sum_of(dataset: FolderDataset, queue: Any) -> None:
    queue.put([int(dataset[i].image.sum()) for i in range(len(dataset)) for _ in range(20)])


def test_archive__is_read_by_several_processes_at_once(tmp_path: Path) -> None:
    for index in range(6):
        fakes.photo(tmp_path / "set" / "images" / f"{index}.png", index)
    archive = fakes.pack(tmp_path / "set", tmp_path / "set.zip")
    dataset = FolderDataset(FolderConfig(root=archive))
    expected = [int(dataset[i].image.sum()) for i in range(6) for _ in range(20)]  # the archive is open here too
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_sum_of, args=(dataset, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert found == [expected] * 3


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
def test_archive__that_is_cut_short_is_refused(archive: Path, keep: int) -> None:
    archive.write_bytes(archive.read_bytes()[:keep])
    message = refusal(lambda: FolderDataset(FolderConfig(root=archive, split="train")))
    assert message.startswith(f"{archive} is not a zip archive, or damaged (")


def test_archive__that_does_not_exist_is_refused(tmp_path: Path) -> None:
    message = refusal(lambda: FolderDataset(FolderConfig(root=tmp_path / "no.zip", split="train")))
    assert message.startswith(f"there is no folder {tmp_path / 'no.zip'}!/images/train; ")


def test_entry__that_is_damaged_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    at = data.find(b"images/train/b.png") + len("images/train/b.png") + 20
    data[at : at + 8] = b"\xff" * 8
    archive.write_bytes(data)
    name = place(archive) / "images" / "train" / "b.png"
    assert refusal(lambda: read_image(name)).startswith(f"{name} is damaged")


def test_entry__with_a_password_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(mark, at + 4)
    archive.write_bytes(data)
    name = place(archive) / "images" / "train" / "b.png"
    assert refusal(lambda: read_image(name)).startswith(f"{name} cannot be unpacked (File")


def test_bomb__is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"\0" * 3_000_000)
    name = place(tmp_path / "a.zip") / "a.png"
    monkeypatch.setattr(zip_module, "MAX_FILE_BYTES", 1_000_000)
    assert refusal(lambda: read_image(name)).startswith(f"{name} would unpack to 3,000,000 bytes from 2,9")


def test_bomb__by_its_ratio_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a.png", b"\0" * 40_000_000)
    name = place(tmp_path / "a.zip") / "a.png"
    assert refusal(lambda: read_image(name)).startswith(f"{name} would unpack to 40,000,000 bytes from ")


def test_entry__that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", b"\0" * 3_000_000)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(mark)
        data[at + offset : at + offset + 4] = struct.pack("<I", 100)
    path.write_bytes(data)
    name = place(path) / "a.png"
    assert refusal(lambda: read_image(name)).startswith(f"{name} is damaged")


# Depth


def depth_map(dtype: Any) -> NDArray[Any]:
    values = np.arange(1, 13).reshape(3, 4).astype(dtype)
    values[0, 0] = 0
    return values


def exr(path: Path, channels: dict[str, Any]) -> Path:
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, channels) as file:
        file.write(str(path))
    return path


def write_float(path: Path, values: NDArray[Any]) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".exr":
        exr(path, {"Z": values.astype(np.float32)})
    else:
        Image.fromarray(values.astype(np.float32)).save(path)
    return path


@pytest.mark.parametrize("name", ["d.npy", "d.exr", "d.pfm", "d.tif"])
def test_float_depth__has_a_scale_and_values_that_mean_nothing(tmp_path: Path, name: str) -> None:
    path = write_float(tmp_path / name, depth_map(np.float32))
    np.testing.assert_array_equal(read_depth(path, unit_m=7.0), depth_map(np.float32))
    np.testing.assert_allclose(read_depth(path, scale=0.01), depth_map(np.float32) * 0.01, rtol=1e-6)
    found = read_depth(path, scale=0.01, invalid=(12, 5))
    assert (found[2, 3], found[1, 0]) == (0, 0)
    assert (found > 0).sum() == 9


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_integer_depth__may_be_an_array(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "d.npy", depth_map(dtype))
    found = read_depth(tmp_path / "d.npy", unit_m=0.5, scale=7.0, invalid=(12,))
    np.testing.assert_array_equal(found, np.where(depth_map(dtype) == 12, 0, depth_map(np.float32) / 2))


def test_negative_depth__is_no_measurement_when_named(tmp_path: Path) -> None:
    path = write_float(tmp_path / "d.npy", np.array([[-1.0, 2.0, -9999.9]], np.float32))
    assert "holds a depth of" in refusal(lambda: read_depth(path, invalid=(-1,)))
    assert read_depth(path, invalid=(-1, -9999.9)).tolist() == [[0, 2, 0]]


def test_exr__takes_a_channel_by_its_usual_names(tmp_path: Path) -> None:
    values = depth_map(np.float32)
    many = exr(tmp_path / "many.exr", {"A": values * 0, "Y": values * 2, "Z": values})
    alone = exr(tmp_path / "alone.exr", {"whatever": values})
    halves = exr(tmp_path / "half.exr", {"RGB": np.repeat(values[:, :, None], 3, axis=2).astype(np.float16)})
    for path in (many, alone, halves):
        np.testing.assert_array_equal(read_depth(path), values)
    strange = exr(tmp_path / "strange.exr", {"u": values, "v": values})
    assert refusal(lambda: read_depth(strange)).startswith(f"{strange} has the channels u, v; one of Z, depth, ")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x76\x2f\x31\x01" + b"\0" * 50])
def test_exr__that_is_damaged_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.exr"
    path.write_bytes(content)
    assert refusal(lambda: read_depth(path)).startswith(f"{path} is ")


def test_exr__without_the_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exr(tmp_path / "d.exr", {"Z": depth_map(np.float32)})
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    assert refusal(lambda: read_depth(path)).endswith("install it with: pip install 'densevit[exr]'")


def test_folder__reads_depth_with_its_scale_and_exr(tmp_path: Path) -> None:
    fakes.save(PHOTO[:3, :4], tmp_path / "images" / "a.png")
    (tmp_path / "depth").mkdir()
    exr(tmp_path / "depth" / "a.exr", {"Z": depth_map(np.float32)})
    config = FolderConfig.parse({"root": tmp_path, "depth_scale_m": 0.01, "depth_invalid": [12]})
    depth = FolderDataset(config)[0].depth
    assert depth is not None
    np.testing.assert_allclose(depth, np.where(depth_map(int) == 12, 0, depth_map(np.float32) / 100), rtol=1e-6)


# Bands


def bands(dtype: Any, count: int = 6) -> NDArray[Any]:
    high = 2.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return (np.random.default_rng(0).random((6, 8, count)) * high).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands__are_read_as_they_are_stored(tmp_path: Path, dtype: Any) -> None:
    path = write_array(tmp_path / "a.tif", bands(dtype))
    found = read_bands(path, bands=(6, 1, 2, 2))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, bands(dtype)[:, :, [5, 0, 1, 1]])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_bands__are_scaled_and_clipped(tmp_path: Path, dtype: Any) -> None:
    pixels = bands(dtype)
    if np.dtype(dtype).kind == "f":
        pixels[0, 0, 0], pixels[0, 1, 0] = np.nan, -1
    scale = float(np.nanmax(pixels) / 2)
    path = write_array(tmp_path / "a.tif", pixels)
    found = read_bands(path, bands=range(1, 7), full_scale=scale)
    assert found.dtype == np.float32
    expected = np.nan_to_num(pixels.astype(np.float32) / np.float32(scale)).clip(0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.max() == 1


def test_bands__of_floats_need_a_scale(tmp_path: Path) -> None:
    path = write_array(tmp_path / "a.tif", bands(np.float32))
    assert refusal(lambda: read_bands(path, bands=(1,))) == (
        f"{path} holds float32, whose range is not known (that of uint8 and uint16 is); set full_scale to the "
        "stored value that is white"
    )


def test_bands__that_a_file_lacks_are_refused(tmp_path: Path) -> None:
    path = write_array(tmp_path / "a.tif", bands(np.uint8))
    assert refusal(lambda: read_bands(path, bands=(1, 7))) == (
        f"bands 1, 7 were given for {path}; 1 to 6 are accepted; name those that the network takes, in its order"
    )


def test_bands__may_be_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", bands(np.uint16))
    np.testing.assert_array_equal(read_bands(tmp_path / "a.npy", bands=(4, 5)), bands(np.uint16)[:, :, 3:5])


@pytest.mark.parametrize("content", [b"", b"hello", b"II*\0\x08\0\0\0"])
def test_bands__of_a_damaged_file_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    assert refusal(lambda: read_bands(path, bands=(1,))).startswith(f"{path} ")


def test_folder__gives_the_bands_that_a_network_takes(tmp_path: Path) -> None:
    write_array(tmp_path / "images" / "a.tif", bands(np.uint16))
    fakes.save(PHOTO[:, :, 0] % 3, tmp_path / "masks" / "a.png")
    sample = FolderDataset(FolderConfig.parse({"root": tmp_path, "bands": [4, 3, 2, 1]}))[0]
    np.testing.assert_array_equal(sample.image, bands(np.uint16)[:, :, [3, 2, 1, 0]])
    with pytest.raises(ConfigError, match="full_scale belongs to bands"):
        FolderConfig.parse({"root": tmp_path, "full_scale": 10000})


def test_normals__must_have_three_values(tmp_path: Path) -> None:
    fakes.save(PHOTO, tmp_path / "images" / "a.png")
    (tmp_path / "values").mkdir()
    np.save(tmp_path / "values" / "a.npy", np.zeros((6, 8, 2), np.float32))
    assert "has 2 values per pixel but surface normals have 3" in refusal(
        lambda: FolderDataset(FolderConfig(root=tmp_path, normals=True))[0]
    )
    np.save(tmp_path / "values" / "a.npy", np.zeros((6, 8, 3), np.float32))
    assert FolderDataset(FolderConfig(root=tmp_path, normals=True))[0].normals


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_picture__is_what_people_can_look_at(count: int, dtype: Any) -> None:
    pixels = np.random.default_rng(0).random((6, 8, count)).astype(np.float32)
    stored = pixels if dtype is np.float32 else (pixels * np.iinfo(dtype).max).astype(dtype)
    picture = Sample("s", stored).picture
    assert (picture.dtype, picture.shape) == (np.uint8, (6, 8, 3))
    shown = pixels[:, :, [0, 1, 2] if count >= 3 else [0, 0, 0]]
    np.testing.assert_allclose(picture / 255, shown, atol=1 / 254)


@pytest.mark.parametrize("bits", [1, 8, 10, 12, 14, 16])
def test_picture__of_16_bits_shows_the_bits_that_are_used(bits: int) -> None:
    stored = np.random.default_rng(0).integers(0, 2**bits, (64, 80, 3)).astype(np.uint16)
    dead = stored.copy()
    dead[5, 5] = 65535  # a single pixel of a sensor does not make the others black
    expected = stored >> max(bits - 8, 0)

    np.testing.assert_array_equal(Sample("s", stored).picture, expected)
    np.testing.assert_array_equal(np.delete(Sample("s", dead).picture, 5, axis=0), np.delete(expected, 5, axis=0))
    assert (Sample("s", dead).picture[5, 5] == 255).all()
    assert not Sample("s", np.zeros((4, 4, 1), np.uint16)).picture.any()


# Text


def test_json__and_lists_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a", "a list") == [1]
    assert read_lines(tmp_path / "a", "a word") == ["[1]"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xff", b"   \n"])
def test_list__that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert refusal(lambda: read_lines(tmp_path / "a", "a word")).startswith(f"{tmp_path / 'a'} ")
