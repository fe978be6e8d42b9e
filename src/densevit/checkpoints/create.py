"""Make a model to train: with the weights of a name, or random ones, and with other classes than it was trained for."""

import logging
from collections.abc import Mapping
from pathlib import Path

from densevit.checkpoints.adapt import change_classes
from densevit.checkpoints.hub import kind_of, local_path
from densevit.checkpoints.native import Bundle, Card
from densevit.checkpoints.open import model_facts, open_model
from densevit.checkpoints.published import find_published
from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig, parse_protocol
from densevit.model import DenseModel, ModelConfig
from densevit.presets import PRESETS, preset
from densevit.tasks import Task, parse_task

_log = logging.getLogger(__name__)


def create_model(
    name: str | Path, num_classes: int | Mapping[str, int] | None = None, pretrained: bool = True
) -> DenseModel:
    """Make a model to train, in training mode on the CPU; see ``densevit.create_model``.

    Raises:
        CheckpointError: as ``open_model``.
        ConfigError: if there is no architecture of this name, or no head that can have so many classes.
    """
    model, tasks = _pretrained(name) if pretrained else _random(str(name))
    for head, number in _wanted(num_classes, tasks, name).items():
        if number == model.config.heads[head].out_channels:
            continue
        old = model.config.heads[head].out_channels
        changed = change_classes(model, head, number)
        if pretrained:
            _log.info(
                "head %s of %s has %d classes instead of %d: %s begin with random values, and all other weights are "
                "those of %s",
                *(head, name, number, old, ", ".join(changed), name),
            )
    return model.requires_grad_().train()


def _pretrained(name: str | Path) -> tuple[DenseModel, Mapping[str, Task]]:
    bundle = open_model(name)
    return bundle.model, bundle.tasks


def _random(name: str) -> tuple[DenseModel, Mapping[str, Task]]:
    """The architecture of a preset, of published weights, or of a checkpoint."""
    row = find_published(name)
    architecture = name if name in PRESETS or row is None else row.preset
    if architecture in PRESETS and kind_of(local_path(name)) == "none":
        bundle = preset_bundle(architecture)
        return bundle.model, bundle.tasks
    facts = model_facts(name)
    return DenseModel(facts.model), facts.tasks


def _wanted(
    num_classes: int | Mapping[str, int] | None, tasks: Mapping[str, Task], name: str | Path
) -> Mapping[str, int]:
    """The number of classes that each head shall have, as far as it is asked for."""
    if num_classes is None:
        return {}
    heads = [head for head, task in tasks.items() if task.class_table is not None]
    if isinstance(num_classes, Mapping):
        if unknown := [head for head in num_classes if head not in heads]:
            raise ConfigError(f"{name} has no head {unknown[0]!r} with classes; it has {', '.join(heads) or 'none'}")
        return num_classes
    if not heads:
        raise ConfigError(f"{name} has no classes, since it predicts {_kinds(tasks)}; leave num_classes out")
    if len(heads) > 1:
        example = ", ".join(f"{head!r}: {num_classes}" for head in heads)
        raise ConfigError(f"{name} has several heads with classes; give num_classes={{{example}}}")
    return {heads[0]: num_classes}


def _kinds(tasks: Mapping[str, Task]) -> str:
    return " and ".join(dict.fromkeys(task.kind for task in tasks.values()))


def preset_bundle(name: str) -> Bundle:
    """A preset's model with random weights and unnamed classes.

    Raises:
        ConfigError: if there is no such preset.
    """
    row = preset(name)
    (head,) = row.model["heads"]
    classes = {"classes": tuple(f"class {i}" for i in range(row.num_classes))} if row.task == "segmentation" else {}
    task = parse_task({"kind": row.task, **classes, **row.task_facts})
    model = DenseModel(ModelConfig.parse(row.model, source=f"preset {name}")).eval()
    card = Card(name=name, licence="Apache-2.0")
    return Bundle(model, {head: task}, InferenceConfig(short_side=row.short_side), card, parse_protocol(row.protocol))
