"""The model of a run: its starting weights, and the parts of it that are frozen."""

import logging

from torch import nn

from densevit.checkpoints.adapt import start_from
from densevit.checkpoints.encoder import load_encoder_weights
from densevit.checkpoints.encoder_side import check_encoder_side
from densevit.checkpoints.files import read_state_dict
from densevit.checkpoints.hub import resolve
from densevit.checkpoints.native import is_native, load_bundle
from densevit.checkpoints.open import open_model
from densevit.errors import ConfigError
from densevit.model import DenseModel
from densevit.training.config import TrainConfig
from densevit.training.feature_cache import FeatureCache
from densevit.training.lora import add_lora

_log = logging.getLogger(__name__)


def build_model(config: TrainConfig, *, quiet: bool = False) -> DenseModel:
    """The model with its starting weights; logs what was loaded, adapted and missing, unless it is to be quiet."""
    level = logging.DEBUG if quiet else logging.INFO
    model = DenseModel(config.model)
    if config.encoder_weights is not None:
        path = resolve(config.encoder_weights)
        # A densevit checkpoint may hold rounded matrices, which only its own reader restores.
        state = load_bundle(path).model.state_dict() if is_native(path) else read_state_dict(path)
        if not is_native(path):
            check_encoder_side(path, config.encoder_weights, config.model.encoder)
        report = load_encoder_weights(model.encoder, state, source=config.encoder_weights)
        _log.log(level, "encoder weights\n%s", report)
    if config.init is not None:
        started = start_from(model, dict(config.tasks), open_model(config.init), config.init)
        _log.log(level, "init\n%s", started)
    encoder = model.encoder
    if config.freeze == "encoder":
        encoder.requires_grad_(False)
    elif config.freeze != "none":
        last = len(encoder.blocks) - 1  # at least one block must be left to train
        if config.freeze > last:
            raise ConfigError(
                f"freeze is {config.freeze} but the encoder has {last + 1} blocks; choose 1 to {last}, or encoder"
            )
        encoder.requires_grad_(False)
        encoder.blocks[config.freeze :].requires_grad_(True)
        encoder.norm.requires_grad_(True)
    if config.lora is not None:
        add_lora(model, config.lora)
    set_training(model, config)  # also for the feature cache, which is filled before the first step
    return model


def open_cache(config: TrainConfig, model: DenseModel) -> FeatureCache | None:
    """The cache for the output of frozen blocks; None if the run has none."""
    if config.features is None:
        return None
    return FeatureCache(config.features.directory, model, depth=config.frozen_depth, bf16=config.precision == "bf16")


def set_training(model: DenseModel, config: TrainConfig) -> None:
    """Switch to training mode, except for frozen parts."""
    model.train()
    if config.freeze == "encoder":
        model.encoder.eval()
    elif config.freeze != "none":
        for block in model.encoder.blocks[: config.freeze]:
            block.eval()
    if config.freeze_norms:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                module.eval()
