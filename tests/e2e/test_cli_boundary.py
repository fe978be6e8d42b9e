"""What surrounds every command: faults, signals, streams, odd names, and the files of others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import densevit
from densevit.cli.terminal import printable
from tests.e2e.commands import command
from tests.e2e.scenes import scene, write_model


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    write_model(path, "segmenter")
    return path


@pytest.fixture
def photos(tmp_path):
    from densevit.io import write_png

    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        write_png(folder / name, scene(len(name), (48, 64)).image)
    return folder


def test_fault__ends_with_70_and_a_file_to_report(cli, monkeypatch, tmp_path):
    def fail(**filters: object) -> None:
        raise KeyError("unexpected")

    monkeypatch.setattr("densevit.checkpoints.catalogue.catalogue", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = cli("models")
    assert result.code == 70
    assert "this is a fault of densevit" in result.err
    (report,) = tmp_path.glob("densevit-fault-*.txt")
    assert "KeyError: 'unexpected'" in report.read_text()


@pytest.mark.parametrize("error", [EOFError("no more"), RecursionError("deep"), ZeroDivisionError()])
def test_errors_of_any_kind__are_reported(cli, monkeypatch, error):
    def fail(**filters: object) -> None:
        raise error

    monkeypatch.setattr("densevit.checkpoints.catalogue.catalogue", fail)
    result = cli("models")
    assert (result.code, type(error).__name__ in result.err) == (70, True)


def test_fault__in_one_photo_lets_the_others_go_on(cli, monkeypatch, model, photos, tmp_path):
    from densevit.inference.predictor import Predictor

    predict = Predictor.predict

    def fail_once(self, image, **options):
        if Path(image).name == "a.png":
            raise ZeroDivisionError("odd")
        return predict(self, image, **options)

    monkeypatch.setattr(Predictor, "predict", fail_once)
    result = cli("predict", photos, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    assert result.code == 70
    assert "1 predicted, 0 skipped, 1 failed" in result.err
    assert (tmp_path / "out" / "b.json").exists()


def test_predict__into_the_folder_of_the_photos_keeps_what_is_there(cli, model, photos):
    (photos / "a.json").write_text('{"shapes": []}')
    (photos / "index.html").write_text("my page")
    words = (
        "predict",
        photos / "a.png",
        photos / "b.png",
        "--out",
        photos,
        "--gallery",
        "--model",
        model,
        "--device",
        "cpu",
    )
    result = cli(*words)
    assert (result.code, "exist, and densevit did not write" in result.err) == (2, True)
    assert (photos / "a.json").read_text() == '{"shapes": []}'
    assert not (photos / "b.json").exists()
    assert cli(*words, "--overwrite").code == 0
    assert json.loads((photos / "a.json").read_text())["height"]
    assert cli(*words).code == 0  # its own results are replaced without a word


def test_predict__says_what_it_passed_over(cli, model, photos, tmp_path):
    (photos / "c.heic").touch()
    words = ("predict", photos, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    result = cli(*words, "--json", tmp_path / "all.json")
    assert result.code == 0
    assert "2 predicted, 0 skipped, 0 failed, 1 passed over" in result.err
    (entry,) = json.loads((tmp_path / "all.json").read_text())["passed_over"]
    assert entry["source"].endswith("c.heic")


def test_predict__stops_when_nothing_can_be_written(cli, monkeypatch, model, photos, tmp_path):
    from densevit.errors import OutputError
    from densevit.inference.prediction import Prediction

    def fail(*_: object, **__: object) -> None:
        raise OutputError("the disk is full", everywhere=True)

    monkeypatch.setattr(Prediction, "save", fail)
    result = cli("predict", photos, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    assert (result.code, "1 failed, 1 not tried" in result.err) == (2, True)


def test_predict__takes_names_that_are_not_utf8(cli, model, photos, tmp_path):
    odd = os.fsencode(photos) + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes((photos / "a.png").read_bytes())
    words = ("predict", photos, "--out", tmp_path / "out", "--model", model, "--device", "cpu", "--gallery")
    result = cli(*words, "--json", tmp_path / "all.json")
    assert result.code == 0
    sources = [record["source"] for record in json.loads((tmp_path / "all.json").read_text())["photos"]]
    assert os.fsdecode(odd) in sources


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signal__ends_predict_with_a_message_and_nothing_unfinished(model, photos, tmp_path, name):
    for number in range(300):
        (photos / f"{number}.png").write_bytes((photos / "a.png").read_bytes())
    out = tmp_path / "out"
    words = ["predict", str(photos), "--out", str(out), "--model", str(model), "--device", "cpu"]
    process = subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True)
    while not list(out.glob("*.json")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert f"stopped by {name}" in err
    assert not list(out.glob(".densevit-*"))


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_command__runs_without_standard_error(tmp_path):
    line = f"{sys.executable} -m densevit models --json {tmp_path}/m.json 2>&-"
    assert subprocess.run(["sh", "-c", line], stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert json.loads((tmp_path / "m.json").read_text())


def test_printable__escapes_what_steers_a_terminal():
    assert printable("a\x1b]0;x\x07\x9b31m\n\u202e\r") == r"a\x1b]0;x\x07\x9b31m\n\u202e\r"
    assert printable("one\ntwo", lines=True) == "one\ntwo"


def test_version__is_that_of_the_package(cli):
    result = cli("--version")

    assert (result.code, result.out) == (0, f"densevit {densevit.__version__}\n")


def test_usage_errors__keep_their_exit_code(cli):
    result = cli("predict", "--no-such-option\x1b[2J")
    assert result.code == 2
    assert "\x1b[2J" not in result.err
