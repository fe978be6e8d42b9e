"""The native checkpoint: one safetensors file from which the model is rebuilt.

Its metadata hold, as JSON, the model's config, the tasks (class names, palette, unit, range), the inference config, and
the card (provenance, licence, metrics). Tensors are stored unchanged, in float16, or as int8 with one scale per output
channel; loading converts the latter two to float32.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from densevit.checkpoints.files import write_tensors
from densevit.config import Config, nearest
from densevit.errors import CheckpointError, ConfigError
from densevit.inference_config import InferenceConfig, Protocol, parse_protocol
from densevit.io import make_folder, to_json
from densevit.model import DenseModel, ModelConfig
from densevit.presets import preset
from densevit.tasks import Task, parse_task

FORMAT = 1
METADATA_KEY = "densevit"
SCALE_SUFFIX = ".int8_scale"

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


class Storage(Config):
    """Storage of tensors by patterns of their names (``encoder.blocks.*.weight``); float32 where none matches.

    Attributes:
        int8: per output channel; exact for weights that were dequantised from int8, else rounded.
        float16: rounded.
    """

    int8: tuple[str, ...] = ()
    float16: tuple[str, ...] = ()

    def kind(self, name: str, tensor: Tensor) -> Literal["int8", "float16", "plain"]:
        """The storage of a tensor; int8 is only for matrices and convolutions."""
        if tensor.is_floating_point():
            if tensor.ndim >= 2 and any(fnmatchcase(name, pattern) for pattern in self.int8):
                return "int8"
            if any(fnmatchcase(name, pattern) for pattern in self.float16):
                return "float16"
        return "plain"


class Header(Config):
    """The metadata of a native checkpoint."""

    format: int = FORMAT
    model: ModelConfig
    tasks: dict[str, AnyTask]
    fit: InferenceConfig = InferenceConfig()
    card: Card = Card()
    protocol: Protocol | None = None

    def plain(self) -> dict[str, Any]:
        """The metadata as plain data, without the key of an absent protocol."""
        data = super().plain()
        return data if self.protocol is not None else {key: data[key] for key in data if key != "protocol"}

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
    """

    model: DenseModel
    tasks: dict[str, Task]
    fit: InferenceConfig
    card: Card
    protocol: Protocol | None = None

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
    if unknown := [head for head in fit.heads if head not in model.heads]:
        raise ConfigError(f"fit.heads names {unknown[0]!r}{nearest(unknown[0], model.heads)}")


def preset_bundle(name: str) -> Bundle:
    """A preset's model with random weights and unnamed classes.

    Raises:
        ConfigError: if there is no such preset.
    """
    row = preset(name)
    (head,) = row.model["heads"]
    classes = {"classes": tuple(f"class {i}" for i in range(row.num_classes))} if row.task == "segmentation" else {}
    task = parse_task({"kind": row.task, **classes, **row.task_facts})
    model = DenseModel(ModelConfig.parse(row.model, source=f"preset {name}")).eval()
    card = Card(name=name, licence="Apache-2.0")
    return Bundle(model, {head: task}, InferenceConfig(short_side=row.short_side), card, parse_protocol(row.protocol))


def save_bundle(bundle: Bundle, path: Path, storage: Storage | None = None) -> None:
    """Write a native checkpoint, atomically.

    Raises:
        DataError: if the file cannot be written.
    """
    storage = storage or Storage()
    tensors: dict[str, Tensor] = {}
    for name, value in bundle.model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        kind = storage.kind(name, tensor)
        if kind == "int8":
            tensors[name], tensors[name + SCALE_SUFFIX] = quantise_rows(tensor)
        else:
            tensors[name] = tensor.half() if kind == "float16" else tensor
    header = Header(
        model=bundle.model.config, tasks=bundle.tasks, fit=bundle.fit, card=bundle.card, protocol=bundle.protocol
    )
    make_folder(path.parent)
    write_tensors(path, tensors, {METADATA_KEY: to_json(header.plain())})


def load_bundle(path: Path) -> Bundle:
    """Read a native checkpoint and rebuild its model, in evaluation mode on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, of another program, or does not fit its own config.
    """
    header = read_header(path)
    with torch.device("meta"):
        model = DenseModel(header.model)
    expected = model.state_dict()
    state: dict[str, Tensor] = {}
    with _open(path) as file:
        names = set(file.keys())
        for name in names:
            if name.endswith(SCALE_SUFFIX):
                continue
            tensor = file.get_tensor(name)
            if tensor.dtype == torch.int8 and name + SCALE_SUFFIX in names:
                tensor = dequantise_rows(tensor, file.get_tensor(name + SCALE_SUFFIX))
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    missing = sorted(set(expected) - set(state))
    unexpected = sorted(set(state) - set(expected))
    wrong = [n for n in expected if n in state and state[n].shape != expected[n].shape]
    if missing or unexpected or wrong:
        raise CheckpointError(
            f"{path} does not fit its own config: {len(missing)} tensors missing ({', '.join(missing[:3])}), "
            f"{len(unexpected)} unknown ({', '.join(unexpected[:3])}), {len(wrong)} of another shape "
            f"({', '.join(wrong[:3])}); download the file again"
        )
    model.to_empty(device="cpu")
    model.restore_normalisation()
    model.load_state_dict(state, assign=True)
    return Bundle(model.eval(), dict(header.tasks), header.fit, header.card, header.protocol)


def is_native(path: Path) -> bool:
    """Whether a file is a native checkpoint, even a damaged one."""
    try:
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
        data = json.loads(metadata[METADATA_KEY])
        newer = int(data.get("format", 0)) > FORMAT
        if not newer:
            return Header.parse(data, source=str(path))
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"the metadata of {path} are damaged ({error}); download the file again") from None
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    raise CheckpointError(f"{path} has format {data['format']} but this densevit reads up to {FORMAT}; update densevit")


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (out, ...) -> int8 of the same shape and float32 scales (out,).

    The scale is the largest magnitude over 127, or a neighbouring float if that reproduces the row exactly, so weights
    that were dequantised from int8 lose nothing.
    """
    rows = weight.float().flatten(1)
    base = rows.abs().amax(dim=1) / 127
    base = torch.where(base > 0, base, torch.ones_like(base))
    best_scale, best_error = base, torch.full_like(base, torch.inf)
    up, down = torch.full_like(base, torch.inf), torch.zeros_like(base)
    candidates = [base]
    for direction in (up, down):
        candidates += [base.nextafter(direction), base.nextafter(direction).nextafter(direction)]
    for scale in candidates:
        error = (_round_rows(rows, scale) * scale[:, None] - rows).abs().amax(dim=1)
        best_scale = torch.where(error < best_error, scale, best_scale)
        best_error = torch.minimum(error, best_error)
    return _round_rows(rows, best_scale).to(torch.int8).view(weight.shape), best_scale


def dequantise_rows(weight: Tensor, scale: Tensor) -> Tensor:
    """int8 (out, ...) and scales (out,) -> float32 weights."""
    return weight.float() * scale.view(-1, *[1] * (weight.ndim - 1))


def _round_rows(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows / scale[:, None]).round().clamp(-127, 127)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; give the path of a .safetensors file")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file ({error}); download it again") from None
