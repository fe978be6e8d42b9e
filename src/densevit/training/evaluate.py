"""Evaluation: every photo at its own size against its target; memory does not grow with the data set or the classes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from densevit.config import nearest
from densevit.data import DATASETS, Dataset, FolderConfig, FolderDataset, parse_data
from densevit.data.transforms import as_example
from densevit.errors import ConfigError, DataError
from densevit.inference.decode import Source, decode, mean_entropy
from densevit.inference.own import OwnWay, Runner
from densevit.inference.protocols import Protocol, field
from densevit.model import DenseModel
from densevit.pixels import FitConfig, fit_photo
from densevit.tasks import Metrics, Segmentation, Task
from densevit.training.batches import no_target
from densevit.training.watch import Watch
from densevit.types import Taps

Encode = Callable[[Tensor], Taps]


def evaluate(
    model: DenseModel,
    tasks: dict[str, Task],
    fit: FitConfig,
    dataset: Dataset,
    *,
    encode: Encode | None = None,
    progress: Callable[[int, int], None] | None = None,
    protocol: Protocol | None = None,
    tta: bool = False,
    way: OwnWay | None = None,
    watch: Watch | None = None,
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
                        outputs |= Runner(model, chosen, fit).fields(OwnWay(), sample.image)
                        continue
                    image = fit_photo(sample.image, seen.size_for(size, model.config.encoder.patch_size))
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


def open_for(places: dict[str, Any], kind: str) -> Dataset:
    """A data set with the targets of one kind of task; a plain folder unless ``places`` has another ``kind``.

    Raises:
        ConfigError: if no place is given.
        DataError: if there is no such data.
    """
    folder = {"segmentation": "masks", "depth": "depth", "regression": "values"}[kind]
    if not {"root", "images"} & places.keys():
        raise ConfigError(f"no data was named; give --data DIR, or --images DIR and --{folder} DIR")
    wanted = {
        "with_labels": kind == "segmentation",
        "with_depth": kind == "depth",
        "with_values": kind == "regression",
    }
    if places.get("kind", "folder") != "folder":
        try:
            other = parse_data(places)
        except ValueError as error:
            raise ConfigError(f"the data options (--data and --dataset): {error}") from None
        return DATASETS[other.kind][1](other, **wanted)
    config = FolderConfig.parse(places, source="the data options (--data or --images)")
    dataset = FolderDataset(config, **wanted)
    found = {"segmentation": dataset.masks, "depth": dataset.depths, "regression": dataset.values}[kind]
    if found is None:
        raise DataError(
            f"{config.root or config.images} has no folder {folder}/ for task {kind}; add it, or give --{folder} DIR"
        )
    return dataset


def choose_head(tasks: dict[str, Task], dataset: Dataset, kind: str, wanted: str | None) -> tuple[str, Dataset]:
    """The head to measure on a data set: the one named, else the one whose task and classes fit.

    A data set whose classes have no names takes those of the head.

    Raises:
        ConfigError: if none fits, or several do.
        DataError: if the classes differ from the named head's.
    """
    fitting = [name for name, task in tasks.items() if task.kind == kind]
    if wanted is not None:
        if wanted not in tasks:
            raise ConfigError(f"there is no decoder {wanted!r}{nearest(wanted, tasks)}")
        if wanted not in fitting:
            raise ConfigError(
                f"decoder {wanted!r} does {tasks[wanted].kind}, not {kind}; choose --task {tasks[wanted].kind}"
            )
        fitting = [wanted]
    table = dataset.classes
    if kind == "segmentation" and table is not None:
        fitting = [
            n for n in fitting if isinstance(t := tasks[n], Segmentation) and table.lookup(t.classes) is not None
        ]
    if not fitting and wanted is not None:
        raise DataError(no_target(wanted, tasks[wanted], dataset))
    if len(fitting) != 1:
        heads = ", ".join(f"{name} ({task.kind})" for name, task in tasks.items())
        found = "several decoders fit" if fitting else "no decoder fits"
        raise ConfigError(f"{found} this data set and task {kind}; the model has {heads}; name one with --decoder")
    task = tasks[fitting[0]]
    if table is None and isinstance(task, Segmentation) and isinstance(dataset, FolderDataset):
        dataset = FolderDataset(
            dataset.config.model_copy(update={"classes": task.classes, "ignore_index": task.ignore_index}),
            with_depth=False,
            with_values=False,
        )
    return fitting[0], dataset
