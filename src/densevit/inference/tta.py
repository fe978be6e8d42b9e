"""Test-time augmentation: several scales, mirrored or not, averaged in one running sum."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densevit.inference.axes import Resize
from densevit.inference.fields import Field, Mean, full, log_probabilities, sum_views, tiles
from densevit.inference.sliding import whole
from densevit.types import Size


class Running:
    """The mean over views of one photo, collected view by view.

    Views are held at the decoder's stride as long as that takes fewer floats than one sum (K, H, W); beyond that they
    are added to such a sum, and there is one. So six scales, each mirrored too, cost what one does.
    """

    def __init__(self, *, probabilities: bool) -> None:
        self.probabilities = probabilities
        self._views: list[tuple[Field, bool]] = []
        self._total: Tensor | None = None
        self._count = 0

    def add(self, view: Field, *, mirrored: bool) -> None:
        """Take a view of the photo's size; one that saw the mirrored photo is mirrored back."""
        self._views.append((view, mirrored))
        self._count += 1
        height, width = view.size
        held = sum(v.num_held for v, _ in self._views)
        if self._count > 1 and (self._total is not None or held > view.num_channels * height * width):
            self._fold()

    def _fold(self) -> None:
        views, self._views = self._views, []
        first = views[0][0]
        cut = tiles(first.size, first.num_channels, dense=any(view.dense for view, _ in views))
        for rows, columns in cut:
            part = sum_views(views, rows, columns, probabilities=self.probabilities)
            if self._total is None:
                self._total = torch.zeros((first.num_channels, *first.size), device=part.device)
            self._total[:, rows, columns] += part

    def mean(self) -> Field:
        """The mean of all views: log probabilities, or values. It ends the collection."""
        if self._total is None:
            single = self._count == 1 and not self._views[0][1]
            return self._views[0][0] if single else Mean(self._views, self.probabilities)
        if self._views:
            self._fold()
        mean = self._total.div_(self._count)
        return Held(log_probabilities(mean) if self.probabilities else mean)


class Held(Field):
    """A field that is there as a whole, (K, H, W)."""

    dense = False

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.size: Size = (values.shape[-2], values.shape[-1])
        self.num_channels = values.shape[0]

    @property
    def num_held(self) -> int:
        """All of it."""
        return self.values.numel()

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the field: (K, rows, columns) float32."""
        return self.values[:, rows, columns].float()

    def resized(self, size: Size) -> Field:
        """The same field, bilinearly resized."""
        resizes = [(Resize(old, new),) for old, new in zip(self.size, size, strict=True)]
        return whole(self.values, resizes[0], resizes[1])


def average_probabilities(views: Sequence[tuple[Field, bool]]) -> Tensor:
    """Mean over views of the softmax probabilities, (K, H, W): positive, and their sum over K is one."""
    return full(Mean(views, probabilities=True)).exp_()
