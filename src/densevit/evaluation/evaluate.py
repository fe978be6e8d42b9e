"""Evaluation: every photo at its own size against its target; memory does not grow with the data set or the classes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from densevit.data import Dataset
from densevit.data.transforms import as_example
from densevit.errors import DataError
from densevit.evaluation.inspection import EvaluationRecorder
from densevit.evaluation.selection import no_target
from densevit.inference.decode import Source, decode, mean_entropy
from densevit.inference.pipeline import InferenceOptions, Runner
from densevit.inference.protocols import Protocol, field
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel
from densevit.pixels import fit_image
from densevit.tasks import Metrics, Segmentation, Task
from densevit.types import Taps

Encode = Callable[[Tensor], Taps]


def evaluate(
    model: DenseModel,
    tasks: dict[str, Task],
    fit: InferenceConfig,
    dataset: Dataset,
    *,
    encode: Encode | None = None,
    progress: Callable[[int, int], None] | None = None,
    protocol: Protocol | None = None,
    tta: bool = False,
    way: InferenceOptions | None = None,
    watch: EvaluationRecorder | None = None,
    part: tuple[int, int] = (0, 1),
    add: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, dict[str, Any]]:
    """Figures of some heads on a data set, single scale unless ``tta`` is on.

    Args:
        model: in evaluation mode.
        tasks: the heads to evaluate.
        fit: how photos are brought to the encoder.
        dataset: samples with the targets that the tasks need.
        encode: images (1, 3, H, W) -> taps, instead of the model's own encoder (a cache, say), for heads that see the
            whole photo once.
        progress: called with (done, total).
        protocol: run every photo as a published program does; ``fit`` and ``encode`` are then not used.
        tta: with the protocol's test-time augmentation.
        way: run every photo by windows, at several scales or mirrored; ``encode`` is then not used.
        watch: looks on, for a report.
        part: (i, n): every n-th photo from number i on, this process's share.
        add: sums a tensor over all processes in place, so that all of them have the figures of the whole data set.

    Returns:
        Per head what its metrics compute.

    Raises:
        DataError: if a head finds no target in the data set, or the set is empty.
    """
    if not len(dataset):
        raise DataError("the data set is empty; it needs at least one photo")
    device = model.mean.device
    metrics: dict[str, Metrics] = {name: task.new_metrics() for name, task in tasks.items()}
    if watch is not None:
        watch.begin(tasks)
    entropy = {name: 0.0 for name, task in tasks.items() if isinstance(task, Segmentation)}
    with torch.inference_mode():
        for index in range(part[0], len(dataset), part[1]):
            sample = dataset[index]
            example = as_example(sample)
            size = (sample.image.shape[0], sample.image.shape[1])
            outputs: dict[str, Source] = {}
            if protocol is not None:
                outputs = {
                    name: field(protocol, model, name, task, sample.image, tta=tta) for name, task in tasks.items()
                }
            elif way is not None and not way.plain_pass:
                outputs = dict(Runner(model, tasks, fit).fields(way, sample.image))
            else:
                for seen, heads in fit.passes(tasks):
                    if not seen.single_pass:
                        chosen = {name: tasks[name] for name in heads}
                        outputs |= Runner(model, chosen, fit).fields(InferenceOptions(), sample.image)
                        continue
                    image = fit_image(sample.image, seen.size_for(size, model.config.encoder.patch_size))
                    taps = (encode or model.encode)(image[None].to(device))
                    outputs |= {name: output.logits[0] for name, output in model.decode(taps, heads).items()}
            for name, task in tasks.items():
                target = task.read_target(example, dataset.classes)
                if target is None:
                    raise DataError(no_target(name, task, dataset))
                corners = model.decoder(name).align_corners
                prediction = decode(task, outputs[name], size, align_corners=corners)
                alone = task.new_metrics()  # of this image; sums of sums are those of all images at once
                alone.update(prediction.cpu()[None], target[None])
                metrics[name].merge(alone)
                if watch is not None:
                    place = (index, len(dataset), sample.name)
                    watch.see(name, place, sample.picture, target, prediction.cpu(), alone)
                if isinstance(task, Segmentation):
                    entropy[name] += mean_entropy(task, outputs[name], align_corners=corners)
            if progress is not None:
                progress(index + 1, len(dataset))
    if add is not None:
        for sums in (sums for values in metrics.values() for sums in values.state.values()):
            add(sums)
        entropy = {name: float(add(torch.tensor(total, dtype=torch.float64))) for name, total in entropy.items()}
    figures = {name: values.compute() for name, values in metrics.items()}
    for name, total in entropy.items():
        figures[name]["mean_entropy"] = total / len(dataset)
    return figures
