"""Bad batches: those whose losses or gradients are not finite. They are kept, and can be run again.

A batch is a ``.safetensors`` file with inputs and targets beside a ``.json`` with the step and the losses.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.checkpoints.files import read_state_dict, write_tensors
from densevit.config import read_yaml
from densevit.errors import CheckpointError, ConfigError
from densevit.io import write_json
from densevit.training.batches import Batch
from densevit.training.build_model import build_model, set_training
from densevit.training.checkpoint import iteration_of, load_state, states_in
from densevit.training.config import TrainConfig
from densevit.training.learner import Learner
from densevit.training.seeds import seed_everything

KEEP = 40
"""Files of bad batches that a run keeps at most; the newest go, since the first tell how it began."""
_log = logging.getLogger(__name__)


def keep_bad(
    folder: Path,
    step: int,
    parts: Sequence[Sequence[Batch]],
    losses: Tensor,
    norm: Tensor,
    *,
    rank: int,
    heads: tuple[str, ...],
) -> None:
    """Write a step's micro-batches, or those of them whose losses are not finite if there are such.

    Args:
        folder: ``bad/`` of the run.
        step: finished steps before it.
        parts: per micro-batch a batch per source, of this process.
        losses: (micro-batches, heads), of this process; NaN and infinity are what it is about.
        norm: of the gradients of all processes.
        rank: of this process.
        heads: names of the columns of ``losses``.
    """
    finite = losses.isfinite().all(1)
    _log.warning(
        "step %d was skipped: %s, norm of the gradients %s",
        step + 1,
        ", ".join(f"loss/{head} {value:g}" for head, value in zip(heads, losses.sum(0).tolist(), strict=True)),
        f"{norm.item():g}",
    )
    for number, part in enumerate(parts):
        path = folder / f"step-{step + 1:08d}-{number}-{rank}.safetensors"
        if (finite[number] and not finite.all()) or len(list(folder.glob("*.safetensors"))) >= KEEP:
            continue
        tensors = {f"{i}/inputs": batch.inputs for i, batch in enumerate(part)}
        tensors |= {f"{i}/{head}": target for i, batch in enumerate(part) for head, target in batch.targets.items()}
        facts = {
            "steps_before": step,
            "micro_batch": number,
            "of": len(parts),
            "process": rank,
            "grids": [batch.grid for batch in part],
            "losses": {head: str(value) for head, value in zip(heads, losses[number].tolist(), strict=True)},
            "gradient_norm": str(norm.item()),
        }
        write_tensors(path, tensors)
        write_json(path.with_suffix(".json"), facts)


def diverged_in_words(steps: int, done: int, losses: Tensor, out: Path) -> str:
    """Why a run was stopped, and what to do."""
    values = ", ".join(f"{value:g}" for value in losses.tolist())
    return (
        f"losses or gradients were not finite in {steps} steps in a row, the last of them step {done} (losses "
        f"{values}); lower optim.lr or set optim.clip_norm; {out / 'bad'} has the batches, and densevit train --replay "
        "FILE runs one again"
    )


def replay(path: Path, *, device: str = "cpu") -> list[str]:
    """Run a bad batch again, in the run's precision and in float32, and say where it goes wrong.

    The weights are those of the last state before it; random numbers are those of the step. A run that was stopped by
    its bad steps has saved the state that they met.

    Args:
        path: the ``.safetensors`` file, where the run left it.
        device: "cpu", "cuda".

    Returns:
        Lines for a person.

    Raises:
        ConfigError: if the folder above holds no run.
        CheckpointError: if a file cannot be read.
    """
    facts, parts = _read(path)
    out = path.resolve().parent.parent
    if not (out / "config.yaml").exists():
        raise ConfigError(f"{out} has no config.yaml, but a batch is run again in its run folder; leave it in RUN/bad/")
    config = TrainConfig.parse(read_yaml(out / "config.yaml"), source=str(out / "config.yaml"))
    torch.manual_seed(config.seed)
    model = build_model(config).to(device)
    step = facts["steps_before"]
    state = _state_before(out / "states", step)
    if state is not None:
        model.load_state_dict(state["model"], strict=False)
    before = "the starting weights" if state is None else f"the weights after {state['iteration']} steps"
    lines = [f"step {step + 1}, micro-batch {facts['micro_batch']}, process {facts['process']}; with {before}"]
    lines += [f"{name}: {_describe(tensor)}" for name, tensor in sorted(parts.items(), key=_inputs_first)]
    batches = [
        Batch(parts[f"{i}/inputs"], tuple(facts["grids"][i]), {head: parts[f"{i}/{head}"] for head in source.heads})
        for i, source in enumerate(config.sources)
    ]
    for precision in dict.fromkeys((config.precision, "float32")):
        chosen = config.model_copy(update={"precision": precision, "compile": False})
        learner = Learner(model, dict(config.tasks), chosen)
        set_training(model, config)
        seed_everything(config.seed, step * facts["of"] + facts["micro_batch"], facts["process"])
        lines += [f"{precision}: {line}" for line in _watch(learner, batches)]
    return lines


def _state_before(folder: Path, step: int) -> dict[str, Any] | None:
    """The last state whose weights had not moved since the step; bad steps do not move them."""
    for path in reversed(states_in(folder)):
        state = load_state(folder, before=iteration_of(path))
        if state is not None and state["moved"] <= step:
            return state
    return None


def _watch(learner: Learner, batches: list[Batch]) -> list[str]:
    """Losses, the first module whose output is not finite, and the parameters whose gradient is not."""
    first: list[str] = []

    def look(name: str, output: Any) -> None:
        tensors = [output] if isinstance(output, Tensor) else [*getattr(output, "tokens", ()), *_logits(output)]
        if not first and not all(bool(t.isfinite().all()) for t in tensors):
            first.append(name)

    modules = list(learner.model.named_modules())
    hooks = [m.register_forward_hook(lambda _, __, output, name=name: look(name, output)) for name, m in modules]
    learner.zero_grad(set_to_none=True)
    lines: list[str] = []
    for batch in batches:
        told, taught = learner.losses(batch)
        lines += [f"loss/{head} {loss.item():g}" for head, loss in told.items()]
        lines += [f"loss/{head} {loss.item():g}, against the teacher" for head, loss in taught.items()]
        torch.stack([*told.values(), *taught.values()]).sum().backward()
    for hook in hooks:
        hook.remove()
    wrong = [n for n, p in learner.model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    weights = [n for n, p in learner.model.named_parameters() if not bool(p.isfinite().all())]
    lines.append(f"first output that is not finite: {first[0] if first else 'none'}")
    lines.append(f"gradients that are not finite: {len(wrong)}{', the last of them ' + wrong[-1] if wrong else ''}")
    lines.append(f"weights that are not finite: {len(weights)}{', the first of them ' + weights[0] if weights else ''}")
    return lines


def _logits(output: Any) -> list[Tensor]:
    return [output.logits, *output.aux] if hasattr(output, "logits") else []


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        facts = {
            "steps_before": int(facts["steps_before"]),
            "of": int(facts["of"]),
            "grids": list(facts["grids"]),
        } | facts
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path.with_suffix('.json')} cannot be read ({error}); a bad batch is a .safetensors file with a .json of "
            "the same name beside it; pass one that the run has written to its folder bad/"
        ) from None
    return facts, read_state_dict(path, require_finite=False)


def _inputs_first(part: tuple[str, Tensor]) -> tuple[str, bool, str]:
    source, _, name = part[0].partition("/")
    return source, name != "inputs", name


def _describe(tensor: Tensor) -> str:
    """Shape, range and how much of a tensor is finite."""
    values = tensor.float()
    finite = values[values.isfinite()]
    span = f"{finite.min():g} to {finite.max():g}" if finite.numel() else "nothing finite"
    return f"{' x '.join(map(str, tensor.shape))}, {span}, {values.numel() - finite.numel()} not finite"
