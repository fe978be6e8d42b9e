"""From a user's options and files to a complete ``TrainConfig``.

Presets and recipes are expanded, class counts and names are read from the data, and options such as ``--decoder`` get
settings that work without a GPU.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densevit.checkpoints.open import model_facts
from densevit.config import apply_overrides, merge, nearest, read_yaml, set_values
from densevit.data import DATASETS, ClassTable, DataConfig, FolderConfig, classes_of, parse_data
from densevit.data.sample import Target
from densevit.data.split_roles import training_splits
from densevit.decoders import DECODERS
from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig
from densevit.presets import preset
from densevit.tasks import TASKS
from densevit.training.config import TrainConfig
from densevit.training.fine_tuning import fine_tuned
from densevit.training.published_recipes import Plain, recipe

_log = logging.getLogger(__name__)

SMALL_DECODERS: dict[str, Plain] = {
    "segmenter_linear": {},
    "segmenter_mask": {},
    "setr_naive": {"channels": 192},
    "setr_pup": {"channels": 96},
    "setr_mla": {"channels": 96, "head_channels": 48},
    "dpt": {
        "channels": (32, 64, 128, 192),
        "fusion_channels": 48,
        "readout": "ignore",
        "tap_norm": True,
        "batch_norm": True,
    },
}
"""Settings of ``--decoder``, for a few hundred images and no GPU; presets have those of the papers."""

FROZEN: Plain = {
    "iterations": 300,
    "eval_every": 300,
    "checkpoint_every": 100,
    "log_every": 20,
    "ema": 0.98,
    "optim": {"kind": "adamw", "lr": 1e-4, "head_lr_mult": 10.0, "weight_decay": 0.05, "clip_norm": 5.0},
    "schedule": {"kind": "cosine", "warmup": 20},
    "augment": {"scale": (1.0, 1.0), "flip": 0.0, "colour": 0.0, "cat_max_ratio": 1.0},
}
"""Settings of ``--freeze``: heads learn from cached features of whole images, which are mirrored as features."""


def resolve_config(
    path: Path | Mapping[str, Any] | None,
    overrides: Sequence[str] | Mapping[str, Any],
    *,
    preset_name: str | None = None,
    data: DataConfig | None = None,
    recipe_name: str | None = None,
    init: str | None = None,
    freeze: str | None = None,
    decoders: Sequence[str] = (),
    features: Path = Path("features"),
    plan: Callable[[Plain, Sequence[str]], Plain] | None = None,
) -> TrainConfig:
    """The config of a run: recipe < other options < file < overrides, completed and checked.

    Args:
        path: YAML file, or its content.
        overrides: ``a.b=c`` pairs, or values by their keys, see ``set_values``.
        preset_name: a preset to train.
        data: a data set; see ``densevit.data.description.describe``.
        recipe_name: a row of ``RECIPES``.
        init: checkpoint to start from.
        freeze: "encoder" or a number of blocks to keep; their output is cached.
        decoders: keys of ``DECODERS``, one head each, named after it. They learn masks if the data has any,
            else depth.
        features: directory of the cache.
        plan: fills the gaps in laptop mode, from all that is given and from ``decoders``.

    Raises:
        ConfigError: if anything is missing, unknown or wrong.
        DataError: if class names are to come from data that cannot be read.
    """
    row = None if recipe_name is None else recipe(recipe_name)
    raw: Plain = {} if row is None else {"model": {"preset": row.preset}, **row.config}
    if preset_name is not None:
        raw["model"] = {"preset": preset_name}
    if data is not None:
        raw["sources"] = [_source(data)]
    if init is not None:
        raw["init"] = init
    if freeze is not None:
        kept = int(freeze) if freeze.isdecimal() else freeze
        cached: Plain = {"freeze": kept, "features": {"directory": str(features), "flip": True}}
        raw = merge(raw, cached if plan is not None else {**FROZEN, **cached})
    if decoders and plan is None:
        raw = merge(raw, _heads_for(decoders, raw.get("sources", ())))
    if path is not None:
        raw = merge(raw, path if isinstance(path, Mapping) else read_yaml(path))
    raw = set_values(raw, overrides) if isinstance(overrides, Mapping) else apply_overrides(raw, overrides)
    if plan is not None:
        raw = plan(raw, decoders)
    if row is not None:
        if isinstance(sources := raw.get("sources"), list | tuple):
            batch = {"batch_size": row.batch_size}
            raw["sources"] = [{**batch, **source} if isinstance(source, Mapping) else source for source in sources]
        if not raw.get("encoder_weights") and not raw.get("init"):
            _log.warning(
                "the encoder starts from random weights, but recipe %s from %s; pass --set encoder_weights=%s",
                recipe_name,
                row.pretrained,
                row.pretrained if row.pretrained.startswith("hf://") else "FILE",
            )
    options = "the set of options" if isinstance(overrides, Mapping) else "the command line"
    source = str(path) if isinstance(path, Path) else options
    return TrainConfig.parse(complete(raw), source=source)


def complete(raw: Mapping[str, Any]) -> Plain:
    """Plain data with its gaps filled; what is given stays unchanged, even if ``TrainConfig`` will refuse it."""
    filled = _expand_preset(_expand_init(dict(raw)))
    model = filled.get("model")
    if not isinstance(model, Mapping) or not isinstance(heads := model.get("heads"), Mapping):
        raise ConfigError(
            "the config has no model.heads; name a preset (model: {preset: segmenter-s-mask}) or give heads"
        )
    sources = filled.get("sources")
    if not isinstance(sources, list | tuple) or not all(isinstance(s, Mapping) for s in sources):
        raise ConfigError(
            "the config has no sources; give --data DIR, or sources: a list of {train: {root: DIR, split: train}}"
        )
    filled["sources"] = [{"heads": list(heads), **source} for source in sources]
    if isinstance(tasks := filled.get("tasks", {}), Mapping):
        filled["tasks"] = {name: _with_classes(name, task, filled["sources"]) for name, task in tasks.items()}
        widened = {name: _with_width(name, head, filled["tasks"].get(name)) for name, head in heads.items()}
        filled["model"] = {**model, "heads": widened}
    if isinstance(augment := filled.get("augment", {}), Mapping) and "crop" not in augment:
        filled["augment"] = {"crop": _crop(filled), **augment}
    return filled


def _expand_init(raw: Plain) -> Plain:
    """``init`` without ``model.encoder`` -> encoder, normalisation and inference settings of the checkpoint.

    Without heads either, it is fine-tuned with its own head for the data. Cached features are those of whole images, so
    heads that learn from them run on whole images too.
    """
    model = raw.get("model", {})
    if raw.get("init") is None or not isinstance(model, Mapping) or "encoder" in model:
        return raw
    facts = model_facts(str(raw["init"]))
    if "heads" not in model and "preset" not in model:
        raw = merge(fine_tuned(facts, raw), raw)
        model = raw["model"]
    encoder = {"encoder": facts.model.encoder.plain(), "normalisation": facts.model.normalisation.plain()}
    inference = (facts.fit if raw.get("features") is None else facts.fit.whole()).plain()
    kept = model.get("heads") or {}
    for key in ("heads", "fast"):
        inference[key] = {head: settings for head, settings in inference.get(key, {}).items() if head in kept}
    return {"fit": inference, **raw, "model": {**encoder, **model}}


def _expand_preset(raw: Plain) -> Plain:
    """``model: {preset: NAME}`` -> model, task and image size of the preset, below the rest of the config."""
    model = raw.get("model")
    if not isinstance(model, Mapping) or "preset" not in model:
        return raw
    row = preset(str(model["preset"]))
    (head,) = row.model["heads"]
    head_config = {key: value for key, value in row.model["heads"][head].items() if key != "out_channels"}
    below = {
        "model": {**row.model, "heads": {head: head_config}},
        "tasks": {head: {"kind": row.task, **row.task_facts}},
        "fit": {"short_side": row.short_side},
    }
    return merge(below, {**raw, "model": {key: value for key, value in model.items() if key != "preset"}})


def _with_classes(head: str, task: Any, sources: list[Plain]) -> Any:
    if not isinstance(task, Mapping) or task.get("kind") != "segmentation":
        return task
    if "classes" in task:
        return _learnt_background(head, sources, task["classes"]) | {**task}
    table, config = _classes_for(head, sources)
    below: Plain = {"palette": table.palette} if table.palette else {}
    if len(table.names) > 255 and not 0 <= table.ignore_index < len(table.names):
        below["ignore_index"] = table.ignore_index  # the default is the number of a class
    if isinstance(config, FolderConfig) and config.background in table.names:
        below["background"] = config.background
    return {**below, **task, "classes": table.names}


def _learnt_background(head: str, sources: list[Plain], classes: Any) -> Plain:
    """The background of the first data that train a head, if it is one of the classes, as a key of the task."""
    name = next((data.get("background") for data in _train_data(head, sources)), None)
    return {"background": name} if isinstance(classes, list | tuple) and name in classes else {}


def _train_data(head: str, sources: list[Plain]) -> Iterator[Mapping[str, Any]]:
    """The data that train a head, as far as they are well-formed."""
    for source in sources:
        heads, train = source["heads"], source.get("train")
        if isinstance(heads, list | tuple) and head in heads and isinstance(train, Mapping):
            yield train


def _classes_for(head: str, sources: list[Plain]) -> tuple[ClassTable, DataConfig]:
    """The classes of the first data that train a head and have some, and their config."""
    for data in _train_data(head, sources):
        try:
            config = parse_data(data)
        except ValueError as error:
            raise ConfigError(f"the source of head {head!r}: {error}") from None
        table = classes_of(config)
        if table is not None:
            return table, config
    raise ConfigError(
        f"the class names of head {head!r} are not known; put classes.json into the data set's root, "
        f"or set tasks.{head}.classes (names) or sources' train.classes (names or a number)"
    )


def _with_width(name: str, head: Any, task: Any) -> Any:
    kind = task.get("kind") if isinstance(task, Mapping) else None
    if not isinstance(head, Mapping) or "out_channels" in head or not isinstance(kind, str) or kind not in TASKS:
        return head
    return {**head, "out_channels": TASKS[kind].parse(task, source=f"tasks.{name}").out_channels}


def _crop(raw: Mapping[str, Any]) -> tuple[int, int]:
    """A square of the size of image or window, or with cached features the first image; in multiples of the patch."""
    encoder = raw["model"].get("encoder")
    patch = encoder.get("patch_size", 16) if isinstance(encoder, Mapping) else 16
    try:
        fit = InferenceConfig.parse(raw.get("fit", {}))
        height, width = (int(n) for n in (patch if isinstance(patch, list | tuple) else (patch, patch)))
        if raw.get("features") is not None:
            config = parse_data(raw["sources"][0]["train"])
            photo = DATASETS[config.kind][1](config, targets=frozenset())[0].image
            return fit.input_size((photo.shape[0], photo.shape[1]), (height, width))
        side = fit.window or fit.short_side
        return max(side // height, 1) * height, max(side // width, 1) * width
    except (ConfigError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):  # TrainConfig refuses it
        return 512, 512


def _source(data: DataConfig) -> Plain:
    """The splits of a data set as a source. Draws become lists of names, so that no later command draws others.

    The root becomes absolute, so that the run can be resumed from any working directory.
    """
    train, val, remarks = training_splits(data)
    for remark in remarks:
        _log.warning("data: %s", remark)
    return {role: _absolute(one).plain() for role, one in (("train", train), ("val", val)) if one is not None}


def _absolute(config: DataConfig) -> DataConfig:
    root = getattr(config, "root", None)
    return config if root is None else config.model_copy(update={"root": root.absolute()})


def _heads_for(decoders: Sequence[str], sources: Sequence[Plain]) -> Plain:
    """Model and tasks with one head per decoder."""
    labels = not sources or classes_of(parse_data(sources[0]["train"])) is not None
    return head_settings(decoders, "labels" if labels else "depth")


def head_settings(decoders: Sequence[str], target: Target, values: Plain | None = None) -> Plain:
    """Model and tasks with one head per decoder; ``values`` are the settings of a regression of value maps."""
    outputs: dict[Target, tuple[Plain, Plain]] = {
        "labels": ({"kind": "segmentation"}, {"kind": "segmentation", "align_corners": False}),
        "depth": ({"kind": "depth", "l1_weight": 0.3}, {"kind": "depth", "activation": "sigmoid", "max_depth_m": 10.0}),
        "values": ({"kind": "regression", **(values or {})}, {"kind": "regression"}),
    }
    task, output = outputs[target]
    heads: Plain = {}
    for kind in decoders:
        if kind not in DECODERS:
            raise ConfigError(f"there is no decoder {kind!r}{nearest(kind, DECODERS.names())}")
        head = {"head": output} if kind == "dpt" else {}
        heads[_head_name(kind)] = {"decoder": {"kind": kind, **SMALL_DECODERS.get(kind, {}), **head}}
    return {"model": {"heads": heads}, "tasks": dict.fromkeys(heads, task)}


def _head_name(kind: str) -> str:
    """A plug-in's name may have signs that a head's cannot."""
    return re.sub(r"\W", "_", kind)
