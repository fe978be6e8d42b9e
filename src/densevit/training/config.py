"""The config of a training run."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from densevit.checkpoints.native import AnyTask, Card, Storage, check_tasks
from densevit.config import Config, bounded, nearest
from densevit.data import AnyData
from densevit.data.transforms import AugmentConfig
from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig
from densevit.model import ModelConfig
from densevit.training.distillation import TeacherConfig
from densevit.training.lora import LoraConfig
from densevit.training.loss_weighting import WeightingConfig
from densevit.training.optim import OptimConfig
from densevit.training.run.trackers import TRACKERS
from densevit.training.schedule import ScheduleConfig
from densevit.types import Size

Steps = Annotated[int, Field(gt=0, le=10**12)]
"""A number of steps; the product with ``accumulate`` still fits into 64 bits."""


class SourceConfig(Config):
    """A data set and the heads that learn from it.

    Attributes:
        heads: names of heads; each needs a target in this data set.
        batch_size: samples of this source per step, over all processes and micro-batches.
        weight: factor on its losses.
        augment: replaces the run's.
    """

    train: AnyData
    val: AnyData | None = None
    heads: tuple[str, ...] = Field(min_length=1)
    batch_size: Annotated[int, bounded("batch")] = Field(default=8, gt=0)
    weight: float = Field(default=1.0, gt=0, le=1e6)
    augment: AugmentConfig | None = None


class FeaturesConfig(Config):
    """Cached features of a frozen encoder, or of its first blocks.

    Attributes:
        directory: may be shared between runs.
        max_gb: largest size of the directory, in 10^9 bytes; a run that needs more is refused before it starts.
        views: per image, one plain view and ``views - 1`` augmented ones, drawn once.
        images: encode and learn from only so many photos of each data set, drawn by the seed; all, if not given.
        crop: (height, width) in tokens of a random crop of the features at every step.
        flip: mirror features and targets at random; close to the features of the mirrored image, but not equal.
    """

    directory: Path
    max_gb: float = Field(default=50.0, gt=0)
    views: int = Field(default=1, gt=0, le=10_000)
    images: Steps | None = None
    crop: Size | None = None
    flip: bool = False


class TrainConfig(Config):
    """Everything that determines a run; it is written to the run folder, as a valid ``--config``.

    Attributes:
        tasks: one per head.
        encoder_weights: pre-trained weights, a file, "default", or ``hf://owner/name``; random if not given.
        init: a model from which all weights that fit are loaded: "default", a published one by its name, a checkpoint,
            or ``hf://owner/name``; without ``model.heads`` its own head is trained.
        freeze: "encoder" trains only the heads; a number N keeps the patch projection, positions and first N blocks.
        freeze_norms: batch norms keep their running statistics in training too.
        lora: low-rank adapters in a frozen encoder; instead of ``freeze``.
        teacher: a trained model whose outputs are learnt in addition to the labels.
        features: cache of the frozen encoder's output.
        accumulate: micro-batches per step, for batches that do not fit into memory.
        precision: of the forward pass; losses are always float32. bf16 is slower than float32 on most CPUs; fp16
            scales the loss.
        checkpoint_blocks: recompute activations of encoder blocks in the backward pass: less memory, a third more
            time.
        compile: run encoder and heads through torch.compile.
        weighting: weights of the heads' losses in the total.
        max_bad_steps: the run stops after so many steps in a row whose losses or gradients were not finite.
        ema: decay of an average of the weights that is evaluated and saved in their place; none if not given.
        eval_every, checkpoint_every, log_every: in iterations.
        pictures: number of val images per head that are shown at every evaluation, and of the worst ones.
        trackers: experiment trackers, see ``TRACKERS``.
        project: name of the project in trackers.
        keep_states: number of states to resume from that are kept; by default two, and the last one after the end.
        deterministic: equal runs give equal bits on a GPU too, at some cost in speed; CPUs always do.
        shard: shard weights, gradients and optimiser over the processes (FSDP2) instead of a copy in each (DDP).
        sync_bn: compute batch norm's statistics over all processes.
        probe: measure on val what a linear layer on the features of a frozen encoder reaches, to compare heads with.
        timeout_s: how long a process waits for the others before it considers them dead.
        workers: processes that prepare batches; 0 prepares them in the loop.
        storage: how models are stored; by default a frozen encoder as compactly as loses nothing.
        select: the weights of the finished model: those of the "last" step, or of the "best" evaluation.
        patience: the run ends early after so many evaluations in a row without a new best; never, if not given.
    """

    model: ModelConfig
    tasks: dict[str, AnyTask]
    fit: InferenceConfig = InferenceConfig()
    card: Card = Card()
    storage: Storage = Storage()
    encoder_weights: str | None = None
    init: str | None = None
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    augment: AugmentConfig
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    iterations: Steps
    freeze: Literal["none", "encoder"] | PositiveInt = "none"
    freeze_norms: bool = False
    lora: LoraConfig | None = None
    teacher: TeacherConfig | None = None
    features: FeaturesConfig | None = None
    accumulate: Annotated[int, bounded("batch")] = Field(default=1, gt=0)
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    checkpoint_blocks: bool = False
    compile: bool = False
    weighting: WeightingConfig = WeightingConfig()
    max_bad_steps: Steps = 5
    ema: float | None = Field(default=None, gt=0, lt=1)
    seed: int = Field(default=0, gt=-(2**32), lt=2**32)
    workers: Annotated[int, bounded("workers")] = Field(default=0, ge=0)
    eval_every: Steps = 1000
    checkpoint_every: Steps = 500
    log_every: Steps = 50
    pictures: int = Field(default=4, ge=0, le=32)
    trackers: tuple[str, ...] = ()
    project: str = Field(default="densevit", min_length=1)
    keep_states: int | None = Field(default=None, gt=0, le=1_000_000)
    deterministic: bool = False
    shard: bool = False
    sync_bn: bool = True
    timeout_s: float = Field(default=1800.0, gt=0, le=1e7)
    select: Literal["last", "best"] = "last"
    patience: Annotated[int, Field(gt=0, le=10**6)] | None = None
    probe: bool = False

    @property
    def frozen_depth(self) -> int:
        """How many of the encoder's blocks are frozen."""
        if self.freeze == "none":
            return 0
        return self.model.encoder.taps[-1] + 1 if self.freeze == "encoder" else self.freeze

    @field_validator("freeze", mode="before")
    @classmethod
    def _check_freeze(cls, value: object) -> object:
        number = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if number or value in ("none", "encoder"):
            return value
        raise ValueError("should be 'none', 'encoder' or the number of blocks to keep, 1 or more")

    @field_validator("trackers")
    @classmethod
    def _check_trackers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in TRACKERS:
                raise ValueError(f"tracker {name!r} is unknown{nearest(name, TRACKERS)}")
        if len(set(names)) < len(names):
            raise ValueError(f"names one tracker twice: {', '.join(names)}")
        return names

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            check_tasks(self.model, self.tasks, self.fit)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        trained = [head for source in self.sources for head in source.heads]
        if unknown := [head for head in trained if head not in self.tasks]:
            raise ValueError(f"sources name heads {unknown} but the model has {sorted(self.tasks)}")
        if untrained := [head for head in self.tasks if head not in trained]:
            raise ValueError(f"heads {untrained} belong to no source; add them to a source or drop them")
        if self.lora is not None and self.freeze != "none":
            raise ValueError("lora freezes the encoder by itself; leave freeze out")
        if self.freeze_norms and self.init is None:
            raise ValueError("freeze_norms keeps the statistics of a trained model; name one with init")
        if (self.select == "best" or self.patience is not None) and all(s.val is None for s in self.sources):
            raise ValueError("select: best and patience need evaluations, but no source has val; add it, or unset both")
        if self.freeze == "encoder" and "storage" not in self.model_fields_set:
            object.__setattr__(self, "storage", Storage(lossless=("encoder.*",)))
        if self.features is not None and self.freeze == "none":
            raise ValueError("cached features need a frozen encoder; set freeze: encoder, or a number of blocks")
        if self.probe and (self.features is None or self.freeze != "encoder"):
            raise ValueError("probe measures cached features of a frozen encoder; set features and freeze: encoder")
        if self.features is not None and self.teacher is not None:
            raise ValueError("a teacher needs images, but features replaces them; unset features or teacher")
        if self.shard and (self.compile or self.features is not None or self.lora is not None):
            raise ValueError("shard cannot be combined with compile, features or lora; unset one of them")
        patch = self.model.encoder.patch_size
        for augment in (source.augment or self.augment for source in self.sources):
            if augment.crop[0] % patch[0] or augment.crop[1] % patch[1]:
                raise ValueError(f"augment.crop {augment.crop} must be multiples of patch size {patch}")
            grid = (augment.crop[0] // patch[0], augment.crop[1] // patch[1])
            crop = grid if self.features is None or self.features.crop is None else self.features.crop
            if crop[0] > grid[0] or crop[1] > grid[1]:
                raise ValueError(f"features.crop {crop} exceeds the token grid {grid}")
        return self


def made_from(config: TrainConfig) -> list[tuple[str, str]]:
    """The weights that a run starts or learns from, each with its role in words."""
    teacher = None if config.teacher is None else config.teacher.checkpoint
    roles = {
        "encoder initialised from": config.encoder_weights,
        "initialised from": config.init,
        "learnt from the outputs of": teacher,
    }
    return [(role, source) for role, source in roles.items() if source is not None]
