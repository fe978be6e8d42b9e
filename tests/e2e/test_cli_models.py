"""``densevit models``, and the help that must come at once."""

import json
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from densevit.model import DenseModel, ModelConfig
from densevit.presets import PRESETS
from tests.e2e.commands import spawn

HELP = """
import sys
from densevit.cli.main import main
sys.argv = ["densevit", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""
COMMANDS = ("predict", "train", "evaluate", "merge", "models")


def help_of(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HELP, *arguments, "--help"], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """What ``densevit models --json`` writes, by name."""
    file = tmp_path_factory.mktemp("catalogue") / "models.json"
    assert spawn("models", "--json", file).code == 0
    return {row["name"]: row for row in json.loads(file.read_text())}


def test_models__lists_every_preset(catalogue):
    assert set(PRESETS) <= set(catalogue)


def test_models__rows_say_what_a_model_is(catalogue):
    row = catalogue["dpt-large-ade20k"]
    assert {key: row[key] for key in ("family", "tasks", "encoder", "weights", "licence", "heads", "metrics")} == {
        "family": "DPT",
        "tasks": ["segmentation"],
        "encoder": "ViT-L/16",
        "weights": "published",
        "licence": "MIT",
        "heads": {"labels": "dpt"},
        "metrics": {"ADE20K mIoU": 0.4763, "ADE20K aAcc": 0.827},
    }


def test_models__says_what_has_weights(catalogue):
    assert catalogue["default"]["weights"] == "shipped"
    assert catalogue["dpt-base-depth"]["weights"] == "none"


def test_models__filters_and_prints_json(cli):
    filters = ("--task", "depth", "--licence", "permissive", "--family", "dpt", "--max-size", "160MB")
    result = cli("models", *filters, "--weights", "published", "--json")
    small = ["dpt-dinov2-small-nyu", "dpt-dinov2-small-kitti", "dinov2-small-nyu-dpt", "dinov2-small-kitti-dpt"]
    assert [row["name"] for row in json.loads(result.out)] == small


def test_models__json_without_a_file_may_stand_before_other_options(cli):
    result = cli("models", "--json", "--weights", "shipped")
    assert [row["name"] for row in json.loads(result.out)] == ["default"]


def test_models__json_file_is_not_replaced_unasked(cli, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text("mine")
    result = cli("models", "--weights", "shipped", "--json", mine)
    assert result.code == 2
    assert mine.read_text() == "mine"


def test_models__says_that_no_model_is_left(cli):
    result = cli("models", "--weights", "published", "--max-size", "1kB")
    assert "no model passes all of these filters" in result.out


def test_models__an_unknown_filter_is_refused(cli):
    result = cli("models", "--licence", "GPL-3.0")
    assert result.code == 2
    assert "no model has the licence 'GPL-3.0'; accepted: Apache-2.0," in result.err


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("segmenter-b8-linear", "ViT-B/8"),
        ("dpt-hybrid-depth", "R50+ViT-B/16"),
        ("depth-anything-s", "ViT-S/14"),
        ("segmenter-ti-mask", "ViT-Ti/16"),
    ],
)
def test_models__encoders_have_their_usual_names(catalogue, name, encoder):
    assert catalogue[name]["encoder"] == encoder


def test_models__parameters_are_those_of_the_built_model(catalogue):
    with torch.device("meta"):
        model = DenseModel(ModelConfig.parse(PRESETS["segmenter-s-mask"].model))
    assert catalogue["segmenter-s-mask"]["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("columns", ["80", "160"])
def test_models__names_can_be_copied_from_the_table(cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    result = cli("models")
    assert [name for name in PRESETS if name not in result.out] == []


@pytest.mark.parametrize(
    "command", [(), *((command,) for command in COMMANDS)], ids=lambda c: " ".join(c) or "densevit"
)
def test_help__imports_no_torch(command):
    done = help_of(*command)
    assert (done.returncode, done.stderr) == (0, "False\n")


def test_help__names_the_commands():
    text = help_of().stdout
    assert [command for command in COMMANDS if command not in text] == []


def test_help__comes_at_once():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    help_of()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5  # of the processor, in seconds


def test_help__is_what_no_arguments_give(cli):
    assert "Usage:" in cli().out


def test_script__is_the_command_line():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["densevit"] == "densevit.cli.main:main"
