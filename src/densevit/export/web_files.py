"""The files of a web export that are made from a model: what the page reads, and the proof of a graphics processor."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from densevit import __version__
from densevit.export.npm import ONNXRUNTIME_WEB
from densevit.export.small_weights import Storage
from densevit.export.verify import SHIPPED, Run
from densevit.io import find_images, read_image, to_json
from densevit.pages.web_page import read_part
from densevit.pixels import fit_image
from densevit_runtime.metadata import Metadata

FORMAT = 1
"""Version of model.json."""

WEIGHTS = "weights.bin"
PROOF = "proof.bin"
PROOF_SIZE = (96, 128)
"""(H, W) of the photo in proof.bin."""

FOR_THE_PROCESSOR = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of onnxruntime-web that every browser loads."""

FOR_GRAPHICS = ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
"""Files of onnxruntime-web that a browser with WebGPU loads instead."""

_ARRAYS = {"uint8": "Uint8Array", "uint16": "Uint16Array", "int32": "Int32Array", "float32": "Float32Array"}
"""JavaScript's names."""

_STORED = {
    "int8": "int8 with a scale for each output channel, others float16; computed in float32",
    "float16": "float16; computed in float32",
    "float32": "float32",
}


@dataclass(frozen=True)
class WebGraph:
    """The graph of heads that share an encoder pass.

    Attributes:
        file: its name in the folder.
        heads: names.
        model: the graph.
    """

    file: str
    heads: tuple[str, ...]
    model: onnx.ModelProto


@dataclass(frozen=True)
class Proof:
    """A small photo and the graphs' answer.

    The page gives the photo to a graphics processor, and uses it only if it has the same answer.

    Attributes:
        content: of the file.
        about: size of the photo, and where it and the output of each head are in the file.
    """

    content: bytes
    about: Mapping[str, Any]


def make_proof(run: Run, metadata: Metadata) -> Proof:
    """Run a small photo."""
    photo = read_image(find_images([SHIPPED])[-1])
    resized = fit_image(photo, PROOF_SIZE).mul(255).round().to(torch.uint8)
    pixels = np.ascontiguousarray(resized.permute(1, 2, 0).numpy())
    outputs = run(pixels[None])
    content = bytearray()

    def add(array: NDArray[Any]) -> dict[str, Any]:
        content.extend(bytes(-len(content) % 8))  # typed arrays begin at multiples of their elements
        place = {"type": _ARRAYS[array.dtype.name], "offset": len(content), "length": array.size}
        content.extend(np.ascontiguousarray(array).tobytes())
        return place

    height, width = PROOF_SIZE
    about = {"file": PROOF, "height": height, "width": width, "photo": add(pixels)}
    about["outputs"] = {head: add(outputs[head][0]) for head in metadata.heads}
    return Proof(bytes(content), about)


def describe_folder(
    graphs: Iterable[WebGraph], metadata: Metadata, proof: Proof, files: Mapping[str, bytes], storage: Storage
) -> bytes:
    """What the page and its back end need to know, as JSON.

    Args:
        graphs: of the folder.
        metadata: of all of them.
        proof: of the folder.
        files: name -> content of what the back end loads: it checks their hashes.
        storage: of the weights.
    """
    model = sum(len(content) for name, content in files.items() if not name.startswith("runtime/"))
    runtime = sum(len(files[f"runtime/{name}"]) for name in FOR_THE_PROCESSOR)
    about = {
        "format": FORMAT,
        "intro": "Photos are processed on this device and never leave it. The first one loads "
        f"{(model + runtime) / 1e6:.0f} MB; after that the page also works offline.",
        "metadata": json.loads(metadata.to_json()),
        "graphs": [{"file": graph.file, "heads": graph.heads} for graph in graphs],
        "weights": WEIGHTS,
        "storage": _STORED[storage],
        "downloads": f"{model / 1e6:.0f} MB model, {runtime / 1e6:.0f} MB runtime",
        "runtime": f"{ONNXRUNTIME_WEB.name} {ONNXRUNTIME_WEB.version} (MIT)",
        "exporter": f"densevit {__version__}",
        "offline": True,
        "proof": proof.about,
        "files": {
            name: {"bytes": len(content), "sha256": _sha256(content)}
            for name, content in files.items()
            if not name.startswith("runtime/")
        },
    }
    return to_json(about).encode()


def service_worker(page: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """The script that keeps the folder for use without a network.

    Args:
        page: names of the files that are kept at the first visit; the others are kept when they are loaded.
        files: name -> content of the whole folder.
    """
    version = _sha256(b"".join(hashlib.sha256(files[name]).digest() for name in sorted(files)))[:16]
    first = [*page, "model.json"]
    folder = {"version": version, "page": first, "model": [name for name in files if name not in first]}
    return f"self.FOLDER = {json.dumps(folder)};\n".encode() + read_part("service-worker.js")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
