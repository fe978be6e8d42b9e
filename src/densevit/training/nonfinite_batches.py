"""Batches whose losses or gradients are not finite: they are written to ``bad/`` and can be run again.

A batch is a ``.safetensors`` file with inputs and targets, and a ``.json`` of the same name with the step and losses.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.checkpoints.files import read_state_dict, write_tensors
from densevit.config import read_yaml
from densevit.errors import CheckpointError, ConfigError
from densevit.inference.batching import out_of_memory
from densevit.io import write_json
from densevit.training.batches import Batch
from densevit.training.build_model import build_model, set_training
from densevit.training.checkpoint import check_names, iteration_of, load_state, other_model_error, states_in
from densevit.training.config import TrainConfig
from densevit.training.learner import Learner
from densevit.training.seeds import seed_everything
from densevit.types import DenseOutput

KEEP = 40
"""Largest number of batches that a run keeps; later ones are not written, as the first show how it began."""
_log = logging.getLogger(__name__)


def save_nonfinite(
    folder: Path,
    step: int,
    batches: Sequence[Sequence[Batch]],
    losses: Tensor,
    norm: Tensor,
    *,
    rank: int,
    heads: Iterable[str],
) -> None:
    """Write those micro-batches of a step whose losses are not finite; all of them if only the gradients are not.

    ``step`` counts the finished steps. Batches and losses, (micro-batches, heads), are those of this process; ``norm``
    is that of the gradients of all processes.
    """
    heads = tuple(heads)
    finite = losses.isfinite().all(1)
    _log.warning(
        "step %d was skipped: %s, norm of the gradients %s",
        step + 1,
        ", ".join(f"loss/{head} {value:g}" for head, value in zip(heads, losses.sum(0).tolist(), strict=True)),
        f"{norm.item():g}",
    )
    for number, micro_batch in enumerate(batches):
        path = folder / f"step-{step + 1:08d}-{number}-{rank}.safetensors"
        if (finite[number] and not finite.all()) or len(list(folder.glob("*.safetensors"))) >= KEEP:
            continue
        tensors: dict[str, Tensor] = {}
        for i, batch in enumerate(micro_batch):
            named = {"inputs": batch.inputs, **batch.targets}
            tensors |= {f"{i}/{name}": tensor for name, tensor in named.items()}
        record = {
            "steps_before": step,
            "micro_batch": number,
            "of": len(batches),
            "process": rank,
            "grids": [batch.grid for batch in micro_batch],
            "losses": {head: str(value) for head, value in zip(heads, losses[number].tolist(), strict=True)},
            "gradient_norm": str(norm.item()),
        }
        write_tensors(path, tensors, internal=True)
        write_json(path.with_suffix(".json"), record, internal=True)


def divergence_message(steps: int, done: int, losses: Tensor, out: Path) -> str:
    """Why a run that diverged was stopped, and what to do."""
    values = ", ".join(f"{value:g}" for value in losses.tolist())
    return (
        f"losses or gradients were not finite in {steps} steps in a row, the last of them step {done} (losses "
        f"{values}); lower optim.lr or set optim.clip_norm; {out / 'bad'} has the batches, and densevit train --replay "
        "FILE runs one again"
    )


def replay(path: Path, *, device: str = "cpu") -> list[str]:
    """Run a batch again, in the run's precision and in float32; the lines returned say where values stop being finite.

    Weights are those of the last state before the step, random numbers those of the step. A run that stops because of
    such steps saves the state in which they happened.

    Args:
        path: the ``.safetensors`` file in ``bad/`` of the run.
        device: "cpu", "cuda".

    Raises:
        ConfigError: if the file is not in a run folder.
        CheckpointError: if a file cannot be read.
    """
    record, tensors = _read(path)
    out = path.resolve().parent.parent
    if not (out / "config.yaml").exists():
        raise ConfigError(f"{out} has no config.yaml; a batch can only be run again from bad/ of its run folder")
    config = TrainConfig.parse(read_yaml(out / "config.yaml"), source=str(out / "config.yaml"))
    torch.manual_seed(config.seed)
    model = build_model(config).to(device)
    step = record["steps_before"]
    state = _state_before(out / "states", step)
    if state is not None:
        try:
            check_names(model, state["model"])
            model.load_state_dict(state["model"], strict=False)
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise other_model_error(out / "states") from error
    weights = "the starting weights" if state is None else f"the weights after {state['iteration']} steps"
    lines = [f"step {step + 1}, micro-batch {record['micro_batch']}, process {record['process']}; with {weights}"]
    batches = _batches(config, path, record, tensors)
    for i, batch in enumerate(batches):
        named = {"inputs": batch.inputs, **dict(sorted(batch.targets.items()))}
        lines += [f"{i}/{name}: {_describe(tensor)}" for name, tensor in named.items()]
    for precision in dict.fromkeys((config.precision, "float32")):
        chosen = config.model_copy(update={"precision": precision, "compile": False})
        learner = Learner(model, dict(config.tasks), chosen)
        set_training(model, config)
        seed_everything(config.seed, step * record["of"] + record["micro_batch"], record["process"])
        try:
            lines += [f"{precision}: {line}" for line in _find_nonfinite(learner, batches)]
        except (RuntimeError, IndexError, ValueError, AssertionError) as error:
            if out_of_memory(error):
                raise
            raise _other_run_error(path, error) from error
    return lines


def _batches(config: TrainConfig, path: Path, record: dict[str, Any], tensors: dict[str, Tensor]) -> list[Batch]:
    """The batches of a file, one per source.

    Raises:
        CheckpointError: if they are not those of the run's sources.
    """
    patch = config.model.encoder.patch_size
    batches = []
    try:
        for i, source in enumerate(config.sources):
            height, width = map(int, record["grids"][i])
            inputs, size = tensors[f"{i}/inputs"], (height * patch[0], width * patch[1])
            if not len(inputs) or (config.features is None and inputs.shape[1:] != (3, *size)):
                raise ValueError(f"the inputs are {tuple(inputs.shape)}")
            targets = {head: tensors[f"{i}/{head}"] for head in source.heads}
            for head, target in targets.items():
                if target.shape[-2:] != size or len(target) != len(inputs):
                    raise ValueError(f"the targets of head {head!r} are {tuple(target.shape)}")
            batches.append(Batch(inputs, (height, width), targets))
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise _other_run_error(path, error) from error
    return batches


def _other_run_error(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} does not hold a batch of the run in {path.resolve().parent.parent} ({type(error).__name__}: {error}); "
        "pass one that this run has written to its folder bad/"
    )


def _state_before(folder: Path, step: int) -> dict[str, Any] | None:
    """The last state with the weights that the step used; a skipped step does not change them."""
    for path in reversed(states_in(folder)):
        state = load_state(folder, before=iteration_of(path))
        if state is not None and isinstance(moved := state.get("moved"), int) and moved <= step:
            return state
    return None


def _find_nonfinite(learner: Learner, batches: list[Batch]) -> list[str]:
    """Losses, the first module whose output is not finite, and the parameters whose gradient is not."""
    modules: list[str] = []  # in the order in which they compute

    def check(name: str, output: Any) -> None:
        if isinstance(output, DenseOutput):
            tensors: tuple[Tensor, ...] = (output.logits, *output.aux)
        else:
            tensors = (output,) if isinstance(output, Tensor) else getattr(output, "tokens", ())  # of Taps
        if not all(bool(t.isfinite().all()) for t in tensors):
            modules.append(name)

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: check(name, output))
        for name, module in learner.model.named_modules()
    ]
    learner.zero_grad(set_to_none=True)
    lines: list[str] = []
    for batch in batches:
        target_losses, teacher_losses = learner.losses(batch)
        lines += [f"loss/{head} {loss.item():g}" for head, loss in target_losses.items()]
        lines += [f"loss/{head} {loss.item():g}, against the teacher" for head, loss in teacher_losses.items()]
        torch.stack([*target_losses.values(), *teacher_losses.values()]).sum().backward()
    for hook in hooks:
        hook.remove()
    parameters = list(learner.model.named_parameters())
    gradients = [name for name, p in parameters if p.grad is not None and not bool(p.grad.isfinite().all())]
    weights = [name for name, p in parameters if not bool(p.isfinite().all())]
    last_gradient = f", the last of them {gradients[-1]}" if gradients else ""
    first_weight = f", the first of them {weights[0]}" if weights else ""
    lines.append(f"first output that is not finite: {modules[0] if modules else 'none'}")
    lines.append(f"gradients that are not finite: {len(gradients)}{last_gradient}")
    lines.append(f"weights that are not finite: {len(weights)}{first_weight}")
    return lines


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        numbers = [record[name] for name in ("steps_before", "of", "micro_batch", "process")]
        if not all(isinstance(number, int) and 0 <= number < 2**63 for number in numbers):
            raise ValueError("its numbers are not those of a batch")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path.with_suffix('.json')} cannot be read ({error}); a batch is a .safetensors file and a .json of the "
            "same name; pass one that the run has written to its folder bad/"
        ) from None
    return record, read_state_dict(path, require_finite=False)


def _describe(tensor: Tensor) -> str:
    """Shape, range and number of values that are not finite."""
    values = tensor.float()
    finite = values[values.isfinite()]
    span = f"{finite.min():g} to {finite.max():g}" if finite.numel() else "nothing finite"
    return f"{' x '.join(map(str, tensor.shape))}, {span}, {values.numel() - finite.numel()} not finite"
