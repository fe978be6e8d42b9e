"""Find the data to measure a model on: those of its run, read exactly as the run read them, or what else is asked for.

Figures are only comparable if the data meant the same, so whatever differs from the run is said.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densevit.checkpoints.native import TrainedOn
from densevit.config import nearest, read_yaml
from densevit.data import DataConfig, Dataset, FolderConfig, FolderDataset, parse_data
from densevit.data.description import (
    DESCRIPTION,
    Described,
    describe,
    description_file,
    differences,
    is_description,
    with_keys,
    without_split,
)
from densevit.data.discover import entered
from densevit.data.in_memory import PythonConfig
from densevit.data.relocation import check_harmless, relocated
from densevit.data.split_roles import split_names, with_drawn_names, with_split
from densevit.data.splits import SplitConfig, find_split, split_key
from densevit.errors import ConfigError, DataError
from densevit.evaluation.selection import choose_head, open_for
from densevit.io import place
from densevit.tasks import TASKS, Task

_PLACES = ("root", "images", "pairs")


@dataclass(frozen=True, slots=True)
class Selected:
    """A head and the data to measure it on.

    Attributes:
        head: its name.
        task: its kind.
        dataset: with its targets.
        config: of the data set, with the split.
        remarks: sentences on what was found and assumed.
        differs: what the data mean otherwise than in the run that trained the head, in sentences.
    """

    head: str
    task: str
    dataset: Dataset
    config: DataConfig
    remarks: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    @property
    def split(self) -> str | None:
        """The split that is measured."""
        split: str | None = getattr(self.config, "split", None)
        return split

    def record(self) -> dict[str, Any]:
        """What a file of figures says about the data."""
        source = getattr(self.config, "root", None) or getattr(self.config, "images", None) or self.config.kind
        differs = {"differs_from_run": list(self.differs)} if self.differs else {}
        return {"task": self.task, "data": str(source).removesuffix("!"), "split": self.split, **differs}

    @property
    def title(self) -> str:
        """Name of the data and their split, for headings."""
        return " ".join(filter(None, (Path(self.record()["data"]).name, self.split)))

    @property
    def messages(self) -> list[str]:
        """What to show before work begins."""
        return [*self.remarks, *(f"not as in the model's run: {sentence}" for sentence in self.differs)]


@dataclass(frozen=True, slots=True)
class Model:
    """What evaluation has to know of a model besides its weights.

    Attributes:
        source: as the user named it; empty for a model in memory.
        tasks: of its heads.
        trained_on: the data of its run.
    """

    source: str
    tasks: dict[str, Task]
    trained_on: tuple[TrainedOn, ...] = ()


def kind_to_measure(tasks: Mapping[str, Task], named: str | None) -> str:
    """The kind of task that is named, else that of all heads, else segmentation.

    Raises:
        ConfigError: if there is no such kind.
    """
    kinds = {task.kind for task in tasks.values()}
    kind = named or (kinds.pop() if len(kinds) == 1 else "segmentation")
    if kind not in TASKS:
        raise ConfigError(f"task {kind!r} is unknown{nearest(kind, TASKS.names())}")
    return kind


def select(
    model: Model,
    kind: str | None,
    head: str | None,
    data: Path | DataConfig | None,
    split: str | None,
    given: Mapping[str, Any],
) -> Selected:
    """The head to measure and its data.

    Args:
        model: the model.
        kind: of the task; by default that of all heads, or segmentation.
        head: its name; by default the one whose task and classes fit.
        data: folder, zip archive or dataset.yaml, or a config; without one, and without places in ``given``, the data
            of the run.
        split: by default that of the config, or of the run's evaluations.
        given: keys of the data set's config that replace those described.

    Raises:
        ConfigError: no head fits, or no data was named.
        DataError: the data are not there, or do not fit the head.
    """
    kind = kind_to_measure(model.tasks, kind)
    if isinstance(data, DataConfig):
        split = split or getattr(data, "split", None)
    heads = [name for name, task in model.tasks.items() if task.kind == kind] if head is None else [head]
    runs = [run for run in model.trained_on if set(run.heads) & set(heads)]
    if head is None and (len(runs) > 1 or (runs and not set(heads) <= set(runs[0].heads))):
        if _is_unnamed(data, given):
            raise ConfigError(f"heads {', '.join(heads)} learnt from several data sets; name one with --head")
        probe = open_for(_with_split(_described(data, given).config, None, split), kind)
        head = choose_head(model.tasks, probe, kind, None)[0]
        runs = [run for run in runs if head in run.heads]
    run = runs[0] if runs else None
    differs: tuple[str, ...] = ()
    try:
        opened = _opened_as_in_run(run, kind, data, split, given)
    except (DataError, ConfigError) as error:
        opened = None
        differs = (f"{data} is not laid out as the data of the run were ({str(error).partition(';')[0]})",)
    if opened is None:
        described = _of_run_folder(model, run, given) if _is_unnamed(data, given) else _described(data, given)
        config, remarks = _as_measured(described.config, run, split)
        opened = open_for(config, kind), config, (*described.remarks, *remarks)
    dataset, config, remarks = opened
    name, dataset = choose_head(model.tasks, dataset, kind, head)
    if isinstance(config, FolderConfig) and isinstance(dataset, FolderDataset):  # the head may know the background
        config = config.model_copy(update={"background": dataset.config.background})
    return Selected(name, kind, dataset, config, remarks, differs + _differences(run, config))


def _described(data: Path | DataConfig | None, given: Mapping[str, Any]) -> Described:
    return Described(without_split(data)) if isinstance(data, DataConfig) else describe(data, number=False, **given)


def _is_unnamed(data: Path | DataConfig | None, given: Mapping[str, Any]) -> bool:
    return data is None and not given.keys() & set(_PLACES)


def _opened_as_in_run(
    run: TrainedOn | None, kind: str, data: Path | DataConfig | None, split: str | None, given: Mapping[str, Any]
) -> tuple[Dataset, DataConfig, tuple[str, ...]] | None:
    """A folder or archive read as in the run; None if there is no run, or other data are named or described.

    Raises:
        DataError, ConfigError: it does not hold such data.
    """
    if run is None or not isinstance(data, Path) or given.get("kind", run.train.get("kind")) != run.train.get("kind"):
        return None
    root = place(data)
    if not root.is_dir() or ((file := root / DESCRIPTION).is_file() and is_description(read_yaml(file))):
        return None
    named = root / str(run.train.get("root") or ".")  # a folder or archive around the run's root
    for inner in dict.fromkeys((named, entered(root))):
        if inner != root and inner.is_dir():
            with suppress(DataError, ConfigError):
                return _opened_at(inner, run, kind, split, given)
    return _opened_at(root, run, kind, split, given)


def _opened_at(
    root: Path, run: TrainedOn, kind: str, split: str | None, given: Mapping[str, Any]
) -> tuple[Dataset, DataConfig, tuple[str, ...]]:
    try:
        check_harmless(_plain(run))
        config = parse_data(with_keys(_evaluated(run, root).plain(), given))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    config, remarks = _as_measured(config, run, split)
    return open_for(config, kind), config, remarks


def _of_run_folder(model: Model, run: TrainedOn | None, given: Mapping[str, Any]) -> Described:
    """The data of the run whose folder holds the model, where they were."""
    source = Path(model.source).expanduser()
    folder = source if source.is_dir() else source.parent
    file = folder / description_file(0 if run is None else model.trained_on.index(run))
    # Any folder may have a dataset.yaml, but only that of a run also has a config.yaml.
    in_run = bool(model.source) and source.exists() and (folder / "config.yaml").is_file()
    if run is None or not in_run or not file.is_file():
        raise ConfigError(
            "no data was named; give --data PATH, or --images and one of --masks, --depth and --values; only a model "
            "in its run folder knows where its data are"
        )
    described = describe(file, number=False, **given)
    if isinstance(described.config, PythonConfig):
        raise ConfigError(f"the data of the run come from Python code, which is run only on demand; give --data {file}")
    root = getattr(described.config, "root", None)
    if root is not None and not root.exists():
        raise DataError(f"the data of the run were in {root}, which is not there; name their place with --data DIR")
    return replace(described, remarks=(f"those of the run, in {root or file}", *described.remarks))


def _plain(run: TrainedOn) -> dict[str, Any]:
    """The description of the data of a run's evaluations, or else of its training."""
    return {key: value for key, value in {**run.train, **(run.val or {})}.items() if value is not None}


def _evaluated(run: TrainedOn, root: Path) -> DataConfig:
    """The data of a run's evaluations below another root.

    Raises:
        ConfigError: the checkpoint's description is not one that densevit writes.
    """
    try:
        return relocated(_plain(run), root)
    except ValueError as error:
        raise ConfigError(f"the checkpoint's description of its data cannot be read: {error}") from None


def _as_measured(config: DataConfig, run: TrainedOn | None, split: str | None) -> tuple[DataConfig, tuple[str, ...]]:
    """The config with lists of drawn names, and with the split to measure.

    Data that have no splits get the run's, since most of their photos may be what the model learnt from.
    """
    remarks: tuple[str, ...] = ()
    splits = None if run is None else run.train.get("splits")
    if splits and isinstance(config, FolderConfig) and config.splits is None and not split_names(config):
        config = config.model_copy(update={"splits": SplitConfig.parse(splits)})
        remarks = ("the data have no splits; those of the run are taken; set splits to change it",)
    config = with_drawn_names(config)
    return _with_split(config, run, split), remarks


def _with_split(config: DataConfig, run: TrainedOn | None, split: str | None) -> DataConfig:
    if split is not None or run is None or "split" not in type(config).model_fields:
        return with_split(config, split)
    names = split_names(config)
    learnt = _plain(run).get("split") if run.val else None
    chosen = learnt if learnt in names else find_split("val", names) or find_split("test", names)
    return with_split(config, chosen)


def _differences(run: TrainedOn | None, config: DataConfig) -> tuple[str, ...]:
    if run is None:
        return ()
    root = getattr(config, "root", None) or Path()
    found = differences(_evaluated(run, root), config)
    was = _plain(run).get("split") if run.val else None
    split = getattr(config, "split", None)
    if was is not None and (split is None or split_key(split) != split_key(was)):
        found.append(f"split is {split!r} instead of {was!r}")
    return tuple(found)
