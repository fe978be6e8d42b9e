"""Switches that make a model cheaper: fewer tokens, larger patches, smaller photos, fewer blocks. No training."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from pydantic import Field, model_validator

from densevit.checkpoints.native import Bundle
from densevit.config import Config, PositiveWidth, apply_overrides, merge, nearest, read_yaml
from densevit.encoder.patches import resample_patch_weight
from densevit.encoder.token_merging_rules import AnyMerging
from densevit.engines.precision import AttentionPrecision, Precision
from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig, Quality
from densevit.model import DenseModel, ModelConfig

_log = logging.getLogger(__name__)

PATCH_WEIGHT = "encoder.patch_embed.proj.weight"


class SpeedConfig(Config):
    """How a loaded model is made cheaper. It is not part of the model's config; None leaves a setting unchanged.

    Attributes:
        merging: token merging inside the encoder.
        patch_size: in pixels, square; the patch projection is resampled (FlexiViT's pseudo-inverse).
        short_side: of the image at the encoder, in pixels, instead of what ``fit`` says; it is run whole, once.
        quality: "fast" runs each head whole and once, at the size that ``fit`` has for that; "best" with the windows
            and mirror images of ``fit``. None is "fast". Checkpoints without such sizes run in the same way at both.
        exit_block: the encoder ends with this block, counted from 0; later taps are read here.
        engine: what runs the network; see ``densevit.engines.engine``.
        precision: of weights and products: int8 on CPUs, float16 and bfloat16 on GPUs; see
            ``densevit.engines.precision``.
        attention: "bfloat16" runs attention's products so on CPUs: in float32 models, and in int8 models instead of
            integers.
    """

    merging: AnyMerging | None = None
    patch_size: int | None = Field(default=None, gt=0, le=512)
    short_side: PositiveWidth | None = None
    quality: Quality | None = None
    exit_block: int | None = Field(default=None, ge=0)
    engine: Literal["torch", "compile", "onnxruntime", "openvino"] = "torch"
    precision: Precision = "float32"
    attention: AttentionPrecision = "float32"

    def set_values(self) -> dict[str, Any]:
        """The switches that are on, as plain data."""
        off = {"engine": "torch", "precision": "float32", "attention": "float32"}
        data = self.model_dump(mode="json", exclude_none=True)
        return {key: value for key, value in data.items() if key not in off or value != off[key]}

    @model_validator(mode="before")
    @classmethod
    def _refuse_whole(cls, data: Any) -> Any:
        refuse_whole(data, "speed", "remove whole")
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.quality == "best" and self.short_side is not None:
            raise ConfigError(
                f"quality best runs windows and mirror images, but short_side {self.short_side} runs images whole, "
                "once; leave one of them out"
            )
        return self


def refuse_whole(data: Any, owner: str, advice: str) -> None:
    """Refuse the key ``whole`` of earlier versions.

    Raises:
        ConfigError: if the data have it.
    """
    if isinstance(data, Mapping) and "whole" in data:
        raise ConfigError(
            f"{owner} has the key whole, which no longer exists; --quality fast, the default, runs each head on the "
            f"whole photo, once, at the size that the checkpoint has for that; {advice}"
        )


def read_speed(
    source: SpeedConfig | Mapping[str, Any] | Sequence[str] | str | Path | None,
    *,
    engine: str | None = None,
    quality: str | None = None,
) -> SpeedConfig:
    """A ``SpeedConfig`` from itself, plain data, a YAML file, or a list of files and ``key=value`` pairs.

    In a list, later entries override earlier ones; ``engine`` and ``quality`` override all of them.

    Raises:
        ConfigError: if a file cannot be read, or a key or value is not valid.
    """
    speed = _read(source)
    if engine is not None:
        speed = speed.model_copy(update={"engine": engine})
    if quality is not None and quality not in (known := get_args(Quality)):
        raise ConfigError(f"there is no quality {quality!r}{nearest(str(quality), known)}")
    return speed if quality is None else SpeedConfig.parse({**dict(speed), "quality": quality}, source="speed")


def _read(source: SpeedConfig | Mapping[str, Any] | Sequence[str] | str | Path | None) -> SpeedConfig:
    if source is None:
        return SpeedConfig()
    if isinstance(source, SpeedConfig):
        return source
    if isinstance(source, Mapping):
        return SpeedConfig.parse(source, source="speed")
    data: dict[str, Any] = {}
    for item in [source] if isinstance(source, str | Path) else source:
        if isinstance(item, str) and "=" in item and not Path(item).exists():
            data = apply_overrides(data, [item], option="--speed")
        else:
            found = read_yaml(Path(item))
            refuse_whole(found, str(item), "remove the line")
            data = merge(data, found)
    return SpeedConfig.parse(data, source="speed")


def check_quality(speed: SpeedConfig, fit: InferenceConfig, heads: Iterable[str]) -> None:
    """Warn where quality fast is asked for by name, and the checkpoint has windows or mirror images instead."""
    if speed.quality != "fast":
        return
    if slow := [head for head in heads if head not in fit.fast and not fit.for_head(head).single_pass]:
        _log.warning(
            "quality fast: the checkpoint has no size for fast runs of %s (fit.fast), so it is run with windows or "
            "mirror images as at quality best; --speed short_side=%d runs photos whole, once",
            ", ".join(slow),
            fit.for_head(slow[0]).window_side,
        )


def apply_speed(bundle: Bundle, speed: SpeedConfig) -> Bundle:
    """The bundle with the switches on; the given one stays as it is and shares its weights.

    Raises:
        ConfigError: if the model cannot take a switch.
    """
    _check_precision(speed)
    model = bundle.model
    # Engines and precisions replace modules of the model, so they get a model of their own too; the weights are shared.
    own = (speed.merging, speed.patch_size, speed.exit_block, speed.engine, speed.precision, speed.attention)
    if own != (None, None, None, "torch", "float32", "float32"):
        model = _rebuilt(model, speed)
        _check_blocks(speed, len(model.encoder.blocks))
        model.encoder.merging = speed.merging
    fit = bundle.fit if speed.short_side is None else bundle.fit.at(speed.short_side)
    return replace(bundle, model=model, fit=fit)


def _check_precision(speed: SpeedConfig) -> None:
    for name, value in (("precision", speed.precision), ("attention", speed.attention)):
        if speed.engine != "torch" and value != "float32":
            raise ConfigError(f"{name} is {value}, which needs engine torch, but engine is {speed.engine}; choose one")


def _check_blocks(speed: SpeedConfig, num_blocks: int) -> None:
    for name in ("first", "local_block", "global_block"):
        block = getattr(speed.merging, name, None)
        if block is not None and block >= num_blocks:
            raise ConfigError(
                f"merging.{name} is {block} but the encoder ends with block {num_blocks - 1}; take one from 0 to "
                f"{num_blocks - 1}"
            )


def _rebuilt(model: DenseModel, speed: SpeedConfig) -> DenseModel:
    config = _cheaper(model.config, speed)
    with torch.device("meta"):
        cheaper = DenseModel(config)
    state = {name: tensor for name, tensor in model.state_dict().items() if name in cheaper.state_dict()}
    if config.encoder.patch_size != model.config.encoder.patch_size:
        weight = state[PATCH_WEIGHT]
        state[PATCH_WEIGHT] = resample_patch_weight(weight.cpu(), config.encoder.patch_size).to(weight.device)
    cheaper.load_state_dict(state, assign=True)
    cheaper.restore_normalisation()
    return cheaper.to(model.mean.device).train(model.training)


def _cheaper(config: ModelConfig, speed: SpeedConfig) -> ModelConfig:
    facts: dict[str, Any] = {}
    heads = config.heads
    encoder = config.encoder
    if speed.patch_size is not None:
        if encoder.stem is not None and speed.patch_size != encoder.patch_size[0]:
            raise ConfigError(
                f"patch_size is {speed.patch_size} but the encoder has a convolutional stem of stride "
                f"{encoder.patch_size[0]}; its patches cannot be resampled; use short_side"
            )
        facts["patch_size"] = (speed.patch_size, speed.patch_size)
    if speed.exit_block is not None:
        last = encoder.taps[-1]
        if speed.exit_block > last:
            raise ConfigError(
                f"exit_block is {speed.exit_block} but the encoder ends with block {last}; take one from 0 to {last}"
            )
        taps = {name: tuple(min(tap, speed.exit_block) for tap in config.head_taps(name)) for name in heads}
        facts["taps"] = tuple(sorted({tap for head in taps.values() for tap in head}))
        heads = {name: head.model_copy(update={"taps": taps[name]}) for name, head in heads.items()}
    if not facts:
        return config
    encoder = encoder.model_copy(update=facts)
    return ModelConfig.parse({**dict(config), "encoder": encoder, "heads": heads}, source="the cheaper model")
