"""DenseModel: normalisation, one encoder pass, and one or several named decoders."""

from typing import Annotated, Self

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import Tensor, nn

from densevit.config import Config, bounded
from densevit.decoders import Decoder, DecoderConfig, build_decoder, parse_decoder
from densevit.encoder import EncoderConfig, VisionTransformer
from densevit.errors import ConfigError, ShapeError
from densevit.kernels.int8.linear import Int8Linear
from densevit.limits import limits, too_much
from densevit.types import DenseOutput, Taps


class HeadConfig(Config):
    """One named decoder of a model.

    Attributes:
        out_channels: K, the number of classes or regressed values.
        taps: encoder block indices that the decoder reads, in its order (repeats allowed); all of the encoder's taps
            by default.
    """

    decoder: Annotated[SerializeAsAny[DecoderConfig], BeforeValidator(parse_decoder)]
    out_channels: Annotated[int, Field(gt=0), bounded("classes")]
    taps: Annotated[tuple[int, ...] | None, bounded("blocks")] = Field(default=None, min_length=1)


class Normalisation(Config):
    """Mean and standard deviation per channel of images in [0, 1]; ImageNet's by default."""

    mean: tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...] = (0.485, 0.456, 0.406)
    std: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...] = (0.229, 0.224, 0.225)


class ModelConfig(Config):
    """Everything that determines the computation; together with the weights it reconstructs the model."""

    encoder: EncoderConfig
    heads: dict[str, HeadConfig] = Field(min_length=1)
    normalisation: Normalisation = Normalisation()

    @model_validator(mode="after")
    def _check(self) -> Self:
        channels = (len(self.normalisation.mean), len(self.normalisation.std), self.encoder.in_channels)
        if len(set(channels)) != 1:
            raise ValueError(f"mean, std and encoder.in_channels have {channels} channels but must agree")
        if self.num_parts > limits().blocks:
            raise ValueError(too_much(f"the model has {self.num_parts:,} blocks and branches", "blocks"))
        for name, head in self.heads.items():
            self._check_head(name, head)
        return self

    @property
    def num_parts(self) -> int:
        """Number of blocks and branches, each of which has at least one tensor."""
        stem = sum(self.encoder.stem.layers) if self.encoder.stem else 0
        heads = sum(head.decoder.num_parts(len(self.head_taps(name))) for name, head in self.heads.items())
        return self.encoder.taps[-1] + 1 + stem + heads

    def _check_head(self, name: str, head: HeadConfig) -> None:
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise ValueError(f"head name {name!r} cannot name a module; use a plain word such as 'depth' or 'streets'")
        decoder, taps = head.decoder, self.head_taps(name)
        unknown = [tap for tap in taps if tap not in self.encoder.taps]
        if unknown:
            raise ValueError(f"head {name!r} reads taps {unknown} but the encoder gives {self.encoder.taps}")
        if decoder.num_levels not in (None, len(taps)):
            raise ValueError(f"head {name!r} reads {len(taps)} taps but {decoder.kind} takes {decoder.num_levels}")
        if any(not 0 <= position < len(taps) for position in decoder.aux_positions):
            raise ValueError(
                f"head {name!r} has aux_taps {decoder.aux_positions} but they are positions in 0..{len(taps) - 1}"
            )
        if decoder.num_readout_tokens > self.encoder.num_prefix:
            raise ValueError(
                f"head {name!r} reads {decoder.num_readout_tokens} prefix tokens but the encoder has "
                f"{self.encoder.num_prefix}; set readout to 'ignore'"
            )
        stem = self.encoder.stem.channels[:2] if self.encoder.stem else ()
        if decoder.stem_widths not in ((), stem):
            raise ValueError(f"head {name!r} expects stem maps {decoder.stem_widths}, the encoder gives {stem}")

    def head_taps(self, name: str) -> tuple[int, ...]:
        """Indices of the encoder blocks that a head reads."""
        taps = self.heads[name].taps
        return self.encoder.taps if taps is None else taps


class DenseModel(nn.Module):
    """Images to the logits of every head.

    Takes float (B, 3, H, W) in [0, 1], both sides multiples of the patch size; mean and std are buffers, so an
    exported graph or a server cannot normalise wrongly.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.restore_normalisation()
        try:
            self._build(config)
        except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigError(f"no model can be built of this config ({reason}); correct its sizes") from error

    def _build(self, config: ModelConfig) -> None:
        self.encoder = VisionTransformer(config.encoder)
        self.heads = nn.ModuleDict()
        for name, head in config.heads.items():
            num_taps = len(config.head_taps(name))
            self.heads[name] = build_decoder(
                head.decoder,
                embed_dim=config.encoder.embed_dim,
                num_taps=num_taps,
                out_channels=head.out_channels,
                in_channels=config.encoder.in_channels,
            )
        positions = {block: position for position, block in enumerate(config.encoder.taps)}
        self.tap_positions = {name: tuple(positions[t] for t in config.head_taps(name)) for name in config.heads}

    def restore_normalisation(self) -> None:
        """Set mean and std from the config: the state dict does not contain them, so a meta model has none."""
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.config.normalisation, name), device="cpu").view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(
        self, images: Tensor, heads: tuple[str, ...] | None = None, *, coarse: bool = False
    ) -> dict[str, DenseOutput]:
        """(B, 3, H, W) in [0, 1] -> the output of each head, or of those named.

        With ``coarse``, logits only have to be right after a bilinear resize to (H, W) with the decoder's
        ``align_corners``: see ``Decoder.decode_coarse``.

        Raises:
            ShapeError: if a side is not a multiple of the patch size, or the channels are wrong.
        """
        taps = self.encoder(self.normalise(images), self.needed_blocks(heads))
        return self.decode(taps, heads, coarse=coarse)

    def encode(self, images: Tensor) -> Taps:
        """Normalise and encode images (B, 3, H, W)."""
        taps: Taps = self.encoder(self.normalise(images))
        return taps

    def encode_first(self, images: Tensor, depth: int) -> list[Tensor]:
        """Normalise and run the encoder's first ``depth`` blocks; see ``VisionTransformer.first_blocks``."""
        return self.encoder.first_blocks(self.normalise(images), depth)

    def needed_blocks(self, heads: tuple[str, ...] | None = None) -> tuple[int, ...]:
        """The tapped blocks that these heads, or all, depend on; in training this includes auxiliary heads."""
        needed: set[int] = set()
        for name in self.config.heads if heads is None else heads:
            taps = self.config.head_taps(name)
            last_only = self.decoder(name).last_tap_only and not self.training
            needed.update(taps[-1:] if last_only else taps)
        return tuple(sorted(needed))

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] less their mean, over their deviation, in the encoder's precision."""
        if images.ndim != 4 or images.shape[1] != self.config.encoder.in_channels:
            raise ShapeError(
                f"images have shape {tuple(images.shape)} but must be (B, {self.config.encoder.in_channels}, H, W); "
                "add the batch dimension or put channels first"
            )
        if not images.is_floating_point():
            raise ShapeError(f"images are {images.dtype} but must be float in [0, 1]; divide uint8 images by 255")
        normalised: Tensor = (images - self.mean) / self.std
        return normalised.to(next(self.encoder.parameters()).dtype)  # another than float32 only on GPUs

    def decode(
        self, taps: Taps, heads: tuple[str, ...] | None = None, *, coarse: bool = False
    ) -> dict[str, DenseOutput]:
        """Apply all heads, or those named, to the encoder's taps."""
        outputs: dict[str, DenseOutput] = {}
        for name in self.config.heads if heads is None else heads:
            reads_image = self.config.heads[name].decoder.reads_image
            head_taps = taps.select(self.tap_positions[name], image=reads_image)
            outputs[name] = self.decoder(name).decode_coarse(head_taps) if coarse else self.heads[name](head_taps)
        return outputs

    def decoder(self, head: str) -> Decoder:
        """A head's decoder module."""
        decoder = self.heads[head]
        assert isinstance(decoder, Decoder)
        return decoder

    def num_parameters(self) -> int:
        """Number of parameters of encoder and heads, those that are stored as 8-bit integers included."""
        quantised = sum(m.num_parameters for m in self.modules() if isinstance(m, Int8Linear))
        return sum(p.numel() for p in self.parameters()) + quantised

    def extra_repr(self) -> str:
        """Names and kinds of the heads."""
        return ", ".join(f"{name}: {head.decoder.kind}" for name, head in self.config.heads.items())
