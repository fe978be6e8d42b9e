"""What to evaluate: a data set with the targets of a task, and the head whose task and classes fit it."""

from collections.abc import Mapping

from torch import Tensor

from densevit.config import nearest
from densevit.data import DATASETS, DataConfig, Dataset, FolderDataset
from densevit.data.folder import read_classes
from densevit.data.sample import TARGET_FOLDERS
from densevit.data.transforms import Targets, targets_of
from densevit.errors import ConfigError, DataError
from densevit.tasks import TASKS, Task
from densevit.tasks.segmentation import Segmentation


def open_for(config: DataConfig, kind: str) -> Dataset:
    """The data set with the targets of one kind of task.

    Raises:
        DataError: if there is no such data, or a background is named for data without shapes.
    """
    target = TASKS[kind].target
    dataset = DATASETS[config.kind][1](config, targets=frozenset({target}))
    if not isinstance(dataset, FolderDataset):
        return dataset
    given, folder = dataset.config, TARGET_FOLDERS[target]
    if target not in dataset.targets:
        raise DataError(
            f"{given.root or given.images} has no folder {folder}/ for task {kind}; add it, or give --{folder} DIR"
        )
    if given.background is not None and not dataset.has_shapes:
        raise DataError(
            f"background is {given.background!r}, the class of pixels that no shape covers, but "
            f"{given.root or given.images} has no shapes of COCO or labelme; leave it out"
        )
    return dataset


def choose_head(tasks: dict[str, Task], dataset: Dataset, kind: str, wanted: str | None) -> tuple[str, Dataset]:
    """The head to evaluate on a data set: the one named, else the one whose task and classes fit.

    A data set without class names gets those of the head.

    Raises:
        ConfigError: if none fits, or several do.
        DataError: if the classes differ from the named head's.
    """
    fitting = [name for name, task in tasks.items() if task.kind == kind]
    if wanted is not None:
        if wanted not in tasks:
            raise ConfigError(f"there is no head {wanted!r}{nearest(wanted, tasks)}")
        if wanted not in fitting:
            raise ConfigError(
                f"head {wanted!r} does {tasks[wanted].kind}, not {kind}; choose --task {tasks[wanted].kind}"
            )
        fitting = [wanted]
    views = {name: _with_background(dataset, tasks[name]) for name in fitting}
    if dataset.classes is not None:
        fitting = [name for name in fitting if _fits(tasks[name], views[name])]
    if not fitting and wanted is not None:
        raise DataError(_no_target(wanted, tasks[wanted], dataset))
    if len(fitting) != 1:
        heads = ", ".join(f"{name} ({task.kind})" for name, task in tasks.items())
        problem = "several heads fit" if fitting else "no head fits"
        raise ConfigError(f"{problem} this data set and task {kind}; the model has {heads}; name one with --head")
    task, dataset = tasks[fitting[0]], views[fitting[0]]
    if dataset.classes is None and task.class_table is not None and isinstance(dataset, FolderDataset):
        classes = {"classes": task.class_table.names, "ignore_index": task.class_table.ignore_index}
        dataset = FolderDataset(dataset.config.model_copy(update=classes), targets=frozenset({task.target}))
    return fitting[0], dataset


def _fits(task: Task, dataset: Dataset) -> bool:
    """Whether a data set has the classes of a task; a task without classes fits any."""
    if task.class_table is None or dataset.classes is None:
        return True
    return dataset.classes.lookup(task.class_table.names) is not None


def _with_background(dataset: Dataset, task: Task) -> Dataset:
    """A data set of shapes, with the background class that the task learnt; any other is unchanged."""
    background = task.background if isinstance(task, Segmentation) else None
    if background is None or not isinstance(dataset, FolderDataset) or not dataset.has_shapes:
        return dataset
    listed = read_classes(dataset.config)
    if dataset.config.background is not None or (listed is not None and background not in listed.names):
        return dataset
    changed = dataset.config.model_copy(update={"background": background})
    return FolderDataset(changed, targets=frozenset({task.target}))


def check_targets(dataset: Dataset, tasks: Mapping[str, Task]) -> None:
    """Read one sample to check that it has a target for every head.

    Raises:
        DataError: if it has not, or the data set is empty.
    """
    if not len(dataset):
        raise DataError("the data set is empty; it needs at least one photo")
    targets = targets_of(dataset[0])
    for head, task in tasks.items():
        read_target(head, task, targets, dataset)


def read_target(head: str, task: Task, targets: Targets, dataset: Dataset) -> Tensor:
    """The target of a head, in its task's terms.

    Raises:
        DataError: if the data set has none for it.
    """
    target = task.read_target(targets, dataset.classes)
    if target is None:
        raise DataError(_no_target(head, task, dataset))
    return target


def _no_target(head: str, task: Task, dataset: Dataset) -> str:
    """The message for a data set without targets for a head."""
    if task.target != "labels":
        return f"head {head!r} needs {task.kind} targets but the data set has none; add the folder, or drop the head"
    if dataset.classes is None:
        return f"head {head!r} needs masks but the data set has none; add a folder masks/, or drop the head"
    views = [dataset.classes.names, *(names for names, _ in dataset.classes.views.values())]
    wanted = () if task.class_table is None else task.class_table.names
    return (
        f"head {head!r} has classes {', '.join(wanted)} but the data set has "
        f"{' or '.join(', '.join(names[:8]) + (', ...' if len(names) > 8 else '') for names in views)}; "
        "use the data set's names in its order, or add a view to classes.json"
    )


def open_dataset(config: DataConfig, heads: tuple[str, ...], tasks: dict[str, Task]) -> Dataset:
    """The data set, reading only the targets that the heads need."""
    return DATASETS[config.kind][1](config, targets=frozenset(tasks[head].target for head in heads))


def spread(total: int, limit: int | None) -> list[int]:
    """At most ``limit`` indices of 0..total-1, evenly spread.

    Raises:
        ConfigError: for a limit below one.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit is {limit}; at least one photo is needed; raise it or leave it out")
    count = total if limit is None else min(limit, total)
    return [i * total // count for i in range(count)]
