"""The data sets of a run: opened, checked, cut into batches, and measured on."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from densevit.data import DATASETS, DataConfig, Dataset
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.batches import SourceBatches, check_targets
from densevit.training.evaluate import evaluate
from densevit.training.features import FeatureCache, to_taps
from densevit.training.recipe import TrainConfig
from densevit.training.stop import Asked, Stopped
from densevit.training.watch import Watch
from densevit.types import Taps

_log = logging.getLogger(__name__)


def open_dataset(config: DataConfig, heads: tuple[str, ...], tasks: dict[str, Task]) -> Dataset:
    """The data set with the targets that the heads need, no others read."""
    kinds = {tasks[head].kind for head in heads}
    return DATASETS[config.kind][1](
        config,
        with_labels="segmentation" in kinds,
        with_depth="depth" in kinds,
        with_values="regression" in kinds,
    )


def open_sources(
    config: TrainConfig, tasks: dict[str, Task], cache: FeatureCache | None, *, rank: int = 0, world: int = 1
) -> list[SourceBatches]:
    """The batches of every source; a target that is missing, also in val, is found now and not after the last step."""
    for source in config.sources:
        for place in filter(None, (source.train, source.val)):
            dataset = open_dataset(place, source.heads, tasks)
            check_targets(dataset, {head: tasks[head] for head in source.heads})
    return [
        SourceBatches(
            open_dataset(source.train, source.heads, tasks), source, config, tasks, cache, rank=rank, world=world
        )
        for source in config.sources
    ]


def fill_cache(sources: list[SourceBatches], asked: Asked) -> None:
    """Encode what the feature cache lacks.

    Raises:
        Stopped: after Ctrl-C or SIGTERM; what is encoded stays.
    """
    for source in sources:
        for done in source.prepare():
            if asked.signal:
                raise Stopped("stopped while features were encoded; those that are done will be taken", asked.signal)
            if done % 50 == 0:
                _log.info("encoded %d views for %s", done, ", ".join(source.source.heads))


def validate(
    model: DenseModel,
    tasks: dict[str, Task],
    config: TrainConfig,
    cache: FeatureCache | None,
    *,
    part: tuple[int, int] = (0, 1),
    add: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Watch | None = None,
) -> dict[str, dict[str, Any]]:
    """Per head its figures on the val split of its source; the options are those of ``evaluate``."""

    def encode(images: Tensor) -> Taps:
        if cache is None:
            return model.encode(images)
        grid = model.encoder.grid_of((images.shape[-2], images.shape[-1]))
        return to_taps(torch.tensor(cache.read(images[0]))[None].to(images.device), model, grid)

    figures: dict[str, dict[str, Any]] = {}
    for source in config.sources:
        if source.val is not None:
            chosen = {head: tasks[head] for head in source.heads}
            dataset = open_dataset(source.val, source.heads, tasks)
            figures |= evaluate(
                model, chosen, config.fit, dataset, encode=encode, progress=progress, watch=watch, part=part, add=add
            )
    return figures
