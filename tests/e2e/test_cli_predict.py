"""``densevit predict``: photos of every kind in, pictures and a record out."""

import html
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import densevit
from densevit.engines.engine import ENGINES
from densevit.tasks import Segmentation
from densevit_runtime.io.find import unique_stems
from tests.e2e.commands import spawn
from tests.e2e.scenes import CLASSES, scene

ACCEPTED = "JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP, PPM and JPEG 2000 are accepted"
SOURCES = "a photo, a folder of photos or a quoted glob such as 'photos/**/*.jpg' is accepted"
SIZE = (40, 60)

LABELS = ("labels.png", "overlay.png")
FILES = {
    "photo.json",
    *(f"photo.{head}.{file}" for head in ("setr", "segmenter", "dpt", "coarse") for file in LABELS),
    "photo.depth.mm.png",
    "photo.depth.colours.png",
}


def pixels(seed: int = 7, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return scene(seed, size).image


def save(path: Path, image: NDArray[np.uint8] | Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo = pixels() if image is None else image
    (photo if isinstance(photo, Image.Image) else Image.fromarray(photo)).save(path, **options)
    return path


def read(path: Path) -> NDArray[np.generic]:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def predict(cli, trained):
    """``densevit predict ... --model`` with the trained model."""
    return lambda *arguments: cli("predict", *arguments, "--model", trained)


# What is written


def test_predict__writes_the_files_of_every_head_and_a_record(predict, tmp_path):
    result = predict(save(tmp_path / "photo.png"), "--out", tmp_path / "out")
    assert (result.code, {path.name for path in (tmp_path / "out").glob("[!.]*")}) == (0, FILES)


def test_predict__labels_are_indexed_with_the_ids_and_the_palette_of_the_task(predict, trained, tmp_path):
    photo = save(tmp_path / "photo.png")
    predict(photo, "--out", tmp_path / "out")
    model = densevit.load(trained)
    task = model.tasks["segmenter"]
    assert isinstance(task, Segmentation)
    with Image.open(tmp_path / "out" / "photo.segmenter.labels.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[: 3 * len(CLASSES)] == [value for colour in task.palette for value in colour]
        np.testing.assert_array_equal(np.asarray(image), model.predict(photo)["segmenter"].labels)


def test_predict__a_trained_head_finds_the_rectangles(predict, tmp_path):
    sample = scene(100)
    predict(save(tmp_path / "photo.png", sample.image), "--out", tmp_path / "out", "--head", "dpt")
    found = read(tmp_path / "out" / "photo.dpt.labels.png")
    assert (found == sample.labels).mean() > 0.85


def test_predict__depth_is_16_bit_millimetres(predict, trained, tmp_path):
    photo = save(tmp_path / "photo.png")
    predict(photo, "--out", tmp_path / "out")
    metres = densevit.load(trained).predict(photo).depth
    millimetres = read(tmp_path / "out" / "photo.depth.mm.png")
    assert millimetres.dtype == np.uint16
    np.testing.assert_array_equal(millimetres, np.rint(metres.astype(np.float64) * 1000))


@pytest.mark.parametrize("name", ["setr.overlay", "coarse.overlay", "depth.colours"])
def test_predict__pictures_have_the_size_of_the_photo(predict, tmp_path, name):
    predict(save(tmp_path / "photo.png", pixels(size=(37, 91))), "--out", tmp_path / "out")
    assert read(tmp_path / "out" / f"photo.{name}.png").shape == (37, 91, 3)


def test_predict__record_says_what_was_found_where(predict, trained, tmp_path):
    photo = save(tmp_path / "photo.png")
    predict(photo, "--out", tmp_path / "out", "--head", "segmenter,depth")
    record = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert record["heads"]["segmenter"]["shares"].keys() == set(CLASSES)
    assert sum(record["heads"]["segmenter"]["shares"].values()) == pytest.approx(1, abs=1e-5)
    labels = read(tmp_path / "out" / record["heads"]["segmenter"]["labels"])
    assert record["heads"]["segmenter"]["shares"]["wall"] == pytest.approx((labels == 0).mean(), abs=1e-6)
    depth = read(tmp_path / "out" / record["heads"]["depth"]["values"]) / 1000
    assert record["heads"]["depth"]["mean"] == pytest.approx(depth.mean(), abs=1e-3)
    assert (record["heads"]["depth"]["quantity"], record["heads"]["depth"]["unit"]) == ("depth", "m")
    assert (record["height"], record["width"], record["primary"]) == (*SIZE, "segmenter")
    assert (record["source"], record["model"]) == (str(photo), str(trained))


def test_predict__json_holds_the_records_and_the_failures(predict, tmp_path):
    save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no photo")
    predict(tmp_path / "in", "--out", tmp_path / "out", "--json", tmp_path / "all.json")
    together = json.loads((tmp_path / "all.json").read_text())
    assert together["photos"] == [json.loads((tmp_path / "out" / "a.json").read_text())]
    assert len(together["failures"]) == 1


@pytest.mark.parametrize("name", ["photo.png", "a #1 50%25 ?.png", "<b>'a' & \"b\".png"])
def test_gallery__shows_the_surest_labels_and_the_depth_of_every_photo(predict, tmp_path, name):
    save(tmp_path / "in" / name)
    save(tmp_path / "in" / "other.png")
    predict(tmp_path / "in", "--out", tmp_path / "out", "--head", "segmenter,coarse,depth", "--gallery")
    page = (tmp_path / "out" / "index.html").read_text()
    shown = {unquote(html.unescape(source)) for source in re.findall(r'<img src="([^"]*)"', page)}
    records = [json.loads((tmp_path / "out" / f"{Path(stem).stem}.json").read_text()) for stem in (name, "other.png")]
    surest = {record["heads"][record["primary"]]["overlay"] for record in records}
    assert shown == surest | {record["heads"]["depth"]["colours"] for record in records}
    assert html.escape(name) in page


# What is taken


def test_predict__folder_gives_its_photos_in_natural_order(predict, tmp_path):
    for name in ("img10.png", "img2.png", ".hidden.png", "deeper/img1.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("about the photos")
    predict(tmp_path / "in", "--out", tmp_path / "out", "--head", "coarse", "--json", tmp_path / "all.json")
    records = json.loads((tmp_path / "all.json").read_text())["photos"]
    assert [Path(record["source"]).name for record in records] == ["img2.png", "img10.png"]


def test_predict__glob_spans_folders(predict, tmp_path):
    for name in ("one/a.png", "two/deep/b.jpg", "two/c.png"):
        save(tmp_path / name)
    predict(tmp_path / "**" / "*.png", "--out", tmp_path / "out", "--head", "coarse")
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"a.json", "c.json"}


def test_predict__colliding_stems_each_get_their_own_files(predict, tmp_path):
    for name in ("a.png", "a.jpg", "sub/a.png", "b.png"):
        save(tmp_path / "in" / name)
    result = predict(tmp_path / "in" / "**", "--out", tmp_path / "out", "--head", "coarse")
    names = {path.name for path in (tmp_path / "out").glob("*.json")}
    assert (result.code, names) == (0, {"a.jpg.json", "in_a.png.json", "sub_a.png.json", "b.json"})


@given(st.sets(st.lists(st.sampled_from(["a", "b", "A", "a_b", "a.png"]), min_size=1, max_size=4).map(tuple)))
def test_unique_stems__differ_for_different_files(parts):
    # A file has a suffix and a folder has none, so that no path is the folder of another.
    photos = [Path("/", *folders, f"{name}{suffix}") for *folders, name in sorted(parts) for suffix in (".jpg", ".png")]
    stems = unique_stems(photos)
    assert len(set(stems)) == len(photos)


def orient(path: Path) -> Path:
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by a quarter
    return save(path, np.rot90(pixels()).copy(), exif=exif)


PHOTOS: dict[str, tuple[Callable[[Path], Path], tuple[int, int]]] = {
    "exif.jpg": (orient, SIZE),
    "grey.png": (lambda path: save(path, pixels()[..., 0]), SIZE),
    "alpha.png": (lambda path: save(path, Image.fromarray(pixels()).convert("RGBA")), SIZE),
    "palette.png": (lambda path: save(path, Image.fromarray(pixels()).quantize(16)), SIZE),
    "deep.png": (lambda path: save(path, pixels()[..., 0].astype(np.uint16) * 257), SIZE),
    "print.jpg": (lambda path: save(path, Image.fromarray(pixels()).convert("CMYK")), SIZE),
    "dot.png": (lambda path: save(path, pixels()[:1, :1].copy()), (1, 1)),
    "strip.png": (lambda path: save(path, np.tile(pixels()[:8], (1, 167, 1))[:, :10000].copy()), (8, 10000)),
    "tower.png": (lambda path: save(path, np.tile(pixels()[:, :8], (80, 1, 1)).copy()), (3200, 8)),
    "moving.gif": (
        lambda path: save(path, save_all=True, append_images=[Image.fromarray(pixels(8))], duration=40),
        SIZE,
    ),
    "no-suffix": (lambda path: save(path, format="PNG"), SIZE),
    "wrong.jpg": (lambda path: save(path, format="BMP"), SIZE),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_predict__takes_a_photo_of_any_kind(predict, tmp_path, name):
    make, size = PHOTOS[name]
    photo = make(tmp_path / name)
    result = predict(photo, "--out", tmp_path / "out", "--head", "coarse,depth")
    assert result.code == 0, result.err
    assert read(tmp_path / "out" / f"{photo.stem}.coarse.labels.png").shape == size
    assert read(tmp_path / "out" / f"{photo.stem}.depth.mm.png").shape == size
    assert read(tmp_path / "out" / f"{photo.stem}.coarse.overlay.png").shape == (*size, 3)


def test_predict__turns_a_photo_upright_before_it_looks(predict, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    save(tmp_path / "turned.png", np.rot90(pixels()).copy(), exif=exif)
    save(tmp_path / "upright.png")
    predict(tmp_path / "turned.png", tmp_path / "upright.png", "--out", tmp_path / "out", "--head", "dpt")
    turned, upright = (read(tmp_path / "out" / f"{name}.dpt.labels.png") for name in ("turned", "upright"))
    np.testing.assert_array_equal(turned, upright)


# What goes wrong


def broken_jpeg(path: Path) -> Path:
    save(path, pixels(size=(200, 300)), quality=95)
    path.write_bytes(path.read_bytes()[:4000])
    return path


def test_predict__a_broken_photo_does_not_stop_the_others(predict, tmp_path):
    save(tmp_path / "in" / "a.png")
    broken_jpeg(tmp_path / "in" / "b.jpg")
    save(tmp_path / "in" / "c.png")
    result = predict(tmp_path / "in", "--out", tmp_path / "out", "--head", "coarse")
    assert result.code == 2
    assert f"failed {tmp_path / 'in' / 'b.jpg'} is damaged or cut short" in result.err
    assert f"2 predicted, 0 skipped, 1 failed; pictures in {tmp_path / 'out'}" in result.err
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"a.json", "c.json"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken_jpeg, "is damaged or cut short (image file is truncated"),
        (lambda path: path.write_text("road, sky"), f"is a text file that begins with 'road, sky'; {ACCEPTED}"),
        (lambda path: path.write_bytes(b""), "is empty (0 bytes); copy"),
        (
            lambda path: path.write_bytes(b"\x00\x07" * 40),
            f"is not an image, or its first bytes are damaged; {ACCEPTED}",
        ),
    ],
    ids=["cut JPEG", "text", "empty", "noise"],
)
def test_predict__says_what_is_wrong_with_a_file(predict, tmp_path, make, message):
    path = tmp_path / "photo.png"
    make(path) if make is not broken_jpeg else path.write_bytes(broken_jpeg(tmp_path / "whole.jpg").read_bytes())
    save(tmp_path / "good.png")
    result = predict(path, tmp_path / "good.png", "--out", tmp_path / "out", "--head", "coarse")
    assert (result.code, f"{path} {message}" in result.err) == (2, True), result.err


@pytest.mark.parametrize("name", ["cup [red].png", "[", "[bold]"])
def test_predict__brackets_in_names_are_shown_as_they_are(predict, tmp_path, name):
    folder = tmp_path / "in"
    save(folder / "good.png")
    (folder / name).write_text("no photo", encoding="utf-8")
    result = predict(folder / "good.png", folder / name, "--out", tmp_path / "[/out]", "--head", "coarse")
    assert f"{folder / name} is a text file" in result.err
    assert f"pictures in {tmp_path / '[/out]'}" in result.err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.jpg", "{} does not exist; " + SOURCES + "; check the path"),
        ("no/such/*.png", "{} is a glob without a photo (by extension, among 0 entries); " + SOURCES),
    ],
)
def test_predict__a_source_without_photos_is_refused(predict, tmp_path, source, message):
    result = predict(tmp_path / source, "--out", tmp_path / "out")
    assert result.code == 2
    assert result.err.startswith("densevit: " + message.format(tmp_path / source))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["file", "file/deeper"])
def test_predict__a_file_in_the_place_of_out_is_refused(predict, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    result = predict(save(tmp_path / "photo.png"), "--out", tmp_path / out)
    assert result.code == 2
    assert result.err.startswith(f"densevit: folder {tmp_path / out} cannot be made (")
    assert (tmp_path / "file").read_text() == "mine"


def test_predict__a_folder_in_the_place_of_a_picture_fails_that_photo_alone(predict, tmp_path):
    (tmp_path / "out" / "a.coarse.labels.png").mkdir(parents=True)
    photos = [save(tmp_path / name) for name in ("a.png", "b.png")]
    result = predict(*photos, "--out", tmp_path / "out", "--head", "coarse")
    assert (result.code, (tmp_path / "out" / "b.json").exists(), (tmp_path / "out" / "a.json").exists()) == (
        2,
        True,
        False,
    )


def test_predict__an_unknown_head_is_answered_with_the_nearest(predict, tmp_path):
    result = predict(save(tmp_path / "photo.png"), "--out", tmp_path / "out", "--head", "depht")
    assert (result.code, result.err) == (2, "densevit: there is no head 'depht'; did you mean 'depth'?\n")


@pytest.mark.parametrize(
    "options",
    [("--head", "coarse, depth"), ("--head", "coarse", "--head", "depth"), ("--heads", "coarse,depth")],
    ids=["commas", "repeated", "the old spelling"],
)
def test_predict__runs_the_heads_that_are_named(predict, tmp_path, options):
    result = predict(save(tmp_path / "photo.png"), "--out", tmp_path / "out", *options)
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["heads"].keys() == {"coarse", "depth"}


@pytest.mark.parametrize(("model", "nearest"), [("defualt", "default"), ("segmentr-s-mask", "segmenter-s-mask")])
def test_predict__an_unknown_model_is_answered_with_the_nearest(cli, tmp_path, model, nearest):
    result = cli("predict", save(tmp_path / "photo.png"), "--out", tmp_path / "out", "--model", model)
    assert (result.code, result.err) == (2, f"densevit: there is no model {model!r}; did you mean {nearest!r}?\n")


def test_predict__a_missing_checkpoint_is_refused(cli, tmp_path):
    path = tmp_path / "model.safetensors"
    result = cli("predict", save(tmp_path / "photo.png"), "--out", tmp_path / "out", "--model", path)
    assert (result.code, result.err) == (
        2,
        f"densevit: {path} does not exist; give a file or hf://owner/name[/file][@revision]; check the path\n",
    )


def test_predict__a_damaged_checkpoint_is_refused(cli, trained, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(trained.read_bytes()[:100_000])
    result = cli("predict", save(tmp_path / "photo.png"), "--out", tmp_path / "out", "--model", path)
    assert result.code == 2
    assert result.err.startswith(f"densevit: {path} is damaged or cut short (")


# --resume


@pytest.fixture
def resumable(predict, tmp_path):
    """Two photos predicted once, and a call that resumes and gives how many were predicted and skipped."""
    for name in ("a.bmp", "b.bmp"):
        save(tmp_path / "in" / name)

    def run(*more: str, folder: Path = tmp_path / "in") -> str:
        result = predict(folder, "--out", tmp_path / "out", "--head", "coarse,depth", *more)
        return result.err.rpartition(";")[0].splitlines()[-1]

    run()
    return run


def test_resume__skips_what_is_finished(resumable, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert resumable("--resume") == "0 predicted, 2 skipped, 0 failed"
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_resume__records_of_skipped_photos_are_in_the_json(resumable, tmp_path):
    resumable("--resume", "--json", str(tmp_path / "all.json"))
    assert len(json.loads((tmp_path / "all.json").read_text())["photos"]) == 2


@pytest.mark.parametrize("file", ["a.json", "a.coarse.labels.png", "a.depth.mm.png", "a.depth.colours.png"])
def test_resume__redoes_a_photo_whose_result_was_deleted(resumable, tmp_path, file):
    (tmp_path / "out" / file).unlink()
    assert resumable("--resume") == "1 predicted, 1 skipped, 0 failed"
    assert (tmp_path / "out" / file).exists()


def test_resume__redoes_a_photo_that_changed(resumable, tmp_path):
    save(tmp_path / "in" / "a.bmp", pixels(size=(30, 30)))
    assert resumable("--resume") == "1 predicted, 1 skipped, 0 failed"


def test_resume__redoes_a_photo_that_changed_and_kept_its_size_in_bytes(resumable, tmp_path):
    path = tmp_path / "in" / "a.bmp"
    earlier = path.stat()
    save(path, pixels(seed=9))
    assert path.stat().st_size == earlier.st_size
    os.utime(path, ns=(earlier.st_atime_ns, earlier.st_mtime_ns + 1_000_000_000))
    assert resumable("--resume") == "1 predicted, 1 skipped, 0 failed"


def test_resume__redoes_photos_for_another_model(resumable, cli, trained, tmp_path):
    other = shutil.copy(trained, tmp_path / "other.safetensors")
    result = cli("predict", tmp_path / "in", "--out", tmp_path / "out", "--model", other, "--resume")
    assert "2 predicted, 0 skipped" in result.err


@pytest.mark.parametrize("text", ["[]", "{", '{"heads": 3}', ""])
def test_resume__redoes_a_photo_whose_record_is_not_ours_only_if_told_to(resumable, tmp_path, text):
    (tmp_path / "out" / "a.json").write_text(text)
    assert "a.json exists, and densevit did not write" in resumable("--resume")
    assert (tmp_path / "out" / "a.json").read_text() == text
    assert resumable("--resume", "--overwrite") == "1 predicted, 1 skipped, 0 failed"


def test_resume__redoes_photos_for_another_engine(resumable, tmp_path, monkeypatch):
    monkeypatch.setitem(ENGINES, "compile", lambda module, _: lambda *tensors: module(*tensors))

    assert resumable("--resume", "--engine", "compile") == "2 predicted, 0 skipped, 0 failed"
    assert json.loads((tmp_path / "out" / "a.json").read_text())["speed"] == {"engine": "compile"}
    assert resumable("--resume", "--engine", "compile") == "0 predicted, 2 skipped, 0 failed"
    assert resumable("--resume", "--speed", "engine=compile") == "0 predicted, 2 skipped, 0 failed"
    assert resumable("--resume") == "2 predicted, 0 skipped, 0 failed"


def test_predict__without_resume_does_everything_again(resumable):
    assert resumable() == "2 predicted, 0 skipped, 0 failed"


# In a process of its own


def test_predict__from_the_shell(trained, tmp_path):
    save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no photo")
    result = spawn("predict", "in", "--out", "out", "--model", trained, "--head", "coarse", cwd=tmp_path)
    assert (result.code, (tmp_path / "out" / "a.coarse.labels.png").exists()) == (2, True)
    assert "failed in/b.png is a text file that begins with 'no photo'" in result.err
    assert "Traceback" not in result.err


def test_predict__debug_shows_the_traceback(tmp_path):
    result = spawn("--debug", "predict", tmp_path / "nowhere.jpg", "--out", tmp_path / "out")
    assert result.code == 1
    assert "Traceback" in result.err
    assert ".errors.DataError: " in result.err
