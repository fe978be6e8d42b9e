"""Test-time augmentation: the mean over several scales, each plain or mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densevit.inference.tiled_logits import MaterializedLogits, TiledLogits, full, tiles
from densevit.types import Size


class TtaMean:
    """The mean over views of one image, collected view by view.

    Views are held at the decoder's stride as long as that takes fewer floats than one sum (K, H, W). After that they
    are added to a single such sum, so six scales, each mirrored too, take the memory of one.
    """

    def __init__(self, *, probabilities: bool) -> None:
        self.probabilities = probabilities
        self._views: list[tuple[TiledLogits, bool]] = []
        self._total: Tensor | None = None
        self._count = 0

    def add(self, view: TiledLogits, *, mirrored: bool) -> None:
        """Add a view of the image's size; the view of a mirrored image is mirrored back."""
        self._views.append((view, mirrored))
        self._count += 1
        height, width = view.size
        held = sum(v.num_held for v, _ in self._views)
        if self._count > 1 and (self._total is not None or held > view.num_channels * height * width):
            self._fold()

    def _fold(self) -> None:
        views, self._views = self._views, []
        first = views[0][0]
        dense = any(view.dense for view, _ in views)
        for rows, columns in tiles(first.size, first.num_channels, dense=dense):
            part = sum_views(views, rows, columns, probabilities=self.probabilities)
            if self._total is None:
                self._total = torch.zeros((first.num_channels, *first.size), device=part.device)
            self._total[:, rows, columns] += part

    def mean(self) -> TiledLogits:
        """The mean of all views: log probabilities, or values. Call it once, at the end."""
        if self._total is None:
            single = self._count == 1 and not self._views[0][1]
            return self._views[0][0] if single else MeanLogits(self._views, self.probabilities)
        if self._views:
            self._fold()
        mean = self._total.div_(self._count)
        return MaterializedLogits(log_probabilities(mean) if self.probabilities else mean)


def average_probabilities(views: Sequence[tuple[TiledLogits, bool]]) -> Tensor:
    """Mean over views of the softmax probabilities (K, H, W): positive, and their sum over K is one."""
    return full(MeanLogits(views, probabilities=True)).exp_()


@dataclass(frozen=True)
class MeanLogits(TiledLogits):
    """The mean over views of one image, some of them mirrored: of probabilities for labels, else of the values.

    Attributes:
        views: logits of one size, and whether each is to be mirrored back.
        probabilities: whether to average softmax probabilities; tiles are then their logarithms.
    """

    views: Sequence[tuple[TiledLogits, bool]]
    probabilities: bool

    @property
    def size(self) -> Size:  # type: ignore[override]
        """(H, W) of the result."""
        return self.views[0][0].size

    @property
    def num_channels(self) -> int:  # type: ignore[override]
        """K."""
        return self.views[0][0].num_channels

    @property
    def dense(self) -> bool:  # type: ignore[override]
        """Whether large tiles would cost more than they save."""
        return any(view.dense for view, _ in self.views)

    @property
    def num_held(self) -> int:
        """Floats that all views hold together."""
        return sum(view.num_held for view, _ in self.views)

    def resized(self, size: Size) -> "MeanLogits":
        """The mean of the views' other sizes."""
        return MeanLogits([(view.resized(size), mirrored) for view, mirrored in self.views], self.probabilities)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the mean: log probabilities or values (K, rows, columns)."""
        total = sum_views(self.views, rows, columns, probabilities=self.probabilities)
        total.div_(len(self.views))
        return log_probabilities(total) if self.probabilities else total


def sum_views(views: Sequence[tuple[TiledLogits, bool]], rows: slice, columns: slice, *, probabilities: bool) -> Tensor:
    """The sum over views of a tile's probabilities or values: (K, rows, columns)."""
    total: Tensor | None = None
    for view, mirrored in views:
        width = view.size[1]
        part = view.tile(rows, slice(width - columns.stop, width - columns.start) if mirrored else columns)
        part = part.softmax(dim=0) if probabilities else part
        part = part.flip(-1) if mirrored else part
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Logits whose softmax gives the probabilities (K, ...) back; zeros become the smallest normal float."""
    return probabilities.clamp_(min=torch.finfo(probabilities.dtype).tiny).log_()
