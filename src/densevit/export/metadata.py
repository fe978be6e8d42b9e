"""What an exported file says about itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from densevit.checkpoints.native import Bundle
from densevit.inference_config import InferenceConfig
from densevit.tasks import Depth, Regression, Segmentation, Task
from densevit_runtime.metadata import HeadMetadata, Metadata


def describe(bundle: Bundle, fit: InferenceConfig, heads: Sequence[str], *, source: str, scores: bool) -> Metadata:
    """The metadata of some heads, not verified yet.

    Args:
        bundle: the model.
        fit: how its images are run.
        heads: names, in the order of the outputs.
        source: what the model was loaded from.
        scores: whether segmentation heads have scores.
    """
    card = bundle.card
    about: dict[str, Any] = {
        "description": card.description,
        "data_licence": card.data_licence,
        "provenance": list(card.provenance),
    }
    return Metadata(
        name=card.name or source,
        heads={
            head: _describe_head(
                bundle.tasks[head], fit.for_head(head).short_side, card.metrics.get(head), scores=scores
            )
            for head in heads
        },
        patch_size=bundle.model.config.encoder.patch_size,
        licence=card.licence,
        source=source,
        card={key: value for key, value in about.items() if value},
        trained_on=tuple(data.plain() for data in bundle.trained_on if {*data.heads} & {*heads}),
    )


def _describe_head(task: Task, short_side: int, metrics: Any, *, scores: bool) -> HeadMetadata:
    common: dict[str, Any] = {
        "task": task.kind,
        "short_side": short_side,
        "metrics": metrics if isinstance(metrics, Mapping) else {},
    }
    if isinstance(task, Segmentation):
        return HeadMetadata(
            **common,
            classes=task.classes,
            palette=task.palette,
            ignore_index=task.ignore_index,
            background=task.background,
            typical_entropy=task.typical_entropy,
            scores=scores,
            entropy=True,
        )
    if isinstance(task, Depth):
        return HeadMetadata(
            **common,
            unit=task.unit or None,
            min_depth_m=task.min_depth_m,
            max_depth_m=task.max_depth_m,
            relative=task.quantity == "disparity",
            canonical_focal_px=task.canonical_focal_px,
        )
    assert isinstance(task, Regression)
    return HeadMetadata(**common, unit=task.unit or None, channels=task.channels, unit_vectors=task.unit_vectors)
