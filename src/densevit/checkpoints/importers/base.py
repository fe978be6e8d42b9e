"""What every importer gets and gives, and the named questions it may ask."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from densevit.checkpoints.rename import Renamed
from densevit.config import Config
from densevit.errors import CheckpointError
from densevit.inference_config import InferenceConfig, Protocol
from densevit.tasks import Task

Plain = dict[str, Any]
Release = Literal["midas", "kitti", "nyu", "v1", "v2", "hypersim", "vkitti"]
DatasetName = Literal["ade20k", "cityscapes", "pascal_context"]


class ImportOverrides(Config):
    """Facts that a person states because neither shapes nor a file beside the weights tell them.

    Attributes:
        num_heads: attention heads of the encoder.
        decoder_heads: attention heads of Segmenter's mask transformer.
        taps: 0-based indices of the encoder blocks that the decoder reads.
        aux_taps: 0-based block indices that the auxiliary heads read, where they have taps of their own.
        image_size: (height, width) of the training images in pixels, which gives the grid of learned positions.
        norm_eps: of the encoder's LayerNorms.
        readout: DPT's use of the class token.
        release: which of several releases with equal shapes: DPT depth "midas", "kitti" or "nyu"; Depth Anything "v1",
            "v2", "hypersim" or "vkitti".
        scale, shift, invert: constants of a DPT depth model, instead of a release.
        signed: a DPT depth model that may give negative values (``non_negative=False``).
        max_depth_m: of a metric Depth Anything, instead of a release.
        dataset: what a segmentation model was trained on: gives class names, normalisation stays.
    """

    num_heads: PositiveInt | None = None
    decoder_heads: PositiveInt | None = None
    taps: tuple[int, ...] | None = Field(default=None, min_length=1)
    aux_taps: tuple[int, ...] | None = None
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    norm_eps: PositiveFloat | None = None
    readout: Literal["ignore", "add", "project"] | None = None
    release: Release | None = None
    scale: float | None = None
    shift: float | None = None
    invert: bool | None = None
    signed: bool | None = None
    max_depth_m: PositiveFloat | None = None
    dataset: DatasetName | None = None


QUESTIONS = {
    "num_heads": "attention heads of the encoder",
    "decoder_heads": "attention heads of the decoder",
    "taps": "0-based indices of the blocks that the decoder reads",
    "aux_taps": "0-based indices of the blocks that the auxiliary heads read",
    "image_size": "height and width of the training images in pixels",
    "norm_eps": "epsilon of the encoder's LayerNorms",
    "readout": "use of the class token: ignore, add or project",
    "release": "which of the releases with these shapes it is",
}


@dataclass(frozen=True)
class Source:
    """Weights of others with everything that came along.

    Attributes:
        name: path or address, for messages.
        state: tensors by the source's names.
        side: plain data by kind: "variant.yml", "config.json", "preprocessor_config.json", "mmseg" (the config, from a
            file or from the checkpoint), "meta" (what else the checkpoint says).
        answers: explicit facts; they win over everything.
        file_name: of the weights; a published one identifies a release.
    """

    name: str
    state: Mapping[str, Tensor]
    side: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: ImportOverrides = field(default_factory=ImportOverrides)
    file_name: str = ""

    def has(self, pattern: str) -> bool:
        """Whether a tensor's name matches a pattern such as ``decoder.*``."""
        return any(fnmatchcase(name, pattern) for name in self.state)

    def facts(self, **candidates: Any) -> dict[str, Any]:
        """For every fact the person's answer, else the candidate; all that stay unknown are asked for together.

        Raises:
            CheckpointError: naming the options that answer.
        """
        found = {name: self.fact(name, value) for name, value in candidates.items()}
        unknown = [name for name, value in found.items() if value is None]
        if unknown:
            raise self.ask(*unknown)
        return found

    def fact(self, name: str, otherwise: Any = None) -> Any:
        """The person's answer, else what is known otherwise, which may be nothing."""
        answer = getattr(self.answers, name)
        return otherwise if answer is None else answer

    def ask(self, *names: str, hint: str = "") -> CheckpointError:
        """The error that asks for facts by their options."""
        missing = ", ".join(f"{name} ({QUESTIONS[name]})" for name in names)
        options = " and ".join(f"--{name.replace('_', '-')}" for name in names)
        keywords = ", ".join(f"{name}=..." for name in names)
        return CheckpointError(
            f"{self.name} does not say {missing}; shapes cannot tell, and no file beside it does; "
            f"{hint or 'put the config that belongs to it into the same folder, or '}"
            f"give {options} ({keywords} in Python)"
        )


@dataclass(frozen=True)
class ImportedParts:
    """What an importer makes of a source.

    Attributes:
        renamed: the tensors under our names, after all fixes.
        model: plain data of the ``ModelConfig``.
        task: of the one head.
        fit: densevit's own way to bring a photo to the encoder.
        protocol: the source's way.
        provenance: where the weights come from, for the card.
        absorbed: numbers in the file that have no parameter of their own: a bias folded into a running mean, the
            position of a token that is not in the sequence. Source name -> count and reason.
    """

    renamed: Renamed
    model: Plain
    task: Task
    fit: InferenceConfig
    protocol: Protocol
    provenance: str
    absorbed: Mapping[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Importer:
    """One source.

    Attributes:
        title: what it is called.
        marks: alternatives; each is patterns of tensor names that all must occur.
        read: makes our parts of it.
        beside: files that may lie beside the weights and say what shapes do not.
    """

    title: str
    marks: tuple[tuple[str, ...], ...]
    read: Callable[[Source], ImportedParts]
    beside: tuple[str, ...] = ()

    def recognises(self, source: Source) -> bool:
        """Whether the tensor names are those of this source."""
        return any(all(source.has(pattern) for pattern in mark) for mark in self.marks)


class Shapes:
    """Shapes of renamed tensors; what is absent or has another number of axes is an error of the file."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self.tensors, self.source = tensors, source

    def of(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            CheckpointError: if it is absent, empty, or has another number of axes.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.ndim != ndim or not tensor.numel():
            found = "no such tensor" if tensor is None else f"the shape {tuple(tensor.shape)}"
            raise CheckpointError(
                f"{self.source} has {found} for {name}, which needs {ndim} axes; it is cut or not what its names say; "
                "get a whole file"
            )
        return tuple(tensor.shape)

    def has(self, name: str) -> bool:
        """Whether a tensor of this name is there."""
        return name in self.tensors

    def count(self, template: str) -> int:
        """How many numbers n make ``template.format(n)`` the beginning of a name; they must run from 0.

        Raises:
            CheckpointError: if there are gaps.
        """
        head, tail = (re.escape(part) for part in template.split("{}"))
        found = {int(match[1]) for name in self.tensors if (match := re.match(rf"{head}(\d+){tail}", name))}
        if found != set(range(len(found))):
            raise CheckpointError(
                f"{self.source} has {template.format('N')} for N = {', '.join(map(str, sorted(found)[:8]))}, but they "
                "must run from 0 without gaps; it is cut or damaged; get a whole file"
            )
        return len(found)


def update(renamed: Renamed, tensors: Mapping[str, Tensor], notes: Mapping[str, str], *drop: str) -> Renamed:
    """A copy in which some tensors are replaced, with a note each, and others dropped."""
    kept = {name: tensor for name, tensor in renamed.tensors.items() if name not in drop}
    return replace(renamed, tensors=kept | dict(tensors), notes=renamed.notes | dict(notes))
