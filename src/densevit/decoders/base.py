"""The interface of all decoders: a frozen config with a tag, and a module that turns taps into logits."""

from abc import ABC, abstractmethod

from torch import nn

from densevit.config import Config
from densevit.types import DenseOutput, Taps


class DecoderConfig(Config):
    """Base class of decoder configs. ``kind`` is the tag on disk, the key in ``DECODERS``.

    The properties are what a model and the published inference protocols need to know of a decoder.
    """

    kind: str

    @property
    def num_levels(self) -> int | None:
        """Number of taps that the decoder reads, or None for any number."""
        return None

    def num_parts(self, num_taps: int) -> int:
        """Number of blocks and branches that are built for so many taps, each with a tensor or more."""
        return 1

    @property
    def num_readout_tokens(self) -> int:
        """Number of prefix tokens that the decoder reads."""
        return 0

    @property
    def aux_positions(self) -> tuple[int, ...]:
        """Positions, among the decoder's taps, that auxiliary heads read."""
        return ()

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Channels of the encoder's stem maps that the decoder reads."""
        return ()

    @property
    def reads_image(self) -> bool:
        """Whether the decoder also reads ``Taps.image``; its class then takes the keyword ``in_channels`` as well."""
        return False

    @property
    def transformers_upsampling(self) -> int | None:
        """Factor by which the port in transformers upsamples the logits, or None if there is no such port."""
        return None


class Decoder(nn.Module, ABC):
    """Turns taps into logits at the decoder's own stride.

    Attributes:
        align_corners: how the logits have to be resized to the image afterwards.
        last_tap_only: whether the logits depend only on the last tap; the others then serve auxiliary heads.
    """

    align_corners: bool = False
    last_tap_only: bool = False

    @abstractmethod
    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Taps -> logits (B, K, h', w'), and on request those of the auxiliary heads."""

    def decode_coarse(self, taps: Taps) -> DenseOutput:
        """Logits that equal those of ``decode`` once both are resized to the image's size.

        A decoder whose last step is that resize omits it here, so that it can be fused with decoding or the loss.
        """
        return self.decode(taps, with_aux=False)

    def forward(self, taps: Taps) -> DenseOutput:
        """Logits, and in training mode those of the auxiliary heads."""
        return self.decode(taps, with_aux=self.training)
