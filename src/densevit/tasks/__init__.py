"""The tasks. A new one is one file and one row in ``TASKS``; the key is its tag on disk.

Others come from outside the package, see ``densevit.plugins``.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from densevit.errors import ConfigError
from densevit.plugins import PluginTable
from densevit.tasks.base import Metrics, Task
from densevit.tasks.depth import Depth
from densevit.tasks.regression import Regression
from densevit.tasks.segmentation import Segmentation


def adapt_task(name: str, plugin: Any) -> type[Task]:
    """A plug-in, a subclass of ``Task`` whose ``kind`` is its name.

    Raises:
        ConfigError: it is none, or lacks something.
    """
    if not (isinstance(plugin, type) and issubclass(plugin, Task)):
        raise ConfigError(f"task {name!r} is {plugin!r:.80}; a subclass of densevit.tasks.Task is accepted")
    if inspect.isabstract(plugin):
        raise ConfigError(f"task {name!r} lacks {', '.join(sorted(plugin.__abstractmethods__))}; define them")
    for attribute in ("target", "headline"):
        if not hasattr(plugin, attribute):
            raise ConfigError(f"task {name!r} has no {attribute}; define it, as densevit.tasks.Task says")
    if (kind := plugin.model_fields["kind"].default) != name:
        raise ConfigError(f"task {name!r} has the kind {kind!r}; both must be equal; write kind: Literal[{name!r}]")
    return plugin


_BUILTIN: dict[str, type[Task]] = {"segmentation": Segmentation, "depth": Depth, "regression": Regression}
TASKS = PluginTable("task", _BUILTIN, adapt_task)


def parse_task(data: Task | Mapping[str, Any]) -> Task:
    """Plain data -> the task that its ``kind`` names (a pydantic validator: raises ValueError)."""
    if isinstance(data, Task):
        return data
    return TASKS.named_in(data).model_validate(data)


__all__ = ["TASKS", "Depth", "Metrics", "Regression", "Segmentation", "Task", "parse_task"]
