"""The public names of the package and what its callables take, as a snapshot that changes only on purpose.

A name or a parameter is retired in two steps. For one minor release it still works and raises a
``DeprecationWarning`` that says what to write instead; the next minor release removes it. CHANGELOG.md gets a line for
each step, under "Deprecated" and under "Removed". A new name gets a line under "Added", and its row here.
"""

import inspect
from operator import attrgetter
from typing import Any

import pytest

import densevit

NAMES = {
    "DenseModel",
    "DenseOutput",
    "EncoderConfig",
    "Features",
    "InferenceConfig",
    "InferenceOptions",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "SlidingWindow",
    "SpeedConfig",
    "Taps",
    "TrainResult",
    "VisionTransformer",
    "add_dataset",
    "add_decoder",
    "add_task",
    "create_model",
    "evaluate",
    "export_model",
    "export_web",
    "from_pretrained",
    "list_models",
    "load",
    "train",
}

# Parameters in their order; those behind * are given by keyword.
SIGNATURES = {
    "load": "source, *, heads, device, speed, engine, quality, **import_overrides",
    "create_model": "name, num_classes, pretrained",
    "from_pretrained": "pretrained_model_name_or_path, *, revision, token, cache_dir, heads, device, speed, engine, "
    "quality, **import_overrides",
    "list_models": "*, task, licence, family, max_size, weights",
    "train": "data, out, *, preset, recipe, init, decoders, freeze, time, config, overrides, resume, device, check",
    "evaluate": "model, data, *, split, task, heads, options, quality, device, progress",
    "export_model": "model, out, *, to, heads, scores, data, overwrite",
    "export_web": "model, folder, *, heads, scores, data, weights, npm_package, overwrite",
    "add_decoder": "name, decoder",
    "add_task": "task",
    "add_dataset": "name, dataset",
    "Predictor": "bundle, *, heads, device, speed",
    "Predictor.load": "source, *, heads, device, speed, engine, quality, **import_overrides",
    "Predictor.from_pretrained": "pretrained_model_name_or_path, *, revision, token, cache_dir, heads, device, speed, "
    "engine, quality, **import_overrides",
    "Predictor.options": "*, protocol, tta, windows, scales, flip, quality",
    "Predictor.predict": "image, *, protocol, tta, windows, scales, flip, quality",
    "Predictor.predict_many": "images, *, batch, protocol, tta, windows, scales, flip, quality",
    "Predictor.features": "image, *, short_side",
    "Predictor.to": "device",
    "Predictor.save": "path, *, overwrite",
    "Predictor.save_pretrained": "save_directory, *, repo_id, licence, overwrite",
    "Predictor.push_to_hub": "repo_id, *, licence, private, token, branch, commit_message, create_pr, overwrite",
    "Predictor.predict_raster": "source, folder, *, config, stem, extra, progress",
    "Predictor.choose_protocol": "protocol",
    "Predictor.output_files": "source, folder, *, stem, raster",
    "Prediction": "image, results",
    "Prediction.overlay": "head, alpha",
    "Prediction.annotations": "kind, *, photo, head",
    "Prediction.save": "folder, stem, *, extra, overwrite",
    "Features": "maps, prefix, grid, image_size, input_size",
    "TrainResult": "path, metrics",
    "DenseModel": "config",
    "DenseModel.forward": "images, heads, *, coarse",
    "DenseModel.encode": "images",
    "DenseModel.decode": "taps, heads, *, coarse",
    "DenseOutput": "logits, aux",
    "Taps": "tokens, prefix, grid, patch_size, stem_maps, image",
    "Taps.maps": "",
    "VisionTransformer": "config",
    "VisionTransformer.forward": "images, needed",
}

# Whatever these classes show is public: methods have a row above, everything else stands here.
PROPERTIES = {
    "Predictor": set(),
    "Features": {"last", "scale"},
    "Prediction": {
        "class_names",
        "depth",
        "depth_quantity",
        "depth_result",
        "depth_unit",
        "entropy",
        "labels",
        "primary",
        "scores",
        "segmentation",
        "shares",
    },
}


def parameters(function: Any) -> str:
    """Like "source, *, engine, **options"."""
    names: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        names.append(prefix + parameter.name)
    return ", ".join(name for name in names if name != "self")


def test_package__exports_the_names_of_the_snapshot() -> None:
    assert set(densevit.__all__) == NAMES


def test_package__shows_its_names() -> None:
    assert set(dir(densevit)) == NAMES | {"__version__"}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature__is_that_of_the_snapshot(name: str) -> None:
    assert parameters(attrgetter(name)(densevit)) == SIGNATURES[name]


@pytest.mark.parametrize("owner", PROPERTIES)
def test_class__shows_nothing_that_the_snapshot_lacks(owner: str) -> None:
    classes = [one for one in getattr(densevit, owner).__mro__ if one.__module__.startswith("densevit.")]
    shown = {name for one in classes for name in vars(one) if not name.startswith("_")}

    assert shown == PROPERTIES[owner] | {name.partition(".")[2] for name in SIGNATURES if name.startswith(f"{owner}.")}


def test_parameters__tell_keywords_and_the_rest_apart() -> None:
    def example(a: int, *, b: int = 0, c: int = 0, **rest: int) -> None: ...

    assert parameters(example) == "a, *, b, c, **rest"
