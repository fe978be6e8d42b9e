"""The training loop, top to bottom."""

import logging
import signal
from contextlib import ExitStack, closing
from pathlib import Path

import torch
from torch import Tensor, nn

from densevit.errors import DensevitError
from densevit.evaluation.inspection import EvaluationRecorder
from densevit.tasks import Task
from densevit.training.batches import Batch, steps
from densevit.training.build_model import build_model, open_cache, set_training
from densevit.training.config import TrainConfig
from densevit.training.datasets import fill_cache, open_sources, validate
from densevit.training.distributed import Group, gathering, processes, spread, unspread
from densevit.training.ema import averaged, start_average, update_average
from densevit.training.learner import Learner, compiler_missing
from densevit.training.loss_weighting import LossWeights
from densevit.training.nonfinite_batches import diverged_in_words, keep_bad
from densevit.training.optim import build_optimiser, clip
from densevit.training.run.recorder import Run
from densevit.training.seeds import be_deterministic, seed_everything
from densevit.training.signals import Asked, Interrupted, Stopped, listening
from densevit.training.train_state import TrainState, claim_folder

_log = logging.getLogger(__name__)


def train(config: TrainConfig, out: Path, *, resume: bool = False, device: str = "cpu") -> Path:
    """Train, evaluate and save; in every process that ``torchrun`` started, or in this one alone.

    Args:
        config: the run.
        out: run folder, shared by all processes: config.yaml, log.jsonl, report.html, states/, bad/, models.
        resume: continue the run in ``out`` from its last state, or begin it if there is none.
        device: "cpu", "cuda".

    Returns:
        Path of the finished model.

    Raises:
        ConfigError: if ``out`` holds another run.
        DataError: if the data cannot be used.
        CheckpointError: if a file with weights, or the state to resume from, cannot be used.
        DensevitError: if too many steps in a row were bad.
        Stopped: after Ctrl-C or SIGTERM, when the state is saved.
    """
    with (
        processes(device, shard=config.shard, timeout_s=config.timeout_s) as group,
        listening() as asked,
        ExitStack() as stack,
    ):
        try:
            return _train(config, out, resume=resume or group.restarted, group=group, asked=asked, stack=stack)
        except Exception as error:
            if config.compile and (advice := compiler_missing(error)) is not None:
                raise advice from error
            raise


def _train(config: TrainConfig, out: Path, *, resume: bool, group: Group, asked: Asked, stack: ExitStack) -> Path:
    group.on_first(lambda: claim_folder(config, out, resume=resume))
    if config.deterministic:
        be_deterministic()
    torch.manual_seed(config.seed)
    model = build_model(config).to(group.device)
    model.encoder.checkpointing = config.checkpoint_blocks
    tasks: dict[str, Task] = dict(config.tasks)
    cache = open_cache(config, model)
    sources = open_sources(config, tasks, cache, rank=group.rank, world=group.world)
    learner = Learner(model, tasks, config, world=group.world)
    weighting = LossWeights(config.weighting, tuple(tasks)).to(group.device)
    network = spread(learner, model, group, shard=config.shard, sync_bn=config.sync_bn)
    progress = TrainState(
        learner,
        weighting,
        build_optimiser(config.optim, model, weighting),
        torch.amp.GradScaler(group.device.type, enabled=config.precision == "fp16"),
        start_average(model, config.ema),
    )
    if resume:
        progress.load(out / "states", config, group)
    start = progress.done
    _log.info("after %d of %d steps; each has %s", start, config.iterations, "; ".join(s.in_words() for s in sources))
    run: Run | None = None

    def open_run() -> None:
        """Claim the folder, not before all is known to fit; when the stack ends the run notes how it did."""
        nonlocal run
        run = stack.enter_context(Run(config, out, start=start, parameters=model.num_parameters()))
        run.figures = progress.figures

    group.on_first(open_run)
    fill_cache(config, sources, cache, asked)
    group.wait()

    def look() -> None:
        """Evaluate what would be saved now."""
        progress.unseen = True
        add = group.sum if group.world > 1 else None

        def answer(done: int, total: int) -> None:
            if asked.signal and group.world == 1:  # several processes can't leave an evaluation by themselves
                raise Interrupted

        with unspread(model, progress.average, group) if config.shard else averaged(model, progress.average) as seen:
            watch, part = EvaluationRecorder(config.pictures), (group.rank, group.world)
            figures = validate(seen, tasks, config, cache, part=part, add=add, progress=answer, watch=watch)
            for other in group.gather(watch)[1:]:
                watch.merge(other)
            if run is not None:
                run.evaluated(progress.done, figures, seen, tasks, watch)
        progress.unseen, progress.figures = False, figures

    try:
        if progress.unseen:
            look()
        numbers = (start * config.accumulate, config.iterations * config.accumulate)
        streams = [stack.enter_context(closing(steps(source, *numbers, config.workers))) for source in sources]
        for iteration in range(start, config.iterations):
            for rates in progress.optimiser.param_groups:
                base = config.optim.lr * rates["lr_mult"]
                rates["lr"] = config.schedule.lr_at(iteration, base=base, iterations=config.iterations)
            set_training(model, config)
            parts = [[next(each) for each in streams] for _ in range(config.accumulate)]
            losses, stop = _step(progress, network, config, parts, out / "bad", group=group, asked=asked)
            progress.done = iteration + 1
            if run is not None:
                run.step(progress.done, dict(zip(tasks, losses, strict=True)), lr=rates["lr"])
            last = progress.done == config.iterations
            diverged = progress.bad >= config.max_bad_steps
            if last or progress.done % config.eval_every == 0:
                look()
            if last or progress.done % config.checkpoint_every == 0 or diverged:
                progress.bad = 0 if diverged else progress.bad
                progress.save(out / "states", config, group)  # after the evaluation, so a state lacks none
            if diverged:
                raise DensevitError(diverged_in_words(config.max_bad_steps, progress.done, losses, out))
            if stop and not last:
                raise Interrupted
    except Interrupted:
        progress.save(out / "states", config, group)
        raise Stopped(
            f"stopped after {progress.done} of {config.iterations} steps, and the state is saved; go on with densevit "
            f"train --resume --out {out}",
            asked.signal or signal.SIGTERM,  # another process was asked
        ) from None
    with unspread(model, progress.average, group) if config.shard else averaged(model, progress.average) as seen:
        return group.on_first(lambda: run.finish(seen, tasks) if run is not None else out)


def _step(
    progress: TrainState,
    network: nn.Module,
    config: TrainConfig,
    parts: list[list[Batch]],
    folder: Path,
    *,
    group: Group,
    asked: Asked,
) -> tuple[Tensor, bool]:
    """One step; a bad one changes nothing. Losses per head, of all processes, and whether any is asked to stop."""
    learner, optimiser, scaler = progress.learner, progress.optimiser, progress.scaler
    counts = torch.stack([learner.counts(part) for part in parts])
    totals = group.sum(counts.sum(0))
    buffers = [buffer.clone() for buffer in learner.buffers()]
    optimiser.zero_grad(set_to_none=True)
    own, weights = torch.zeros(len(parts), len(config.tasks)), progress.weighting.weights()
    for number, part in enumerate(parts):
        seed_everything(config.seed, progress.done * len(parts) + number, group.rank)
        with gathering(network, last=number == len(parts) - 1):
            total, losses = network(part, learner.shares(counts[number], totals), weights)
            scaler.scale(group.world * total).backward()  # the mean over processes is to be a sum
        own[number] = losses.cpu()
    *told, stop = group.sum(torch.cat((own.sum(0), torch.tensor([float(asked.signal)]))))
    summed = torch.stack(told)
    scaler.unscale_(optimiser)
    norm = clip(list(learner.parameters()), config.optim.clip_norm)
    if any(True for _ in progress.weighting.parameters()):  # they see the losses of all processes
        progress.weighting(dict(zip(config.tasks, summed.to(group.device), strict=True))).backward()
    if summed.isfinite().all() and norm.isfinite():
        scaler.step(optimiser)
        update_average(progress.average, learner.model, config.ema)
        progress.moved, progress.bad = progress.done + 1, 0
    else:
        for buffer, before in zip(learner.buffers(), buffers, strict=True):
            buffer.copy_(before)  # batch norm has taken the batch into its means
        if not (scaler.is_enabled() and summed.isfinite().all() and scaler.get_scale() > 1):  # else fp16 overflowed
            progress.bad += 1
            keep_bad(folder, progress.done, parts, own, norm, rank=group.rank, heads=tuple(config.tasks))
    scaler.update()
    return summed, bool(stop)
