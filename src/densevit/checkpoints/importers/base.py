"""What every importer takes and returns, the tasks of published models, and the error for facts that are missing."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from densevit.checkpoints.rename import Renamed, Rule, rename
from densevit.checkpoints.shapes import Shapes, encoder_from_shapes
from densevit.config import Config
from densevit.data.class_names import ADE20K, CITYSCAPES, PASCAL_CONTEXT
from densevit.errors import CheckpointError
from densevit.inference_config import Protocol
from densevit.tasks import Depth, Segmentation, Task

_log = logging.getLogger(__name__)

Plain = dict[str, Any]
Release = Literal["midas", "kitti", "nyu", "v1", "v2", "hypersim", "vkitti", "mono", "metric"]
DatasetName = Literal["ade20k", "cityscapes", "pascal_context"]
CLASS_NAMES = {"ade20k": ADE20K, "cityscapes": CITYSCAPES, "pascal_context": PASCAL_CONTEXT}


class ImportOverrides(Config):
    """Facts about a checkpoint that neither its shapes nor a config file tell, or that replace what these say.

    Attributes:
        num_heads: attention heads of the encoder.
        decoder_heads: attention heads of Segmenter's mask transformer.
        taps: 0-based indices of the encoder blocks that the decoder reads.
        aux_taps: 0-based block indices that the auxiliary heads read, where they have taps of their own.
        image_size: (height, width) of the training images in pixels, which gives the grid of learned positions.
        norm_eps: epsilon of the encoder's LayerNorms.
        readout: DPT's use of the class token.
        release: which of several releases with equal shapes: DPT depth "midas", "kitti" or "nyu"; DPT on DINOv2 and its
            authors' heads "kitti" or "nyu"; Depth Anything "v1", "v2", "hypersim" or "vkitti"; Depth Anything 3 "mono"
            or "metric".
        scale, shift, invert: constants of a DPT depth model, instead of a release.
        signed: for a DPT depth model that may give negative values (``non_negative=False``).
        max_depth_m: maximum depth of a metric Depth Anything or DINOv2, instead of a release.
        dataset: data set of a segmentation model; gives the class names only.
        licence: of the weights, for the card; by default that of a model card next to them.
        encoder_weights: file of the encoder, or ``hf://owner/name``, for a file that holds only a head.
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
    licence: str | None = Field(default=None, min_length=1)
    encoder_weights: str | None = Field(default=None, min_length=1)


# The facts that an importer may find missing, as the message describes them.
DESCRIPTIONS = {
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
    """A checkpoint of another program, with its side files.

    Attributes:
        name: path or address, for messages.
        state: tensors under the names of the file.
        side: plain data by kind: "variant.yml", "config.json", "preprocessor_config.json", "mmseg" (the config, from a
            file or from the checkpoint), "meta" (the checkpoint's other metadata).
        overrides: facts given by the user; they win over everything.
        file_name: of the weights; a published one identifies a release.
    """

    name: str
    state: Mapping[str, Tensor]
    side: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overrides: ImportOverrides = field(default_factory=ImportOverrides)
    file_name: str = ""

    def has(self, pattern: str) -> bool:
        """Whether a tensor's name matches a pattern such as ``decoder.*``."""
        return any(fnmatchcase(name, pattern) for name in self.state)

    def renamed(self, rules: Sequence[Rule]) -> tuple[Renamed, Shapes, Plain]:
        """The tensors under our names, their shapes, and what these tell of the encoder's config."""
        renamed = rename(self.state, rules)
        shapes = Shapes(renamed.tensors, self.name)
        return renamed, shapes, encoder_from_shapes(shapes)

    def get(self, name: str, default: Any = None) -> Any:
        """The user's override of a fact, else the default."""
        override = getattr(self.overrides, name)
        return default if override is None else override

    def require(self, **defaults: Any) -> dict[str, Any]:
        """``get`` for several facts, none of which may be unknown.

        Raises:
            CheckpointError: naming every unknown fact and the option that gives it.
        """
        values = {name: self.get(name, default) for name, default in defaults.items()}
        unknown = [name for name, value in values.items() if value is None]
        if unknown:
            raise self.missing(*unknown)
        return values

    def release(self, published: str | None, known: Collection[str]) -> str:
        """The release that the user names, else the published one.

        Raises:
            CheckpointError: if there is neither, or it is not a known one.
        """
        release: str = self.require(release=published)["release"]
        if release not in known:
            raise self.missing("release", hint=f"release {release!r} is none of {', '.join(known)}; ")
        return release

    def missing(self, *names: str, hint: str = "") -> CheckpointError:
        """The error that asks for facts by their options."""
        missing = ", ".join(f"{name} ({DESCRIPTIONS[name]})" for name in names)
        options = " and ".join(f"--{name.replace('_', '-')}" for name in names)
        keywords = ", ".join(f"{name}=..." for name in names)
        return CheckpointError(
            f"{self.name} does not say {missing}, nor does a config file next to it; "
            f"{hint or 'put the config of the model into the same folder, or '}"
            f"give {options} to `densevit convert` ({keywords} in Python)"
        )


@dataclass(frozen=True)
class ImportedParts:
    """What an importer makes of a source.

    Attributes:
        renamed: the tensors under our names, converted where necessary.
        encoder: plain data of the ``EncoderConfig``.
        heads: plain data of the only head, by its name.
        normalisation: plain data of the mean and standard deviation.
        short_side: to which images are resized by default.
        protocol: how the source's program runs the model; None if it has no inference code.
        provenance: where the weights come from, for the card.
    """

    renamed: Renamed
    encoder: Plain
    heads: Plain
    normalisation: Plain
    task: Task
    short_side: int
    protocol: Protocol | None
    provenance: str


@dataclass(frozen=True)
class Importer:
    """One program whose checkpoints can be read.

    Attributes:
        title: what messages call it.
        signatures: alternative sets of patterns of tensor names; it is recognised where all patterns of one set occur.
        read: converts a source.
        side_files: config files that may be next to the weights.
        complete: adds the tensors that such files lack, given the path of the file.
    """

    title: str
    signatures: tuple[tuple[str, ...], ...]
    read: Callable[[Source], ImportedParts]
    side_files: tuple[str, ...] = ()
    complete: Callable[[Source, Path], Source] | None = None

    def recognises(self, source: Source) -> bool:
        """Whether the tensor names are those of this program."""
        return any(all(source.has(pattern) for pattern in signature) for signature in self.signatures)


def segmentation(
    num_classes: int, *, dataset: str | None = None, classes: Sequence[Any] = (), **settings: Any
) -> Segmentation:
    """Segmentation with the class names of the checkpoint, else those of its data set, else numbers."""
    names = tuple(str(name).strip() for name in classes) or CLASS_NAMES.get(dataset or "", ())
    if len(names) != num_classes or len(set(names)) != num_classes:
        if names:
            _log.warning(
                "there are %d class names for %d classes; classes are numbered instead", len(set(names)), num_classes
            )
        names = tuple(f"class {index}" for index in range(num_classes))
    return Segmentation(classes=names, **settings)


def depth_task(max_depth_m: float | None) -> Depth:
    """Metric depth up to a maximum, or relative inverse depth if there is none."""
    if max_depth_m is None:
        return Depth(quantity="disparity")
    return Depth(quantity="depth", max_depth_m=max_depth_m)
