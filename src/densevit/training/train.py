"""The training loop, top to bottom."""

import logging
import signal
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from densevit.errors import DensevitError
from densevit.io.lock import lock_folder
from densevit.tasks import Task
from densevit.training.batches import Batch, steps
from densevit.training.build_model import build_model, open_cache, set_training
from densevit.training.config import TrainConfig
from densevit.training.datasets import fill_cache, open_sources
from densevit.training.distributed import Group, join_processes, sync_gradients, wrap_distributed
from densevit.training.ema import init_ema, update_ema
from densevit.training.hooks import TrainHooks
from densevit.training.learner import Learner, compiler_missing
from densevit.training.linear_probe import linear_probe
from densevit.training.loss_weighting import LossWeights
from densevit.training.nonfinite_batches import divergence_message, save_nonfinite
from densevit.training.optim import build_optimiser, clip
from densevit.training.run.recorder import RunRecorder
from densevit.training.seeds import be_deterministic, seed_everything
from densevit.training.session import Session, evaluate_now, finish, is_stale
from densevit.training.signals import Interrupted, Stopped, StopRequest, stop_on_signals
from densevit.training.train_state import TrainState, claim_folder

LONG_RUN_ADVICE = "every step runs the whole encoder, for which CPUs are slow; --freeze encoder trains in minutes"

_log = logging.getLogger(__name__)


def train(
    config: TrainConfig, out: Path, *, resume: bool = False, device: str = "cpu", hooks: TrainHooks | None = None
) -> Path:
    """Train, evaluate and save, in this process or in all that ``torchrun`` started; returns the finished model's path.

    Args:
        config: the run.
        out: run folder, shared by all processes: config.yaml, log.jsonl, report.html, states/, bad/, models.
        resume: continue the run in ``out`` from its last state, or begin it if there is none.
        device: "cpu", "cuda".
        hooks: callbacks at certain points of the loop.

    Raises:
        ConfigError: if ``out`` holds another run, or another process trains in it.
        DataError: if the data cannot be used.
        CheckpointError: if a file with weights, or the state to resume from, cannot be used.
        DensevitError: if too many steps in a row had losses or gradients that were not finite.
        Stopped: after Ctrl-C, SIGTERM or SIGHUP, once the state is saved.
    """
    with (
        join_processes(device, shard=config.shard, timeout_s=config.timeout_s) as group,
        stop_on_signals() as stop_request,
    ):
        try:
            return _train(config, out, group, stop_request, hooks or TrainHooks(), resume=resume or group.restarted)
        except Exception as error:
            if config.compile and (advice := compiler_missing(error)) is not None:
                raise advice from error
            raise


def _train(
    config: TrainConfig, out: Path, group: Group, stop_request: StopRequest, hooks: TrainHooks, *, resume: bool
) -> Path:
    """The whole run; when it returns, its sharded weights are freed, before the group of their processes is."""
    with ExitStack() as stack:
        advice = "wait until it has ended, or choose another --out"
        group.on_first(lambda: stack.enter_context(lock_folder(out, advice)))
        run = _prepare(config, out, group, stop_request, hooks, resume=resume)
        group.on_first(partial(_open_recorder, run, stack))  # not before everything is known to fit together
        fill_cache(config, run.sources, run.cache, stop_request)
        if config.probe and run.cache is not None and run.recorder is not None and not run.state.done:
            run.recorder.probed(linear_probe(run.model, run.tasks, config, run.cache, run.sources))
        group.wait()
        try:
            if run.state.eval_pending:
                evaluate_now(run)
            if not is_stale(run):
                _loop(run)
        except Interrupted:
            _save(run)
            raise Stopped(
                f"stopped after {run.state.done} of {config.iterations} steps; the state is saved; continue with "
                f"densevit train --resume --out {out}",
                stop_request.signal or signal.SIGTERM,  # 0 where another process got the signal
            ) from None
        return finish(run)


def _prepare(
    config: TrainConfig, out: Path, group: Group, stop_request: StopRequest, hooks: TrainHooks, *, resume: bool
) -> Session:
    """Build the model, its data and its optimiser; to resume, load the last state into them."""
    group.on_first(partial(claim_folder, config, out, resume=resume))
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
    network = wrap_distributed(learner, model, group, shard=config.shard, sync_bn=config.sync_bn)
    state = TrainState(
        learner,
        weighting,
        build_optimiser(config.optim, model, weighting),
        torch.amp.GradScaler(group.device.type, enabled=config.precision == "fp16"),
        init_ema(model, config.ema),
        untaught=set(tasks),
    )
    if resume:
        state.load(out / "states", config, group)
    batches = "; ".join(source.describe() for source in sources)
    _log.info("after %d of %d steps; each has %s", state.done, config.iterations, batches)
    return Session(config, out, group, stop_request, hooks, tasks, cache, sources, network, state)


def _open_recorder(run: Session, stack: ExitStack) -> None:
    """Start recording into the run folder; when ``stack`` closes, the recorder notes how the run ended."""
    recorder = RunRecorder(
        run.config,
        run.out,
        start=run.state.done,
        parameters=run.model.num_parameters(),
        metrics=run.state.metrics,
        on_log=run.hooks.on_log,
        advice=LONG_RUN_ADVICE if run.group.device.type == "cpu" and run.cache is None else None,
    )
    run.recorder = stack.enter_context(recorder)


def _loop(run: Session) -> None:
    """For each iteration: set the rates, draw the batches, step, then evaluate and save when due."""
    config, state = run.config, run.state
    first, end = state.done * config.accumulate, config.iterations * config.accumulate
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(steps(source, first, end, config.workers))) for source in run.sources]
        for iteration in range(state.done, config.iterations):
            for rates in state.optimiser.param_groups:
                base = config.optim.lr * rates["lr_mult"]
                rates["lr"] = config.schedule.lr_at(iteration, base=base, iterations=config.iterations)
            set_training(run.model, config)
            batches = [[next(stream) for stream in streams] for _ in range(config.accumulate)]
            run.hooks.before_step(iteration, batches)
            losses, stop = _step(run, batches)
            state.done = iteration + 1
            if run.recorder is not None:
                run.recorder.step(state.done, dict(zip(run.tasks, losses, strict=True)), lr=rates["lr"])
            last = state.done == config.iterations
            if last or state.done % config.eval_every == 0 or state.done % config.checkpoint_every == 0:
                state.check_taught(run.group)
            diverged = state.bad_steps >= config.max_bad_steps
            if last or state.done % config.eval_every == 0:
                evaluate_now(run)
                last = last or is_stale(run)
            if diverged:
                state.bad_steps = 0  # a run that is resumed has all its attempts again
            if last or state.done % config.checkpoint_every == 0 or diverged:
                _save(run)  # after the evaluation, so that a resumed run need not repeat it
            if diverged:
                raise DensevitError(divergence_message(config.max_bad_steps, state.done, losses, run.out))
            if last:
                break
            if stop:
                raise Interrupted


def _step(run: Session, batches: list[list[Batch]]) -> tuple[Tensor, bool]:
    """Make one optimiser step; if losses or gradients are not finite, nothing changes and the batches are kept.

    Returns losses per head, (heads,), over all processes; and whether any process has been asked to stop.
    """
    config, group, state = run.config, run.group, run.state
    learner, optimiser, scaler = state.learner, state.optimiser, state.scaler
    buffers_before = [buffer.clone() for buffer in learner.buffers()]
    optimiser.zero_grad(set_to_none=True)
    local_losses = _backward(run, batches)
    stop_flag = torch.tensor([float(run.stop_request.signal)])
    *head_losses, stop = group.sum(torch.cat((local_losses.sum(0), stop_flag)))
    losses = torch.stack(head_losses)
    scaler.unscale_(optimiser)
    norm = clip(list(learner.parameters()), config.optim.clip_norm)
    if any(True for _ in state.weighting.parameters()):  # learnt from the losses of all processes
        state.weighting(dict(zip(config.tasks, losses.to(group.device), strict=True))).backward()
    if losses.isfinite().all() and norm.isfinite():
        scaler.step(optimiser)
        update_ema(state.ema, learner.model, config.ema, state.done)
        state.last_update = state.done + 1
        state.bad_steps = 0
    else:
        for buffer, before in zip(learner.buffers(), buffers_before, strict=True):
            buffer.copy_(before)  # the running means of batch norm have taken the batch in
        # Gradients that overflow in fp16 are normal: the scaler lowers its scale, and the batch is not to blame.
        overflowed = scaler.is_enabled() and losses.isfinite().all() and scaler.get_scale() > 1
        if not overflowed:
            state.bad_steps += 1
            save_nonfinite(run.out / "bad", state.done, batches, local_losses, norm, rank=group.rank, heads=run.tasks)
    scaler.update()
    return losses, bool(stop)


def _backward(run: Session, batches: list[list[Batch]]) -> Tensor:
    """Accumulate the gradients of a step's micro-batches; returns their losses in this process, (micro-batches, heads).

    What the losses divide by, such as the known pixels, is counted over the whole step first. So the gradient does not
    depend on how the step is split into micro-batches and processes.
    """
    config, group, learner = run.config, run.group, run.state.learner
    counts = torch.stack([learner.counts(micro_batch) for micro_batch in batches])
    run.state.see_targets(batches)
    totals = group.sum(counts.sum(0))
    weights = run.state.weighting.weights()
    losses = torch.zeros(len(batches), len(config.tasks))
    for number, micro_batch in enumerate(batches):
        seed_everything(config.seed, run.state.done * len(batches) + number, group.rank)
        with sync_gradients(run.network, last=number == len(batches) - 1):
            total, head_losses = run.network(micro_batch, learner.shares(counts[number], totals), weights)
            # DDP and FSDP average gradients over processes; here they are to be summed.
            run.state.scaler.scale(group.world * total).backward()
        losses[number] = head_losses.cpu()
    return losses


def _save(run: Session) -> None:
    on_written = partial(run.hooks.on_state_written, run.state.done)
    run.state.save(run.out / "states", run.config, run.group, on_written=on_written)
