"""What the data mean, in one file that all commands use: dataset.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from densevit.config import merge, nearest, read_yaml
from densevit.data import DATASETS, FolderConfig, parse_data
from densevit.data.base import DataConfig
from densevit.data.discover import classes_of_pairs, discover, discover_in, has_shapes
from densevit.data.folder import read_classes
from densevit.data.pairs import KINDS, find_pairs
from densevit.data.relocation import portable
from densevit.data.templates import is_template
from densevit.errors import ConfigError, DataError
from densevit.io import ZipPath, place, write_bytes_atomic

DESCRIPTION = "dataset.yaml"
"""Name of the file in a data set's folder, and in a run folder."""

_SUFFIXES = {".yaml", ".yml"}
_PLACES = ("root", "images", "pairs")
_HEADING = "# What the data mean; for --data of densevit train, evaluate, tune and doctor.\n"


@dataclass(frozen=True, slots=True)
class Described:
    """A data set as a command understands it, to be shown before work begins.

    Attributes:
        config: without a split.
        remarks: sentences on what was found, assumed and passed over, each assumption with the key that changes it.
    """

    config: DataConfig
    remarks: tuple[str, ...] = ()


def describe(path: Path | None, *, number: bool = True, **given: Any) -> Described:
    """Read a dataset.yaml, or recognise the layout of a folder or zip archive; keys of ``given`` replace its own.

    Args:
        path: a dataset.yaml; a folder or zip archive, whose own dataset.yaml is used if there is one; None if
            ``given`` has the place of the data.
        number: name classes after the numbers in masks where two folders or a list of pairs are given and nothing names
            them; False leaves that open for the classes of a model.
        given: keys of the config of the data set; those that are None are not given. With a ``kind`` other than
            "folder", the path is the root of such a download.

    Raises:
        DataError: nothing is recognised, or several layouts are possible; the message lists them with their options.
        ConfigError: the file is not a description, or a key is unknown.
    """
    given = {key: value for key, value in given.items() if value is not None}
    if path is None:
        if not given.keys() & set(_PLACES):
            raise ConfigError("no data was named; give --data PATH, or --images and one of --masks, --depth, --values")
        config = _parsed(given, "the data options")
        return _apart(config, given, number) or _listed(config, given, number)
    _check_kind(given.get("kind", "folder"))
    path = place(path)
    if path.suffix.lower() in _SUFFIXES and not path.is_dir():
        return _read(path, given)
    if not path.exists():
        raise DataError(f"{path} does not exist; a folder, a zip archive or a dataset.yaml is accepted; check the path")
    if not path.is_dir():
        raise DataError(f"{path} is a file; a folder, a zip archive or a dataset.yaml is accepted; give one of them")
    if given.get("kind", "folder") != "folder":
        return Described(_parsed({"root": path, **given}, "the data options"))
    remarks: tuple[str, ...] = ()
    if (file := path / DESCRIPTION).is_file():
        if is_description(read_yaml(file)):
            return _read(file, given, f"described by {file}")
        remarks = (f"{file} is not a densevit description and is passed over",)
    config = _parsed({"root": path, **given}, "the data options")
    if "pairs" in given:
        found = _listed(config, {"root": path, **given}, number)
        return Described(found.config, (*remarks, *found.remarks))
    if _is_own_layout(path) and not given.keys() & {"images", *KINDS, "tasks"}:
        return Described(config, (*remarks, f"images/ and classes.json of {path}, in densevit's own layout"))
    found = discover(path, **given)
    return Described(found.config, (*remarks, *found.remarks))


def _apart(config: DataConfig, given: Mapping[str, Any], number: bool) -> Described | None:
    """Photos and masks in two given places, with what the masks tell of classes and background; None if nothing."""
    if not isinstance(config, FolderConfig) or config.root is not None or config.pairs is not None:
        return None
    places = [place(path) for path in (config.images, config.masks) if path is not None and not is_template(path)]
    if len(places) < 2 or not all(path.exists() and not isinstance(path, ZipPath) for path in places):
        return None
    if (config.classes or config.class_values or not number) and not has_shapes(places[1]):
        return None
    try:
        found = discover_in(places[0], places[1], given)
    except DataError:  # it is said better, with the names of photos and files, when they are read
        return None
    assert isinstance(found.config, FolderConfig)
    root = found.config.root or Path()
    places_found = {key: root / value for key in ("images", "masks") if (value := getattr(found.config, key))}
    # without a root, which would be the folder around both, such as a home
    return Described(found.config.model_copy(update={"root": None, **places_found}), found.remarks)


def _listed(config: DataConfig, given: Mapping[str, Any], number: bool) -> Described:
    """A list of pairs, with what its masks tell of the classes if nothing else does."""
    if not number or not isinstance(config, FolderConfig) or config.pairs is None or config.class_values:
        return Described(config)
    if read_classes(config) is not None:
        return Described(config)
    keys, remarks = classes_of_pairs(find_pairs(config), given)
    return Described(_parsed({**keys, **given}, "the data options"), tuple(remarks))


def _is_own_layout(root: Path) -> bool:
    """Whether somebody has arranged the files for densevit, so that nothing has to be recognised."""
    return (root / "images").is_dir() and (root / "classes.json").is_file()


def _check_kind(kind: str) -> None:
    if kind not in DATASETS or "split" not in DATASETS[kind][0].model_fields:
        kinds = [name for name, (config, _) in DATASETS.items() if "split" in config.model_fields]
        raise ConfigError(f"the data set kind {kind!r} has no root with splits{nearest(kind, kinds)}")


def is_description(data: Mapping[str, Any]) -> bool:
    """Whether a mapping is a densevit description, and not that of another program, such as YOLO."""
    return data.get("kind") in DATASETS or bool(data.keys() & FolderConfig.model_fields.keys())


def _read(file: Path, given: Mapping[str, Any], *remarks: str) -> Described:
    """Read a dataset.yaml, whose relative paths are relative to it."""
    data = read_yaml(file)
    if not is_description(data):
        raise ConfigError(
            f"{file} is not a densevit description: its keys are {', '.join(map(str, list(data)[:8])) or 'none'}; "
            f"one with {', '.join(_PLACES)} or kind is accepted; give the folder of the data instead"
        )
    kind = data.get("kind", "folder")
    if kind in DATASETS and "root" in DATASETS[kind][0].model_fields:
        data.setdefault("root", ".")
    config = _parsed(with_keys(data, {key: value for key, value in given.items() if key != "kind"}), str(file))
    if given.get("kind", config.kind) != config.kind:
        raise ConfigError(f"{file} has kind {config.kind!r} but --dataset is {given['kind']!r}; leave --dataset out")
    return Described(_beside(config, file.parent, given), remarks)


def with_keys(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A description with some keys replaced; keys of ``splits`` mean a new draw, so lists of names go."""
    old = dict(data)
    if "splits" in given and isinstance(splits := old.get("splits"), Mapping):
        old["splits"] = {key: value for key, value in splits.items() if key != "names"}
    return merge(old, given)


def _beside(config: DataConfig, folder: Path, given: Mapping[str, Any]) -> DataConfig:
    """The config with the relative paths that the file gives taken from its folder, or below the root if they are."""
    root = getattr(config, "root", None)
    if root is not None and "root" not in given:
        root = place(folder / root)
    found: dict[str, Any] = {} if root is None else {"root": root}
    for name, value in config:
        if name == "root" or name in given or not isinstance(value, Path) or is_template(value):
            continue
        below = None if root is None else place(root / value)
        found[name] = below if below is not None and below.exists() else place(folder / value)
    return config.model_copy(update=found)


def _parsed(data: Mapping[str, Any], source: str) -> DataConfig:
    """The config without a split.

    Raises:
        ConfigError: naming the source.
    """
    try:
        return without_split(parse_data(data))
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None


def without_split(config: DataConfig) -> DataConfig:
    """The config of all splits of a data set; that of a public one keeps its first."""
    field = type(config).model_fields.get("split")
    return config if field is None else config.model_copy(update={"split": field.default})


def write_description(config: DataConfig, path: Path, *, internal: bool = False) -> None:
    """Write a dataset.yaml, atomically; paths in its folder become relative to it. The split is left out.

    Args:
        config: the data set.
        path: the file.
        internal: it is part of a run folder, which replaces it without asking.

    Raises:
        DataError: there is a file that densevit did not write, or it cannot be written.
    """
    config = without_split(config)
    folder = path.parent.absolute()
    given = config.model_dump(mode="json", exclude_defaults=True, exclude={"kind", "split"})
    data: dict[str, Any] = {"kind": config.kind}
    for name, value in config:
        if isinstance(value, Path) and not is_template(value):
            data[name] = _relative(_found(value, config), folder)
        elif name in given or (name == "root" and value is None):
            data[name] = given.get(name)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    write_bytes_atomic(path, (_HEADING + text).encode(), internal=internal)


def _found(value: Path, config: DataConfig) -> Path:
    """A plain path as an absolute one: below the root if it is there, else from the working directory."""
    root: Path | None = getattr(config, "root", None)
    if root is not None and value is not root and (root / value).exists():
        value = root / value
    return value.absolute()


def _relative(path: Path, folder: Path) -> str:
    text = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
    return text.removesuffix("!")


def description_file(number: int) -> str:
    """The name in a run folder of the description of a source's data."""
    return DESCRIPTION if number == 0 else f"dataset-{number + 1}.yaml"


def differences(one: DataConfig, other: DataConfig) -> list[str]:
    """What differs between two descriptions, apart from where the files are, in sentences.

    Args:
        one: that of a run, for example.
        other: the one that is compared with it; each sentence says what it has instead.
    """
    if one.kind != other.kind:
        return [f"kind is {other.kind!r} instead of {one.kind!r}"]
    plains = [portable(without_split(config)) for config in (one, other)]
    sentences = []
    for key in type(one).model_fields:
        was, is_now = (plain.get(key) for plain in plains)
        if key in ("root", "split") or was == is_now:
            continue
        if key == "splits":
            sentences += _split_differences(was, is_now)
        else:
            sentences.append(f"{key} is {_shown(is_now)} instead of {_shown(was)}")
    return sentences


def _split_differences(one: Any, other: Any) -> list[str]:
    names = [dict((splits or {}).get("names") or {}) for splits in (one, other)]
    if not all(names):
        return [f"splits is {_shown(other)} instead of {_shown(one)}"]
    return [
        f"split {split} has {len(is_now)} photos instead of {len(was)}, {len(was & is_now)} of them the same"
        for split in dict.fromkeys([*names[0], *names[1]])
        if (was := set(names[0].get(split, ()))) != (is_now := set(names[1].get(split, ())))
    ]


def _shown(value: Any) -> str:
    text = "none" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
