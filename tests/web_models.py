"""A tiny model of all tasks, and a stand-in for the archive of onnxruntime-web, for tests of web exports."""

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import torch

from densevit.checkpoints.native import Bundle, Card
from densevit.export.npm import NpmPackage
from densevit.export.web_files import FOR_GRAPHICS, FOR_THE_PROCESSOR
from densevit.inference.predictor import Predictor
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import parse_task
from tests.factories import VARIANTS, tiny_encoder

CLASSES = ("sky", "road", "tree", "<b>car</b>", "person & dog")


def tiny_predictor() -> Predictor:
    """Labels and directions at 64 pixels, which share an encoder pass, and depth at 48."""
    rows = {"things": "segmenter_linear", "distance": "dpt/ignore, depth", "normals": "dpt/ignore, regression"}
    variants = {head: VARIANTS[row] for head, row in rows.items()}
    heads = {head: {"decoder": one.decoder, "out_channels": one.out_channels} for head, one in variants.items()}
    torch.manual_seed(3)
    model = DenseModel(ModelConfig.parse({"encoder": tiny_encoder(), "heads": heads}, source="tiny")).eval()
    tasks = {
        "things": parse_task({"kind": "segmentation", "classes": list(CLASSES)}),
        "distance": parse_task({"kind": "depth", "max_depth_m": 10.0}),
        "normals": parse_task({"kind": "regression", "channels": ["x", "y", "z"], "unit_vectors": True}),
    }
    fit = InferenceConfig(short_side=64, fast={"distance": 48})
    card = Card(name="tiny & <small>", licence="CC0-1.0", metrics={"things": {"mIoU": 0.5}})
    return Predictor(Bundle(model, tasks, fit, card), device="cpu")


def write_archive(path: Path) -> NpmPackage:
    """An archive with the names of onnxruntime-web's files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in (*FOR_THE_PROCESSOR, *FOR_GRAPHICS, "something-else.js"):
            text = f"stands for {name}".encode()
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    path.write_bytes(content.getvalue())
    digest = hashlib.sha512(content.getvalue()).digest()
    return NpmPackage("onnxruntime-web", "1.30.0", base64.b64encode(digest).decode())
