"""Export a model as a folder of static files: a page that runs the model in the browser, also offline.

Heads that share an encoder pass are one graph, so that a browser only computes what is looked at. The graphs share one
file of weights, which is most of the download; see ``small_weights``. They are compared with the model before anything
is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from densevit.config import nearest
from densevit.errors import ConfigError, EngineError
from densevit.export.files import temporary_folder, writer
from densevit.export.graph import build_graph
from densevit.export.job import Exported, exportable, whole_config
from densevit.export.metadata import describe
from densevit.export.npm import ONNXRUNTIME_WEB, read_package
from densevit.export.small_weights import STORAGES, Storage, move_weights, restore, store_small
from densevit.export.verify import Run, compare, verification_photos
from densevit.export.web_files import (
    FOR_GRAPHICS,
    FOR_THE_PROCESSOR,
    PROOF,
    WEIGHTS,
    Proof,
    WebGraph,
    describe_folder,
    make_proof,
    service_worker,
)
from densevit.inference.predictor import Predictor
from densevit.io import claim, write_bytes_atomic
from densevit.pages.web_page import browser_backend, page_files, read_part
from densevit_runtime.io.outputs import may_replace
from densevit_runtime.metadata import Metadata, Verified
from densevit_runtime.runtime import Runtime

LEAST_EQUAL = 0.99
"""Least accepted share of labels that small weights leave as they are."""

LARGEST_MEAN = 0.005
"""Largest accepted mean difference of values, over their range."""

_LAST = ("model.json", "service-worker.js", "index.html")
"""Written after all others, so that a folder that is not complete cannot be opened."""


def export_web(
    model: str | Path | Predictor,
    folder: str | Path,
    *,
    heads: Sequence[str] | None = None,
    scores: bool = False,
    data: str | Path | None = None,
    weights: str = "int8",
    npm_package: str | Path | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a folder for any server of static files, as ``densevit export --to web`` does.

    Args:
        model: what ``load`` takes, or a predictor, whose switches are kept.
        folder: to write into; it is created.
        heads: to export; by default those of the predictor.
        scores: whether the page also says how probable a label is.
        data: folder of photos to verify the graphs on; by default three that ship. They are not published.
        weights: "int8", "float16" or "float32": how they are stored; the graphs compute in float32.
        npm_package: archive of onnxruntime-web; by default npm downloads it, once.
        overwrite: replace files that densevit did not write, or that were changed since.

    Raises:
        ConfigError: if there is no such head, or a part of the model cannot be exported.
        CheckpointError: if there is no such model.
        DataError: if a photo cannot be read, or a file cannot be written.
        EngineError: if a package is missing, or too much is lost by storing weights so; nothing is written.
    """
    folder = Path(folder)
    storage = _storage(weights)
    given = None if isinstance(model, Predictor) else Path(model)
    read = [Path(place) for place in (given, data, npm_package) if place is not None]
    claim(page_paths(folder), inputs=read, overwrite=overwrite)
    runtime = _runtime_files(npm_package)
    predictor = model if isinstance(model, Predictor) else Predictor.load(model, device="cpu")
    # Only the name of the file: the folder is published.
    source = predictor.card.name if given is None else given.name
    graphs, metadata, proof = _verified(predictor, heads, source, scores=scores, storage=storage, data=data)
    files = _graph_files(graphs) | {PROOF: proof.content} | runtime
    page = page_files() | browser_backend()
    files |= page | {"model.json": describe_folder(graphs, metadata, proof, files, storage)}
    files["service-worker.js"] = service_worker(page, files)
    names = [*(name for name in files if name not in _LAST), *_LAST]
    claim([folder / name for name in names], inputs=read, overwrite=overwrite)
    for name in names:
        write_bytes_atomic(folder / name, files[name])
    _remove_unused(folder, names)
    return Exported(tuple(folder / name for name in names), metadata)


def page_paths(folder: Path) -> list[Path]:
    """The files that every folder has, for a check before any work; a graph or more comes on top."""
    names = dict.fromkeys((*page_files(), *browser_backend(), *_LAST, WEIGHTS, PROOF))
    return [folder / name for name in names]


def _storage(weights: str) -> Storage:
    for storage in STORAGES:
        if weights == storage:
            return storage
    raise ConfigError(f"weights cannot be stored in {weights!r}{nearest(weights, STORAGES)}")


def _runtime_files(archive: str | Path | None) -> dict[str, bytes]:
    names = {f"dist/{name}": f"runtime/{name}" for name in (*FOR_THE_PROCESSOR, *FOR_GRAPHICS)}
    found = read_package(ONNXRUNTIME_WEB, list(names), archive=None if archive is None else Path(archive))
    files = {names[member]: content for member, content in found.items()}
    return files | {"runtime/LICENCE.txt": read_part("onnxruntime-licence.txt")}


def _verified(
    predictor: Predictor,
    heads: Sequence[str] | None,
    source: str,
    *,
    scores: bool,
    storage: Storage,
    data: str | Path | None,
) -> tuple[list[WebGraph], Metadata, Proof]:
    """The graphs, what is known of them, and their answer for a small photo."""
    bundle, chosen = exportable(predictor, heads)
    fit = whole_config(bundle.fit, chosen)
    photos = verification_photos(data)
    metadata = replace(describe(bundle, fit, chosen, source=source, scores=scores), trained_on=())  # names of folders
    graphs = []
    for index, (_, names) in enumerate(fit.groups(chosen)):
        model = build_graph(bundle, fit, names, scores=scores, sixteen_bits=True).model()
        graphs.append(WebGraph(f"graph-{index}.onnx", names, store_small(model, storage)))
    with _running(graphs, metadata) as run:
        verified = compare(run, bundle, fit, chosen, photos, scored=scores)
        _check_loss(verified, storage)
        proof = make_proof(run, metadata)
    return graphs, replace(metadata, verified=verified), proof


def _remove_unused(folder: Path, names: Sequence[str]) -> None:
    """Remove the graphs of an earlier export with more of them, unless somebody has changed one since."""
    for path in folder.glob("graph-*.onnx"):
        if path.name not in names and may_replace(path):
            with suppress(OSError):  # nothing reads it any more
                path.unlink()


def _graph_files(graphs: Sequence[WebGraph]) -> dict[str, bytes]:
    """The graphs, and the file of their weights."""
    weights = move_weights([graph.model for graph in graphs], WEIGHTS)
    return {WEIGHTS: weights} | {graph.file: graph.model.SerializeToString() for graph in graphs}


@contextmanager
def _running(graphs: Sequence[WebGraph], metadata: Metadata) -> Iterator[Run]:
    """All graphs as one, in onnxruntime, with the weights that they hold."""
    engines = []
    with temporary_folder("the graphs cannot be tried") as folder:
        for graph in graphs:
            path = folder / graph.file
            own = replace(metadata, heads={head: metadata.heads[head] for head in graph.heads})
            with writer(restore(graph.model), "onnx") as write:
                write([path], own)
            engines.append((Runtime.load(path, threads=torch.get_num_threads()).engine, own.outputs))
            path.unlink()

    def run(images: Any) -> Mapping[str, Any]:
        return {name: value for engine, names in engines for name, value in engine.run(images, names).items()}

    yield run


def _check_loss(verified: Verified, storage: Storage) -> None:
    wrong = [
        f"labels of {name} are equal to the model's on {share:.2%} of the pixels, {LEAST_EQUAL:.0%} is needed"
        for name, share in verified.labels_equal.items()
        if not share >= LEAST_EQUAL
    ]
    wrong += [
        f"{name} differs by {value:.2%} of its range on average, {LARGEST_MEAN:.1%} is accepted"
        for name, value in verified.mean_difference.items()
        if not value <= LARGEST_MEAN
    ]
    if wrong:
        larger = {"int8": "; nothing was written; store more with --weights float16", "float16": "; try float32"}
        raise EngineError(f"weights in {storage} lose too much: {'; '.join(wrong)}{larger.get(storage, '')}")
