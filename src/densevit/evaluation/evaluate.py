"""Evaluation: every image at its own size against its target, in memory that does not grow with the data set."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from densevit.data import Dataset
from densevit.data.transforms import targets_of
from densevit.errors import DataError
from densevit.evaluation.inspection import EvaluationRecorder
from densevit.evaluation.selection import read_target
from densevit.inference.decode import decode, mean_entropy
from densevit.inference.pipeline import Encode, InferenceOptions, predict_logits
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel
from densevit.tasks import Metrics, Task


def evaluate(
    model: DenseModel,
    tasks: dict[str, Task],
    config: InferenceConfig,
    dataset: Dataset,
    options: InferenceOptions | None = None,
    *,
    encode: Encode | None = None,
    progress: Callable[[int, int], None] | None = None,
    recorder: EvaluationRecorder | None = None,
    rank: int = 0,
    world: int = 1,
    add: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics of some heads on a data set; images are run as ``Predictor.predict`` runs them.

    Args:
        model: in evaluation mode.
        tasks: the heads to evaluate.
        config: what the checkpoint says about running images.
        dataset: samples with the targets that the tasks need.
        options: windows, scales, mirror images or a protocol.
        encode: replaces the model's encoder (by a cache, say) for heads that see the whole image once.
        progress: called with (done, total).
        recorder: collects what a report shows.
        rank: number of this process, which takes every ``world``-th image from this number on.
        world: number of processes that share the data set.
        add: sums a tensor over all processes in place, so that all of them get the metrics of the whole data set.

    Returns:
        Per head what its metrics compute.

    Raises:
        DataError: if the data set is empty, or has no target for a head.
    """
    if not len(dataset):
        raise DataError("the data set is empty; it needs at least one photo")
    metrics: dict[str, Metrics] = {head: task.new_metrics() for head, task in tasks.items()}
    entropy = {head: 0.0 for head, task in tasks.items() if task.class_table is not None}
    if recorder is not None:
        recorder.begin(tasks)
    with torch.inference_mode():
        for index in range(rank, len(dataset), world):
            sample = dataset[index]
            targets = targets_of(sample)
            logits = predict_logits(model, tasks, sample.image, config, options, encode=encode)
            for head, task in tasks.items():
                target = read_target(head, task, targets, dataset)
                prediction = decode(task, logits[head]).cpu()
                image_metrics = task.new_metrics()  # merged below: sums over images are those of all images at once
                image_metrics.update(prediction[None], target[None])
                metrics[head].merge(image_metrics)
                if recorder is not None:
                    place = (index, len(dataset), sample.name)
                    recorder.see(head, place, sample.picture, target, prediction, image_metrics)
                if head in entropy:
                    entropy[head] += mean_entropy(logits[head])
            if progress is not None:
                progress(index + 1, len(dataset))
    if add is not None:
        for values in metrics.values():
            for sums in values.state.values():
                add(sums)
        entropy = {head: float(add(torch.tensor(total, dtype=torch.float64))) for head, total in entropy.items()}
    computed = {head: values.compute() for head, values in metrics.items()}
    for head, total in entropy.items():
        computed[head]["mean_entropy"] = total / len(dataset)
    return computed
