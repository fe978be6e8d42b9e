"""What a linear layer on the features of a frozen encoder reaches: the measure of what a head adds to them.

Ridge regression in closed form, from the tokens of all taps to what their patches hold: shares of the classes, or the
mean of values. It is evaluated on val as the heads are.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.evaluation.evaluate import evaluate
from densevit.evaluation.selection import open_dataset, read_target
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.batches import SourceBatches
from densevit.training.config import TrainConfig
from densevit.training.feature_cache import FeatureCache, to_taps
from densevit.types import DenseOutput, Taps

TOKENS = 12_000
"""Tokens that it learns from, spread evenly over the training photos."""
RIDGE = 1e-2
"""Weight of the squared norm of the weights, per token."""


def linear_probe(
    model: DenseModel,
    tasks: Mapping[str, Task],
    config: TrainConfig,
    cache: FeatureCache,
    sources: Sequence[SourceBatches],
) -> dict[str, dict[str, Any]]:
    """Metrics on val of a linear layer for every head whose source has val; draws no random numbers."""
    metrics: dict[str, dict[str, Any]] = {}
    for source in sources:
        if source.source.val is None:
            continue
        heads = {head: tasks[head] for head in source.source.heads}
        layers = {head: _fit(head, task, model, cache, source) for head, task in heads.items()}
        dataset = open_dataset(source.source.val, source.source.heads, dict(tasks))
        shim: Any = _Linear(model, layers)

        def encode(images: Tensor) -> Taps:
            return cache.taps(images[0], model)

        metrics |= evaluate(shim, heads, config.fit.whole(), dataset, encode=encode)
    return metrics


def _fit(head: str, task: Task, model: DenseModel, cache: FeatureCache, source: SourceBatches) -> Tensor:
    """The layer (taps * C + 1, K) of least squares."""
    chosen = source.chosen[:: max(len(source.chosen) // 200, 1)]
    rows: list[Tensor] = []
    wanted: list[Tensor] = []
    for index in chosen:
        example = source.view(index, 0)
        target = read_target(head, task, example, source.dataset)
        values, known = patch_targets(task, target, model.config.encoder.patch_size)
        places = known.nonzero()[:, 0]
        places = places[:: max(len(places) * len(chosen) // TOKENS, 1)]
        grid = model.encoder.grid_of((example.image.shape[-2], example.image.shape[-1]))
        features = torch.tensor(cache.read(example.image))[None].to(model.mean.device)
        rows.append(_inputs(to_taps(features, model, grid, cache.depth))[0].cpu()[places])
        wanted.append(values[places])
    x, y = torch.cat(rows).double(), torch.cat(wanted).double()
    penalty = RIDGE * max(len(x), 1) * torch.eye(x.shape[1], dtype=x.dtype)
    penalty[-1, -1] = 1e-9  # the bias is free
    return torch.linalg.solve(x.T @ x + penalty, x.T @ y).float()


def patch_targets(task: Task, target: Tensor, patch: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A target (H, W) or (K, H, W) -> means over the known pixels of each patch (N, K), and which have any (N,).

    Of classes, the means are their shares.
    """
    if task.class_table is not None:
        count = len(task.class_table.names)
        known = (target >= 0) & (target < count)
        values = F.one_hot(target.where(known, torch.zeros_like(target)), count).permute(2, 0, 1).float()
    else:
        values = target.float() if target.ndim == 3 else target[None].float()
        known = values.isfinite().all(0)
        if task.target == "depth":  # 0 is unknown
            known &= values[0] > 0
    weight = known.float()[None]
    values = values.where(known, torch.zeros_like(values))
    shares = F.avg_pool2d(weight, patch)
    means = F.avg_pool2d(values, patch) / shares.clamp(min=1e-6)
    return means.flatten(1).T, shares.flatten() > 0


def _inputs(taps: Taps) -> Tensor:
    """Normalised tokens of all taps side by side, and a one: (B, N, taps * C + 1)."""
    parts = [F.layer_norm(tokens.float(), tokens.shape[-1:]) for tokens in taps.tokens]
    return torch.cat((*parts, torch.ones_like(parts[0][..., :1])), dim=-1)


class _Linear:
    """As much of a model as an evaluation with cached features needs."""

    def __init__(self, model: DenseModel, layers: Mapping[str, Tensor]) -> None:
        self.config, self.mean, self.layers = model.config, model.mean, layers

    def decode(self, taps: Taps, heads: Sequence[str], *, coarse: bool = False) -> dict[str, DenseOutput]:
        inputs = _inputs(taps)
        outputs = {head: inputs @ self.layers[head].to(inputs.device) for head in heads}
        return {head: DenseOutput(x.transpose(1, 2).unflatten(2, taps.grid)) for head, x in outputs.items()}

    def decoder(self, head: str) -> SimpleNamespace:
        return SimpleNamespace(align_corners=False)
