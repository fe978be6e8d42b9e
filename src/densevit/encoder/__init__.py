"""The encoder: a plain Vision Transformer of our own."""

from densevit.encoder.vit import NAMED_SIZES, EncoderConfig, VisionTransformer, vit_config

__all__ = ["NAMED_SIZES", "EncoderConfig", "VisionTransformer", "vit_config"]
