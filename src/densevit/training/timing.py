"""How long the encoder and a step of every head take on this machine, for any input size."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from densevit.data.sample import ClassTable, Sample
from densevit.evaluation.evaluate import evaluate
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.batches import Batch
from densevit.training.build_model import build_model, set_training
from densevit.training.config import TrainConfig
from densevit.training.feature_cache import to_taps
from densevit.training.learner import Learner
from densevit.types import Size, Taps

REPEATS = 2
"""The fastest of so many repetitions counts, after one that warms up."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured at one input size; others are in proportion to their tokens, and attention to their square.

    Attributes:
        tokens: of the size that was measured.
        encoder_s: of one image.
        heads: seconds per image of a training step of every head.
        evaluations: seconds per photo of an evaluation of every head, whose features are cached.
        width: of the encoder.
        patch: of the encoder.
        crop: (height, width) in tokens of what a training step sees of a larger image; all of it, if None.
    """

    tokens: int
    encoder_s: float
    heads: Mapping[str, float]
    evaluations: Mapping[str, float]
    width: int
    patch: Size
    crop: Size | None = None

    def of(self, heads: Sequence[str]) -> "Costs":
        """The costs without those of other heads."""
        kept = {head: self.heads[head] for head in heads}
        return replace(self, heads=kept, evaluations={head: self.evaluations[head] for head in heads})

    def encode_s(self, size: Size) -> float:
        """Seconds to encode an image of a size."""
        return self.encoder_s * self._work(self._tokens(size)) / self._work(self.tokens)

    def step_by_head(self, size: Size, batch: int) -> dict[str, float]:
        """Seconds of a step of every head."""
        factor = batch * self._tokens(size) * self.share_seen(size) / self.tokens
        return {head: seconds * factor for head, seconds in self.heads.items()}

    def step_s(self, size: Size, batch: int) -> float:
        """Seconds of a step of all heads."""
        return sum(self.step_by_head(size, batch).values())

    def evaluate_s(self, size: Size) -> float:
        """Seconds to evaluate a photo; of smaller inputs no less, since much of it is done at the photo's own size."""
        return sum(self.evaluations.values()) * max(self._tokens(size) / self.tokens, 1.0)

    def seen(self, size: Size) -> Size:
        """(height, width) in tokens of what a training step sees of images of a size."""
        grid = (size[0] // self.patch[0], size[1] // self.patch[1])
        return grid if self.crop is None else (min(grid[0], self.crop[0]), min(grid[1], self.crop[1]))

    def share_seen(self, size: Size) -> float:
        """Its share of the image."""
        seen = self.seen(size)
        return seen[0] * seen[1] / self._tokens(size)

    def _tokens(self, size: Size) -> int:
        return (size[0] // self.patch[0]) * (size[1] // self.patch[1])

    def _work(self, tokens: int) -> float:
        # A block has 24 C^2 operations per token in its matrices, and 4 N C in attention.
        return tokens * (1 + tokens / (6 * self.width))


def measure(config: TrainConfig, photo: Size, device: str = "cpu") -> Costs:
    """Time the encoder, and a step and an evaluation of every head, on random images of the config's crop.

    Evaluations are of photos of (height, width) ``photo``.

    The states of the random number generators are as before.
    """
    with torch.random.fork_rng():
        model = build_model(config, quiet=True).to(device)
        height, width = config.augment.crop
        patch = config.model.encoder.patch_size
        grid = (height // patch[0], width // patch[1])
        image = torch.rand(1, config.model.encoder.in_channels, height, width, device=device)
        depth = config.frozen_depth

        def encode() -> list[torch.Tensor]:
            with torch.inference_mode():
                return model.encode_first(image, depth)

        encoder_s = _fastest(encode, device)
        batch = 2  # batch norm needs more than one value per channel at any size
        features = torch.stack([s[0] for s in encode()]).half().cpu().clone().expand(batch, -1, -1, -1)
        images = image.cpu().expand(batch, -1, -1, -1)
        tasks: dict[str, Task] = dict(config.tasks)
        learner = Learner(model, tasks, config)
        heads: dict[str, float] = {}
        evaluations: dict[str, float] = {}
        for head, task in tasks.items():
            target = random_target(task, (batch, height, width))

            def step(head: str = head, target: torch.Tensor = target) -> None:
                losses, _ = learner.losses(Batch(features, grid, {head: target}, images))
                losses[head].backward()

            heads[head] = _fastest(step, device) / batch
            evaluations[head] = _fastest(_evaluation(head, task, model.eval(), config, features[:1], photo), device)
            set_training(model, config)
    return Costs(grid[0] * grid[1], encoder_s, heads, evaluations, config.model.encoder.embed_dim, patch)


def _evaluation(
    head: str, task: Task, model: DenseModel, config: TrainConfig, features: torch.Tensor, photo: Size
) -> Callable[[], object]:
    """The evaluation of one random photo, whose features are there already."""
    height, width = config.augment.crop
    grid = (height // config.model.encoder.patch_size[0], width // config.model.encoder.patch_size[1])
    target = random_target(task, (1, *photo))[0]
    values: dict[str, Any] = {"labels": target.int().numpy()} if task.class_table is not None else {}
    if task.class_table is None:
        values = {"depth": target.numpy()} if task.target == "depth" else {"values": target.permute(1, 2, 0).numpy()}
    sample = Sample("timing", np.zeros((*photo, config.model.encoder.in_channels), np.uint8), **values)

    def encode(images: torch.Tensor) -> Taps:
        return to_taps(features.to(images.device), model, grid, config.frozen_depth, images)

    dataset = _One(sample, task.class_table)
    # Photos are run whole, and the features are those of the crop, whatever the photo's own input size.
    return lambda: evaluate(model, {head: task}, config.fit.whole(), dataset, encode=encode)


class _One:
    """A data set of one sample."""

    def __init__(self, sample: Sample, classes: ClassTable | None) -> None:
        self.sample, self.classes = sample, classes

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample


def random_target(task: Task, shape: tuple[int, int, int]) -> torch.Tensor:
    """A target (B, H, W), or (B, K, H, W) of values, with random classes or values for the loss of a task."""
    batch, height, width = shape
    if task.class_table is not None:
        return torch.randint(len(task.class_table.names), shape)
    return torch.rand(shape) + 0.5 if task.target == "depth" else torch.rand(batch, task.out_channels, height, width)


def _fastest(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[1:])
