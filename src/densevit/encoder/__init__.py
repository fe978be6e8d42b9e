"""The encoder: a self-contained plain Vision Transformer."""

from densevit.encoder.config import NAMED_SIZES, EncoderConfig, vit_config
from densevit.encoder.vit import VisionTransformer

__all__ = ["NAMED_SIZES", "EncoderConfig", "VisionTransformer", "vit_config"]
