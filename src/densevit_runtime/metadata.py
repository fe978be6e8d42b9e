"""What an exported file says about itself: heads, classes, units, licence, and how it was verified.

It is JSON under the key ``densevit``: in ``metadata_props`` of an ONNX file, in ``rt_info`` of an OpenVINO file. The
graph has one input, ``image``, uint8 (B, H, W, 3) RGB of any B, H and W, and for each head one output of its name:
labels uint8, uint16 or int32 (B, H, W); depth float32 (B, H, W); values float32 (B, C, H, W). On request a head with
classes has the outputs ``<head>.scores``, the probability of each label, float32 (B, H, W), and ``<head>.entropy``, the
mean entropy of each image as the record of a prediction has it, float32 (B).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from densevit_runtime import typed
from densevit_runtime.errors import CheckpointError
from densevit_runtime.limits import limits, too_much
from densevit_runtime.plain_data import parse_json_config
from densevit_runtime.typed import Reader, Rgb

KEY = "densevit"
"""Name of the entry in the file's own metadata."""

INPUT = "image"
"""Name of the only input."""

FORMAT = 1

Kind = Literal["segmentation", "depth", "regression"]

Quantity = Literal["depth", "disparity", "relative_depth"]
"""What depth is: in metres; without unit and larger where nearer; without unit and larger where farther."""

_NAME = re.compile(r"[^\x00-\x1f\x7f./\\:*?\"<>|]{1,100}")  # a head's name is part of file names


@dataclass(frozen=True, kw_only=True)
class HeadMetadata:
    """The meaning of a head's output.

    Attributes:
        task: kind of task.
        short_side: of the image at the encoder, in pixels.
        classes: names by label (segmentation).
        palette: one colour for each class (segmentation).
        ignore_index: value of target pixels that do not count (segmentation).
        background: the class that was learnt where no shape is, if there is one (segmentation).
        typical_entropy: mean of the entropy on images of the head's own kind (segmentation).
        unit: of depth or values; None if they have none, as disparity and relative depth.
        min_depth_m, max_depth_m: range of valid targets; metrics clip predictions to it (depth).
        relative: the values are disparity, larger is nearer and without unit (depth).
        canonical_focal_px: focal length, in pixels of the image at the encoder, for which depth is in metres; None if
            the model does not depend on it (depth).
        channels: names of the values (regression).
        unit_vectors: the values are a direction of length 1 (regression).
        scores: whether the graph has the output ``<head>.scores`` (segmentation).
        entropy: whether the graph has the output ``<head>.entropy`` (segmentation).
        metrics: measured values of the weights.
    """

    task: Kind
    short_side: int
    classes: tuple[str, ...] = ()
    palette: tuple[Rgb, ...] = ()
    ignore_index: int = 255
    background: str | None = None
    typical_entropy: float = 0.0
    unit: str | None = None
    min_depth_m: float | None = None
    max_depth_m: float | None = None
    relative: bool = False
    canonical_focal_px: float | None = None
    channels: tuple[str, ...] = ()
    unit_vectors: bool = False
    scores: bool = False
    entropy: bool = False
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_head(self)

    @property
    def quantity(self) -> Quantity:
        """What the values of a depth head are."""
        if self.relative:
            return "disparity"
        return "depth" if self.unit else "relative_depth"

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """Check plain data.

        Raises:
            CheckpointError: naming the key that is missing, unknown or has another type.
        """
        read = Reader(data, where, cls)
        return read.build(
            cls,
            task=read("task", typed.one_of(get_args(Kind))),
            short_side=read("short_side", typed.size),
            classes=read("classes", typed.list_of(typed.text), ()),
            palette=read("palette", typed.list_of(typed.colour), ()),
            ignore_index=read("ignore_index", typed.whole, 255),
            background=read("background", typed.optional(typed.text), None),
            typical_entropy=read("typical_entropy", typed.number, 0.0),
            unit=read("unit", typed.optional(typed.text), None),
            min_depth_m=read("min_depth_m", typed.optional(typed.number), None),
            max_depth_m=read("max_depth_m", typed.optional(typed.number), None),
            relative=read("relative", typed.flag, False),
            canonical_focal_px=read("canonical_focal_px", typed.optional(typed.number), None),
            channels=read("channels", typed.list_of(typed.text), ()),
            unit_vectors=read("unit_vectors", typed.flag, False),
            scores=read("scores", typed.flag, False),
            entropy=read("entropy", typed.flag, False),
            metrics=read("metrics", typed.mapping, {}),
        )


@dataclass(frozen=True, kw_only=True)
class Verified:
    """How the file was compared with the model that it was exported from.

    Attributes:
        sizes: (B, H, W) of the images.
        largest_difference: of each output, over its range.
        mean_difference: the same, but the mean over the pixels.
        labels_equal: share of equal labels of each segmentation head.
    """

    sizes: tuple[tuple[int, int, int], ...] = ()
    largest_difference: Mapping[str, float] = field(default_factory=dict)
    mean_difference: Mapping[str, float] = field(default_factory=dict)
    labels_equal: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """Check plain data, as ``HeadMetadata.parse`` does."""
        read = Reader(data, where, cls)
        return read.build(
            cls,
            sizes=read("sizes", typed.list_of(typed.triple_of(typed.size)), ()),
            largest_difference=read("largest_difference", typed.numbers, {}),
            mean_difference=read("mean_difference", typed.numbers, {}),
            labels_equal=read("labels_equal", typed.numbers, {}),
        )


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The metadata of an exported file.

    Attributes:
        name: of the model.
        heads: by name, in the order of the outputs.
        patch_size: (height, width) of the encoder's patches.
        licence: of the weights.
        licence_of_code: of the graph, which is densevit's code.
        source: what was exported.
        precision: of the linear layers.
        quality: how images are run; only "fast" can be exported.
        verified: how the file was compared with the model.
        card: provenance, data licence, and the figures of calibration.
        trained_on: descriptions of the data that heads learnt from, as densevit's checkpoints hold them.
        format: of this metadata.
    """

    name: str
    heads: Mapping[str, HeadMetadata]
    patch_size: tuple[int, int]
    licence: str = "unknown"
    licence_of_code: str = "Apache-2.0"
    source: str = ""
    precision: Literal["float32", "int8"] = "float32"
    quality: Literal["fast"] = "fast"
    verified: Verified = Verified()
    card: Mapping[str, Any] = field(default_factory=dict)
    trained_on: tuple[Mapping[str, Any], ...] = ()
    format: int = FORMAT

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return all_outputs(self.heads)

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Read JSON.

        Args:
            text: the JSON.
            source: name of the file, for messages.

        Raises:
            CheckpointError: if it is not JSON, of a newer format, or breaks the contract.
        """
        try:
            data = parse_json_config(text)
        except ValueError as error:
            raise CheckpointError(f"the metadata of {source} cannot be read: {error}; export the model again") from None
        where = f"the metadata of {source}"
        if isinstance(data, dict) and data.get("format") != FORMAT:
            raise CheckpointError(
                f"{where} have format {data.get('format')!r:.40}; {FORMAT} is accepted; export the model again, or "
                "update densevit"
            )
        read = Reader(data, where, cls)
        heads = read("heads", typed.mapping)
        return read.build(
            cls,
            format=read("format", typed.whole),
            name=read("name", typed.text),
            licence=read("licence", typed.text, "unknown"),
            licence_of_code=read("licence_of_code", typed.text, ""),
            source=read("source", typed.text, ""),
            precision=read("precision", typed.one_of(("float32", "int8"))),
            quality=read("quality", typed.one_of(("fast",))),
            heads={name: HeadMetadata.parse(about, f"head {name!r} in {where}") for name, about in heads.items()},
            patch_size=read("patch_size", typed.pair_of(typed.size)),
            verified=Verified.parse(read("verified", typed.mapping, {}), f"'verified' in {where}"),
            card=read("card", typed.mapping, {}),
            trained_on=read("trained_on", typed.list_of(typed.mapping), ()),
        )

    def __post_init__(self) -> None:
        if not self.heads:
            raise CheckpointError("the metadata name no head; at least one is needed")
        for name in self.heads:
            if not _NAME.fullmatch(name) or name == INPUT:
                raise CheckpointError(
                    f"the metadata have a head named {name[:100]!a}; names without . / \\ : and control characters are "
                    f"accepted, other than {INPUT!r}"
                )

    def to_json(self) -> str:
        """The metadata as text, which ``parse`` reads."""
        return json.dumps(_plain(self), ensure_ascii=False, allow_nan=False)


def all_outputs(heads: Mapping[str, HeadMetadata]) -> tuple[str, ...]:
    """Names of the outputs of some heads in the graph, in their order."""
    return tuple(name for head, about in heads.items() for name in output_names(head, about))


def output_names(head: str, about: HeadMetadata) -> tuple[str, ...]:
    """Names of a head's outputs in the graph, in their order."""
    return (head, *([f"{head}.scores"] if about.scores else []), *([f"{head}.entropy"] if about.entropy else []))


def _check_head(head: HeadMetadata) -> None:
    """Refuse settings that contradict each other."""
    problem = ""
    segments = head.task == "segmentation"
    if segments != bool(head.classes):
        problem = f"task {head.task!r} and {len(head.classes)} classes; only segmentation has classes, and needs them"
    elif len(head.classes) > limits().classes:
        problem = too_much(f"{len(head.classes)} classes", "classes")
    elif len(set(head.classes)) != len(head.classes):
        problem = "a class twice; each name is accepted once"
    elif len(head.palette) != len(head.classes):
        problem = f"{len(head.palette)} colours for {len(head.classes)} classes; one for each is needed"
    elif segments and 0 <= head.ignore_index < len(head.classes):
        problem = f"ignore_index {head.ignore_index}, which is also a class; another number is accepted"
    elif (head.scores or head.entropy) and not segments:
        problem = f"scores or entropy with task {head.task!r}; only segmentation has them"
    elif (head.task == "regression") != bool(head.channels):
        problem = f"task {head.task!r} and {len(head.channels)} channels; only regression has channels, and needs them"
    elif head.unit_vectors and len(head.channels) != 3:
        problem = f"unit_vectors and {len(head.channels)} channels; three are needed"
    elif not 0 < (head.min_depth_m or 1e-9) < (head.max_depth_m or float("inf")):
        problem = f"depth from {head.min_depth_m} to {head.max_depth_m} m; a range of positive numbers is accepted"
    elif not 0 < (head.canonical_focal_px or 1) < float("inf"):
        problem = f"a focal length of {head.canonical_focal_px} pixels; a positive number is accepted"
    elif head.short_side > limits().width or len(head.channels) > limits().width:
        problem = too_much(f"a size of {max(head.short_side, len(head.channels))}", "width")
    if problem:
        raise CheckpointError(f"a head has {problem}")


def _plain(value: Any) -> Any:
    """Dataclasses and tuples as mappings and lists."""
    if isinstance(value, HeadMetadata | Verified | Metadata):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
