"""Token merging with unmerging: fewer tokens inside the encoder, unchanged taps outside.

Similar patch tokens are averaged between a block's attention and its feed-forward and stay merged from there on. At a
tap every patch has its own token again, so any decoder works. Prefix tokens are never merged.

Sources: ToMe (Bolya et al. 2023, "Token Merging: Your ViT But Faster"), sections 3 and A; ALGM (Norouzi et al. 2024,
"ALGM: Adaptive Local-then-Global Token Merging for Efficient Semantic Segmentation with Plain Vision Transformers"),
section 3. Differences are documented at each class.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.blocks import Block, Rotation
from densevit.encoder.token_merging_rules import MergeStep, MergingConfig
from densevit.types import Size

RotationAt = Callable[[Tensor], Rotation]
"""Maps token centres (B, M, 2), in patches, to the rotation of queries and keys."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The assignment of patches to tokens.

    Attributes:
        owner: (B, N) index of every patch's token, 0..M-1.
        sizes: (B, M) patches per token, float.
        centres: (B, M, 2) mean row and column of a token's patches.
        detail: (B, N, C) each patch's difference from its averaged token; None if it is not kept.
    """

    owner: Tensor
    sizes: Tensor
    centres: Tensor
    detail: Tensor | None

    @classmethod
    def single(cls, batch: int, grid: Size, device: torch.device) -> "Groups":
        """One token for every patch."""
        h, w = grid
        owner = torch.arange(h * w, device=device)
        centres = torch.stack((owner // w, owner % w), dim=1).float()
        sizes = torch.ones(batch, h * w, device=device)
        return cls(owner.expand(batch, -1), sizes, centres.expand(batch, -1, -1), None)

    @property
    def merged(self) -> bool:
        """Whether any two patches share a token."""
        return self.sizes.shape[1] < self.owner.shape[1]

    def merge(self, tokens: Tensor, step: MergeStep, *, keep_detail: bool) -> tuple[Tensor, "Groups"]:
        """Average tokens (B, M, C) as a step says -> (B, M', C) and the new groups."""
        kept_sizes, gone_sizes = rows(self.sizes, step.keep), rows(self.sizes, step.gone)
        sizes = kept_sizes.scatter_add(1, step.into, gone_sizes)
        share = (gone_sizes / rows(sizes, step.into))[..., None]
        new = _weighted_mean(tokens, step, share)  # (B, M', C)
        centres = _weighted_mean(self.centres, step, share)
        owner = step.target.gather(1, self.owner)
        detail = self.detail
        if keep_detail:
            change = rows(tokens, self.owner) - rows(new, owner)  # (B, N, C), 0 where nothing was merged
            detail = change if detail is None else detail + change
        return new, Groups(owner, sizes, centres, detail)

    def unmerge(self, tokens: Tensor) -> Tensor:
        """Tokens (B, M, C) -> one token for every patch, (B, N, C)."""
        if not self.merged:
            return tokens
        patches = rows(tokens, self.owner)
        return patches if self.detail is None else patches.add_(self.detail)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of (B, M) or (B, M, C) at indices (B, R): (B, R) or (B, R, C)."""
    if x.ndim == 2:
        return x.gather(1, index)
    batch, length, width = x.shape
    offset = torch.arange(batch, device=x.device)[:, None] * length
    # One index_select over all rows is several times faster on a CPU than a gather with an expanded index.
    return x.reshape(batch * length, width).index_select(0, (index + offset).flatten()).view(batch, -1, width)


def _weighted_mean(x: Tensor, step: MergeStep, share: Tensor) -> Tensor:
    """Mean of every kept row and the rows that join it, by their share; written so that equal rows stay unchanged."""
    new = rows(x, step.keep)  # (B, M', C)
    moves = (rows(x, step.gone) - rows(new, step.into)).mul_(share)
    offset = torch.arange(x.shape[0], device=x.device)[:, None] * new.shape[1]
    new.flatten(0, 1).index_add_(0, (step.into + offset).flatten(), moves.flatten(0, 1))
    return new


def merged_taps(
    config: MergingConfig,
    blocks: Sequence[nn.Module],
    x: Tensor,
    *,
    grid: Size,
    taps: Collection[int],
    norm: nn.Module,
    rotation: Rotation | None,
    rotation_at: RotationAt,
) -> list[Tensor]:
    """Run the encoder's blocks with token merging.

    Args:
        config: which tokens to merge in which blocks.
        blocks: all blocks of the encoder.
        x: (B, P + N, C), positions added.
        grid: (h, w) of the patch tokens.
        taps: indices of the blocks whose outputs are returned.
        norm: applied to every tap.
        rotation: rotary embedding of the whole grid; None without rotary positions.
        rotation_at: gives the rotation of merged tokens, located at the mean of their patches.

    Returns:
        Per tap (B, P + N, C). Samples do not depend on each other: where a threshold decides how many tokens are
        merged, they run one by one.
    """
    if config.adaptive and x.shape[0] > 1:
        run_one = partial(
            merged_taps, config, blocks, grid=grid, taps=taps, norm=norm, rotation=rotation, rotation_at=rotation_at
        )
        one_by_one = [run_one(sample) for sample in x.split(1)]
        return [torch.cat(samples) for samples in zip(*one_by_one, strict=True)]
    num_prefix = x.shape[1] - grid[0] * grid[1]
    groups = Groups.single(x.shape[0], grid, x.device)
    outputs = []
    for index, block in enumerate(blocks):
        assert isinstance(block, Block)
        bias = size_bias(groups.sizes, num_prefix, x.dtype) if config.proportional and groups.merged else None
        x = block.attend(x, rotation, bias)
        if config.merges_in(index, len(blocks)):
            metric = block.norm2(x)[:, num_prefix:]
            step = config.step(index, len(blocks), grid, F.normalize(metric, dim=-1))
            if step is not None:
                tokens, groups = groups.merge(x[:, num_prefix:], step, keep_detail=config.keep_detail)
                x = torch.cat((x[:, :num_prefix], tokens), dim=1)  # (B, P + M, C)
                rotation = None if rotation is None else rotation_at(groups.centres)
        x = block.feed_forward(x)
        if index in taps:
            if groups.merged:
                patches = groups.unmerge(x[:, num_prefix:])
                outputs.append(norm(torch.cat((x[:, :num_prefix], patches), dim=1)))
            else:
                outputs.append(norm(x))
    return outputs


def size_bias(sizes: Tensor, num_prefix: int, dtype: torch.dtype) -> Tensor:
    """Log sizes (B, 1, 1, P + M) for the attention logits, so that a merged token counts as often as its patches."""
    return F.pad(sizes.log().to(dtype), (num_prefix, 0))[:, None, None]
