"""A training step, by the arithmetic of the Segmenter authors' program and by us, from the same weights.

Theirs is the model of ``peers/segmenter.py``, trained as their program does: logits resized to the image, cross entropy
over the valid pixels, SGD with Nesterov momentum. Dropout and drop path are off, so that loss and gradients can be
compared.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from densevit.encoder.config import NAMED_SIZES, Width, vit_config
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Segmentation
from densevit_lab.benchmark.peers import fill
from densevit_lab.benchmark.peers.segmenter import MEAN, PATCH, STD, SegmenterModel

BATCH, SIZE, CLASSES = 8, (480, 352), 11
"""Batch and image size of the step; the classes are those of CamVid."""
OFFICIAL, OURS = "official arithmetic", "densevit"
TRANSPOSED = ("proj_patch", "proj_classes")
"""Parameters of the official model that multiply from the right."""


class Gradients:
    """Loss and gradients of a step; becomes one vector only on conversion to an array, which costs memory."""

    def __init__(self, loss: Tensor, gradients: Callable[[], Iterator[Tensor]]) -> None:
        self._loss = loss
        self._gradients = gradients

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        vectors = [self._loss.detach().reshape(1)]
        vectors += [gradient.flatten() for gradient in self._gradients()]
        return np.asarray(torch.cat(vectors).numpy(), dtype=dtype)


def open_training(program: str, options: Mapping[str, Any]) -> Callable[[], Gradients]:
    """A function that makes a step; ``program``: ``OFFICIAL`` or ``OURS``; ``options``: width and decoder."""
    build = _official_step if program == OFFICIAL else _our_step
    return build(options["width"], options["decoder"])


def _official_step(width: Width, decoder: str) -> Callable[[], Gradients]:
    images, target = _batch()
    model = _official_model(width, decoder)

    def loss() -> Tensor:
        return F.cross_entropy(model((images - MEAN) / STD), target, ignore_index=255)

    return _steps(model, loss, lambda: (_gradient(parameter) for parameter in model.parameters()))


def _our_step(width: Width, decoder: str) -> Callable[[], Gradients]:
    images, target = _batch()
    model, names = _our_model(width, decoder)
    task = Segmentation(classes=tuple(f"class {index}" for index in range(CLASSES)))
    align_corners = model.decoder("labels").align_corners

    def loss() -> Tensor:
        return task.loss(model(images)["labels"], target, align_corners=align_corners)

    def gradients() -> Iterator[Tensor]:
        for name in names:
            yield _our_layout(name, _gradient(model.get_parameter(our_name(name))))

    return _steps(model, loss, gradients)


def _steps(
    model: nn.Module, loss: Callable[[], Tensor], gradients: Callable[[], Iterator[Tensor]]
) -> Callable[[], Gradients]:
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> Gradients:
        total = loss()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        return Gradients(total, gradients)

    return step


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _batch() -> tuple[Tensor, Tensor]:
    """Images in [0, 1], and regions of classes with a share of ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 3, *SIZE, generator=generator)
    coarse = torch.randint(0, CLASSES, (BATCH, SIZE[0] // 8, SIZE[1] // 8), generator=generator)
    target = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return images, target.masked_fill(torch.rand(target.shape, generator=generator) < 0.05, 255)


class _LinearDecoder(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, num_classes)

    def forward(self, tokens: Tensor, rows: int) -> Tensor:
        return self.head(tokens).transpose(1, 2).unflatten(2, (rows, -1))


def _official_model(width: Width, decoder: str) -> nn.Module:
    model = SegmenterModel(**NAMED_SIZES[width], num_classes=CLASSES, grid=(SIZE[0] // PATCH, SIZE[1] // PATCH))
    if decoder == "linear":
        model.add_module("decoder", _LinearDecoder(NAMED_SIZES[width]["embed_dim"], CLASSES))
    fill(model)
    return model


def _our_model(width: Width, decoder: str) -> tuple[DenseModel, list[str]]:
    """Our model with the weights of the official one, and the names of the official parameters in their order."""
    positions = {"kind": "learned", "grid": (SIZE[0] // PATCH, SIZE[1] // PATCH)}
    encoder = vit_config(width, patch_size=PATCH, final_norm=True, norm_eps=1e-5, positions=positions)
    options = {"linear": {"kind": "segmenter_linear"}, "mask": {"kind": "segmenter_mask", "dropout": 0.0}}
    config = {
        "encoder": encoder.plain(),
        "heads": {"labels": {"decoder": options[decoder], "out_channels": CLASSES}},
        "normalisation": {"mean": (MEAN,) * 3, "std": (STD,) * 3},
    }
    model = DenseModel(ModelConfig.parse(config))
    official = _official_model(width, decoder)
    model.load_state_dict({our_name(name): _our_layout(name, value) for name, value in official.state_dict().items()})
    return model, [name for name, _ in official.named_parameters()]


def our_name(name: str) -> str:
    """The name of an official parameter in our model."""
    name = name.replace("cls_emb", "class_tokens").replace("decoder_norm", "norm").replace("decoder.", "heads.labels.")
    return f"{name}.weight" if name.endswith(TRANSPOSED) else name


def _our_layout(name: str, value: Tensor) -> Tensor:
    """An official value as our model holds it, or the reverse."""
    return value.t() if name.endswith(TRANSPOSED) else value
