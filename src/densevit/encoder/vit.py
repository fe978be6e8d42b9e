"""A plain Vision Transformer that returns the tokens after selected blocks.

Source: Dosovitskiy et al. 2021; the options are those of DeiT (distillation token), CLIP (pre-norm, quick GELU),
DINOv2 (LayerScale, registers, SwiGLU), DINOv3 (rotary embedding) and EVA-02 (norms inside the branches). Parameters
have timm's names.
"""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from densevit.blocks import Block, Rotation
from densevit.encoder.config import EncoderConfig
from densevit.encoder.hybrid import HybridEmbed
from densevit.encoder.patches import PatchEmbed
from densevit.encoder.positions import LearnedPositions, positions_for, rotary_angles, rotary_angles_at
from densevit.encoder.token_merging import merged_taps
from densevit.encoder.token_merging_rules import MergingConfig
from densevit.errors import ShapeError
from densevit.types import Size, Taps


class VisionTransformer(nn.Module):
    """The encoder: images to ``Taps``.

    Images are float (B, channels, H, W), already normalised, both sides multiples of the patch size.

    Attributes:
        merging: token merging, or None. A run-time switch outside the config, so that weights, checkpoints and cached
            features do not depend on it.
        checkpointing: whether blocks recompute their activations in the backward pass; also a run-time switch.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.merging: MergingConfig | None = None
        self.checkpointing = False
        dim = config.embed_dim
        self.patch_embed: PatchEmbed | HybridEmbed = (
            PatchEmbed(config.in_channels, dim, config.patch_size, bias=config.patch_bias)
            if config.stem is None
            else HybridEmbed(config.stem, config.in_channels, dim)
        )
        if config.cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.dist_token:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.num_registers:
            self.reg_token = nn.Parameter(torch.zeros(1, config.num_registers, dim))
        if isinstance(config.positions, LearnedPositions):
            h, w = config.positions.grid
            self.pos_embed = nn.Parameter(torch.zeros(1, config.positions.num_prefix + h * w, dim))
        self.norm_pre = nn.LayerNorm(dim, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(
                dim,
                config.num_heads,
                mlp_hidden_dim=int(dim * config.mlp_ratio),
                mlp=config.mlp,
                activation=config.activation,
                norm_eps=config.norm_eps,
                qkv_bias=config.qkv_bias,
                attn_norm=config.attn_norm,
                mlp_norm=config.mlp_norm,
                layer_scale=config.layer_scale,
                drop_path=config.drop_path * i / max(config.depth - 1, 1),
                dropout=config.dropout,
            )
            for i in range(config.taps[-1] + 1)
        )
        final_eps = config.final_norm_eps or config.norm_eps
        self.norm = nn.LayerNorm(dim, eps=final_eps) if config.final_norm else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal with a deviation of 0.02 for linears, tokens and positions; zero biases, as in ViT."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name in ("cls_token", "dist_token", "reg_token", "pos_embed"):
            if isinstance(token := getattr(self, name, None), nn.Parameter):
                nn.init.trunc_normal_(token, std=0.02)

    def forward(self, images: Tensor, needed: Collection[int] | None = None) -> Taps:
        """(B, channels, H, W) -> tokens and prefix tokens of every tap.

        Args:
            images: normalised.
            needed: the tapped blocks that will be read; all by default. Without token merging the other taps are empty,
                (B, 0, C), and blocks after the last one needed do not run.

        Raises:
            ShapeError: if a side is not a multiple of the patch size.
        """
        x, grid, stem_maps = self._embed(images)
        outputs = self._run_blocks(x, grid, self.config.taps if needed is None else needed)
        return self._taps(outputs, grid, stem_maps, images)

    def _run_blocks(self, x: Tensor, grid: Size, needed: Collection[int]) -> list[Tensor]:
        """The sequence (B, P + N, C) after every tapped block; (B, 0, C) where it is not needed."""
        rotation = self._rotation(grid, x.device)
        if self.merging is not None:
            return merged_taps(
                self.merging,
                list(self.blocks),
                x,
                grid=grid,
                taps=set(self.config.taps),
                norm=self.norm,
                rotation=rotation,
                rotation_at=lambda centres: self._rotation_at(centres, grid),
            )
        outputs = dict.fromkeys(self.config.taps, x.new_empty(x.shape[0], 0, x.shape[2]))
        for index, output in self._each_block(x, rotation, 0, max(needed) + 1):
            if index in needed:
                outputs[index] = self.norm(output)
        return list(outputs.values())

    def _each_block(self, x: Tensor, rotation: Rotation | None, start: int, end: int) -> Iterator[tuple[int, Tensor]]:
        """Index and output (B, P + N, C) of each block from ``start`` up to but not including ``end``."""
        for index in range(start, end):
            if self.checkpointing and torch.is_grad_enabled():
                # Recomputation restores the random state, so drop path and dropout repeat.
                x = checkpoint(self.blocks[index], x, rotation, use_reentrant=False)
            else:
                x = self.blocks[index](x, rotation)
            yield index, x

    def kept_blocks(self, depth: int) -> tuple[int, ...]:
        """The blocks whose outputs replace the first ``depth`` blocks: those with taps, and the last one."""
        last = () if depth > self.config.taps[-1] else (depth - 1,)
        return tuple(sorted({*(tap for tap in self.config.taps if tap < depth), *last}))

    def first_blocks(self, images: Tensor, depth: int) -> list[Tensor]:
        """Images as in ``forward`` -> outputs (B, P + N, C) of ``kept_blocks(depth)``, before the final norm."""
        x, grid, _ = self._embed(images)
        kept = self.kept_blocks(depth)
        return [x for index, x in self._each_block(x, self._rotation(grid, x.device), 0, depth) if index in kept]

    def other_blocks(self, sequences: list[Tensor], grid: Size, depth: int, images: Tensor | None = None) -> Taps:
        """Outputs of ``first_blocks``, and images -> the taps of the whole encoder, as ``forward`` returns them."""
        outputs = dict(zip(self.kept_blocks(depth), sequences, strict=True))
        x = sequences[-1]
        outputs |= dict(self._each_block(x, self._rotation(grid, x.device), depth, len(self.blocks)))
        return self._taps([self.norm(outputs[tap]) for tap in self.config.taps], grid, (), images)

    def grid_of(self, image_size: Size) -> Size:
        """The token grid of an image size.

        Raises:
            ShapeError: if a side is not a multiple of the patch size, with the next accepted size.
        """
        (height, width), (ph, pw) = image_size, self.config.patch_size
        if height % ph or width % pw or not height or not width:
            next_size = (max(-(-height // ph), 1) * ph, max(-(-width // pw), 1) * pw)
            size = ph if ph == pw else f"{ph} x {pw}"
            raise ShapeError(
                f"image is {height} x {width} but both sides must be multiples of patch size {size}; "
                f"pad to {next_size[0]} x {next_size[1]} or use Predictor, which does it"
            )
        return height // ph, width // pw

    def _embed(self, images: Tensor) -> tuple[Tensor, Size, tuple[Tensor, ...]]:
        """Images -> the sequence (B, P + N, C) with prefix tokens and positions, the token grid, and the stem maps."""
        grid = self.grid_of((images.shape[-2], images.shape[-1]))
        patches, stem_maps = self.patch_embed(images)
        x = patches.flatten(2).transpose(1, 2)  # (B, N, C)
        names = ("cls_token", "dist_token", "reg_token")
        prefix = [getattr(self, name) for name in names if hasattr(self, name)]
        if isinstance(self.config.positions, LearnedPositions):
            rule = self.config.positions
            prefix_positions = self.pos_embed[:, : rule.num_prefix]
            positions = self.pos_embed[:, rule.num_prefix :]
            x = x + positions_for(positions, rule, grid)
            if prefix:
                tokens = torch.cat(prefix, dim=1)  # (1, P, C)
                positioned = tokens[:, : rule.num_prefix] + prefix_positions
                prefix = [positioned, tokens[:, rule.num_prefix :]]  # registers have no position
        sequence = torch.cat([*(t.expand(x.shape[0], -1, -1) for t in prefix), x], dim=1)  # (B, P + N, C)
        return self.norm_pre(sequence), grid, stem_maps

    def _taps(self, outputs: list[Tensor], grid: Size, stem_maps: tuple[Tensor, ...], images: Tensor | None) -> Taps:
        """Split sequences (B, P + N, C) into prefix and patch tokens."""
        num_prefix = self.config.num_prefix
        tokens = tuple(t[:, num_prefix:] for t in outputs)
        prefix = tuple(t[:, :num_prefix] for t in outputs)
        return Taps(tokens, prefix, grid, self.config.patch_size, stem_maps, images)

    def _rotation(self, grid: Size, device: torch.device) -> Rotation | None:
        rule = self.config.rotary
        return None if rule is None else rotary_angles(rule, grid, self.config.head_dim, device=device)

    def _rotation_at(self, centres: Tensor, grid: Size) -> Rotation:
        assert self.config.rotary is not None
        return rotary_angles_at(self.config.rotary, centres, grid, self.config.head_dim)
