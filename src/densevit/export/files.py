"""Graphs as files: one .onnx with its weights inside, or OpenVINO's .xml and .bin."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import onnx

from densevit.config import nearest
from densevit.engines import openvino as openvino_engine
from densevit.errors import ConfigError, EngineError, OutputError
from densevit_runtime.engines import first_line
from densevit_runtime.metadata import KEY, Metadata

Target = Literal["onnx", "openvino"]

SUFFIXES: dict[Target, str] = {"onnx": ".onnx", "openvino": ".xml"}

LARGEST_ONNX = 2**31 - 2**24
"""Bytes of weights in one ONNX file; the format ends at 2 GB."""

Write = Callable[[Sequence[Path], Metadata], None]
"""Writes the files of ``output_files``, with these metadata; it may be called several times."""


def check_target(target: str | None, out: Path) -> Target:
    """The target of a name; by default that of the file's suffix.

    Raises:
        ConfigError: if there is no such target, or the file has another suffix.
        EngineError: if what it needs is not installed or does not work.
    """
    suffix = out.suffix.lower()
    if target is None and suffix not in SUFFIXES.values():
        raise ConfigError(f"{out} ends in {suffix or 'nothing'}; .onnx (ONNX) and .xml (OpenVINO) are accepted")
    for known in get_args(Target):
        if target == known or (target is None and suffix == SUFFIXES[known]):
            if suffix != SUFFIXES[known]:
                raise ConfigError(f"{out} cannot be a file of {known}, which ends in {SUFFIXES[known]}; rename it")
            _require(known)
            found: Target = known
            return found
    raise ConfigError(f"there is no format {target!r}{nearest(str(target), get_args(Target))}")


def _require(target: Target) -> None:
    if target == "openvino":
        openvino_engine.require()
        return
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise EngineError(
            f"an ONNX file is verified in onnxruntime, which is missing ({error}); pip install 'densevit[onnx]'"
        ) from None


def output_files(out: Path) -> list[Path]:
    """The files of an export: a .xml has a .bin next to it."""
    return [out, out.with_suffix(".bin")] if out.suffix.lower() == SUFFIXES["openvino"] else [out]


def num_bytes(model: onnx.ModelProto) -> int:
    """Bytes of its weights."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


@contextmanager
def writer(
    model: onnx.ModelProto, target: Target, options: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Write]:
    """The function that writes a model as files of a target.

    Args:
        model: with its weights inside.
        target: the engine.
        options: of OpenVINO, which it reads from the file.

    Raises:
        ConfigError: if the format cannot hold so much.
        EngineError: if OpenVINO cannot read the graph.
        OutputError: if there is no space for temporary files.
    """
    if target == "openvino":
        with _openvino_writer(model, options) as write:
            yield write
        return
    if (size := num_bytes(model)) > LARGEST_ONNX:
        raise ConfigError(
            f"the model has {size / 1e9:.1f} GB of weights but an ONNX file holds up to 2 GB; export it to openvino"
        )

    def write_onnx(files: Sequence[Path], metadata: Metadata) -> None:
        onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
        files[0].write_bytes(model.SerializeToString())

    yield write_onnx


@contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """A folder for files that are needed for a while.

    Args:
        what: cannot be done without space there, for the message.

    Raises:
        OutputError: if a file cannot be written there.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="densevit-") as folder:
            yield Path(folder)
    except OSError as error:
        raise OutputError(
            f"{what} in {tempfile.gettempdir()} ({error.strerror or error}); free some space there, or set TMPDIR"
        ) from error


@contextmanager
def _openvino_writer(model: onnx.ModelProto, options: Mapping[str, str]) -> Iterator[Write]:
    import openvino

    with temporary_folder("the graph cannot be converted") as folder:
        path = folder / "model.onnx"  # stays, since OpenVINO reads its weights from there
        large = num_bytes(model) > LARGEST_ONNX
        onnx.save_model(model, path, save_as_external_data=large, location="model.data" if large else None)
        try:
            graph = openvino.Core().read_model(path)
        except Exception as error:
            raise EngineError(
                f"OpenVINO {openvino.__version__} cannot read the graph ({first_line(error)}); update openvino, or "
                "export to onnx"
            ) from error

        def write_openvino(files: Sequence[Path], metadata: Metadata) -> None:
            graph.set_rt_info(metadata.to_json(), KEY)
            for key, value in options.items():
                graph.set_rt_info(value, ["runtime_options", key])
            try:
                openvino.serialize(graph, files[0], files[1])
            except RuntimeError as error:  # what it makes of a full disk
                raise OSError(str(error).strip().splitlines()[-1][:200]) from error

        yield write_openvino
