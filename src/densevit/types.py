"""The types that pass between encoder and decoder, and the legend of all shape comments.

B batch, N = h*w patch tokens, P prefix tokens, C embedding width, h w token grid, H W pixels,
K output channels, F fusion width, h' w' the grid at a decoder's own stride.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # modules that only need Size must not import torch
    from torch import Tensor

Size = tuple[int, int]
"""(height, width), always in this order."""


@dataclass(frozen=True, slots=True)
class Taps:
    """An encoder's output and every decoder's input: the token sequence after each tapped block.

    Attributes:
        tokens: per tap (B, N, C), patch tokens only, row-major over the grid.
        prefix: per tap (B, P, C): class, distillation and register tokens, in this order.
        grid: (h, w) in patches.
        patch_size: (height, width) of a patch in pixels.
        stem_maps: maps of a convolutional stem (DPT-Hybrid), finest first, each (B, C_i, h_i, w_i); usually empty.
        image: the normalised image (B, channels, H, W), for decoders that read detail from it.
    """

    tokens: "tuple[Tensor, ...]"
    prefix: "tuple[Tensor, ...]"
    grid: Size
    patch_size: Size
    stem_maps: "tuple[Tensor, ...]" = ()
    image: "Tensor | None" = None

    def maps(self) -> "tuple[Tensor, ...]":
        """The patch tokens as maps: per tap (B, C, h, w)."""
        h, w = self.grid
        return tuple(t.transpose(1, 2).unflatten(2, (h, w)) for t in self.tokens)

    def select(self, indices: tuple[int, ...], *, image: bool = False) -> "Taps":
        """A subset of the taps, by their positions in ``tokens``, with the image only on request."""
        tokens = tuple(self.tokens[i] for i in indices)
        prefix = tuple(self.prefix[i] for i in indices)
        return Taps(tokens, prefix, self.grid, self.patch_size, self.stem_maps, self.image if image else None)

    @property
    def image_size(self) -> Size:
        """(H, W) of the input image, in pixels."""
        return self.grid[0] * self.patch_size[0], self.grid[1] * self.patch_size[1]


class DenseOutput(NamedTuple):
    """Every decoder's output, in training and in evaluation.

    Attributes:
        logits: (B, K, h', w') at the decoder's own stride, never resized to the image.
        aux: deep supervision, each (B, K, h'', w''); filled only in training mode.
    """

    logits: "Tensor"
    aux: "tuple[Tensor, ...]" = ()
