"""One step of training, by the arithmetic of the Segmenter authors' program and by us, from the same weights.

Theirs is that of ``peers/segmenter.py``, trained as their program trains: logits resized to the photo, cross entropy
over the valid pixels, SGD with Nesterov momentum. Neither side draws dropout or drop path, so that loss and gradients
of the first step can be compared.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from densevit.encoder.vit import NAMED_SIZES, Width, vit_config
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Segmentation
from densevit.types import Size
from densevit_lab.benchmark.cases import Bars
from densevit_lab.benchmark.peers.fill import fill
from densevit_lab.benchmark.peers.segmenter import MEAN, PATCH, STD, _Segmenter

BATCH, SIZE, CLASSES = 8, (480, 352), 11
"""Of the step; the classes are those of CamVid."""
OFFICIAL, OURS = "official arithmetic", "densevit"


@dataclass(frozen=True)
class TrainingCase:
    """A model.

    Attributes:
        title: for the table.
        options: width and decoder, "linear" or "mask".
        bars: what is demanded.
    """

    title: str
    options: dict[str, str]
    bars: Bars


def _case(width: Width, decoder: str, faster: float) -> TrainingCase:
    title = f"Segmenter-{width}, {decoder} decoder, batch {BATCH} of {SIZE[0]} x {SIZE[1]}"
    return TrainingCase(title, {"width": width, "decoder": decoder}, Bars(eager=faster, memory=round(1 / 0.7, 2)))


TRAINING_CASES: dict[str, TrainingCase] = {
    "segmenter-ti-linear": _case("Ti", "linear", 1.7),
    "segmenter-ti-mask": _case("Ti", "mask", 1.7),
    "segmenter-s-linear": _case("S", "linear", 1.4),
    "segmenter-s-mask": _case("S", "mask", 1.4),
}


class Gradients:
    """Loss and gradients of the last step as one vector, which is made only where somebody wants it."""

    def __init__(self, loss: Tensor, gradients: Callable[[], Iterator[Tensor]]) -> None:
        self._loss, self._gradients = loss, gradients

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        flat = torch.cat([self._loss.detach().reshape(1), *(g.flatten() for g in self._gradients())])
        return np.asarray(flat.numpy(), dtype=dtype)


def open_training(side: str, options: Mapping[str, Any]) -> Callable[[], Gradients]:
    """A function that makes a step; ``side``: ``OFFICIAL`` or ``OURS``."""
    images, target = _batch()
    if side == OFFICIAL:
        official = _official(options["width"], options["decoder"])
        return _steps(official, lambda: _official_loss(official, images, target), lambda: _gradients(official))
    model, task, order = _ours(options["width"], options["decoder"])
    head = model.decoder("labels")

    def loss() -> Tensor:
        return task.loss(model(images)["labels"], target, align_corners=head.align_corners)

    def gradients() -> Iterator[Tensor]:
        known = dict(model.named_parameters())
        for name in order:
            gradient = known[_our_name(name)].grad
            assert gradient is not None
            yield gradient.t() if name.endswith(TRANSPOSED) else gradient

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


def _official(width: Width, decoder: str) -> nn.Module:
    facts = NAMED_SIZES[width]
    dim = facts["embed_dim"]
    model = _Segmenter(dim, facts["depth"], facts["num_heads"], CLASSES, PATCH)
    grid = _grid()
    model.encoder.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], dim))
    if decoder == "linear":
        model.add_module("decoder", _LinearDecoder(dim, CLASSES))
    fill(model)
    return model


def _official_loss(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(model((images - MEAN) / STD), target, ignore_index=255)


def _gradients(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        assert parameter.grad is not None
        yield parameter.grad


TRANSPOSED = ("proj_patch", "proj_classes")
"""Theirs multiply from the right."""
_NAMES = {
    "decoder.cls_emb": "heads.labels.class_tokens",
    "decoder.proj_patch": "heads.labels.proj_patch.weight",
    "decoder.proj_classes": "heads.labels.proj_classes.weight",
}


def _our_name(name: str) -> str:
    return _NAMES.get(name, name.replace("decoder.decoder_norm", "decoder.norm").replace("decoder.", "heads.labels."))


def _ours(width: Width, decoder: str) -> tuple[DenseModel, Segmentation, list[str]]:
    """Our model with the weights of ``_official``, its task, and the official names in their order."""
    official = _official(width, decoder)
    encoder = vit_config(
        width, patch_size=PATCH, final_norm=True, norm_eps=1e-5, positions={"kind": "learned", "grid": _grid()}
    )
    options = {"linear": {"kind": "segmenter_linear"}, "mask": {"kind": "segmenter_mask", "dropout": 0.0}}
    config = {
        "encoder": encoder.plain(),
        "heads": {"labels": {"decoder": options[decoder], "out_channels": CLASSES}},
        "normalisation": {"mean": (MEAN,) * 3, "std": (STD,) * 3},
    }
    model = DenseModel(ModelConfig.parse(config))
    state = {
        _our_name(name): (value.t() if name.endswith(TRANSPOSED) else value).clone()
        for name, value in official.state_dict().items()
    }
    model.load_state_dict(state)
    task = Segmentation(classes=tuple(f"class {index}" for index in range(CLASSES)))
    return model, task, [name for name, _ in official.named_parameters()]


def _grid() -> Size:
    return SIZE[0] // PATCH, SIZE[1] // PATCH
