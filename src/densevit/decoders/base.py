"""What every decoder has in common: a frozen config with a tag, and taps in, logits out."""

from abc import ABC, abstractmethod

from torch import nn

from densevit.config import Config
from densevit.types import DenseOutput, Taps


class DecoderConfig(Config):
    """Base of the decoders' configs. ``kind`` is the tag on disk, the key in ``DECODERS``."""

    kind: str

    @property
    def num_levels(self) -> int | None:
        """How many taps the decoder reads, or None for any number."""
        return None

    @property
    def num_readout_tokens(self) -> int:
        """How many prefix tokens the decoder reads."""
        return 0


class Decoder(nn.Module, ABC):
    """Turns taps into logits at a stride of its own.

    Attributes:
        align_corners: how the logits are to be resized to the image afterwards.
        last_tap_only: whether logits depend on the last tap alone; the others then serve auxiliary heads.
    """

    align_corners: bool = False
    last_tap_only: bool = False

    @abstractmethod
    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Taps -> logits (B, K, h', w'), and on request those of the auxiliary heads."""

    def decode_coarse(self, taps: Taps) -> DenseOutput:
        """Logits that become those of ``decode`` when they are resized to the image's own size.

        A decoder whose last step is that very resize leaves it out here, so that it can be fused with what follows.
        """
        return self.decode(taps, with_aux=False)

    def forward(self, taps: Taps) -> DenseOutput:
        """Logits, and in training mode those of the auxiliary heads."""
        return self.decode(taps, with_aux=self.training)
