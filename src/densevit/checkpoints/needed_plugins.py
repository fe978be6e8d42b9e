"""The decoders and tasks from outside the package that a checkpoint needs: kept in it, and asked for when it opens."""

from collections.abc import Mapping
from typing import Any

from densevit.decoders import DECODERS
from densevit.errors import CheckpointError
from densevit.model import ModelConfig
from densevit.plugins import PluginTable
from densevit.tasks import TASKS, Task

_TABLES: dict[str, PluginTable[Any]] = {table.what: table for table in (DECODERS, TASKS)}


def plugins_of(model: ModelConfig, tasks: Mapping[str, Task]) -> dict[str, str]:
    """Kind and name of every plug-in of a model, such as "decoder fpn" -> the package that it is from."""
    used = [(DECODERS, head.decoder.kind) for head in model.heads.values()]
    named: list[tuple[PluginTable[Any], str]] = [*used, *((TASKS, task.kind) for task in tasks.values())]
    return {f"{table.what} {name}": table.origins.get(name, "") for table, name in named if name not in table.builtin}


def check_plugins(needed: Any, source: object) -> None:
    """Refuse a checkpoint whose plug-ins are not here.

    Args:
        needed: what ``plugins_of`` gave, as it is stored; anything else is left to the check of the header.
        source: the checkpoint, for messages.

    Raises:
        CheckpointError: naming the first that is missing, and where it is from.
    """
    for key, package in needed.items() if isinstance(needed, dict) else ():
        what, _, name = str(key).partition(" ")
        table = _TABLES.get(what)
        if table is None or name in table:
            continue
        if isinstance(package, str) and package not in ("", "Python code"):
            where, advice = f"of the package {package!r:.80}", "install that package"
        else:
            where, advice = "that Python code added", f"add it with densevit.add_{what} before you load the model"
        raise CheckpointError(f"{source} needs the {what} {name!r:.80} {where}, which is not here; {advice}")
