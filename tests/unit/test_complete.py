"""Filling the gaps of a training config: presets, class names, widths, crop; and refusing what is not a config."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from densevit.data.description import describe
from densevit.errors import ConfigError, DataError, DensevitError
from densevit.inference_config import InferenceConfig
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import FROZEN, complete, resolve_config

NAMES = ["road", "sky", "tree"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set's root with class names, and files of photos that nobody opens here."""
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "images" / split / "a.png").touch()
    (tmp_path / "classes.json").write_text(json.dumps({"classes": NAMES}))
    return tmp_path


def raw(root: Path, **facts: Any) -> dict[str, Any]:
    """A short config, as a user writes it."""
    return {
        "model": {"preset": "segmenter-ti-mask"},
        "sources": [{"train": {"root": str(root), "split": "train"}}],
        "iterations": 10,
        **facts,
    }


def test_complete__lays_out_a_preset_with_the_classes_of_the_data(root):
    config = TrainConfig.parse(complete(raw(root)))
    assert config.model.heads["labels"].out_channels == 3
    assert config.tasks["labels"].out_channels == 3
    assert (config.model.encoder.embed_dim, config.fit.short_side, config.augment.crop) == (192, 512, (512, 512))


def test_complete__takes_over_the_ignore_value_of_many_classes(root):
    (root / "classes.json").write_text(json.dumps({"classes": [str(i) for i in range(300)], "ignore_index": -1}))
    task = TrainConfig.parse(complete(raw(root))).tasks["labels"]
    assert (task.ignore_index, len(task.palette)) == (-1, 300)


def test_complete__keeps_the_background_of_the_data(root):
    sources = [{"train": {"root": str(root), "split": "train", "background": "sky"}}]
    assert TrainConfig.parse(complete(raw(root, sources=sources))).tasks["labels"].background == "sky"
    named = {"labels": {"kind": "segmentation", "classes": NAMES}}
    assert TrainConfig.parse(complete(raw(root, sources=sources, tasks=named))).tasks["labels"].background == "sky"
    assert TrainConfig.parse(complete(raw(root))).tasks["labels"].background is None


def test_complete__keeps_what_the_config_says_itself(root):
    model = {"preset": "segmenter-ti-mask", "encoder": {"drop_path": 0.3}}
    config = TrainConfig.parse(
        complete(raw(root, model=model, fit={"short_side": 320}, augment={"crop": [64, 96], "flip": 0.0}))
    )
    assert (config.model.encoder.drop_path, config.model.encoder.embed_dim) == (0.3, 192)
    assert (config.fit.short_side, config.augment.crop, config.augment.flip) == (320, (64, 96), 0.0)


def test_complete__a_decoder_of_another_kind_replaces_that_of_the_preset(root):
    model = {"preset": "segmenter-ti-mask", "heads": {"labels": {"decoder": {"kind": "segmenter_linear"}}}}
    config = TrainConfig.parse(complete(raw(root, model=model)))
    assert config.model.heads["labels"].decoder.kind == "segmenter_linear"


@pytest.mark.parametrize("features", [None, {"directory": "features"}])
@pytest.mark.parametrize("head", ["streets", "labels"])
def test_complete__photos_are_seen_as_in_the_model_it_starts_from(root, head, features):
    model = {"heads": {head: {"decoder": {"kind": "segmenter_linear"}, "taps": [9]}}}
    facts = {"init": "default", "model": model, "tasks": {head: {"kind": "segmentation"}}}
    frozen = {"features": features, "freeze": "encoder", "augment": {"crop": [96, 96], **FROZEN["augment"]}}
    config = TrainConfig.parse(complete(raw(root, **facts, **(frozen if features else {}))))
    ways = {
        "streets": InferenceConfig(short_side=480) if features else InferenceConfig(short_side=720, window=480),
        "labels": InferenceConfig(short_side=320),
    }
    assert config.fit.for_head(head) == ways[head]
    assert config.fit.fast == ({"streets": 480} if head == "streets" and not features else {})


def test_complete__crop_is_a_multiple_of_the_patch(root):
    config = complete(raw(root, model={"preset": "depth-anything-s"}, fit={"short_side": 300}))
    assert config["augment"]["crop"] == (294, 294)


def test_complete__depth_needs_no_class_names(tmp_path):
    config = TrainConfig.parse(complete(raw(tmp_path, model={"preset": "dpt-base-depth"})))
    assert (config.model.heads["depth"].out_channels, config.tasks["depth"].plain()["quantity"]) == (1, "disparity")


def test_complete__class_names_come_from_the_source_of_the_head(root, tmp_path):
    other = {"root": str(tmp_path / "other"), "split": "train", "classes": ["bed", "wall"]}
    heads = {name: {"decoder": {"kind": "segmenter_linear"}} for name in ("streets", "rooms")}
    data = raw(root, model={"encoder": {"patch_size": 16}, "heads": heads})
    data["tasks"] = {name: {"kind": "segmentation"} for name in heads}
    data["sources"] = [{**data["sources"][0], "heads": ["streets"]}, {"train": other, "heads": ["rooms"]}]
    filled = complete(data)
    assert {name: task["classes"] for name, task in filled["tasks"].items()} == {
        "streets": tuple(NAMES),
        "rooms": ("bed", "wall"),
    }
    assert {name: head["out_channels"] for name, head in filled["model"]["heads"].items()} == {"streets": 3, "rooms": 2}


def test_complete__leaves_what_it_was_given_unchanged(root):
    data = raw(root, augment={"flip": 0.0})
    before = copy.deepcopy(data)
    complete(data)
    assert data == before


def test_complete__of_a_complete_config_is_the_same(root):
    config = TrainConfig.parse(complete(raw(root)))
    assert TrainConfig.parse(complete(config.plain())) == config


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"model": {}},
            "the config has no model.heads; name a preset (model: {preset: segmenter-s-mask}) or give heads",
        ),
        (
            {"model": 3},
            "the config has no model.heads; name a preset (model: {preset: segmenter-s-mask}) or give heads",
        ),
        (
            {"sources": {"train": {}}},
            "the config has no sources; give --data DIR, or sources: a list of {train: {root: DIR, split: train}}",
        ),
        ({"model": {"preset": "segmenter"}}, "there is no preset 'segmenter'; did you mean 'segmenter-s-mask'?"),
        (
            {"tasks": {"labels": {"kind": "segmentation", "classes": ["a", "a"]}}},
            "tasks.labels is not a valid Segmentation:\n  config: classes holds a name twice: ('a', 'a')",
        ),
    ],
)
def test_complete__refuses_with_a_reason(root, facts, message):
    with pytest.raises(ConfigError) as caught:
        complete(raw(root, **facts))
    assert str(caught.value) == message


def test_complete__says_where_class_names_belong(tmp_path):
    with pytest.raises(ConfigError) as caught:
        complete(raw(tmp_path))
    assert str(caught.value) == (
        "the class names of head 'labels' are not known; put classes.json into the data set's root, or set "
        "tasks.labels.classes (names) or sources' train.classes (names or a number)"
    )


def test_complete__a_damaged_class_list_is_named(root):
    (root / "classes.json").write_text("{")
    with pytest.raises(DataError, match=r"classes\.json is not valid JSON"):
        complete(raw(root))


def test_resolve_config__precedence_is_preset_data_file_set(root):
    path = root / "run.yaml"
    path.write_text(yaml.safe_dump({"iterations": 5, "optim": {"lr": 1e-3, "kind": "sgd"}, "fit": {"short_side": 256}}))
    config = resolve_config(path, ["optim.lr=0.1"], preset_name="segmenter-ti-mask", data=describe(root).config)
    assert (config.iterations, config.optim.lr, config.optim.kind) == (5, 0.1, "sgd")
    assert (config.fit.short_side, config.model.encoder.embed_dim) == (256, 192)
    assert (config.sources[0].train.split, config.sources[0].val and config.sources[0].val.split) == ("train", "val")


def test_resolve_config__names_the_file_in_a_refusal(root):
    path = root / "run.yaml"
    path.write_text("optim: {lrr: 1}\n")
    with pytest.raises(ConfigError) as caught:
        resolve_config(path, ["iterations=1"], preset_name="segmenter-ti-mask", data=describe(root).config)
    assert str(caught.value) == (f"{path} is not a valid TrainConfig:\n  optim.lrr: unknown key; did you mean 'lr'?")


KEYS = (
    "model",
    "model.preset",
    "model.encoder",
    "model.encoder.patch_size",
    "model.encoder.positions",
    "model.heads",
    "model.heads.labels",
    "model.heads.labels.decoder",
    "model.normalisation",
    "tasks",
    "tasks.labels",
    "tasks.labels.kind",
    "tasks.labels.classes",
    "sources",
    "sources.train",
    "fit",
    "fit.short_side",
    "augment",
    "augment.crop",
    "features",
    "features.crop",
    "optim",
    "card",
    "storage",
    "ema",
    "seed",
)


def assert_refused_or_readable(read: Callable[[], TrainConfig]) -> None:
    """A config that is taken must be one that a run folder can hold and ``--resume`` can read."""
    try:
        config = read()
    except DensevitError:
        return
    assert TrainConfig.parse(config.plain()) == config


VALUES = st.recursive(
    st.sampled_from([None, True, -1, 0, 3, 1.5, float("inf"), "", "word", "16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "kind", "0"]), inner, max_size=2),
    max_leaves=4,
)


@given(key=st.sampled_from(KEYS), value=VALUES)
def test_resolve_config__refuses_a_wrong_value_or_takes_it_for_good(tmp_path_factory, key, value):
    root = tmp_path_factory.getbasetemp() / "never-crashes"
    root.mkdir(exist_ok=True)
    (root / "classes.json").write_text(json.dumps({"classes": NAMES}))
    overrides = ["iterations=1", f"{key}={json.dumps(value)}"]
    assert_refused_or_readable(
        lambda: resolve_config(None, overrides, preset_name="segmenter-ti-mask", data=describe(root).config)
    )


@given(value=VALUES, key=st.sampled_from(["heads", "train", "val", "batch_size", "weight", "other"]))
def test_complete__refuses_a_wrong_source_or_takes_it_for_good(tmp_path_factory, key, value):
    root = tmp_path_factory.getbasetemp() / "never-crashes"
    root.mkdir(exist_ok=True)
    (root / "classes.json").write_text(json.dumps({"classes": NAMES}))
    data = raw(root)
    data["sources"][0][key] = value
    assert_refused_or_readable(lambda: TrainConfig.parse(complete(data)))
