"""The encoder: a self-contained plain Vision Transformer."""

from densevit.encoder.vit import NAMED_SIZES, EncoderConfig, VisionTransformer, vit_config

__all__ = ["NAMED_SIZES", "EncoderConfig", "VisionTransformer", "vit_config"]
