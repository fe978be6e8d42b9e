"""Several checkpoints of one encoder become one model: a pass of the encoder then feeds all their heads."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt

from densevit.checkpoints.hub import resolve
from densevit.checkpoints.native import Bundle, Card, Storage, load_bundle
from densevit.config import Config
from densevit.encoder import EncoderConfig
from densevit.errors import CheckpointError, ConfigError
from densevit.inference_config import HeadInference, InferenceConfig
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Task


class HeadSource(Config):
    """Where a head comes from.

    Attributes:
        checkpoint: native checkpoint: "default", a path, or ``hf://owner/name``. Of several the weights are averaged (a
            model soup, Wortsman et al. 2022); settings without weights are those of the first.
        head: its name there.
        figures: JSON file of ``densevit evaluate``, for the card.
        short_side, window, flip: how the head sees images, as in ``InferenceConfig``; by default as in the checkpoint.
    """

    checkpoint: str | Path | Annotated[tuple[str | Path, ...], Field(min_length=1)]
    head: str
    figures: Path | None = None
    short_side: PositiveInt | None = None
    window: PositiveInt | None = None
    flip: bool | None = None

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """All that are read."""
        return tuple(map(str, self.checkpoint)) if isinstance(self.checkpoint, tuple) else (str(self.checkpoint),)

    @property
    def name(self) -> str:
        """For messages."""
        return " + ".join(self.checkpoints)


class MergeConfig(Config):
    """What to merge.

    Attributes:
        heads: by their names in the merged model.
        card: of the merged model; its metrics are those of the heads.
        storage: how the merged model is stored.
    """

    heads: dict[str, HeadSource]
    card: Card = Card()
    storage: Storage = Storage()


def merge_bundles(config: MergeConfig) -> Bundle:
    """Load the parts and join their heads on the common encoder, which then gives every tap that one of them reads.

    Raises:
        ConfigError: if a head does not exist.
        CheckpointError: if the encoders, their weights or their normalisation differ.
    """
    parts = {source.name: _load(source) for source in {s.name: s for s in config.heads.values()}.values()}
    if not parts:
        raise ConfigError("heads is empty; name at least one head and its checkpoint")
    first_name, first = next(iter(parts.items()))
    for name, part in parts.items():
        if difference := _difference(first, part):
            raise CheckpointError(
                f"{name} and {first_name} differ in {difference}; only heads of one encoder can be merged"
            )
    heads, reads, tasks, metrics, ways = {}, {}, {}, {}, {}
    for name, source in config.heads.items():
        part = parts[source.name]
        if source.head not in part.tasks:
            raise ConfigError(f"{source.name} has no head {source.head!r}; it has {', '.join(part.tasks)}")
        heads[name], metrics[name] = part.model.config.heads[source.head], _figures(source, part)
        reads[name] = part.model.config.head_taps(source.head)
        ways[name] = _way(source, part.fit.for_head(source.head))
        tasks[name] = _with_typical_entropy(part.tasks[source.head], metrics[name])
    given = tuple(sorted(set().union(*reads.values())))
    heads = {n: head.model_copy(update={"taps": None if reads[n] == given else reads[n]}) for n, head in heads.items()}
    encoder = _plain(first).model_copy(update={"taps": given})
    facts = first.model.config.model_copy(update={"encoder": encoder, "heads": heads})
    model = DenseModel(ModelConfig.parse(facts.plain()))
    model.encoder.load_state_dict(first.model.encoder.state_dict())
    for name, source in config.heads.items():
        model.heads[name].load_state_dict(parts[source.name].model.heads[source.head].state_dict())
    short_side = median_low(way.short_side for way in ways.values())
    own = {name: way for name, way in ways.items() if way != HeadInference(short_side=short_side)}
    fit = first.fit.at(short_side).model_copy(update={"heads": own})
    return Bundle(model.eval(), tasks, fit, config.card.model_copy(update={"metrics": metrics}))


def _way(source: HeadSource, fit: InferenceConfig) -> HeadInference:
    """How a head sees images."""
    return HeadInference(
        short_side=source.short_side or fit.short_side,
        window=source.window or fit.window,
        flip=fit.flip if source.flip is None else source.flip,
    )


def _load(source: HeadSource) -> Bundle:
    """The checkpoint, or the mean of several; what the first of them lacks is left out."""
    first, *others = (load_bundle(resolve(name)) for name in source.checkpoints)
    if not others:
        return first
    means = first.model.state_dict()
    for name, other in zip(source.checkpoints[1:], others, strict=True):
        state = other.model.state_dict()
        odd = [key for key, mean in means.items() if key not in state or state[key].shape != mean.shape]
        if difference := _difference_in_config(first, other) or "".join(odd[:1]):
            raise CheckpointError(
                f"{name} and {source.checkpoints[0]} differ in {difference} but an average needs one architecture"
            )
        for key, mean in means.items():
            if mean.is_floating_point():
                mean.add_(state[key])
    for mean in means.values():
        if mean.is_floating_point():
            mean.div_(len(source.checkpoints))
    return replace(first, card=first.card.model_copy(update={"metrics": {}}))  # nobody measured the mean


def _difference_in_config(one: Bundle, other: Bundle) -> str:
    """What of the encoders' input or computation differs; empty if nothing does."""
    if _plain(one) != _plain(other):
        return "the encoder's config"
    return "normalisation" if one.model.config.normalisation != other.model.config.normalisation else ""


def _difference(one: Bundle, other: Bundle) -> str:
    """What keeps two checkpoints apart; empty if nothing does."""
    if difference := _difference_in_config(one, other):
        return difference
    if one.fit.max_long_side != other.fit.max_long_side:
        return "fit.max_long_side"
    states = one.model.encoder.state_dict(), other.model.encoder.state_dict()
    unequal = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    return f"the encoder's weights ({unequal[0]})" if unequal else ""


def _plain(part: Bundle) -> EncoderConfig:
    """The encoder but for what training alone uses and for its taps; the last of these says how many blocks it has."""
    encoder = part.model.config.encoder
    return encoder.model_copy(update={"drop_path": 0.0, "dropout": 0.0, "taps": encoder.taps[-1:]})


def _with_typical_entropy(task: Task, figures: dict[str, Any]) -> Task:
    """The task with its measured mean entropy, by which the heads of one model can be compared."""
    if "mean_entropy" in figures and "typical_entropy" in type(task).model_fields:
        return task.model_copy(update={"typical_entropy": figures["mean_entropy"]})
    return task


def _figures(source: HeadSource, part: Bundle) -> dict[str, Any]:
    if source.figures is None:
        return dict(part.card.metrics.get(source.head, {}))
    try:
        return dict(json.loads(source.figures.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"cannot read the figures {source.figures} ({error}); make them with densevit evaluate --json"
        ) from None
