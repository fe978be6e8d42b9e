"""Exported files on the command line: ``densevit predict`` and ``evaluate``, and ``densevit-runtime``."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import densevit
from densevit.errors import CheckpointError, ConfigError
from densevit_runtime.cli import main as runtime_main
from tests.disks import files_up_to
from tests.e2e.scenes import write_model
from tests.exported_files import CLASSES, expected, write_onnx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "m.onnx")


def pixels(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (24, 36, 3), dtype=np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(pixels()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def runtime(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        runtime_main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    found.pop("seconds")
    return found


def test_both_commands__write_the_same_files_and_record(cli, model: Path, photo: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert cli("predict", photo, "--model", model, "--out", ours).code == 0
    assert runtime("predict", model, photo, "--out", theirs) == 0
    names = {path.name for path in ours.glob("[!.]*")}
    assert names == {path.name for path in theirs.glob("[!.]*")}
    assert record(ours / "photo.json") == record(theirs / "photo.json")
    for name in names - {"photo.json"}:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    labels = np.asarray(Image.open(ours / "photo.streets.labels.png"))
    np.testing.assert_array_equal(labels, expected(pixels())["streets"])


def test_predict__resumes_and_writes_annotations(cli, model: Path, photo: Path, tmp_path: Path) -> None:
    command = ("predict", photo, "--model", model, "--head", "streets", "--out", tmp_path / "out")
    assert cli(*command, "--annotations", "coco").code == 0
    assert (tmp_path / "out" / "coco" / "annotations.json").is_file()
    again = cli(*command, "--resume")
    assert (again.code, "1 skipped" in again.err) == (0, True)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--window", "64"), "windows"),
        (("--scales", "1,2"), "scales"),
        (("--flip",), "flip"),
        (("--protocol", "mmseg"), "protocol"),
        (("--quality", "best"), "quality"),
        (("--speed", "short_side=64"), "speed"),
        (("--device", "cuda"), "device"),
        (("--stream",), "stream"),
        (("--bands", "1,2,3"), "bands"),
        (("--scores",), "scores"),
    ],
)
def test_option_that_a_file_cannot_follow__is_refused_by_name(
    options: tuple[str, ...], name: str, cli, model: Path, photo: Path, tmp_path: Path
) -> None:
    result = cli("predict", photo, "--model", model, "--out", tmp_path / "out", *options)
    assert result.code == 2
    assert f"so it cannot follow {name}; leave that out, or use the checkpoint" in result.err
    assert not (tmp_path / "out").exists()


def test_engine_of_another_kind__is_refused(cli, model: Path, photo: Path, tmp_path: Path) -> None:
    result = cli("predict", photo, "--model", model, "--out", tmp_path / "out", "--engine", "compile")
    assert (result.code, "engine 'compile' does not run exported files" in result.err) == (2, True)


def test_large_image__fails_by_itself(
    cli, monkeypatch: pytest.MonkeyPatch, model: Path, photo: Path, tmp_path: Path
) -> None:
    Image.fromarray(pixels(1)).save(tmp_path / "large.tif")
    monkeypatch.setattr("densevit.cli.photo_batch.is_streamed", lambda image, forced: image.suffix == ".tif")
    result = cli("predict", photo, tmp_path / "large.tif", "--model", model, "--out", tmp_path / "out")
    assert (result.code, "1 predicted, 0 skipped, 1 failed" in result.err) == (2, True)
    assert "m.onnx is an exported file, which runs photos whole" in result.err.replace("\n", " ")


def test_exported_checkpoint__gives_the_record_of_the_checkpoint(cli, photo: Path, tmp_path: Path) -> None:
    checkpoint = write_model(tmp_path / "model.safetensors", "setr", "segmenter", "depth")
    exported = densevit.export_model(checkpoint, tmp_path / "model.onnx").files[0]
    records = []
    for model in (checkpoint, exported):
        assert cli("predict", photo, "--model", model, "--out", tmp_path / model.suffix[1:]).code == 0
        records.append(record(tmp_path / model.suffix[1:] / "photo.json") | {"model": ""})
    assert flat(records[1]) == pytest.approx(flat(records[0]), abs=2e-3)


def flat(data: Any, name: str = "") -> dict[str, Any]:
    """Nested data as one mapping."""
    if isinstance(data, dict):
        return {path: value for key, one in data.items() for path, value in flat(one, f"{name}/{key}").items()}
    return {name: str(data) if isinstance(data, list | None) else data}


# evaluate


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Masks that agree with the file on all but one row, and depth that agrees everywhere."""
    root = tmp_path / "data"
    for folder in ("images", "masks", "depth"):
        (root / folder / "val").mkdir(parents=True)
    for number in range(3):
        image = pixels(number)
        found = expected(image)
        mask = found["streets"].copy()
        mask[0] = 1 - mask[0]
        Image.fromarray(image).save(root / "images" / "val" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / "val" / f"{number}.png")
        millimetres = np.rint(found["depth"] * 1000).astype(np.uint16)
        Image.fromarray(millimetres).save(root / "depth" / "val" / f"{number}.png")
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    return root


def test_evaluate__measures_the_file_itself(cli, model: Path, data: Path, tmp_path: Path) -> None:
    report = tmp_path / "metrics.json"
    result = cli("evaluate", "--model", model, "--data", data, "--split", "val", "--json", report)
    assert result.code == 0, result.err
    found = json.loads(report.read_text())
    assert found["aAcc"] == pytest.approx(23 / 24)
    assert (found["model"], found["quality"]) == (str(model), "fast")
    assert found["mean_entropy"] == pytest.approx(np.mean([expected(pixels(n))["scores"].mean() for n in range(3)]))


def test_evaluate__in_python_measures_depth_too(model: Path, data: Path) -> None:
    found = densevit.evaluate(model, data, task="depth", split="val")
    assert found["depth"]["delta1"] == 1.0
    assert found["depth"]["AbsRel"] < 1e-3


def test_evaluate__in_python_refuses_options(model: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="cannot follow flip"):
        densevit.evaluate(model, data, heads="streets", options=densevit.InferenceOptions(flip=True))


def test_load__names_the_runtime(model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is an exported file.*densevit_runtime\.load"):
        densevit.load(model)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_damaged_file__is_a_clear_error(command: str, cli, model: Path, photo: Path, tmp_path: Path) -> None:
    model.write_bytes(model.read_bytes()[:-9])
    arguments = {"predict": (photo, "--out", tmp_path / "out"), "evaluate": ("--data", tmp_path)}[command]
    result = cli(command, *arguments, "--model", model)
    assert (result.code, "is not an ONNX file, or is damaged" in result.err.replace("\n", " ")) == (2, True)


# densevit-runtime


def test_runtime__reports_a_broken_photo_and_goes_on(
    model: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:60])
    report = tmp_path / "all.json"
    code = runtime("predict", model, photo, tmp_path / "broken.png", "--out", tmp_path / "out", "--json", report)
    assert (code, "1 predicted, 1 failed" in capsys.readouterr().err) == (2, True)
    found = json.loads(report.read_text())
    assert (len(found["photos"]), len(found["failures"])) == (1, 1)


def test_runtime__does_not_replace_what_others_wrote(model: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.json").write_text("mine")
    assert runtime("predict", model, photo, "--out", tmp_path / "out") == 2
    assert (tmp_path / "out" / "photo.json").read_text() == "mine"
    assert runtime("predict", model, photo, "--out", tmp_path / "out", "--overwrite") == 0


def test_runtime__leaves_nothing_half_written_on_a_full_disk(
    model: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_up_to(300):
        assert runtime("predict", model, photo, "--out", tmp_path / "out") == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("[!.]*.json"))
    assert not list((tmp_path / "out").glob(".densevit-*"))


def test_runtime__shows_what_a_file_says(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runtime("info", model) == 0
    assert "streets: segmentation, 2 classes, short side 32" in capsys.readouterr().out
    assert runtime("info", model, "--json") == 0
    assert json.loads(capsys.readouterr().out)["heads"]["depth"]["unit"] == "m"


@pytest.mark.parametrize("arguments", [("info", "none.onnx"), ("predict", "none.onnx", "x.png", "--out", "out"), ()])
def test_runtime__exits_with_2_for_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert runtime(*arguments) == 2


def test_runtime__needs_neither_torch_nor_densevit(model: Path, photo: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['densevit'] = sys.modules['yaml'] = None\n"
        "import densevit_runtime\n"
        f"prediction = densevit_runtime.load({str(model)!r}).predict({str(photo)!r})\n"
        "assert not {'pydantic', 'safetensors', 'typer'} & set(sys.modules)\n"
        "print(prediction.class_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(CLASSES)), done.stderr
