"""Fills in what a user need not say twice: presets are laid out, class counts and names come from the data."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densevit.checkpoints.open import model_facts
from densevit.config import apply_overrides, merge, nearest, read_yaml
from densevit.data import DATASETS, ClassTable, classes_of, parse_data
from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig
from densevit.presets import preset
from densevit.tasks import TASKS
from densevit.training.config import TrainConfig
from densevit.training.published_recipes import recipe
from densevit.training.short import short_way

_log = logging.getLogger(__name__)


def read_recipe(
    path: Path | None,
    overrides: list[str],
    *,
    preset_name: str | None = None,
    data: Path | None = None,
    dataset: str = "folder",
    recipe_name: str | None = None,
    short: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """The config of a run: recipe < preset < ``data`` < file < overrides, completed and checked.

    Args:
        path: YAML file.
        overrides: ``a.b=c`` pairs.
        preset_name: a preset to train.
        data: root of a data set with the splits train and val.
        dataset: its kind, a key of ``DATASETS``.
        recipe_name: a row of ``RECIPES``.
        short: what ``short_way`` takes beside the sources; its data lie at the level of ``data``.

    Raises:
        ConfigError: if anything is missing, unknown or wrong.
        DataError: if class names are to come from data that cannot be read.
    """
    row = None if recipe_name is None else recipe(recipe_name)
    raw: dict[str, Any] = {} if row is None else {"model": {"preset": row.preset}, **row.config}
    if preset_name is not None:
        raw["model"] = {"preset": preset_name}
    if data is not None:
        raw["sources"] = [{split: _place(dataset, data, split) for split in ("train", "val")}]
    elif dataset != "folder":
        raise ConfigError(f"the data set kind {dataset!r} was named without data; give --data DIR, its root")
    if short is not None:
        raw = merge(raw, short_way(sources=raw.get("sources", ()), **short))
    if path is not None:
        raw = merge(raw, read_yaml(path))
    raw = apply_overrides(raw, overrides)
    if row is not None:
        if isinstance(sources := raw.get("sources"), list | tuple):
            batch = {"batch_size": row.batch_size}
            raw["sources"] = [{**batch, **source} if isinstance(source, Mapping) else source for source in sources]
        if not raw.get("encoder_weights") and not raw.get("init"):
            _log.warning(
                "the encoder starts from random weights, but recipe %s from %s; say so with --set encoder_weights=%s",
                recipe_name,
                row.pretrained,
                row.pretrained if row.pretrained.startswith("hf://") else "FILE",
            )
    return TrainConfig.parse(complete(raw), source=str(path or "the command line"))


def complete(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data with the gaps filled; what is there already stays as it is, also what ``TrainConfig`` will refuse."""
    filled = _lay_out_preset(_lay_out_init(dict(raw)))
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


def _lay_out_init(raw: dict[str, Any]) -> dict[str, Any]:
    """``init`` without ``model.encoder`` -> the checkpoint's encoder, normalisation and way of seeing photos.

    Cached features are those of whole photos, and what learns from them is used in this way.
    """
    model = raw.get("model", {})
    if raw.get("init") is None or not isinstance(model, Mapping) or "encoder" in model:
        return raw
    config, fit = model_facts(str(raw["init"]))
    encoder = {"encoder": config.encoder.plain(), "normalisation": config.normalisation.plain()}
    facts = (fit if raw.get("features") is None else fit.whole()).plain()
    own = {head: way for head, way in facts["heads"].items() if head in (model.get("heads") or {})}
    return {"fit": {**facts, "heads": own}, **raw, "model": {**encoder, **model}}


def _lay_out_preset(raw: dict[str, Any]) -> dict[str, Any]:
    """``model: {preset: NAME}`` -> the preset's model, task and image size below what the config says itself."""
    model = raw.get("model")
    if not isinstance(model, Mapping) or "preset" not in model:
        return raw
    row = preset(str(model["preset"]))
    (head,) = row.model["heads"]
    facts = {key: value for key, value in row.model["heads"][head].items() if key != "out_channels"}
    below = {
        "model": {**row.model, "heads": {head: facts}},
        "tasks": {head: {"kind": row.task, **row.task_facts}},
        "fit": {"short_side": row.short_side},
    }
    own = {**raw, "model": {key: value for key, value in model.items() if key != "preset"}}
    return merge(below, own)


def _with_classes(head: str, task: Any, sources: list[dict[str, Any]]) -> Any:
    if not isinstance(task, Mapping) or task.get("kind") != "segmentation" or "classes" in task:
        return task
    table = _classes_for(head, sources)
    colours = {"palette": table.palette} if table.palette else {}
    return {**colours, **task, "classes": table.names}


def _classes_for(head: str, sources: list[dict[str, Any]]) -> ClassTable:
    """The classes of the first source that trains a head."""
    for source in sources:
        heads = source["heads"] if isinstance(source["heads"], list | tuple) else ()
        if head in heads and isinstance(source.get("train"), Mapping):
            try:
                config = parse_data(source["train"])
            except ValueError as error:
                raise ConfigError(f"the source of head {head!r}: {error}") from None
            table = classes_of(config)
            if table is not None:
                return table
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
    """A square of the image's or window's size, with cached features the first photo's; rounded to the patch size."""
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
    except (ConfigError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):  # TrainConfig says so
        return 512, 512


def _place(kind: str, root: Path, split: str) -> dict[str, str]:
    if kind not in DATASETS or "split" not in DATASETS[kind][0].model_fields:
        kinds = [name for name, (config, _) in DATASETS.items() if "split" in config.model_fields]
        raise ConfigError(f"the data set kind {kind!r} has no root with splits{nearest(kind, kinds)}")
    return {"kind": kind, "root": str(root), "split": split}
