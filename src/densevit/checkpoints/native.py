"""The native checkpoint: one safetensors file from which the model is rebuilt.

Its metadata hold, as JSON, the model's config, the tasks (class names, palette, unit, range), the inference config, the
card (provenance, licence, metrics), and the description of the data that the heads learnt from. Tensors are stored
unchanged, in float16, or as int8 with one scale per output channel; loading converts the latter two to float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from densevit.checkpoints.files import is_finite, write_tensors
from densevit.checkpoints.native_tensors import SCALE_SUFFIX, check_shapes, exact_storage, quantise_rows, read_tensor
from densevit.checkpoints.needed_plugins import check_plugins, plugins_of
from densevit.checkpoints.prefixes import some
from densevit.checkpoints.shipped import with_additions
from densevit.config import Config, nearest
from densevit.errors import CheckpointError, ConfigError
from densevit.inference_config import InferenceConfig, Protocol
from densevit.io import make_folder, to_json
from densevit.model import DenseModel, ModelConfig
from densevit.plain_data import parse_json_config
from densevit.tasks import Task, parse_task

FORMAT = 3
"""Format 3 has ``fit.fast``, format 2 ``trained_on`` or ``plugins``; a file has the lowest that it needs."""
METADATA_KEY = "densevit"

AnyTask = Annotated[SerializeAsAny[Task], BeforeValidator(parse_task)]


class Card(Config):
    """Information on the weights for people.

    Attributes:
        licence: of the weights.
        provenance: the weights, code and data that they were made from.
        data_licence: terms of the training data, as stated by their sources.
        metrics: measured values by head.
    """

    name: str = ""
    description: str = ""
    licence: str = "unknown"
    data_licence: str = ""
    provenance: tuple[str, ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)


class TrainedOn(Config):
    """The description of the data that some heads learnt from, without the place of its files.

    Attributes:
        heads: names of heads.
        train: the config of their data set, in the form of ``densevit.data.relocation.portable``.
        val: the keys in which that of their last evaluation differs, usually its ``split``; None if there was none.
    """

    heads: tuple[str, ...]
    train: dict[str, Any]
    val: dict[str, Any] | None = None


class Storage(Config):
    """Storage of tensors by patterns of their names (``encoder.blocks.*.weight``); float32 where none matches.

    Attributes:
        int8: per output channel; exact for weights that were dequantised from int8, else rounded.
        float16: rounded.
        lossless: int8 or float16 for each tensor that it reproduces to the bit, such as those of an encoder that was
            stored so.
    """

    int8: tuple[str, ...] = ()
    float16: tuple[str, ...] = ()
    lossless: tuple[str, ...] = ()

    def kind(self, name: str, tensor: Tensor) -> Literal["int8", "float16", "plain"]:
        """The storage of a tensor; int8 is only for matrices and convolutions."""
        if tensor.is_floating_point():
            if tensor.ndim >= 2 and any(fnmatchcase(name, pattern) for pattern in self.int8):
                return "int8"
            if any(fnmatchcase(name, pattern) for pattern in self.float16):
                return "float16"
            if any(fnmatchcase(name, pattern) for pattern in self.lossless):
                return exact_storage(tensor)
        return "plain"


class Header(Config):
    """The metadata of a native checkpoint."""

    format: int = Field(default=1, ge=1)
    model: ModelConfig
    tasks: dict[str, AnyTask]
    fit: InferenceConfig = InferenceConfig()
    card: Card = Card()
    protocol: Protocol | None = None
    trained_on: tuple[TrainedOn, ...] = ()
    plugins: dict[str, str] = Field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The metadata as plain data, without the keys of what is absent."""
        absent = {key for key in ("protocol", "trained_on", "plugins") if not getattr(self, key)}
        return {key: value for key, value in super().plain().items() if key not in absent}

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            check_tasks(self.model, self.tasks, self.fit)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


@dataclass(frozen=True)
class Bundle:
    """A model with everything that gives its outputs meaning.

    Attributes:
        protocol: how the program of an imported checkpoint runs the model; None for native models.
        trained_on: the data that the heads learnt from, as far as it is known.
    """

    model: DenseModel
    tasks: dict[str, Task]
    fit: InferenceConfig
    card: Card
    protocol: Protocol | None = None
    trained_on: tuple[TrainedOn, ...] = ()

    def __post_init__(self) -> None:
        """Check that every head has a task of its width."""
        check_tasks(self.model.config, self.tasks, self.fit)


def check_tasks(model: ModelConfig, tasks: Mapping[str, Task], fit: InferenceConfig) -> None:
    """Refuse heads without a task, tasks without a head, widths that differ, and settings for unknown heads.

    Raises:
        ConfigError: naming them.
    """
    if set(model.heads) != set(tasks):
        raise ConfigError(f"heads are {sorted(model.heads)} but tasks are {sorted(tasks)}; give one task for each head")
    for name, head in model.heads.items():
        if head.out_channels != tasks[name].out_channels:
            raise ConfigError(
                f"head {name!r} has {head.out_channels} output channels but its task needs {tasks[name].out_channels}"
            )
    for key in ("heads", "fast"):
        if unknown := [head for head in getattr(fit, key) if head not in model.heads]:
            raise ConfigError(f"fit.{key} names {unknown[0]!r}{nearest(unknown[0], model.heads)}")


def save_bundle(
    bundle: Bundle,
    path: Path,
    storage: Storage | None = None,
    *,
    stored: dict[str, Tensor] | None = None,
    internal: bool = False,
) -> None:
    """Write a native checkpoint, atomically.

    Args:
        bundle: what is written.
        path: the file.
        storage: how its tensors are stored.
        stored: for several checkpoints of one frozen encoder, whose tensors are converted once: those of the first
            are put here, and taken from here for the others.
        internal: see ``densevit.io.atomic_path``.

    Raises:
        DataError: if the file cannot be written.
    """
    storage = storage or Storage()
    tensors: dict[str, Tensor] = {}
    known = {} if stored is None else dict(stored)
    for name, value in bundle.model.state_dict().items():
        if name in known:
            tensors |= {key: known[key] for key in (name, name + SCALE_SUFFIX) if key in known}
            continue
        tensor = value.detach().cpu().contiguous()
        kind = storage.kind(name, tensor)
        if kind == "int8":
            tensors[name], tensors[name + SCALE_SUFFIX] = quantise_rows(tensor)
        else:
            tensors[name] = tensor.half() if kind == "float16" else tensor
    if stored is not None and not known:
        stored.update({name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")})
    plugins = plugins_of(bundle.model.config, bundle.tasks)
    header = Header(
        format=3 if bundle.fit.fast else 2 if bundle.trained_on or plugins else 1,
        model=bundle.model.config,
        tasks=bundle.tasks,
        fit=bundle.fit,
        card=bundle.card,
        protocol=bundle.protocol,
        trained_on=bundle.trained_on,
        plugins=plugins,
    )
    make_folder(path.parent)
    write_tensors(path, tensors, {METADATA_KEY: to_json(header.plain())}, internal=internal)


def load_bundle(path: Path) -> Bundle:
    """Read a native checkpoint and rebuild its model, in evaluation mode on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, of another program, or does not fit its own config.
    """
    header = read_header(path)
    with _open(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
        scales = {name for name in shapes if name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) in shapes}
        # Before any module is made: each block and branch has a tensor, so the file says how many there can be.
        if header.model.num_parts > len(shapes):
            raise CheckpointError(
                f"{path} has {len(shapes)} tensors, but its config claims {header.model.num_parts:,} blocks and "
                "branches; it is damaged or hostile; download the file again"
            )
        try:
            with torch.device("meta"):
                model = DenseModel(header.model)
        except ConfigError as error:
            raise CheckpointError(f"{path} does not fit its own config: {error}; download the file again") from None
        expected = model.state_dict()
        check_shapes(path, {name: shapes[name] for name in shapes if name not in scales}, expected)
        state = {name: read_tensor(file, name, expected[name], path, scales) for name in expected}
    if bad := [name for name, tensor in state.items() if not is_finite(tensor)]:
        raise CheckpointError(
            f"{path} has NaN or infinity in {some(bad)}; weights must be finite; get another copy, or train again"
        )
    model.to_empty(device="cpu")
    model.restore_normalisation()
    model.load_state_dict(state, assign=True)
    return Bundle(model.eval(), dict(header.tasks), header.fit, header.card, header.protocol, header.trained_on)


def is_native(path: Path) -> bool:
    """Whether a file is a native checkpoint, even a damaged one."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with safe_open(path, framework="pt") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_header(path: Path) -> Header:
    """The metadata, without reading the weights.

    Raises:
        CheckpointError: if the file is no native checkpoint, damaged, or of a newer format.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file of another program; a densevit checkpoint has its config inside; "
            "for pre-trained encoder weights set encoder_weights in a training config"
        )
    try:
        data = with_additions(metadata[METADATA_KEY], parse_json_config(metadata[METADATA_KEY]))
        newer = int(data.get("format", 0)) > FORMAT
        if not newer:
            check_plugins(data.get("plugins"), path)
            return Header.parse(data, source=str(path))
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"the metadata of {path} are damaged ({error}); download the file again") from None
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    raise CheckpointError(f"{path} has format {data['format']} but this densevit reads up to {FORMAT}; update densevit")


def _open(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; give the path of a .safetensors file")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file ({error}); download it again") from None
