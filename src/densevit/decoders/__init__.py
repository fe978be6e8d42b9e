"""All decoders. A new one needs one file and one row in ``DECODERS``, whose key is the tag on disk.

Others come from outside the package, see ``densevit.plugins``.
"""

from collections.abc import Mapping
from typing import Any

from densevit.decoders.base import Decoder, DecoderConfig
from densevit.decoders.dpt import Dpt, DptConfig
from densevit.decoders.linear import LinearConfig, LinearDecoder
from densevit.decoders.plugin import DecoderRow, adapt_decoder, check_buffers
from densevit.decoders.segmenter import SegmenterLinear, SegmenterLinearConfig, SegmenterMask, SegmenterMaskConfig
from densevit.decoders.setr import SetrMla, SetrMlaConfig, SetrNaive, SetrNaiveConfig, SetrPup, SetrPupConfig
from densevit.plugins import PluginTable

_BUILTIN: dict[str, DecoderRow] = {
    "setr_naive": (SetrNaiveConfig, SetrNaive),
    "setr_pup": (SetrPupConfig, SetrPup),
    "setr_mla": (SetrMlaConfig, SetrMla),
    "segmenter_linear": (SegmenterLinearConfig, SegmenterLinear),
    "segmenter_mask": (SegmenterMaskConfig, SegmenterMask),
    "dpt": (DptConfig, Dpt),
    "linear": (LinearConfig, LinearDecoder),
}
DECODERS = PluginTable("decoder", _BUILTIN, adapt_decoder)


def parse_decoder(data: DecoderConfig | Mapping[str, Any]) -> DecoderConfig:
    """Plain data -> an instance of the config class that ``kind`` names (a pydantic validator: raises ValueError)."""
    if isinstance(data, DecoderConfig):
        return data
    return DECODERS.named_in(data)[0].model_validate(data)


def build_decoder(config: DecoderConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> Decoder:
    """Build the module of a decoder's config."""
    make = DECODERS[config.kind][1]
    decoder = make(config, embed_dim=embed_dim, num_taps=num_taps, out_channels=out_channels)
    if config.kind not in DECODERS.builtin:
        check_buffers(config.kind, decoder)
    return decoder


__all__ = ["DECODERS", "Decoder", "DecoderConfig", "build_decoder", "parse_decoder"]
