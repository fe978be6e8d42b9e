"""Encoder and decoder as functions from tensors to tensors, as exporters and compilers need them."""

from torch import Tensor, nn

from densevit.decoders import Decoder
from densevit.encoder import VisionTransformer
from densevit.types import Size, Taps


class EncoderGraph(nn.Module):
    """Normalised images (B, channels, H, W) -> flattened taps."""

    def __init__(self, encoder: VisionTransformer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return flatten(self.encoder(images))


class DecoderGraph(nn.Module):
    """Flattened taps of one token grid -> logits (B, K, h', w')."""

    def __init__(self, decoder: Decoder, coarse: bool, grid: Size, patch_size: Size, num_taps: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.coarse = coarse
        self.grid, self.patch_size, self.num_taps = grid, patch_size, num_taps

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        taps = unflatten(flat, self.grid, self.patch_size, self.num_taps)
        output = self.decoder.decode_coarse(taps) if self.coarse else self.decoder.decode(taps, with_aux=False)
        return (output.logits,)


def flatten(taps: Taps) -> tuple[Tensor, ...]:
    """The tokens of every tap, then its prefix tokens if there are any, then the maps of the stem."""
    prefix = taps.prefix if taps.prefix[0].shape[1] else ()
    return (*taps.tokens, *prefix, *taps.stem_maps)


def unflatten(flat: tuple[Tensor, ...], grid: Size, patch_size: Size, num_taps: int) -> Taps:
    """The inverse of ``flatten``."""
    tokens, rest = flat[:num_taps], flat[num_taps:]
    has_prefix = len(rest) >= num_taps and rest[0].ndim == 3
    prefix = rest[:num_taps] if has_prefix else tuple(t[:, :0] for t in tokens)
    return Taps(tokens, prefix, grid, patch_size, rest[num_taps:] if has_prefix else rest)
