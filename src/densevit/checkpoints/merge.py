"""Join heads of several checkpoints of one encoder in one model, so that one pass of the encoder feeds all of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median_low
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt

from densevit.checkpoints.derived import derived_card, parents
from densevit.checkpoints.native import Bundle, Card, Storage, TrainedOn
from densevit.checkpoints.open import open_model
from densevit.config import Config
from densevit.encoder import EncoderConfig
from densevit.errors import CheckpointError, ConfigError
from densevit.inference_config import HeadInference, InferenceConfig
from densevit.model import DenseModel, ModelConfig
from densevit.plain_data import parse_json_config, read_text
from densevit.tasks import Task


class HeadSource(Config):
    """The checkpoint that a head is taken from.

    Attributes:
        checkpoint: "default", a path, or ``hf://owner/name``. The weights of several are averaged (a model soup,
            Wortsman et al. 2022); settings without weights are those of the first.
        head: name of the head there.
        figures: JSON file of ``densevit evaluate`` with the head's metrics, for the card.
        short_side, window, flip: inference settings of the head, as in ``InferenceConfig``; by default those of the
            checkpoint.
        fast: short side of the head at quality "fast"; by default that of the checkpoint, if it has one.
    """

    checkpoint: str | Path | Annotated[tuple[str | Path, ...], Field(min_length=1)]
    head: str
    figures: Path | None = None
    short_side: PositiveInt | None = None
    window: PositiveInt | None = None
    flip: bool | None = None
    fast: PositiveInt | None = None

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Every checkpoint to read."""
        return tuple(map(str, self.checkpoint)) if isinstance(self.checkpoint, tuple) else (str(self.checkpoint),)

    @property
    def name(self) -> str:
        """The checkpoints as messages call them."""
        return " + ".join(self.checkpoints)


class MergeConfig(Config):
    """Heads to merge, and how to store the result.

    Attributes:
        heads: by their names in the merged model.
        card: of the merged model; its metrics are those of the heads.
        storage: how the merged model is stored.
    """

    heads: dict[str, HeadSource]
    card: Card = Card()
    storage: Storage = Storage()


def merge_bundles(config: MergeConfig) -> Bundle:
    """Open the checkpoints and join their heads on the common encoder, whose taps become the union of theirs.

    Raises:
        ConfigError: if a head does not exist.
        CheckpointError: if the encoders, their weights or their normalisation differ.
    """
    if not config.heads:
        raise ConfigError("heads is empty; name at least one head and its checkpoint")
    donors: dict[str, Bundle] = {}
    for source in config.heads.values():
        if source.name not in donors:
            donors[source.name] = _open(source)
    first_name, first = next(iter(donors.items()))
    for name, donor in donors.items():
        if difference := _config_difference(first, donor) or _encoder_difference(first, donor):
            raise CheckpointError(
                f"{name} and {first_name} differ in {difference}; only heads of one encoder can be merged"
            )
    heads, taps, tasks, metrics, inference = {}, {}, {}, {}, {}
    for name, source in config.heads.items():
        donor = donors[source.name]
        if source.head not in donor.tasks:
            raise ConfigError(f"{source.name} has no head {source.head!r}; it has {', '.join(donor.tasks)}")
        heads[name] = donor.model.config.heads[source.head]
        taps[name] = donor.model.config.head_taps(source.head)
        metrics[name] = _metrics(source, donor)
        tasks[name] = _with_typical_entropy(donor.tasks[source.head], metrics[name])
        inference[name] = _head_inference(source, donor.fit.for_head(source.head))
    all_taps = tuple(sorted(set().union(*taps.values())))
    for name, head in heads.items():
        heads[name] = head.model_copy(update={"taps": None if taps[name] == all_taps else taps[name]})
    encoder = _comparable(first).model_copy(update={"taps": all_taps})
    model_config = first.model.config.model_copy(update={"encoder": encoder, "heads": heads})
    model = DenseModel(ModelConfig.parse(model_config.plain()))
    model.encoder.load_state_dict(first.model.encoder.state_dict())
    for name, source in config.heads.items():
        model.heads[name].load_state_dict(donors[source.name].model.heads[source.head].state_dict())
    fast = {name: source.fast or donors[source.name].fit.fast.get(source.head) for name, source in config.heads.items()}
    fit = _inference_config(first.fit, inference, {name: side for name, side in fast.items() if side is not None})
    names = dict.fromkeys(name for source in config.heads.values() for name in source.checkpoints)
    card = derived_card(config.card, parents(("merged from", name) for name in names)).model_copy(
        update={"metrics": metrics}
    )
    return Bundle(model.eval(), tasks, fit, card, trained_on=_trained_on(config, donors))


def _trained_on(config: MergeConfig, donors: Mapping[str, Bundle]) -> tuple[TrainedOn, ...]:
    """The data of the donors, each with the names that its heads have in the merged model."""
    found = []
    for donor, bundle in donors.items():
        for data in bundle.trained_on:
            heads = [name for name, head in config.heads.items() if head.name == donor and head.head in data.heads]
            if heads:
                found.append(data.model_copy(update={"heads": tuple(heads)}))
    return tuple(found)


def _head_inference(source: HeadSource, fit: InferenceConfig) -> HeadInference:
    return HeadInference(
        short_side=source.short_side or fit.short_side,
        window=source.window or fit.window,
        flip=fit.flip if source.flip is None else source.flip,
    )


def _inference_config(base: InferenceConfig, heads: dict[str, HeadInference], fast: dict[str, int]) -> InferenceConfig:
    """The median of the heads' sizes for all, and an entry for each head that differs from it, in the shortest form."""
    short_side = median_low(head.short_side for head in heads.values())
    entries: dict[str, Any] = {}
    for name, head in heads.items():
        if head.window or head.flip:
            entries[name] = head.plain()
        elif head.short_side != short_side:
            entries[name] = head.short_side
    return InferenceConfig.parse(base.at(short_side).plain() | {"heads": entries, "fast": fast})


def _open(source: HeadSource) -> Bundle:
    """The checkpoint, or the average of several, which takes all that has no weights from the first."""
    first, *others = (open_model(name) for name in source.checkpoints)
    if not others:
        return first
    means = first.model.state_dict()
    for name, other in zip(source.checkpoints[1:], others, strict=True):
        state = other.model.state_dict()
        odd = [key for key, mean in means.items() if key not in state or state[key].shape != mean.shape]
        if difference := _config_difference(first, other) or "".join(odd[:1]):
            raise CheckpointError(
                f"{name} and {source.checkpoints[0]} differ in {difference} but an average needs one architecture"
            )
        for key, mean in means.items():
            if mean.is_floating_point():
                mean.add_(state[key])
    for mean in means.values():
        if mean.is_floating_point():
            mean.div_(len(source.checkpoints))
    return replace(first, card=first.card.model_copy(update={"metrics": {}}))  # nobody measured the average


def _config_difference(one: Bundle, other: Bundle) -> str:
    """The setting of the encoder's input or computation that differs; empty if none does."""
    if _comparable(one) != _comparable(other):
        return "the encoder's config"
    return "normalisation" if one.model.config.normalisation != other.model.config.normalisation else ""


def _encoder_difference(one: Bundle, other: Bundle) -> str:
    """What keeps the heads of two checkpoints of one config from sharing an encoder; empty if nothing does."""
    if one.fit.max_long_side != other.fit.max_long_side:
        return "fit.max_long_side"
    weights, others = one.model.encoder.state_dict(), other.model.encoder.state_dict()
    unequal = [name for name in weights if not torch.equal(weights[name], others[name])]
    return f"the encoder's weights ({unequal[0]})" if unequal else ""


def _comparable(bundle: Bundle) -> EncoderConfig:
    """The encoder's config without what only training uses; of the taps the last, which tells how many blocks run."""
    encoder = bundle.model.config.encoder
    return encoder.model_copy(update={"drop_path": 0.0, "dropout": 0.0, "taps": encoder.taps[-1:]})


def _with_typical_entropy(task: Task, metrics: dict[str, Any]) -> Task:
    """The task with its measured mean entropy, by which the heads of one model can be compared."""
    if "mean_entropy" in metrics and "typical_entropy" in type(task).model_fields:
        return task.model_copy(update={"typical_entropy": metrics["mean_entropy"]})
    return task


def _metrics(source: HeadSource, donor: Bundle) -> dict[str, Any]:
    if source.figures is None:
        return dict(donor.card.metrics.get(source.head, {}))
    try:
        return dict(parse_json_config(read_text(source.figures)))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"cannot read the metrics {source.figures} ({error}); write them with densevit evaluate --json"
        ) from None
