"""The data sets of a run: opened, checked, cut into batches, encoded ahead, evaluated on, and described."""

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from densevit.checkpoints.native import TrainedOn
from densevit.data.description import description_file, write_description
from densevit.data.relocation import portable
from densevit.evaluation.evaluate import check_classes, check_measured, evaluate
from densevit.evaluation.selection import check_targets, open_dataset
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.batches import SourceBatches
from densevit.training.config import TrainConfig
from densevit.training.feature_cache import FeatureCache
from densevit.training.signals import Stopped, StopRequest
from densevit.types import Taps

_log = logging.getLogger(__name__)


def open_sources(
    config: TrainConfig, tasks: dict[str, Task], cache: FeatureCache | None, *, rank: int = 0, world: int = 1
) -> list[SourceBatches]:
    """The batches of every source. Targets, also those of val, are checked here, not when they are first used."""
    sources = []
    for source in config.sources:
        heads = {head: tasks[head] for head in source.heads}
        for head, task in heads.items():
            check_classes(head, task)
        train = open_dataset(source.train, source.heads, tasks)
        check_targets(train, heads)
        if source.val is not None:
            check_targets(open_dataset(source.val, source.heads, tasks), heads)
        sources.append(SourceBatches(train, source, config, tasks, cache, rank=rank, world=world))
    return sources


def trained_on(config: TrainConfig) -> tuple[TrainedOn, ...]:
    """What the checkpoint of a run says about its data."""
    described = []
    for source in config.sources:
        train, val = portable(source.train), None
        if source.val is not None:
            other = portable(source.val)
            val = {key: value for key, value in other.items() if train.get(key) != value}
            val |= dict.fromkeys(key for key in train if key not in other)
        described.append(TrainedOn(heads=source.heads, train=train, val=val))
    return tuple(described)


def write_descriptions(config: TrainConfig, out: Path) -> None:
    """Write the data that each source is evaluated on, or learns from, into a run folder."""
    for number, source in enumerate(config.sources):
        write_description(source.val or source.train, out / description_file(number), internal=True)


def fill_cache(
    config: TrainConfig, sources: list[SourceBatches], cache: FeatureCache | None, stop_request: StopRequest
) -> None:
    """Encode what the feature cache lacks.

    Raises:
        ConfigError: if the features need more space than is allowed or free.
        Stopped: after Ctrl-C, SIGTERM or SIGHUP; features that are encoded already stay.
    """
    if cache is None or config.features is None:
        return
    sizes = [cache.num_bytes(source.augment.crop) for source in sources]
    # Images of val have any size; they are counted as crops, as many as in train, in float32.
    views = config.features.views + 2
    needed = sum(size * views * len(source.chosen) for size, source in zip(sizes, sources, strict=True))
    cache.make_room(needed, max_gb=config.features.max_gb)
    _log.info(
        "features of the frozen encoder: about %.2g GB in %s, of at most %g (features.max_gb); other runs on these "
        "data read them too; delete the folder when you need them no longer",
        needed / 1e9,
        cache.root,
        config.features.max_gb,
    )
    for source in sources:
        for done in source.prepare():
            if stop_request.signal:
                raise Stopped(
                    "stopped while encoding features; the same command continues with those that are left",
                    stop_request.signal,
                )
            if done % 50 == 0:
                _log.info("encoded %d views for %s", done, ", ".join(source.source.heads))


def validate(
    model: DenseModel,
    tasks: dict[str, Task],
    config: TrainConfig,
    cache: FeatureCache | None,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """Metrics per head on the val split of its source; the options are those of ``evaluate``."""

    def encode(images: Tensor) -> Taps:
        return model.encode(images) if cache is None else cache.taps(images[0], model)

    metrics: dict[str, dict[str, Any]] = {}
    for source in config.sources:
        if source.val is not None:
            chosen = {head: tasks[head] for head in source.heads}
            dataset = open_dataset(source.val, source.heads, tasks)
            measured = evaluate(model, chosen, config.fit, dataset, encode=encode, **options)
            check_measured(measured, tasks, len(dataset))
            metrics |= measured
    return metrics
