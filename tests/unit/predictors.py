"""Tiny predictors, and the photo on which the tests of windows and rasters run them."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle, Card
from densevit.inference.predictor import Predictor
from densevit.inference_config import InferenceConfig
from densevit.pixels import to_tensor
from densevit.tasks import Segmentation, Task
from tests.factories import tiny_model

LABELS = Segmentation(classes=tuple("abcde"))


def photo(height: int = 100, width: int = 130) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (3, height // 8 + 1, width // 8 + 1)).astype(np.float32)
    fine = F.interpolate(torch.from_numpy(coarse)[None], (height, width), mode="bilinear")[0]
    return fine.permute(1, 2, 0).round().to(torch.uint8).numpy()


def predictor(name: str = "segmenter_linear", task: Task = LABELS) -> Predictor:
    """The model of a row of ``VARIANTS``; its classifier is centred, so that the photo gets more than one label."""
    model = tiny_model(name)
    if isinstance(task, Segmentation):
        with torch.no_grad():
            mean = model(to_tensor(photo(96, 96))[None])["main"].logits.mean(dim=(0, 2, 3))
            layers = [m for m in model.heads.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
            if layers[-1].bias is not None and layers[-1].bias.shape == mean.shape:
                layers[-1].bias -= mean
    return Predictor(Bundle(model, {"main": task}, InferenceConfig(short_side=48), Card()), device="cpu")
