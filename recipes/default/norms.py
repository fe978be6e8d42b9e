"""Measure the running statistics of batch norms anew, on plain training photos with the encoder as in evaluation.

Averaged weights meet other features than those that each part was trained on. Needs the photos in data/:

    python -m recipes.default.norms runs/mean-4.safetensors runs/start-5.safetensors
"""

import sys
from pathlib import Path

import torch
from torch import nn

from densevit.checkpoints.native import load_bundle, save_bundle
from densevit.data import FolderConfig, FolderDataset
from densevit.model import DenseModel
from densevit.pixels import fit_image
from densevit.inference_config import InferenceConfig

PHOTOS = {"streets": ("data/camvid", 32), "rooms": ("data/nyuv2", 96)}
BATCH = 8


def measure(model: DenseModel, head: str, fit: InferenceConfig, root: str, count: int) -> None:
    """Put the mean over so many photos, spread over the training split, in the place of a head's statistics."""
    photos = FolderDataset(FolderConfig(root=Path(root), split="train"))
    norms = [module for module in model.heads[head].modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    step = len(photos) / count
    inputs = []
    for index in range(count):
        image = photos[int(index * step)].image
        inputs.append(fit_image(image, fit.size_for(image.shape[:2], model.config.encoder.patch_size)))
    batches = count // BATCH
    for first in range(batches):
        model.decode(model.encode(torch.stack(inputs[first::batches])), (head,))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def main() -> None:
    """``norms.py IN OUT``, two native checkpoints."""
    source, out = map(Path, sys.argv[1:])
    bundle = load_bundle(source)
    with torch.no_grad():
        for head, (root, count) in PHOTOS.items():
            measure(bundle.model, head, bundle.fit.of(head), root, count)
    save_bundle(bundle, out)


if __name__ == "__main__":
    main()
