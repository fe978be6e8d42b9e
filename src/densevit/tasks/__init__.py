"""The tasks. A new one is one file and one row in ``TASKS``; the key is its tag on disk."""

from collections.abc import Mapping
from typing import Any

from densevit.config import nearest
from densevit.tasks.base import Metrics, Task
from densevit.tasks.depth import Depth
from densevit.tasks.regression import Regression
from densevit.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    "segmentation": Segmentation,
    "depth": Depth,
    "regression": Regression,
}


def parse_task(data: Task | Mapping[str, Any]) -> Task:
    """Plain data -> the task that its ``kind`` names (a pydantic validator: raises ValueError)."""
    if isinstance(data, Task):
        return data
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in TASKS:
        raise ValueError(f"task kind {kind!r} is unknown{nearest(str(kind), TASKS)}")
    return TASKS[kind].model_validate(data)


__all__ = ["TASKS", "Depth", "Metrics", "Regression", "Segmentation", "Task", "parse_task"]
