"""Decoders, tasks and data sets from outside the package: given in Python, or declared by an installed package."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from densevit.checkpoints.native import read_header
from densevit.data import DATASETS, parse_data
from densevit.decoders import DECODERS, parse_decoder
from densevit.errors import CheckpointError, ConfigError
from densevit.inference.predictor import Predictor
from densevit.plugins import PluginTable
from densevit.tasks import TASKS, Regression, Task, parse_task
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from densevit.training.train import train
from densevit.types import Taps
from tests.e2e.scenes import CLASSES, ENCODER, SIZE, Scenes, scene, write_model

MODULE = """
import torch
from torch import nn

class Sum(nn.Module):
    def __init__(self, embed_dim, num_taps, out_channels, bias):
        super().__init__()
        self.head = nn.Conv2d(embed_dim, out_channels, 1, bias=bias)
    def forward(self, taps):
        return self.head(sum(taps.maps()))

def sum_of_taps(*, embed_dim, num_taps, out_channels, bias=True):
    return Sum(embed_dim, num_taps, out_channels, bias)

not_a_plugin = 7
"""


class Flow(Regression):
    kind: Literal["flow"] = "flow"  # type: ignore[assignment]


class Sum(nn.Module):
    """The logits of the sum of all taps."""

    def __init__(self, *, embed_dim: int, num_taps: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.head = nn.Conv2d(embed_dim, out_channels, 1, bias=bias)

    def forward(self, taps: Taps) -> Tensor:
        logits: Tensor = self.head(sum(taps.maps()))
        return logits


def make_scenes(split: str, count: int = 4) -> Scenes:
    return Scenes(range(count) if split == "train" else range(100, 102))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package with the module above and entry points."""

    def make(name: str, group: str = "decoders", **entries: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        module = f"{name.replace('-', '_')}_module"
        (folder / f"{module}.py").write_text(MODULE)
        info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{key} = {value.replace('MODULE', module)}" for key, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[densevit.{group}]", *lines, ""]))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(sys, "modules", dict(sys.modules))

    return make


def run(decoder: dict[str, Any], **source: Any) -> TrainConfig:
    raw: dict[str, Any] = {
        "model": {"encoder": ENCODER, "heads": {"main": {"decoder": decoder}}},
        "tasks": {"main": {"kind": "segmentation"}},
        "sources": [
            {"train": {"kind": "scenes", **source}, "val": {"kind": "scenes", "split": "val"}, "batch_size": 2}
        ],
        "fit": {"short_side": SIZE[0]},
        "augment": {"crop": SIZE, "scale": (1.0, 1.0), "colour": 0.0},
        "iterations": 2,
    }
    return TrainConfig.parse(complete(raw))


def test_plugins__train_are_saved_and_load(tmp_path):
    DECODERS.add("sum", Sum)
    DATASETS.add("scenes", make_scenes)

    path = train(run({"kind": "sum", "options": {"bias": False}}, arguments={"count": 3}), tmp_path / "run")

    model = Predictor.load(path, device="cpu")
    assert set(model.model.heads["main"].state_dict()) == {"module.head.weight"}
    assert model.tasks["main"].class_table.names == CLASSES
    assert model.predict(scene(7).image).labels.shape == SIZE
    assert read_header(path).plugins == {"decoder sum": "Python code"}


def test_checkpoint__without_its_plugin_says_who_adds_it(tmp_path):
    DECODERS.add("sum", Sum)
    DATASETS.add("scenes", make_scenes)
    path = train(run({"kind": "sum"}), tmp_path / "run")
    del DECODERS["sum"]

    with pytest.raises(CheckpointError) as error:
        Predictor.load(path)

    assert str(error.value) == (
        f"{path} needs the decoder 'sum' that Python code added, which is not here; add it with densevit.add_decoder "
        "before you load the model"
    )


def test_checkpoint__without_its_plugin_names_the_package(tmp_path, install, monkeypatch):
    install("my-parts", sum="MODULE:sum_of_taps")
    DATASETS.add("scenes", make_scenes)
    path = train(run({"kind": "sum"}), tmp_path / "run")
    assert Predictor.load(path).predict(scene(7).image).labels.shape == SIZE
    del DECODERS["sum"]
    monkeypatch.setattr(sys, "path", [place for place in sys.path if "my-parts" not in place])

    with pytest.raises(CheckpointError) as error:
        Predictor.load(path)

    assert str(error.value) == (
        f"{path} needs the decoder 'sum' of the package 'my-parts 1.2', which is not here; install that package"
    )


def test_checkpoint__without_plugins_has_no_word_of_them(tmp_path):
    assert "plugins" not in read_header(write_model(tmp_path / "m.safetensors", "coarse")).plain()


def test_package__is_imported_when_its_name_is_asked_for(install):
    install("my-parts", sum="MODULE:sum_of_taps")

    assert "sum" in DECODERS.names()
    parse_decoder({"kind": "setr_pup"}), DECODERS.unknown("x")
    assert "my_parts_module" not in sys.modules
    assert parse_decoder({"kind": "sum"}).kind == "sum"
    assert "my_parts_module" in sys.modules


def test_unknown_kind__names_own_and_declared_ones(install):
    install("my-parts", pyramid="MODULE:sum_of_taps")

    with pytest.raises(ValueError, match=r"decoder kind 'pyramids' is unknown; did you mean 'pyramid'\?"):
        parse_decoder({"kind": "pyramids"})
    with pytest.raises(
        ValueError,
        match=r"'xyz' is unknown; known: dpt, linear, pyramid, segmenter_linear, .*; others come with a package that "
        r"has an entry point in densevit.decoders, or with densevit.add_decoder",
    ):
        parse_decoder({"kind": "xyz"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "no_such_module:f",
            "cannot be loaded (ModuleNotFoundError: No module named 'no_such_module'); fix, update or",
        ),
        ("MODULE:nothing", "cannot be loaded (AttributeError: module 'my_parts_module' has no attribute 'nothing')"),
        ("MODULE:not_a_plugin", "decoder 'sum' is 7; a function of embed_dim, num_taps and out_channels that gives a"),
    ],
)
def test_package__that_is_broken_is_named(install, value, message):
    install("my-parts", sum=value)

    with pytest.raises(ConfigError) as error:
        parse_decoder({"kind": "sum"})

    assert str(error.value).startswith("decoder 'sum' of my-parts 1.2 (")
    assert message in str(error.value)


def test_packages__that_declare_one_name_are_both_named(install):
    install("my-parts", sum="MODULE:sum_of_taps")
    install("other-parts", sum="MODULE:sum_of_taps")

    with pytest.raises(ConfigError, match=r"declared by my-parts 1.2 and other-parts 1.2; uninstall one of them"):
        parse_decoder({"kind": "sum"})


def test_own_rows__go_before_those_of_packages(install):
    install("my-parts", dpt="MODULE:not_a_plugin")

    assert parse_decoder({"kind": "dpt", "head": {"kind": "segmentation"}}).kind == "dpt"


class Part(Task):
    kind: Literal["part"] = "part"


@pytest.mark.parametrize(
    ("table", "name", "plugin", "message"),
    [
        (DECODERS, "dpt", Sum, "decoder 'dpt' is densevit's own; choose another name"),
        (DECODERS, "a b", Sum, "'a b' is no name of a decoder; letters, digits"),
        (TASKS, "flow", Sum, "a subclass of densevit.tasks.Task is accepted"),
        (TASKS, "move", Flow, "task 'move' has the kind 'flow'; both must be equal; write kind: Literal['move']"),
        (TASKS, "part", Part, "task 'part' lacks channel_names, colourise, count, decode, distillation_loss, loss,"),
        (DATASETS, "scenes", 7, "data set 'scenes' is 7; a function that gives a densevit.data.Dataset"),
    ],
)
def test_add__refuses_what_is_no_plugin(table: PluginTable[Any], name: str, plugin: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        table.add(name, plugin)

    assert message in str(error.value)


def test_task__is_found_by_its_kind(install):
    TASKS.add("flow", Flow)

    assert isinstance(parse_task({"kind": "flow", "channels": ["x"]}), Flow)


def test_data__get_their_root_and_split(tmp_path):
    seen: list[dict[str, Any]] = []

    def make(root: Path, split: str, **rest: Any) -> Scenes:
        seen.append({"root": root, "split": split, **rest})
        return make_scenes(split)

    DATASETS.add("scenes", make)
    config = parse_data({"kind": "scenes", "root": tmp_path, "split": "val", "arguments": {"x": 1}})

    assert len(DATASETS["scenes"][1](config)) == 2
    assert seen == [{"root": tmp_path, "split": "val", "x": 1}]


# Mistakes in a decoder


class Wrong(Sum):
    def forward(self, taps: Taps) -> Tensor:
        return super().forward(taps)[:, :1]


class Forgetful(Sum):
    def __init__(self, **widths: int) -> None:
        super().__init__(**widths)
        self.register_buffer("factor", torch.ones(1), persistent=False)


@pytest.mark.parametrize(
    ("plugin", "options", "message"),
    [
        (Wrong, {}, "decoder 'mine' gave (2, 1, 6, 8) but logits (B, 4, h, w) are needed; correct its forward"),
        (Forgetful, {}, "decoder 'mine' has the buffer 'module.factor', which is not persistent"),
        (Sum, {"width": 3}, "decoder 'mine' was called with embed_dim, num_taps, out_channels, width: "),
        (lambda **widths: widths, {}, "decoder 'mine' gave a dict; a torch.nn.Module is accepted; return one"),
    ],
)
def test_decoder__that_is_wrong_says_so(plugin, options, message, tmp_path):
    DECODERS.add("mine", plugin)
    DATASETS.add("scenes", make_scenes)

    with pytest.raises(ConfigError) as error:
        Predictor.load(train(run({"kind": "mine", "options": options}), tmp_path / "run"))

    assert message in str(error.value)
