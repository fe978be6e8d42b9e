"""The training loop, top to bottom."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.config import to_yaml
from densevit.data import DATASETS, Dataset, FolderConfig
from densevit.errors import CheckpointError, ConfigError, DensevitError
from densevit.io import make_folder, write_bytes_atomic
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.batches import Batch, SourceBatches, check_targets, steps
from densevit.training.evaluate import evaluate
from densevit.training.features import FeatureCache, to_taps
from densevit.training.optim import build_optimiser
from densevit.training.recipe import TrainConfig
from densevit.training.run import Run
from densevit.training.start import build_model, set_training
from densevit.training.state import load_state, restore_rng, save_state
from densevit.types import Taps

_log = logging.getLogger(__name__)


def train(config: TrainConfig, out: Path, *, resume: bool = False, device: str = "cpu") -> Path:
    """Train, evaluate and save.

    Args:
        config: the run.
        out: run folder: config.yaml, log.jsonl, states/, model.safetensors.
        resume: continue the run in ``out`` from its last state.
        device: "cpu", "cuda".

    Returns:
        Path of the finished model.

    Raises:
        ConfigError: if ``out`` holds another run.
        DataError: if the data cannot be used.
        CheckpointError: if a file with weights, or the state to resume from, cannot be used.
    """
    _claim_folder(config, out, resume=resume)
    torch.manual_seed(config.seed)
    model = build_model(config).to(device)
    tasks: dict[str, Task] = dict(config.tasks)
    cache = FeatureCache(config.features.directory, model) if config.features else None
    sources = _open_sources(config, tasks, cache)
    optimiser = build_optimiser(config.optim, model)
    state = load_state(out / "states") if resume else None
    start = 0 if state is None else _restore(state, model, optimiser, out / "states")
    average = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad} if config.ema else {}
    if state is not None:
        average |= {n: v.to(device) for n, v in state["average"].items() if n in average}
        _log.info("resuming after %d of %d iterations", start, config.iterations)
    write_bytes_atomic(out / "config.yaml", to_yaml(config).encode())  # not before all is known to fit
    run = Run(config, out, start=start, parameters=model.num_parameters())
    for source in sources:
        for done in source.prepare():
            if done % 50 == 0:
                _log.info("encoded %d views of %s", done, source.source.train.root or source.source.train.images)

    streams = [steps(source, start, config.iterations, config.workers) for source in sources]
    for iteration in range(start, config.iterations):
        for group in optimiser.param_groups:
            base = config.optim.lr * group["lr_mult"]
            group["lr"] = config.schedule.lr_at(iteration, base=base, iterations=config.iterations)
        set_training(model, config)
        losses = _step(model, tasks, config, sources, [next(stream) for stream in streams], device)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise DensevitError(
                f"the loss is {total.item()} at iteration {iteration}; lower optim.lr or set optim.clip_norm"
            )
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        if config.optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimiser.step()
        for name, parameter in model.named_parameters():
            if name in average and config.ema is not None:
                average[name].lerp_(parameter.detach(), 1 - config.ema)
        done = iteration + 1
        run.step(done, losses, lr=optimiser.param_groups[-1]["lr"])
        if done % config.checkpoint_every == 0 or done == config.iterations:
            save_state(out / "states", done, model, {"optimiser": optimiser.state_dict(), "average": average})
        if done % config.eval_every == 0 or done == config.iterations:
            with _averaged(model, average):
                run.evaluated(done, dict(validate(model, tasks, config, cache)), model.eval(), tasks)
    with _averaged(model, average):
        path = run.finish(model.eval(), tasks)
    return path


def validate(
    model: DenseModel, tasks: dict[str, Task], config: TrainConfig, cache: FeatureCache | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Per head its figures on the val split of its source."""
    model.eval()

    def encode(images: Tensor) -> Taps:
        if cache is None:
            return model.encode(images)
        grid = model.encoder.grid_of((images.shape[-2], images.shape[-1]))
        return to_taps(torch.tensor(cache.read(images[0]))[None].to(images.device), model, grid)

    for source in config.sources:
        if source.val is not None:
            chosen = {head: tasks[head] for head in source.heads}
            dataset = open_dataset(source.val, source.heads, tasks)
            yield from evaluate(model, chosen, config.fit, dataset, encode=encode).items()


def open_dataset(config: FolderConfig, heads: tuple[str, ...], tasks: dict[str, Task]) -> Dataset:
    """The data set with the targets that the heads need, no others read."""
    kinds = {tasks[head].kind for head in heads}
    return DATASETS[config.kind][1](
        config,
        with_labels="segmentation" in kinds,
        with_depth="depth" in kinds,
        with_values="regression" in kinds,
    )


def _open_sources(config: TrainConfig, tasks: dict[str, Task], cache: FeatureCache | None) -> list[SourceBatches]:
    """The batches of every source; a target that is missing, also in val, is found now and not after the last step."""
    for source in config.sources:
        for place in filter(None, (source.train, source.val)):
            dataset = open_dataset(place, source.heads, tasks)
            check_targets(dataset, {head: tasks[head] for head in source.heads})
    return [
        SourceBatches(open_dataset(source.train, source.heads, tasks), source, config, tasks, cache)
        for source in config.sources
    ]


def _restore(state: dict[str, Any], model: DenseModel, optimiser: torch.optim.Optimizer, folder: Path) -> int:
    """Take up a saved state; how many iterations it had done."""
    try:
        model.load_state_dict(state["model"], strict=False)
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError) as error:  # torch's words for shapes and groups that differ
        raise CheckpointError(
            f"the states in {folder} are those of another model or optimiser; resume with the config of the run, or "
            "train into a new folder"
        ) from error
    restore_rng(state)
    return int(state["iteration"])


def _step(
    model: DenseModel,
    tasks: dict[str, Task],
    config: TrainConfig,
    sources: list[SourceBatches],
    batches: list[Batch],
    device: str,
) -> dict[str, Tensor]:
    """The weighted loss of every head; a head of two sources has the sum."""
    losses: dict[str, Tensor] = {}
    for source, batch in zip(sources, batches, strict=True):
        inputs = batch.inputs.to(device)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            taps = model.encode(inputs) if source.cache is None else to_taps(inputs, model, batch.grid)
            outputs = model.decode(taps, source.source.heads)
        for head, target in batch.targets.items():
            corners = model.decoder(head).align_corners
            loss = source.source.weight * tasks[head].loss(outputs[head], target.to(device), align_corners=corners)
            losses[head] = losses[head] + loss if head in losses else loss
    return losses


class _averaged:
    """Within the block the model has the averaged weights; afterwards its own again."""

    def __init__(self, model: DenseModel, average: dict[str, Tensor]) -> None:
        self.parameters = {n: p for n, p in model.named_parameters() if n in average}
        self.average = average
        self.own: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        for name, parameter in self.parameters.items():
            self.own[name] = parameter.detach().clone()
            parameter.data.copy_(self.average[name])

    def __exit__(self, *_: object) -> None:
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.own[name])


def _claim_folder(config: TrainConfig, out: Path, *, resume: bool) -> None:
    path = out / "config.yaml"
    if path.exists() and not resume:
        raise ConfigError(f"{out} already holds a run; pass --resume to continue it, or another --out")
    if path.exists() and path.read_text(encoding="utf-8") != to_yaml(config):
        _log.warning("the config differs from that of the run in %s; the new one is used from here on", out)
    make_folder(out)
