"""Writing whole files or none, and finding photos."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevit.errors import DataError
from densevit.io import (
    atomic_path,
    find_images,
    read_depth,
    read_image,
    read_labels,
    write_bytes_atomic,
    write_depth_mm,
    write_json,
    write_labels,
    write_png,
)
from densevit_runtime.io.outputs import MANIFEST

PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
SOURCES = "a photo, a folder of photos or a quoted glob such as 'photos/**/*.jpg' is accepted"


def names(folder):
    return [path.name for path in folder.iterdir() if path.name != MANIFEST]


def refusal(call):
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(("shape", "dtype"), [((4, 5), np.uint8), ((4, 5), np.uint16), ((4, 5, 3), np.uint8)])
def test_write_png__keeps_every_value(tmp_path, shape, dtype):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    write_png(tmp_path / "a.png", array)
    read = read_image if len(shape) == 3 else read_labels
    assert (read(tmp_path / "a.png") == array).all()


def test_write_png__takes_a_strided_view(tmp_path):
    array = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)[::-1, ::2]
    write_png(tmp_path / "a.png", array)
    assert (read_image(tmp_path / "a.png") == array).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5), np.float32),
        np.zeros((4, 5, 3), np.uint16),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((0, 5), np.uint8),
        np.zeros(5, np.uint8),
    ],
)
def test_write_png__refuses_other_arrays(tmp_path, array):
    path = tmp_path / "a.png"
    assert refusal(lambda: write_png(path, array)) == (
        f"{path} would hold an array {array.shape} of {array.dtype}; a PNG takes (H, W) uint8 or uint16, or (H, W, 3)"
        " uint8"
    )


def test_write_labels__stores_indices_and_colours(tmp_path):
    labels = np.array([[0, 1, 2]])
    write_labels(tmp_path / "m.png", labels, PALETTE)
    assert read_labels(tmp_path / "m.png").tolist() == labels.tolist()
    assert read_image(tmp_path / "m.png").tolist() == [[list(colour) for colour in PALETTE]]


def test_write_labels__keeps_the_ignore_index_beyond_the_palette(tmp_path):
    write_labels(tmp_path / "m.png", np.array([[0, 255]], np.uint8), PALETTE)
    assert read_labels(tmp_path / "m.png").tolist() == [[0, 255]]


@pytest.mark.parametrize(("num_classes", "mode"), [(256, "P"), (257, "I;16")])
def test_write_labels__goes_to_16_bit_beyond_256_classes(tmp_path, num_classes, mode):
    labels = np.array([[0, num_classes - 1]])
    write_labels(tmp_path / "m.png", labels, np.zeros((num_classes, 3), np.uint8))
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == mode
    assert read_labels(tmp_path / "m.png").tolist() == labels.tolist()


def test_write_labels__of_many_classes_ignores_65535_and_255_is_a_class(tmp_path):
    labels = np.array([[0, 255, 65535, 299]])
    write_labels(tmp_path / "m.png", labels, np.zeros((300, 3), np.uint8))
    assert read_labels(tmp_path / "m.png").tolist() == labels.tolist()
    assert "0 to 299 (a palette of 300 colours) and 65535 (ignore)" in refusal(
        lambda: write_labels(tmp_path / "m.png", np.array([[300]]), np.zeros((300, 3), np.uint8))
    )


@pytest.mark.parametrize("label", [-1, 3, 254, 256])
def test_write_labels__refuses_a_class_without_colour(tmp_path, label):
    path = tmp_path / "m.png"
    assert refusal(lambda: write_labels(path, np.array([[0, label]]), PALETTE)) == (
        f"{path} would hold label {label}; 0 to 2 (a palette of 3 colours) and 255 (ignore) are accepted; check the"
        " class names and the palette"
    )


def test_write_labels__refuses_floats(tmp_path):
    path = tmp_path / "m.png"
    assert refusal(lambda: write_labels(path, np.zeros((1, 2)), PALETTE)) == (
        f"{path} would hold labels (1, 2) of float64; (H, W) integers are accepted; take the arg max"
    )


def test_write_depth_mm__stores_clipped_millimetres_and_0_for_unmeasured(tmp_path):
    write_depth_mm(tmp_path / "d.png", np.array([[0.0004, 0.0006, 1.5, 65.535, 70, -1, np.nan, np.inf]], np.float32))
    assert read_labels(tmp_path / "d.png").tolist() == [[0, 1, 1500, 65535, 65535, 0, 0, 0]]


def test_write_depth_mm__survives_the_way_there_and_back(tmp_path):
    depth_m = (np.arange(65536).reshape(256, 256) / 1000).astype(np.float32)
    write_depth_mm(tmp_path / "d.png", depth_m)
    assert (read_depth(tmp_path / "d.png") == depth_m).all()


def test_write_json__writes_what_numpy_and_nan_mean(tmp_path):
    write_json(tmp_path / "a.json", {"iou": np.float32(0.5), "n": np.int64(3), "nan": float("nan"), "é": Path("a/b")})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"iou": 0.5, "n": 3, "nan": None, "é": str(Path("a/b"))}
    assert text.endswith("}\n")
    assert "é" in text


def test_write_json__writes_nested_arrays(tmp_path):
    write_json(tmp_path / "a.json", [(np.array([[1.5, np.inf]]), True, None, "x")])
    assert json.loads((tmp_path / "a.json").read_text()) == [[[[1.5, None]], True, None, "x"]]


@pytest.mark.parametrize("sync", [False, True])
def test_atomic_path__replaces_the_file_and_leaves_nothing_else(tmp_path, sync):
    path = tmp_path / "a.bin"
    write_bytes_atomic(path, b"old")
    with atomic_path(path, sync=sync) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_path__keeps_the_old_file_when_the_block_fails(tmp_path, error):
    path = tmp_path / "a.bin"
    write_bytes_atomic(path, b"old")
    with pytest.raises(error), atomic_path(path) as temporary:  # noqa: PT012 -- the block is what is tested
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_atomic_path__works_in_the_same_folder_under_the_same_suffix(tmp_path):
    with atomic_path(tmp_path / "a.npy") as temporary:
        temporary.touch()
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".npy")


def test_atomic_path__makes_missing_folders(tmp_path):
    write_bytes_atomic(tmp_path / "x" / "y" / "a.bin", b"data")
    assert (tmp_path / "x" / "y" / "a.bin").read_bytes() == b"data"


def test_atomic_path__writes_through_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_bytes_atomic(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"data"


def test_atomic_path__gives_the_usual_permissions(tmp_path):
    write_bytes_atomic(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_write_bytes_atomic__names_the_path_when_the_disk_is_full(tmp_path, monkeypatch):
    def write_half(self, data):
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    path = tmp_path / "a.bin"
    assert refusal(lambda: write_bytes_atomic(path, b"data")) == (
        f"{path} cannot be written (No space left on device); choose another place or free some space"
    )
    assert names(tmp_path) == []


def test_write_png__names_the_path_when_the_folder_is_a_file(tmp_path):
    (tmp_path / "out").write_bytes(b"a file")
    path = tmp_path / "out" / "a.png"
    assert refusal(lambda: write_png(path, np.zeros((1, 1), np.uint8))).startswith(f"{path} cannot be written (")


@pytest.mark.parametrize("name", [".", os.devnull])
def test_write_bytes_atomic__refuses_folders_and_devices(tmp_path, name):
    path = tmp_path / name  # an absolute name stands alone
    assert refusal(lambda: write_bytes_atomic(path, b"")) == (
        f"{path} is a folder or a device; choose the name of a file"
    )


@pytest.fixture
def album(tmp_path, monkeypatch):
    names = "img10.png img2.JPG img1.jpeg .hidden.jpg notes.txt sub/img3.png sub/deep/img4.tif odd.dat [1].png"
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["."], "[1].png img1.jpeg img2.JPG img10.png"),
        (["sub"], "sub/img3.png"),
        (["*.png"], "[1].png img10.png"),
        (["*"], "[1].png img1.jpeg img2.JPG img10.png"),
        (["**"], "[1].png img1.jpeg img2.JPG img10.png sub/deep/img4.tif sub/img3.png"),
        (["**/*.png"], "[1].png img10.png sub/img3.png"),
        (["img[12].*"], "img1.jpeg img2.JPG"),
        (["[1].png"], "[1].png"),
        (["odd.dat", "notes.txt"], "notes.txt odd.dat"),
        ([".hidden.jpg"], ".hidden.jpg"),
        (["img10.png", "img2.JPG", "./img2.JPG", "sub/../img2.JPG", "*.JPG"], "img2.JPG img10.png"),
        ([Path("sub"), "img1.jpeg"], "img1.jpeg sub/img3.png"),
    ],
)
@pytest.mark.usefixtures("album")
def test_find_images__lists_in_natural_order_each_once(sources, expected):
    assert [path.as_posix() for path in find_images(sources)] == expected.split()


def test_find_images__takes_absolute_globs_and_home_folders(album, monkeypatch):
    monkeypatch.setenv("HOME", str(album))
    expected = [album / "sub" / "img3.png"]
    assert find_images([f"{album}/sub/*.png"]) == find_images(["~/sub"]) == expected


@pytest.mark.usefixtures("album")
def test_find_images__takes_one_bare_source():
    assert find_images("img2.JPG") == [Path("img2.JPG")]


def test_find_images__counts_a_link_as_a_photo_of_its_own(album):
    (album / "sub" / "alias.png").symlink_to(album / "sub" / "img3.png")
    assert [path.name for path in find_images(["sub"])] == ["alias.png", "img3.png"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], f"no photo was named; {SOURCES}"),
        (["img2.JPG", "gone.jpg"], f"gone.jpg does not exist; {SOURCES}; check the path"),
        (
            ["*.webp"],
            f"*.webp is a glob without a photo (by extension, among 0 entries); {SOURCES}; check the name, or reach"
            " subfolders with '**'",
        ),
        (
            ["folder.jpg"],
            f"folder.jpg is a folder without a photo (by extension, among 0 entries); {SOURCES}; check the name, or"
            " reach subfolders with '**'",
        ),
        (["no\0name.jpg"], f"no\0name.jpg does not exist; {SOURCES}; check the path"),
    ],
)
@pytest.mark.usefixtures("album")
def test_find_images__refuses_a_source_that_matches_nothing(sources, message):
    assert refusal(lambda: find_images(sources)) == message


def test_atomic_path__grants_what_the_umask_grants_whatever_the_writer_says(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))

    plain = tmp_path / "plain"
    plain.touch()
    with atomic_path(tmp_path / "file") as temporary:
        write(temporary)
    assert (tmp_path / "file").stat().st_mode == plain.stat().st_mode
