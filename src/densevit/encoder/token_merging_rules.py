"""The merging rules of ToMe and ALGM as configs: they map unit vectors of the tokens to a merging step."""

from abc import abstractmethod
from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from densevit.config import Config
from densevit.types import Size


class MergeStep(NamedTuple):
    """One merging of tokens 0..M-1 into 0..M'-1.

    Attributes:
        keep: (B, M') indices of the tokens that stay, ascending.
        gone: (B, R) indices of the tokens that join another.
        into: (B, R) new index of the token they join.
        target: (B, M) new index of every token.
    """

    keep: Tensor
    gone: Tensor
    into: Tensor
    target: Tensor


class MergingConfig(Config):
    """Base class of both rules.

    Attributes:
        proportional: whether a merged token counts in attention as often as its patches (ToMe's proportional
            attention).
        keep_detail: whether unmerging adds each patch's difference from the average at merging. Differs from ToMe and
            ALGM, which copy the merged token.
    """

    kind: str
    proportional: bool = True
    keep_detail: bool = True

    @property
    def adaptive(self) -> bool:
        """Whether the number of merged tokens depends on the image."""
        return False

    @abstractmethod
    def merges_in(self, block: int, num_blocks: int) -> bool:
        """Whether tokens may be merged in a block."""

    @abstractmethod
    def step(self, block: int, num_blocks: int, grid: Size, units: Tensor) -> MergeStep | None:
        """The tokens to merge in a block, from unit vectors (B, M, C) of the patch tokens; None for nothing."""


class TomeMerging(MergingConfig):
    """Bipartite soft matching: a fixed number of tokens is merged into their most similar partners.

    Differs from ToMe: similarity is that of the tokens after the feed-forward's LayerNorm, not of keys; until the first
    merging, one token of every 2 x 2 patches is a destination, not every other token; and the number is a share of the
    image's tokens, so that it suits any image size.

    Attributes:
        share: share of the image's patch tokens that is merged in total.
        schedule: "once", only in block ``first``; "constant", equally many each time; "decreasing", linearly fewer.
        first: block of the first merging.
        every: blocks from one merging to the next.
        last: last block that may merge; by default the end of the encoder's first two thirds.
    """

    kind: Literal["tome"] = "tome"
    share: float = Field(default=0.54, ge=0, lt=1)
    schedule: Literal["once", "constant", "decreasing"] = "constant"
    first: int = Field(default=2, ge=0)
    every: int = Field(default=2, ge=1)
    last: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last block {self.last} comes before the first, {self.first}")
        return self

    def counts(self, num_blocks: int, num_tokens: int) -> dict[int, int]:
        """Number of tokens merged in each block of the schedule."""
        last = -(-num_blocks * 2 // 3) - 1 if self.last is None else self.last
        blocks = range(self.first, max(last, self.first) + 1, self.every)[: 1 if self.schedule == "once" else None]
        weights = [len(blocks) - i - 0.5 if self.schedule == "decreasing" else 1.0 for i in range(len(blocks))]
        # Rounding the cumulative sum rather than its parts keeps the total equal to the share.
        sums = [round(self.share * num_tokens * sum(weights[:i]) / sum(weights)) for i in range(len(blocks) + 1)]
        return {block: sums[i + 1] - sums[i] for i, block in enumerate(blocks)}

    def merges_in(self, block: int, num_blocks: int) -> bool:
        """Whether the block is in the schedule."""
        return self.counts(num_blocks, 1_000_000).get(block, 0) > 0

    def step(self, block: int, num_blocks: int, grid: Size, units: Tensor) -> MergeStep | None:
        """Merge the most similar pairs: as many as the schedule says, at most all sources."""
        count = self.counts(num_blocks, grid[0] * grid[1]).get(block, 0)
        sources, destinations = _bipartition(units.shape[1], grid, units.device)
        count = min(count, len(sources))
        if count == 0 or not len(destinations):
            return None
        best, partner = _best(units, sources, destinations)
        chosen = best.topk(count, dim=1).indices  # (B, R)
        return step_of(sources[chosen], destinations[partner.gather(1, chosen)], units.shape[1])


class AlgmMerging(MergingConfig):
    """Local, then global merging by thresholds on cosine similarity; the number of merged tokens depends on the image.

    Differs from ALGM: the thresholds are set in the config, not computed from a training set.

    Attributes:
        local_threshold: the four tokens of 2 x 2 patches become one if their mean similarity reaches it; none disables
            local merging.
        local_block: block of local merging.
        global_threshold: a token joins its most similar partner anywhere if their similarity exceeds it; none disables
            global merging.
        global_block: block of global merging; halfway through the encoder by default.
    """

    kind: Literal["algm"] = "algm"
    local_threshold: float | None = Field(default=0.9, ge=-1, le=1)
    local_block: int = Field(default=1, ge=0)
    global_threshold: float | None = Field(default=0.9, ge=-1, le=1)
    global_block: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.global_block is not None and self.global_block <= self.local_block:
            raise ValueError(f"global_block {self.global_block} must come after local_block {self.local_block}")
        return self

    @property
    def adaptive(self) -> bool:
        """Always True: thresholds decide."""
        return True

    def _global_block(self, num_blocks: int) -> int:
        return max(num_blocks // 2, self.local_block + 1) if self.global_block is None else self.global_block

    def merges_in(self, block: int, num_blocks: int) -> bool:
        """Whether the block is that of local or global merging and its threshold is set."""
        return (block == self.local_block and self.local_threshold is not None) or (
            block == self._global_block(num_blocks) and self.global_threshold is not None
        )

    def step(self, block: int, num_blocks: int, grid: Size, units: Tensor) -> MergeStep | None:
        """Merge the tokens above the threshold; for a single sample, since samples differ in their number."""
        assert units.shape[0] == 1
        if block == self.local_block and self.local_threshold is not None:
            return _local_step(units, grid, self.local_threshold)
        assert self.global_threshold is not None
        sources, destinations = _bipartition(units.shape[1], grid, units.device)
        if not len(destinations):
            return None
        best, partner = _best(units, sources, destinations)
        chosen = (best[0] > self.global_threshold).nonzero()[:, 0]
        if not len(chosen):
            return None
        return step_of(sources[chosen][None], destinations[partner[0, chosen]][None], units.shape[1])


AnyMerging = Annotated[TomeMerging | AlgmMerging, Field(discriminator="kind")]


def step_of(gone: Tensor, partners: Tensor, length: int) -> MergeStep:
    """The step that merges tokens ``gone`` (B, R) of 0..length-1 into their ``partners`` (B, R), which stay."""
    stays = torch.ones(gone.shape[0], length, dtype=torch.bool, device=gone.device).scatter_(1, gone, False)
    keep = stays.nonzero()[:, 1].view(gone.shape[0], -1)
    new_index = stays.cumsum(1) - 1
    into = new_index.gather(1, partners)
    return MergeStep(keep, gone, into, new_index.scatter_(1, gone, into))


def _bipartition(length: int, grid: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sources and destinations; destinations are one of 2 x 2 patches before any merging, then every other token."""
    index = torch.arange(length, device=device)
    w = grid[1]
    unmerged = length == grid[0] * w
    destination = (index // w % 2 == 0) & (index % w % 2 == 0) if unmerged else index % 2 == 1
    return index[~destination], index[destination]


def _best(units: Tensor, sources: Tensor, destinations: Tensor) -> tuple[Tensor, Tensor]:
    """Per source the similarity to its nearest destination, and the index of that destination: both (B, S)."""
    similarity = units[:, sources] @ units[:, destinations].transpose(1, 2)  # (B, S, D)
    return similarity.max(dim=2)


def _local_step(units: Tensor, grid: Size, threshold: float) -> MergeStep | None:
    """Merge the four tokens of 2 x 2 patches whose mean pairwise cosine reaches the threshold."""
    h, w = grid
    even = units[0].unflatten(0, grid)[: h // 2 * 2, : w // 2 * 2]
    total = even.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).sum(dim=(1, 3))  # (h / 2, w / 2, C)
    # For unit vectors, |a + b + c + d| ** 2 is 4 plus twice the sum of the six cosines.
    mean = (total.square().sum(-1) - 4) / 12
    ys, xs = (mean >= threshold).nonzero(as_tuple=True)
    if not len(ys):
        return None
    first = 2 * ys * w + 2 * xs
    gone = torch.cat((first + 1, first + w, first + w + 1))
    return step_of(gone[None], first.repeat(3)[None], h * w)
