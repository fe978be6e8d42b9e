"""Evaluation: every image at its own size against its target, in memory that does not grow with the data set."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from densevit.data import Dataset
from densevit.data.transforms import targets_of
from densevit.errors import ConfigError, DataError
from densevit.evaluation.inspection import EvaluationRecorder
from densevit.evaluation.selection import read_target
from densevit.inference.decode import Decoded, decode, mean_entropy
from densevit.inference.exported import ExportedModel
from densevit.inference.pipeline import Encode, Image, InferenceOptions, predict_logits
from densevit.inference.predictor import Predictor
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel
from densevit.tasks import Metrics, Task

Run = Callable[[Image], Mapping[str, Decoded]]
"""An image (H, W, C) -> what each head predicts."""


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
    part: tuple[int, int] = (0, 1),
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
        part: (i, n): every n-th image from number i on, this process's share.
        add: sums a tensor over all processes in place, so that all of them get the metrics of the whole data set.

    Returns:
        Per head what its metrics compute, NaN if no pixel of its targets counts (``check_measured``).

    Raises:
        ConfigError: if a head has one class, which cannot be measured.
        DataError: if the data set is empty, or has no target for a head.
    """

    def run(image: Image) -> dict[str, Decoded]:
        logits = predict_logits(model, tasks, image, config, options, encode=encode)
        return {
            head: Decoded(
                decode(task, logits[head]).cpu(), None if task.class_table is None else mean_entropy(logits[head])
            )
            for head, task in tasks.items()
        }

    return evaluate_by(run, tasks, dataset, progress=progress, recorder=recorder, part=part, add=add)


def evaluate_predictor(
    predictor: Predictor | ExportedModel,
    head: str,
    dataset: Dataset,
    options: InferenceOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Metrics of one head of a loaded model, or of an exported file itself; see ``evaluate``."""
    tasks = {head: predictor.tasks[head]}
    if isinstance(predictor, ExportedModel):
        return evaluate_by(predictor.only(head).decoded, tasks, dataset, progress=progress)[head]
    return evaluate(predictor.model, tasks, predictor.fit, dataset, options, progress=progress)[head]


def evaluate_by(
    run: Run,
    tasks: dict[str, Task],
    dataset: Dataset,
    *,
    progress: Callable[[int, int], None] | None = None,
    recorder: EvaluationRecorder | None = None,
    part: tuple[int, int] = (0, 1),
    add: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics of whatever runs images; arguments, result and errors are those of ``evaluate``."""
    for head, task in tasks.items():
        check_classes(head, task)
    if not len(dataset):
        raise DataError("the data set is empty; it needs at least one photo")
    metrics: dict[str, Metrics] = {head: task.new_metrics() for head, task in tasks.items()}
    entropy = {head: 0.0 for head, task in tasks.items() if task.class_table is not None}
    if recorder is not None:
        recorder.begin(tasks)
    with torch.inference_mode():
        for index in range(part[0], len(dataset), part[1]):
            sample = dataset[index]
            targets = targets_of(sample)
            decoded = run(sample.image)
            for head, task in tasks.items():
                target = read_target(head, task, targets, dataset)
                prediction, unsure = decoded[head]
                image_metrics = task.new_metrics()  # merged below: sums over images are those of all images at once
                image_metrics.update(prediction[None], target[None])
                metrics[head].merge(image_metrics)
                if recorder is not None:
                    place = (index, len(dataset), sample.name)
                    recorder.see(head, place, sample.picture, target, prediction, image_metrics)
                if head in entropy and unsure is not None:
                    entropy[head] += unsure
                else:
                    entropy.pop(head, None)
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


def check_measured(metrics: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Task], num_images: int) -> None:
    """Refuse an evaluation that has measured nothing.

    Raises:
        DataError: if no pixel of the targets of a head counted.
    """
    for head, values in metrics.items():
        if math.isnan(values[tasks[head].headline[0]]):
            raise DataError(nothing_known(head, tasks[head], f"{num_images} images"))


def check_classes(head: str, task: Task) -> None:
    """Refuse a head with a single class: every prediction is right, whatever the weights.

    Raises:
        ConfigError: if it has one class.
    """
    if task.class_table is not None and len(task.class_table.names) == 1:
        raise ConfigError(
            f"head {head!r} has one class, {task.class_table.names[0]!r}, and so nothing to tell it from; at least two "
            "are needed: name the rest of the image too, such as background, and give it an id in the masks"
        )


def nothing_known(head: str, task: Task, where: str) -> str:
    """The message for targets of which no pixel counts."""
    settings = task.plain()
    limits = [f"{name} {settings[name]}" for name in ("ignore_index", "min_depth_m", "max_depth_m") if name in settings]
    return (
        f"head {head!r}: no pixel of the targets in {where} counts, so there is nothing to learn or to measure; all "
        f"are ignored, missing or out of range ({', '.join(limits) or 'not finite'}); run densevit doctor on the data, "
        "and check the unit and the ids of its targets"
    )
