"""How long the encoder and a step of every head take on this machine, for any input size."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from densevit.tasks import Task
from densevit.training.batches import Batch
from densevit.training.build_model import build_model
from densevit.training.config import TrainConfig
from densevit.training.learner import Learner
from densevit.types import Size

REPEATS = 2
"""The fastest of so many repetitions counts, after one that warms up."""
EVALUATED_S = 0.1
"""Seconds per photo of an evaluation besides the head: reading, enlarging, counting, drawing."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured at one input size; others are in proportion to their tokens, and attention to their square.

    Attributes:
        tokens: of the size that was measured.
        encoder_s: of one image.
        heads: seconds per image of a training step of every head.
        width: of the encoder.
        patch: of the encoder.
    """

    tokens: int
    encoder_s: float
    heads: Mapping[str, float]
    width: int
    patch: Size

    def of(self, heads: Sequence[str]) -> "Costs":
        """The costs without those of other heads."""
        return replace(self, heads={head: self.heads[head] for head in heads})

    def encode_s(self, size: Size) -> float:
        """Seconds to encode an image of a size."""
        return self.encoder_s * self._work(self._tokens(size)) / self._work(self.tokens)

    def step_by_head(self, size: Size, batch: int) -> dict[str, float]:
        """Seconds of a step of every head."""
        factor = batch * self._tokens(size) / self.tokens
        return {head: seconds * factor for head, seconds in self.heads.items()}

    def step_s(self, size: Size, batch: int) -> float:
        """Seconds of a step of all heads."""
        return sum(self.step_by_head(size, batch).values())

    def evaluate_s(self, size: Size) -> float:
        """Seconds to evaluate an image whose features are cached: a step is three times a forward pass."""
        return self.step_s(size, 1) / 3 + EVALUATED_S * len(self.heads)

    def _tokens(self, size: Size) -> int:
        return (size[0] // self.patch[0]) * (size[1] // self.patch[1])

    def _work(self, tokens: int) -> float:
        # A block has 24 C^2 operations per token in its matrices, and 4 N C in attention.
        return tokens * (1 + tokens / (6 * self.width))


def measure(config: TrainConfig, device: str = "cpu") -> Costs:
    """Time the encoder, and a forward and backward pass of every head, on random images of the config's crop.

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
        tasks: dict[str, Task] = dict(config.tasks)
        learner = Learner(model, tasks, config)
        heads: dict[str, float] = {}
        for head, task in tasks.items():
            target = random_target(task, (batch, height, width))

            def step(head: str = head, target: torch.Tensor = target) -> None:
                losses, _ = learner.losses(Batch(features, grid, {head: target}))
                losses[head].backward()

            heads[head] = _fastest(step, device) / batch
    return Costs(grid[0] * grid[1], encoder_s, heads, config.model.encoder.embed_dim, patch)


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
