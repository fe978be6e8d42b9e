"""Export a model: write its graph, compare it with the model, and put the file in place only if they agree."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from densevit.checkpoints.native import Bundle
from densevit.config import nearest
from densevit.errors import ConfigError
from densevit.export.files import Write, check_target, output_files, temporary_folder, writer
from densevit.export.graph import build_graph, check_exportable
from densevit.export.metadata import describe
from densevit.export.verify import Run, check, compare, verification_photos
from densevit.inference.predictor import Predictor
from densevit.inference_config import InferenceConfig
from densevit.io import atomic_path, claim
from densevit_runtime.metadata import Metadata, Verified
from densevit_runtime.runtime import Runtime


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        files: the .onnx, or the .xml and the .bin.
        metadata: what is in it.
    """

    files: tuple[Path, ...]
    metadata: Metadata

    @property
    def megabytes(self) -> float:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.files) / 1e6


def export_model(
    model: str | Path | Predictor,
    out: str | Path,
    *,
    to: str | None = None,
    heads: Sequence[str] | None = None,
    scores: bool = False,
    data: str | Path | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a model as one file that takes photos of any size, as ``densevit export`` does.

    Args:
        model: what ``load`` takes, or a predictor, whose switches are kept.
        out: ends in .onnx, or in .xml for OpenVINO, which gets a .bin next to it.
        to: "onnx" or "openvino"; by default as ``out`` ends.
        heads: to export; by default those of the predictor.
        scores: whether segmentation heads get an output of scores.
        data: folder of photos to verify the file on; by default three that ship.
        overwrite: replace files that densevit did not write, or that were changed since.

    Raises:
        ConfigError: if there is no such format or head, or a part of the model cannot be exported.
        CheckpointError: if there is no such model.
        DataError: if a photo cannot be read, or a file cannot be written.
        EngineError: if a package is missing, or the graph does not give what the model gives; nothing is written.
    """
    out = Path(out)
    target = check_target(to, out)
    is_predictor = isinstance(model, Predictor)
    read = [Path(place) for place in (None if is_predictor else str(model), data) if place is not None]
    claim(output_files(out), inputs=read, overwrite=overwrite)
    predictor = model if isinstance(model, Predictor) else Predictor.load(model, device="cpu")
    bundle, chosen = exportable(predictor, heads)
    fit = whole_config(bundle.fit, chosen)
    photos = verification_photos(data)
    source = bundle.card.name if isinstance(model, Predictor) else str(model)
    metadata = describe(bundle, fit, chosen, source=source, scores=scores)
    graph = build_graph(bundle, fit, chosen, scores=scores, sixteen_bits=target == "onnx")

    def verify(run: Run) -> Verified:
        verified = compare(run, bundle, fit, chosen, photos, scored=scores)
        check(verified)
        return verified

    with writer(graph.model(), target) as write:
        return write_verified(write, out, metadata, verify)


def exportable(predictor: Predictor, heads: Sequence[str] | None = None) -> tuple[Bundle, tuple[str, ...]]:
    """The model of a predictor and the heads to export.

    Raises:
        ConfigError: if there is no such head, or the predictor has a switch that a file cannot have.
    """
    chosen = (heads,) if isinstance(heads, str) else tuple(heads or predictor.heads)
    if unknown := [head for head in chosen if head not in predictor.tasks]:
        raise ConfigError(f"there is no head {unknown[0]!r}{nearest(unknown[0], predictor.tasks)}")
    if predictor.quality == "best":
        raise ConfigError(
            "quality best cannot be exported: it runs windows and mirror images, and a graph runs a photo whole and "
            "once; export quality fast"
        )
    switches = predictor.speed.set_values()
    if changed := [name for name in ("precision", "attention") if switches.get(name, "float32") != "float32"]:
        raise ConfigError(
            f"{changed[0]} {switches[changed[0]]!r} is a way to compute in torch and cannot be exported; leave it out; "
            "densevit quantize writes int8 files"
        )
    if predictor.speed.engine != "torch":
        raise ConfigError(
            f"engine {predictor.speed.engine!r} runs the model, whose modules are replaced; load it with engine torch "
            "to export it"
        )
    bundle = Bundle(
        predictor.model.eval(),
        predictor.tasks,
        predictor.fit,
        predictor.card,
        predictor.protocol,
        predictor.trained_on,
    )
    check_exportable(bundle, chosen)
    return bundle, chosen


def whole_config(fit: InferenceConfig, heads: Sequence[str]) -> InferenceConfig:
    """How quality fast runs some heads.

    Raises:
        ConfigError: if the checkpoint has only windows or mirror images for one of them.
    """
    fast = fit.at_quality("fast")
    for head in heads:
        own = fast.for_head(head)
        if not own.single_pass:
            way = f"windows of {own.window}" if own.window else "mirror images"
            raise ConfigError(
                f"head {head!r} is run with {way}, and a graph runs a photo whole and once; pass --speed "
                f"short_side={own.window_side} to run it so, or choose other heads with --head"
            )
    return fast


@contextmanager
def open_trial(write: Write, names: Sequence[Path], metadata: Metadata) -> Iterator[Run]:
    """Write the files of a graph in a temporary folder, and give the function that runs them.

    Args:
        write: writes the files.
        names: of the files, for their suffixes.
        metadata: what the files say about themselves.

    Raises:
        OutputError: if a file cannot be written.
    """
    with temporary_folder("the file cannot be tried") as folder:
        trial = [folder / f"model{name.suffix.lower()}" for name in names]
        write(trial, metadata)
        runtime = Runtime.load(trial[0], threads=torch.get_num_threads())
        yield lambda images: runtime.engine.run(images, metadata.outputs)


def write_verified(write: Write, out: Path, metadata: Metadata, verify: Callable[[Run], Verified]) -> Exported:
    """Write the files of a graph in a temporary folder, run them there, and then in their place.

    Args:
        write: writes the files.
        out: the first of them.
        metadata: what the files say about themselves, not verified yet.
        verify: what it returns goes into the metadata; it raises if the graph is refused.

    Raises:
        OutputError: if a file cannot be written.
    """
    names = output_files(out)
    with open_trial(write, names, metadata) as run:
        finished = replace(metadata, verified=verify(run))
    with ExitStack() as stack:  # the .xml is last to appear
        write([stack.enter_context(atomic_path(name)) for name in names], finished)
    return Exported(tuple(names), finished)
