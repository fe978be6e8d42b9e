"""Which existing files an output may replace, and what is left by processes that died."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from densevit.errors import DataError, OutputError
from densevit.io import claim, find_photos, to_json, write_bytes_atomic, write_json
from densevit_runtime.io.outputs import MANIFEST, TEMPORARY, may_replace, temporary_path


def test_output__that_is_as_it_was_written_is_replaced(tmp_path):
    for text in (b"one", b"two"):
        claim([tmp_path / "a"])
        write_bytes_atomic(tmp_path / "a", text)
    assert (tmp_path / "a").read_bytes() == b"two"


@pytest.mark.parametrize("edited", [False, True])
def test_output__of_others_is_refused_before_and_while_it_is_written(tmp_path, edited):
    path = tmp_path / "a.json"
    if edited:
        write_json(path, {"made": "by us"})
    path.write_text("drawn by hand")
    for write in (lambda: claim([path]), lambda: write_json(path, {})):
        with pytest.raises(DataError, match=r"a\.json exists, and densevit did not write what is there now"):
            write()
    assert path.read_text() == "drawn by hand"


def test_output__of_others_is_replaced_once_it_is_claimed_with_overwrite(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("drawn by hand")
    claim([path], overwrite=True)
    write_json(path, [])
    assert path.read_text() == "[]\n"


@pytest.mark.parametrize("through", ["itself", "hard link", "symbolic link"])
def test_input__is_never_replaced(tmp_path, through):
    source, out = tmp_path / "photo.png", tmp_path / "out.png"
    source.write_bytes(b"pixels")
    if through == "itself":
        out = source
    elif through == "hard link":
        out.hardlink_to(source)
    else:
        out.symlink_to(source)
    with pytest.raises(DataError, match="inputs are never replaced"):
        claim([out], inputs=[source], overwrite=True)
    assert source.read_bytes() == b"pixels"


def test_input_folder__keeps_its_files_but_takes_new_ones(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"mask")
    write_json(tmp_path / "report.json", {})
    claim([tmp_path / "new.json", tmp_path / "report.json"], inputs=[tmp_path], overwrite=True)
    with pytest.raises(DataError, match=r"is in .* an input"):
        claim([tmp_path / "mask.png"], inputs=[tmp_path], overwrite=True)


def test_refusal__counts_the_files(tmp_path):
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="a and 2 more files exist"):
        claim(tmp_path / name for name in "abc")


@pytest.mark.parametrize(
    "damage",
    ["not json\n", "[1]\n", '{"name": "a"}\n', "[" * 100_000 + "\n", '{"name": "a", "bytes": 1, "sh'],
    ids=["text", "list", "incomplete", "deep", "cut"],
)
def test_manifest__that_is_damaged_loses_no_other_entry(tmp_path, damage):
    write_bytes_atomic(tmp_path / "a", b"a")
    with (tmp_path / MANIFEST).open("a") as file:
        file.write(damage)
    write_bytes_atomic(tmp_path / "b", b"b")
    assert may_replace(tmp_path / "a")
    assert may_replace(tmp_path / "b")


def test_output__that_was_copied_is_still_ours_and_one_of_equal_size_is_not(tmp_path):
    path = tmp_path / "a"
    write_bytes_atomic(path, b"ours")
    assert json.loads((tmp_path / MANIFEST).read_text())["name"] == "a"
    os.utime(path, ns=(0, 0))
    assert may_replace(path)
    path.write_bytes(b"mine")
    assert not may_replace(path)


def test_output__that_is_as_written_is_not_read_again(tmp_path, monkeypatch):
    write_bytes_atomic(tmp_path / "a", b"ours")
    monkeypatch.setattr(
        "densevit_runtime.io.outputs.file_sha256", lambda _: pytest.fail("a folder of results would be read")
    )
    assert may_replace(tmp_path / "a")


def test_manifest__keeps_names_that_are_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write_bytes_atomic(path, b"one")
    write_bytes_atomic(path, b"two")
    assert json.loads(to_json({"name": path.name}))["name"] == path.name


def test_unfinished_files__go_if_their_process_has_died_and_only_then(tmp_path):
    code = "from pathlib import Path; from densevit_runtime.io import outputs; "
    code += "outputs.temporary_path(Path('x.png')).touch()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    alive = temporary_path(tmp_path / "y.png")
    alive.touch()
    assert len(list(tmp_path.glob(f"{TEMPORARY}*"))) == 2
    claim([tmp_path / "z.png"])
    assert list(tmp_path.glob(f"{TEMPORARY}*")) == [alive]


def test_error__of_a_full_disk_says_that_nothing_else_can_be_written(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError) as caught:
        write_bytes_atomic(tmp_path / "a", b"")
    assert caught.value.everywhere


def test_photos__are_found_and_everything_else_has_its_reason(tmp_path):
    for name in ("a.jpg", "b.heic", "c", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "d.jpg").symlink_to("gone.jpg")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "e.png")
    found = find_photos([tmp_path])
    assert [path.name for path in found.photos] == ["a.jpg"]
    assert {path.name: reason for path, reason in found.passed_over.items()} == {
        "b.heic": ".heic, which is not a format that is read",
        "c": "without an extension",
        "d.jpg": "a link whose target is missing",
        "e.png": "a device or a pipe",
        "folder.png": "a folder",
    }
