"""Fine-tuning: a trained model goes on to learn the classes of other data, with the head that it has."""

from contextlib import suppress

from densevit.checkpoints.open import ModelFacts
from densevit.data import classes_of, parse_data
from densevit.errors import ConfigError
from densevit.training.published_recipes import Plain

FINE_TUNED: Plain = {
    "iterations": 1000,
    "eval_every": 250,
    "checkpoint_every": 250,
    "log_every": 20,
    "schedule": {"warmup": 50},
}
"""Settings of ``--init`` where the config has no model; the rates are the defaults of ``OptimConfig``."""

CLASS_SETTINGS = {"classes", "palette", "ignore_index", "background", "class_weights", "typical_entropy"}
"""Settings of a task that belong to the classes that it was trained with."""


def fine_tuned(facts: ModelFacts, raw: Plain) -> Plain:
    """The settings of a run that trains on the head of ``init`` that suits the data, for the classes of the data.

    Raises:
        ConfigError: if there is not exactly one such head.
    """
    heads = list(facts.tasks)
    if len(heads) > 1:
        with suppress(KeyError, IndexError, TypeError, ValueError):  # malformed sources are refused later
            labels = classes_of(parse_data(raw["sources"][0]["train"])) is not None
            heads = [head for head in heads if (facts.tasks[head].target == "labels") == labels]
    if len(heads) != 1:
        raise ConfigError(
            f"init {raw['init']} has {len(heads)} heads that could be fine-tuned on the data "
            f"({', '.join(heads or facts.tasks)}), but one is needed; train a new one on its encoder with --decoder"
        )
    (head,) = heads
    task, config = facts.tasks[head], facts.model.heads[head].plain()
    replaced = () if task.class_table is None else CLASS_SETTINGS
    settings = {key: value for key, value in task.plain().items() if key not in replaced}
    del config["out_channels"]
    return {**FINE_TUNED, "model": {"heads": {head: config}}, "tasks": {head: settings}}
