"""Heads of several checkpoints on one encoder."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.checkpoints.merge import MergeConfig, merge_bundles
from densevit.checkpoints.native import Bundle, Card, TrainedOn, load_bundle, save_bundle
from densevit.errors import CheckpointError, ConfigError
from densevit.inference.predictor import Predictor
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel, HeadConfig, ModelConfig
from densevit.tasks import Depth, Segmentation, Task
from tests.factories import tiny_encoder

LABELS = {"decoder": {"kind": "segmenter_linear"}, "out_channels": 2}
DEPTH = {
    "decoder": {"kind": "dpt", "channels": (8, 8, 8, 8), "fusion_channels": 8, "head": {"kind": "depth"}},
    "out_channels": 1,
}
TASKS: dict[str, Task] = {"labels": Segmentation(classes=("a", "b")), "depth": Depth()}


def checkpoint(
    path: Path, head: str, *, encoder_seed: int = 0, encoder: Mapping[str, Any] | None = None, **fit: Any
) -> Path:
    """One head on the encoder that the seed gives, some of its facts changed."""
    decoder = dict(LABELS if head == "labels" else DEPTH)
    if head == "depth":
        decoder["decoder"] = {**DEPTH["decoder"], "readout": "ignore"}  # type: ignore[dict-item]
    config = ModelConfig.parse(
        {"encoder": tiny_encoder(**{"taps": (0, 1, 2, 3), **(encoder or {})}), "heads": {head: decoder}}
    )
    torch.manual_seed(encoder_seed)
    model = DenseModel(config).eval()
    card = Card(metrics={head: {"measured": 1.0}})
    save_bundle(Bundle(model, {head: TASKS[head]}, InferenceConfig(**{"short_side": 64, **fit}), card), path)
    return path


def merged(*parts: tuple[str, Path, str]) -> Bundle:
    heads = {name: {"checkpoint": path, "head": head} for name, path, head in parts}
    return merge_bundles(MergeConfig.parse({"heads": heads, "card": {"name": "both"}}))


def test_merge__keeps_what_each_head_learnt_from_under_its_new_name(tmp_path: Path) -> None:
    paths = {head: checkpoint(tmp_path / f"{head}.safetensors", head) for head in TASKS}
    for head, path in paths.items():
        data = TrainedOn(heads=(head,), train={"kind": "folder", "root": head})
        save_bundle(replace(load_bundle(path), trained_on=(data,)), path)

    both = merged(("streets", paths["labels"], "labels"), ("metres", paths["depth"], "depth"))

    assert [(data.heads, data.train["root"]) for data in both.trained_on] == [
        (("streets",), "labels"),
        (("metres",), "depth"),
    ]


def test_merge__every_head_gives_what_it_gave_alone(tmp_path: Path) -> None:
    one, two = checkpoint(tmp_path / "a.safetensors", "labels"), checkpoint(tmp_path / "b.safetensors", "depth")
    both = merged(("streets", one, "labels"), ("metres", two, "depth"))
    images = torch.rand(1, 3, 64, 32)
    outputs = both.model(images)
    torch.testing.assert_close(outputs["streets"].logits, load_bundle(one).model(images)["labels"].logits)
    torch.testing.assert_close(outputs["metres"].logits, load_bundle(two).model(images)["depth"].logits)
    assert both.card.metrics == {"streets": {"measured": 1.0}, "metres": {"measured": 1.0}}


def test_merge__the_encoder_gives_every_tap_that_a_head_reads(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "labels", encoder={"taps": (1, 3), "drop_path": 0.1})
    two = checkpoint(tmp_path / "b.safetensors", "depth")
    parts = [("streets", one, "labels"), ("metres", two, "depth")]
    images = torch.rand(1, 3, 64, 32)
    for order in (parts, parts[::-1]):
        both = merged(*order)
        outputs = both.model(images)
        assert both.model.config.encoder.taps == (0, 1, 2, 3)
        assert both.model.config.heads["streets"].taps == (1, 3)
        for name, path, head in parts:
            torch.testing.assert_close(outputs[name].logits, load_bundle(path).model(images)[head].logits)


def test_merge__encoders_of_other_depth_are_refused(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "labels", encoder={"taps": (1, 2)})
    two = checkpoint(tmp_path / "b.safetensors", "depth")
    with pytest.raises(CheckpointError, match="differ in the encoder's config"):
        merged(("streets", one, "labels"), ("metres", two, "depth"))


def test_merge__default_is_the_model_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densevit.checkpoints.hub.DEFAULT", checkpoint(tmp_path / "a.safetensors", "labels"))
    heads = {"streets": {"checkpoint": "default", "head": "labels"}}
    assert set(merge_bundles(MergeConfig.parse({"heads": heads})).tasks) == {"streets"}


def test_merge__other_encoder_weights_are_refused(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "labels")
    two = checkpoint(tmp_path / "b.safetensors", "depth", encoder_seed=1)
    with pytest.raises(CheckpointError, match=r"differ in the encoder's weights .* only heads of one encoder"):
        merged(("streets", one, "labels"), ("metres", two, "depth"))


def test_merge__weights_of_several_checkpoints_are_averaged(tmp_path: Path) -> None:
    paths = [checkpoint(tmp_path / f"{seed}.safetensors", "depth", encoder_seed=seed) for seed in range(3)]
    both = merge_bundles(
        MergeConfig.parse({"heads": {name: {"checkpoint": paths, "head": "depth"} for name in ("one", "two")}})
    )
    states = [load_bundle(path).model.state_dict() for path in paths]
    for name, found in both.model.state_dict().items():
        key = name.replace("heads.one", "heads.depth").replace("heads.two", "heads.depth")
        torch.testing.assert_close(found, torch.stack([state[key] for state in states]).mean(dim=0))
    assert both.card.metrics == {"one": {}, "two": {}}  # what was measured of the parts is not true of their mean


def test_merge__an_average_has_what_its_first_checkpoint_has(tmp_path: Path) -> None:
    one, two = checkpoint(tmp_path / "a.safetensors", "depth"), tmp_path / "b.safetensors"
    more = load_bundle(checkpoint(two, "depth", encoder={"drop_path": 0.1}))
    heads = {"labels": HeadConfig.parse(LABELS), **more.model.config.heads}
    config = more.model.config.model_copy(update={"heads": heads})
    save_bundle(Bundle(DenseModel(config).eval(), TASKS, more.fit, Card()), two)
    source = {"checkpoint": [one, two], "head": "depth"}
    assert set(merge_bundles(MergeConfig.parse({"heads": {"depth": source}})).tasks) == {"depth"}
    with pytest.raises(CheckpointError, match=r"a\.safetensors and .*b\.safetensors differ in heads\.labels"):
        merge_bundles(MergeConfig.parse({"heads": {"depth": {**source, "checkpoint": [two, one]}}}))


def test_merge__other_encoders_are_not_averaged(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "depth")
    two = checkpoint(tmp_path / "b.safetensors", "depth", encoder={"num_heads": 1})
    with pytest.raises(CheckpointError, match=r"differ in the encoder's config .* one architecture"):
        merge_bundles(MergeConfig.parse({"heads": {"depth": {"checkpoint": [one, two], "head": "depth"}}}))


def test_merge__each_head_keeps_its_input_size(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "labels", short_side=64)
    two = checkpoint(tmp_path / "b.safetensors", "depth", short_side=96)
    both = merged(("streets", one, "labels"), ("metres", two, "depth"), ("again", two, "depth"))
    assert (both.fit.short_side, both.fit.plain()["heads"]) == (96, {"streets": 64})

    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    for scales in ((1.0,), (1.0, 1.5)):  # one pass, and several
        found = Predictor(both, device="cpu").predict(photo, scales=scales)
        for name, path, head in (("streets", one, "labels"), ("metres", two, "depth")):
            alone = Predictor(load_bundle(path), device="cpu").predict(photo, scales=scales)[head]
            np.testing.assert_array_equal(found[name].logits, alone.logits)


def test_merge__sizes_can_be_set_and_the_middle_one_is_that_of_windows_and_new_heads(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "depth", short_side=64)
    sides = {"large": {"short_side": 96}, "own": {}, "small": {"short_side": 48}}
    heads = {name: {"checkpoint": one, "head": "depth", **side} for name, side in sides.items()}
    fit = merge_bundles(MergeConfig.parse({"heads": heads})).fit
    assert (fit.short_side, fit.plain()["heads"]) == (64, {"large": 96, "small": 48})


def test_merge__windows_and_mirroring_are_kept_or_set(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "depth", short_side=96, window=48)
    ways = {"own": {}, "set": {"short_side": 64, "window": 32, "flip": True}}
    heads = {name: {"checkpoint": one, "head": "depth", **way} for name, way in ways.items()}
    fit = merge_bundles(MergeConfig.parse({"heads": heads})).fit
    assert fit.for_head("own") == InferenceConfig(short_side=96, window=48)
    assert fit.for_head("set") == InferenceConfig(short_side=64, window=32, flip=True)


def test_merge__sizes_of_quality_fast_are_kept_or_set(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "depth", short_side=96, window=48, fast={"depth": 64})
    two = checkpoint(tmp_path / "b.safetensors", "labels", short_side=96)
    heads = {
        "own": {"checkpoint": one, "head": "depth"},
        "set": {"checkpoint": one, "head": "depth", "fast": 32},
        "none": {"checkpoint": two, "head": "labels"},
    }
    fit = merge_bundles(MergeConfig.parse({"heads": heads})).fit
    assert fit.fast == {"own": 64, "set": 32}
    assert (fit.for_head("own").window, fit.at_quality("fast").for_head("own")) == (48, InferenceConfig(short_side=64))


def test_merge__other_bounds_on_the_input_are_refused(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "labels")
    two = checkpoint(tmp_path / "b.safetensors", "depth", max_long_side=1000)
    with pytest.raises(CheckpointError, match=r"differ in fit\.max_long_side"):
        merged(("streets", one, "labels"), ("metres", two, "depth"))


def test_merge__unknown_head_is_refused(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "labels")
    with pytest.raises(ConfigError, match="has no head 'label'; it has labels"):
        merged(("streets", one, "label"))


def test_merge__figures_come_from_the_file_named(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "a.safetensors", "labels")
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({"mIoU": 0.5}))
    heads = {"streets": {"checkpoint": one, "head": "labels", "figures": figures}}
    assert merge_bundles(MergeConfig.parse({"heads": heads})).card.metrics == {"streets": {"mIoU": 0.5}}
