"""Recognise encoders that have the names and shapes of a plain ViT but compute something else, or need to be told."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from densevit.encoder.positions import RotaryPositions
from densevit.errors import CheckpointError


@dataclass(frozen=True)
class Names:
    """What the names and shapes of an encoder tell."""

    state: Mapping[str, Tensor]

    def has(self, pattern: str) -> bool:
        """Whether a name, without a prefix, matches a regular expression."""
        expression = re.compile(rf"(.*\.)?{pattern}")
        return any(expression.fullmatch(name) for name in self.state)

    @property
    def gated(self) -> bool:
        """Whether the first feed-forward has two inputs for each hidden unit."""
        sizes = {
            match[1]: tensor.shape
            for name, tensor in self.state.items()
            if (match := re.fullmatch(r"(?:.*\.)?blocks\.0\.mlp\.(fc1|fc2|fc1_g)\.weight", name)) and tensor.ndim == 2
        }
        return "fc1_g" in sizes or ("fc1" in sizes and "fc2" in sizes and sizes["fc1"][0] == 2 * sizes["fc2"][1])

    @property
    def width(self) -> int:
        """Channels of a token; 0 where no name tells them."""
        sizes = [t.shape[-1] for name, t in self.state.items() if re.fullmatch(r"(?:.*\.)?cls_token", name) and t.ndim]
        return sizes[0] if sizes else 0


# timm's Eva class, which has rotary positions in all models but the first EVA.
_LAYER_SCALE, _POSITIONS = r"blocks\.0\.gamma_1", r"pos_embed"
_BIASES = r"blocks\.0\.attn\.(q_bias|q_proj\.bias)"

# What an encoder is -> whether it is that. Each has a plain ViT's names, or a subset of them.
OTHER_KINDS: dict[str, Callable[[Names], bool]] = {
    "BEiT, which adds relative positions in its attention": lambda names: names.has(
        r".*relative_position_bias(_table|\..*)"
    ),
    "a ViT whose rotary frequencies are learned, block by block (vit_*_rope_mixed)": lambda names: names.has(
        r"rope\.freqs"
    ),
    "EVA-02 E, which normalises after each residual branch": lambda names: (
        names.width == 1792 and names.has(_POSITIONS) and names.has(_BIASES)
    ),
    "Sapiens 2, which normalises queries and keys, and shares keys among heads": lambda names: (
        names.has(r"blocks\.0\.attn\.q_norm\.weight") and names.has(_LAYER_SCALE)
    ),
    "a ViT that normalises after each residual branch (vit_*_rpn)": lambda names: (
        names.has(r"blocks\.0\.attn\.qkv\.weight")
        and names.has(r"fc_norm\.weight")
        and not any(
            map(
                names.has,
                (r"blocks\.0\.(attn\.(qkv\.bias|q_bias|q_norm\..*)|ls1\.gamma)", r"norm\.weight", "cls_token"),
            )
        )
        and names.has(_POSITIONS)
    ),
}

# The same for encoders whose rotary positions no tensor tells, and which are not those of DINOv3.
ROTARY_KINDS: dict[str, Callable[[Names], bool]] = {
    "EVA-02, which rotates queries and keys in addition to learned ones": lambda names: (
        names.has(_POSITIONS) and names.has(_BIASES) and names.gated
    ),
    "a ViT of timm's Eva class with rotary positions (vit_*_rope_ape, PE-Lang), which it adds to learned ones": (
        lambda names: names.has(_POSITIONS) and names.has(_LAYER_SCALE)
    ),
    "a ViT of timm's Eva class with rotary positions only (vit_*_rope), which differ from those of DINOv3": (
        lambda names: (
            names.has(_LAYER_SCALE) and not (names.has("cls_token") and names.has("(reg_token|storage_tokens)"))
        )
    ),
    "PE-Core, which rotates queries and keys in addition to learned ones": lambda names: (
        names.has(r"norm_pre\.weight") and names.has(r"attn_pool\.latent")
    ),
    "PE-Spatial, which rotates queries and keys in addition to learned ones": lambda names: (
        names.has(r"cls_token")
        and names.has(r"norm_pre\.bias")
        and not names.has(r"norm\.weight")
        and names.has(_POSITIONS)
    ),
}


def refuse_other_kinds(state: Mapping[str, Tensor], source: str, rotary: RotaryPositions | None) -> None:
    """Refuse encoders that would load without a word and give other features.

    Args:
        state: the weights.
        source: what the message calls them.
        rotary: the rotary embedding that they are to be used with.

    Raises:
        CheckpointError: naming what the encoder is.
    """
    names = Names(state)
    for kind, applies in OTHER_KINDS.items():
        if applies(names):
            raise CheckpointError(
                f"{source} is {kind}; only plain ViTs can be reproduced, with learned or rotary positions; choose one "
                "of these"
            )
    if rotary is not None and rotary.coordinates == "indices":
        return
    for kind, applies in ROTARY_KINDS.items():
        if applies(names):
            raise CheckpointError(
                f"{source} is {kind}; no tensor says how; give timm's name of the model to "
                "encoder_config_from_state (architecture=...), which then states it in the encoder's config"
            )


def antialiases(state: Mapping[str, Tensor]) -> bool:
    """Whether the program with these names antialiases positions: timm, and DINOv2 with registers."""
    names = Names(state)
    if names.has(r"embeddings\.(cls_token|patch_embeddings\..*)"):  # transformers
        return names.has(r"embeddings\.register_tokens")
    if names.has(r"patch_embed\.projection\.weight"):  # mmsegmentation
        return False
    return names.has("register_tokens") or not names.has("mask_token")  # DINOv2 has a mask_token, timm has none
