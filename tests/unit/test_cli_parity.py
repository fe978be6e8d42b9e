"""``densevit parity``: exit codes, and fixtures of strangers."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from densevit.cli.main import main
from tests.parity.foreign import GOLDEN

NAME = "mmseg-segmenter-mask-epsprobe"


def parity(*arguments: object) -> int:
    """The exit code of ``densevit parity ARGUMENTS``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["densevit", "parity", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one fixture."""
    folder = tmp_path / "fixtures"
    folder.mkdir()
    for suffix in (".json", ".safetensors"):
        shutil.copy(GOLDEN / f"{NAME}{suffix}", folder)
        (folder / f"{NAME}{suffix}").chmod(0o644)
    return folder


def describe(folder: Path, **changes: object) -> None:
    path = folder / f"{NAME}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_reproduced__is_0(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity(folder, "--json", tmp_path / "rows.json") == 0

    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["verdict"] for row in rows} == {"pass"}
    assert {"source", "variant", "case", "error", "tolerance", "verdict"} <= rows[0].keys()
    assert NAME in capsys.readouterr().out  # not folded where the output is no terminal


def test_not_reproduced__is_1_and_in_the_file(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / f"{NAME}.safetensors")
    tensors["case0.output.head"] += 0.001 * tensors["case0.output.head"].std()
    save_file(tensors, folder / f"{NAME}.safetensors")

    assert parity(folder, "--json", tmp_path / "rows.json") == 1
    assert "FAIL" in {row["verdict"] for row in json.loads((tmp_path / "rows.json").read_text())}


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"repo": "somebody/else"}},
        {"source": "somebody"},
        {"source": None},
        {"mmseg_model_cfg": None},
        {"mmseg_model_cfg": {"backbone": {"num_heads": "two"}}},
        {"mmseg_model_cfg": {"backbone": {"num_heads": 7, "out_indices": -1}}},
        {"source": {"repo": "isl-org/DPT"}},
        {"source": {"repo": "isl-org/DPT"}, "config": None},
    ],
)
def test_odd_fixture__is_reported_beside_the_others(changes: dict[str, object], folder: Path, tmp_path: Path) -> None:
    other = "setr-fudan-naive"
    for suffix in (".json", ".safetensors"):
        shutil.copy(GOLDEN / f"{other}{suffix}", folder)
    describe(folder, **changes)

    assert parity(folder, "--json", tmp_path / "rows.json") == 1

    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["problem"] != "" for row in rows if row["variant"] == NAME] == [True]
    assert {row["verdict"] for row in rows if row["variant"] == other} == {"pass"}


def test_numbers_that_are_not_understood__are_reported(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"what": "numbers", "cases": [1, 2]}')

    assert parity(tmp_path) == 1


def test_folder_without_fixtures__is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity(tmp_path) == 2
    assert "holds no fixtures" in capsys.readouterr().err
    assert parity(tmp_path / "nowhere") == 2


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_broken_file__is_2(suffix: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / f"{NAME}{suffix}"
    path.write_bytes(path.read_bytes()[:-50])

    assert parity(folder, "--json", tmp_path / "rows.json") == 2

    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "rows.json").exists()
