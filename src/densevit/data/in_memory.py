"""A data set of the user: any sequence of samples, made by a function that the config or a plug-in names."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from densevit.data.base import DataConfig, DataPath
from densevit.data.sample import ALL_TARGETS, ClassTable, Dataset, Sample, Target
from densevit.errors import ConfigError, DataError


class PythonConfig(DataConfig):
    """A data set in Python.

    Attributes:
        factory: ``module:function``; the module is imported from Python's path or the working directory.
        arguments: of the function, by name.
    """

    kind: Literal["python"] = "python"
    factory: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    @field_validator("factory")
    @classmethod
    def _check(cls, value: str) -> str:
        module, _, name = value.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), name)):
            raise ValueError("should be 'module:function', for example my_data:make_dataset")
        return value


class PluginConfig(DataConfig):
    """A data set that a function of the user makes, whose name is the kind.

    Attributes:
        root: given to the function as ``root``, if it is set.
        arguments: of the function, by name.
    """

    root: DataPath | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)


class PluginSplitConfig(PluginConfig):
    """The same for a function with the parameter ``split``."""

    split: Literal["train", "val", "test"] = "train"


DatasetRow = tuple[type[DataConfig], Callable[..., Dataset]]


def adapt_dataset(name: str, plugin: Any) -> DatasetRow:
    """A plug-in -> config class, and function that opens the data set.

    Args:
        name: its kind.
        plugin: a function that gives a ``Dataset``, with any of the parameters ``root`` and ``split`` and its own; or a
            pair of ``DataConfig`` and a function of such a config and ``targets``.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(plugin, tuple) and len(plugin) == 2:
        config, opens = plugin
        if isinstance(config, type) and issubclass(config, DataConfig) and callable(opens):
            return config, opens
    elif callable(plugin):
        kind = PluginSplitConfig if "split" in inspect.signature(plugin).parameters else PluginConfig
        return kind, lambda config, **options: _open_plugin(plugin, config, **options)
    raise ConfigError(
        f"data set {name!r} is {plugin!r:.80}; a function that gives a densevit.data.Dataset, or a pair of DataConfig "
        "and a function, is accepted"
    )


def _open_plugin(
    function: Callable[..., Any], config: PluginConfig, *, targets: frozenset[Target] = ALL_TARGETS
) -> Dataset:
    given = {key: value for key in ("root", "split") if (value := getattr(config, key, None)) is not None}
    name = f"data set {config.kind!r}"
    return PythonDataset(config, targets=targets, made=_call(name, function, {**config.arguments, **given}), name=name)


_FORMATS: dict[Target, tuple[str, int]] = {"labels": ("iu", 2), "depth": ("f", 2), "values": ("f", 3)}
"""Kinds of dtype that each target may have, and its number of axes."""


class PythonDataset:
    """A user's data set whose samples are checked, so that a mistake is reported before it breaks a step."""

    def __init__(
        self,
        config: DataConfig,
        *,
        targets: frozenset[Target] = ALL_TARGETS,
        made: Dataset | None = None,
        name: str | None = None,
    ) -> None:
        if made is None:
            assert isinstance(config, PythonConfig)
            made, name = make_dataset(config), config.factory
        self.dataset = made
        self.targets = targets
        self.name = name
        self.rule = config.rule(self.dataset.classes)

    @property
    def classes(self) -> ClassTable | None:
        """The classes of the user's data set, after merging and dropping."""
        return self.rule.classes if "labels" in self.targets else None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        """The sample, checked.

        Raises:
            DataError: if it is no sample, or has an image or a target of a wrong type or size.
        """
        sample = self.dataset[index]
        name = f"sample {index} of {self.name}"
        if not isinstance(sample, Sample):
            raise DataError(f"{name} is a {type(sample).__name__}; densevit.data.Sample is accepted; return one")
        _check_image(sample.image, name)
        targets: dict[str, Any] = {}
        for target, (dtypes, ndim) in _FORMATS.items():
            pixels = getattr(sample, target)
            if target not in self.targets or pixels is None:
                continue
            _check_target(pixels, sample.image, f"{name}: {target}", dtypes, ndim)
            if target == "values" and sample.normals and pixels.shape[2] != 3:
                raise DataError(f"{name} has normals of {pixels.shape[2]} components; x, y and z are needed; add them")
            if target == "labels":
                targets[target] = self.rule(pixels.astype(np.int32), name)
            else:
                targets[target] = pixels.astype(np.float32, copy=False)
        return Sample(sample.name, sample.image, **targets, normals=sample.normals, ignore_index=self.rule.ignore_index)


def make_dataset(config: PythonConfig) -> Dataset:
    """Import the module and call the function.

    Raises:
        ConfigError: if there is no such module or function, or it raises TypeError for the arguments.
        DataError: if it returns no data set.
    """
    module, _, name = config.factory.partition(":")
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))  # for good: worker processes import the module too
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"factory {config.factory!r} cannot be imported ({error}); a module on Python's path or in the working "
            "directory is accepted; check the name, or set PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"factory {config.factory!r}: {error}; name a function of the module") from error
    except (ImportError, SyntaxError) as error:
        raise ConfigError(f"factory {config.factory!r} cannot be imported ({error}); fix the module") from error
    return _call(f"factory {config.factory!r}", function, config.arguments)


def _call(name: str, function: Callable[..., Any], arguments: dict[str, Any]) -> Dataset:
    """Make the data set.

    Raises:
        ConfigError: the function raises TypeError for the arguments.
        DataError: it gives no data set.
    """
    try:
        dataset = function(**arguments)
    except TypeError as error:
        raise ConfigError(f"{name} was called with {arguments}: {error}; fix arguments") from error
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{name} gave a {type(dataset).__name__}; an object with len(), indexing and the "
            "attribute classes (a ClassTable or None) is accepted; see densevit.data.Dataset"
        )
    return dataset


def _check_image(image: Any, name: str) -> None:
    fits = isinstance(image, np.ndarray) and image.ndim == 3 and image.size > 0
    if not fits or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise DataError(
            f"{name}: image is {_describe(image)}; uint8, uint16 or float32 in [0, 1], (H, W, C), is accepted; "
            "convert it"
        )


def _check_target(target: Any, image: Any, name: str, kinds: str, ndim: int) -> None:
    if not isinstance(target, np.ndarray) or target.dtype.kind not in kinds or target.ndim != ndim:
        numbers = {"iu": "whole numbers", "f": "floats"}[kinds]
        raise DataError(
            f"{name} is {_describe(target)}; {numbers} with {ndim} axes, (H, W, ...), are accepted; convert it"
        )
    if target.shape[:2] != image.shape[:2]:
        raise DataError(
            f"{name} is {target.shape[0]} x {target.shape[1]} but the image {image.shape[0]} x {image.shape[1]}; "
            "both must have the same height and width"
        )


def _describe(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
