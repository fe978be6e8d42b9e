"""Which split of a data set is for training, which for evaluation, and draws that all commands repeat exactly."""

from typing import get_args

from densevit.data import parse_data
from densevit.data.base import DataConfig
from densevit.data.folder import FolderConfig
from densevit.data.pairs import find_pairs
from densevit.data.splits import SplitConfig, find_split, split_key
from densevit.errors import ConfigError, DataError
from densevit.limits import limits


def split_names(config: DataConfig) -> list[str]:
    """The splits of a data set, train first; none if it has none, or its kind knows none.

    Raises:
        DataError: there is no such folder or file.
    """
    if isinstance(config, FolderConfig):
        return find_pairs(config.model_copy(update={"split": None})).splits()
    field = type(config).model_fields.get("split")
    return [] if field is None else [str(name) for name in get_args(field.annotation)]


def with_split(config: DataConfig, split: str | None) -> DataConfig:
    """The config of one split; unchanged for None.

    Raises:
        ConfigError: if a data set of this kind has no such split.
    """
    if split is None or isinstance(config, FolderConfig):
        return config if split is None else config.model_copy(update={"split": split})
    try:
        return parse_data({**config.plain(), "split": split})
    except ValueError as error:
        raise ConfigError(f"the data options (--data and --dataset): {error}") from None


def with_drawn_names(config: DataConfig) -> DataConfig:
    """The config with the names that its draw of splits gives in place of the draw.

    Whoever reads it, on any machine and after photos were added, gets the same photos. A draw of more names than a
    config may hold stays as it is.

    Raises:
        DataError: there is no such folder or file.
    """
    if not isinstance(config, FolderConfig) or config.splits is None or config.splits.names is not None:
        return config
    names: dict[str, list[str]] = {"val": []}
    for pair in find_pairs(config.model_copy(update={"split": None})).pairs:
        if split_key(pair.split) != "train":
            names.setdefault(pair.split, []).append(pair.name)
    if sum(map(len, names.values())) > limits().nodes // 8:
        return config
    lists = {split: tuple(listed) for split, listed in names.items() if listed}
    return config.model_copy(update={"splits": SplitConfig(names=lists)})


def with_default_draw(config: FolderConfig) -> tuple[FolderConfig, list[str]]:
    """The config, which draws splits if the data have none, and remarks on that.

    Raises:
        DataError: there is no such folder or file.
    """
    if config.splits is not None or split_names(config):
        return config, []
    draw = SplitConfig()
    return config.model_copy(update={"splits": draw}), [
        f"no splits: {draw.val:.0%} of the photos are drawn for val (seed {draw.seed}); set splits, or --split-by, to "
        "change it"
    ]


def training_splits(config: DataConfig) -> tuple[DataConfig, DataConfig | None, list[str]]:
    """The configs of the splits to train on and to evaluate on, if there is one, and remarks on them.

    A data set without splits gets drawn ones.

    Raises:
        DataError: it has splits, but none to train on.
    """
    remarks: list[str] = []
    if isinstance(config, FolderConfig):
        config, remarks = with_default_draw(config)
        config = with_drawn_names(config)
    names = split_names(config)
    train, val = find_split("train", names), find_split("val", names)
    if names and train is None:
        raise DataError(
            f"the data have the splits {', '.join(names)}, and none to train on; one called train is needed; rename "
            "one, or name photos in splits"
        )
    if val is None:
        remarks.append("no split val: the run is not evaluated; add one, or set splits to draw it")
        return with_split(config, train), None, remarks
    return with_split(config, train), with_split(config, val), remarks
