"""The metric of a workload on the val split of a data set, and how far its outputs are from those of another."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.checkpoints.open import open_model
from densevit.data.transforms import targets_of
from densevit.errors import ConfigError, DataError
from densevit.evaluation.run_data import Model, select
from densevit.evaluation.selection import read_target
from densevit_lab.benchmark.record import MetricRecord
from densevit_lab.benchmark.workloads import Workload


def measure_metric(
    workload: Workload, *, source: str, head: str, data: Path, limit: int | None, folder: Path, reference: bool
) -> MetricRecord:
    """Run a workload on the photos of a val split.

    Args:
        workload: gives labels or depth (H, W) of an image.
        source: the checkpoint whose head it runs, which says what its outputs mean.
        head: the head.
        data: the data set.
        limit: photos to measure on, spread over the split; all by default.
        folder: where the outputs of the reference are kept.
        reference: whether this workload is the reference.

    Raises:
        ConfigError, DataError: if the data are not there, or do not fit the head.
    """
    if not data.is_dir():
        raise DataError(f"there is no folder {data} to measure on; --data names that of camvid and nyuv2")
    bundle = open_model(source)
    if head not in bundle.tasks:
        raise ConfigError(f"{source} has no head {head!r}; it has {', '.join(bundle.tasks)}")
    task = bundle.tasks[head]
    chosen = select(Model(source, bundle.tasks, bundle.trained_on), task.kind, head, data, "val", {})
    metrics, differences = task.new_metrics(), []
    total = len(chosen.dataset)
    indices = sorted({number * total // limit for number in range(limit)}) if limit else range(total)
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        sample = chosen.dataset[index]
        output = np.ascontiguousarray(workload(sample.image))
        target = read_target(head, task, targets_of(sample), chosen.dataset)
        metrics.update(torch.from_numpy(output)[None], target[None])
        kept = folder / f"{index}.npy"
        if reference:
            np.save(kept, output)
        elif kept.exists():
            differences.append(difference(output, np.load(kept), values=task.class_table is None))
    figure = task.headline[0]
    facts: dict[str, Any] = {"figure": figure, "value": float(metrics.compute()[figure]), "photos": len(indices)}
    if differences:
        facts |= {"difference": float(np.mean(differences)), "largest_difference": float(np.max(differences))}
    return MetricRecord(**facts)


def difference(output: NDArray[Any], reference: NDArray[Any], *, values: bool) -> float:
    """The share of labels that differ; of values, the mean of the differences over the reference."""
    if not values:
        return float(np.mean(output != reference))
    scale = np.maximum(np.abs(reference), 1e-6)
    return float(np.mean(np.abs(output - reference) / scale))
