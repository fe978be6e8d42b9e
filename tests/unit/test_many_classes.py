"""Imported models in which 255, the usual number of ignored pixels, is a class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import densevit
from densevit.checkpoints.importers import IMPORTERS, Source, build
from densevit.checkpoints.native import save_bundle
from densevit.io import read_labels, write_labels
from tests.parity.foreign import FIXTURES

# Fixture -> pieces of the names of tensors that have one entry for each class, and the dimension of the classes.
PER_CLASS: dict[str, tuple[tuple[str, ...], int]] = {
    "hf-dpt-seg-project": ((".head.4.",), 0),
    "mmseg-setr-naive-aux2convs": (("conv_seg.",), 0),
    "mmseg-setr-mla": (("conv_seg.",), 0),
    "mmseg-segmenter-linear": (("conv_seg.",), 0),
    "mmseg-segmenter-mask-epsprobe": (("cls_emb", "mask_norm."), 1),
    "segmenter-official-linear-p16-distilled": (("decoder.head.",), 0),
    "segmenter-official-epsprobe-mask-p16": (("cls_emb", "mask_norm."), 1),
}


def widened(name: str, num_classes: int, favourite: int) -> Source:
    """A fixture with its classes repeated, of which one has the greatest bias."""
    source = FIXTURES[name].source()
    pieces, dimension = PER_CLASS[name]

    def repeat(key: str, tensor: Tensor) -> Tensor:
        if not any(piece in f".{key}" for piece in pieces):
            return tensor
        axis = min(dimension, tensor.ndim - 1)
        taken = tensor.index_select(axis, torch.arange(num_classes) % tensor.shape[axis]).clone()
        if key.endswith(".bias"):
            taken[favourite] += 100
        return taken

    return replace(source, state={key: repeat(key, tensor) for key, tensor in source.state.items()})


@pytest.mark.parametrize("name", PER_CLASS)
@pytest.mark.parametrize(
    ("num_classes", "favourite", "ignore"), [(255, 254, 255), (256, 255, 65535), (300, 255, 65535), (1000, 999, 65535)]
)
def test_import__keeps_every_class(name: str, num_classes: int, favourite: int, ignore: int, tmp_path: Path) -> None:
    importer = FIXTURES[name].origin
    bundle = build(importer, IMPORTERS[importer], widened(name, num_classes, favourite)).bundle
    save_bundle(bundle, tmp_path / "m.safetensors")
    predictor = densevit.load(tmp_path / "m.safetensors", device="cpu")
    (task,) = predictor.tasks.values()
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)

    labels = predictor.predict(photo).labels
    write_labels(tmp_path / "labels.png", labels, task.palette)

    assert (len(task.classes), task.ignore_index) == (num_classes, ignore)
    assert (labels == favourite).all()
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.png"), labels)
