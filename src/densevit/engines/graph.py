"""Encoder and decoder as functions from tensors to tensors, as exporters and compilers need them."""

from dataclasses import replace

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
        return flatten(replace(self.encoder(images), image=None))


class DecoderGraph(nn.Module):
    """Flattened taps of one token grid -> logits (B, K, h', w')."""

    def __init__(
        self, decoder: Decoder, coarse: bool, grid: Size, patch_size: Size, num_taps: int, image: bool
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.coarse = coarse
        self.grid, self.patch_size, self.num_taps, self.image = grid, patch_size, num_taps, image

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        taps = unflatten(flat, self.grid, self.patch_size, self.num_taps, image=self.image)
        output = self.decoder.decode_coarse(taps) if self.coarse else self.decoder.decode(taps, with_aux=False)
        return (output.logits,)


def flatten(taps: Taps) -> tuple[Tensor, ...]:
    """The tokens of every tap, then their prefix tokens, the maps of the stem and the image, where there are any."""
    prefix = taps.prefix if taps.prefix[0].shape[1] else ()
    image = () if taps.image is None else (taps.image,)
    return (*taps.tokens, *prefix, *taps.stem_maps, *image)


def unflatten(flat: tuple[Tensor, ...], grid: Size, patch_size: Size, num_taps: int, *, image: bool = False) -> Taps:
    """The inverse of ``flatten``; ``image`` says whether the last tensor is the image."""
    flat, last = (flat[:-1], flat[-1]) if image else (flat, None)
    tokens, rest = flat[:num_taps], flat[num_taps:]
    has_prefix = len(rest) >= num_taps and rest[0].ndim == 3
    prefix = rest[:num_taps] if has_prefix else tuple(t[:, :0] for t in tokens)
    return Taps(tokens, prefix, grid, patch_size, rest[num_taps:] if has_prefix else rest, last)
