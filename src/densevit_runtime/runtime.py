"""``Runtime``: an exported file that is ready to predict."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from densevit_runtime.engines import Engine, Port, open_engine
from densevit_runtime.errors import CheckpointError, ConfigError, DataError
from densevit_runtime.io.read import as_image
from densevit_runtime.metadata import INPUT, HeadMetadata, Metadata, all_outputs, output_names
from densevit_runtime.onnx_file import read_onnx
from densevit_runtime.openvino_file import read_openvino
from densevit_runtime.prediction import Prediction
from densevit_runtime.results import head_result

SUFFIXES = (".onnx", ".xml")
"""The suffixes of exported files."""


class Runtime:
    """An exported file that is ready to predict; photos may have any size.

    Attributes:
        path: of the file.
        metadata: what the file says about itself.
        heads: those that run, by name.
        engine: what runs the graph.
    """

    def __init__(self, path: Path, metadata: Metadata, heads: Mapping[str, HeadMetadata], engine: Engine) -> None:
        check_ports(path, heads, engine)
        self.path, self.metadata, self.heads, self.engine = path, metadata, heads, engine

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        heads: Sequence[str] | None = None,
        engine: str | None = None,
        threads: int | None = None,
    ) -> Self:
        """Open an exported file; see ``densevit_runtime.load``."""
        path = Path(path)
        metadata = read_metadata(path)
        wanted = (heads,) if isinstance(heads, str) else tuple(heads or metadata.heads)
        if unknown := [head for head in wanted if head not in metadata.heads]:
            raise ConfigError(f"there is no head {unknown[0]!r}; {path} has {', '.join(metadata.heads)}")
        chosen = {head: metadata.heads[head] for head in wanted}
        outputs = None if len(chosen) == len(metadata.heads) else all_outputs(chosen)
        return cls(path, metadata, chosen, open_engine(path, engine, threads, outputs))

    def predict(self, image: Any) -> Prediction:
        """Run one photo.

        Args:
            image: a path, Pillow image or array (H, W[, 3]); see ``densevit_runtime.io.read.as_image``.

        Raises:
            DataError: if the photo cannot be read.
            EngineError: if the engine fails, for lack of memory or another reason.
            CheckpointError: if an output is not what the file promises.
        """
        return self.predict_batch([as_image(image)])[0]

    def predict_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Run photos of one size together.

        Args:
            images: each uint8 (H, W, 3).

        Raises:
            DataError: if there is none, or their sizes or types differ; others as ``predict``.
        """
        shapes = {image.shape for image in images}
        fits = len(shapes) == 1 and all(image.dtype == np.uint8 and image.shape[2:] == (3,) for image in images)
        if not fits:
            raise DataError(f"images have the shapes {sorted(shapes)}; uint8 (H, W, 3) of one size is accepted")
        names = all_outputs(self.heads)
        batch = images[0][None] if len(images) == 1 else np.stack(images)
        outputs = self.engine.run(np.ascontiguousarray(batch), names)
        for name, output in outputs.items():
            if output.shape[:1] != (len(images),):
                raise CheckpointError(
                    f"output {name!r} has the shape {output.shape} for {len(images)} images; export the model again"
                )
        return [
            Prediction(
                image,
                {head: head_result(head, about, image, outputs, number) for head, about in self.heads.items()},
            )
            for number, image in enumerate(images)
        ]

    def __repr__(self) -> str:
        heads = ", ".join(f"{name} ({about.task})" for name, about in self.heads.items())
        return f"Runtime({self.path}: {heads}; {self.metadata.precision}, {self.engine.name})"


def is_exported(path: str | Path) -> bool:
    """Whether a model is an exported file, by its name."""
    return Path(path).suffix.lower() in SUFFIXES


def read_metadata(path: Path) -> Metadata:
    """Check an exported file, and read its metadata; no engine is needed.

    Raises:
        DataError: if there is no such file, or it has another suffix.
        CheckpointError: if it is damaged, unsafe, or not an export of densevit.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path} does not have the suffix of an exported file; {' and '.join(SUFFIXES)} are accepted")
    return Metadata.parse(read_onnx(path) if suffix == ".onnx" else read_openvino(path), str(path))


def check_ports(path: Path, heads: Mapping[str, HeadMetadata], engine: Engine) -> None:
    """Compare the inputs and outputs of a graph with those that its metadata promise.

    Raises:
        CheckpointError: if they differ.
    """
    if dict(engine.inputs) != {INPUT: Port("uint8", 4)}:
        raise CheckpointError(
            f"{path} has the inputs {_shown(engine.inputs)}; one input is accepted, {INPUT!r}, uint8 (B, H, W, 3); "
            "export the model again"
        )
    for head, about in heads.items():
        for name in output_names(head, about):
            port = engine.outputs.get(name)
            labels = about.task == "segmentation" and name == head
            rank = 1 if name == f"{head}.entropy" else 4 if about.task == "regression" else 3
            types = ("uint8", "uint16", "int32") if labels else ("float32",)
            if port is None or port.dtype not in types or port.rank not in (rank, -1):
                raise CheckpointError(
                    f"{path} has the outputs {_shown(engine.outputs)}; {name!r}, {' or '.join(types)} with {rank} "
                    "dimensions, is promised by its metadata; export the model again"
                )


def _shown(ports: Mapping[str, Port]) -> str:
    shown = [f"{name[:60]!a} ({port.dtype}, {port.rank} dimensions)" for name, port in list(ports.items())[:8]]
    return ", ".join(shown) or "none"
