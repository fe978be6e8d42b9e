"""The results of one photo, head by head; named as densevit's own."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit_runtime.colour import Picture
from densevit_runtime.errors import DensevitError, MissingNameError
from densevit_runtime.metadata import Quantity
from densevit_runtime.records import save_record
from densevit_runtime.results import DepthResult, HeadResult, SegmentationResult, result_files


class Prediction(Mapping[str, HeadResult]):
    """The results of one photo by head: ``prediction["depth"].depth``.

    ``labels``, ``class_names``, ``shares``, ``scores`` and ``overlay`` are those of the primary segmentation head.
    """

    def __init__(self, image: Picture, results: Mapping[str, HeadResult]) -> None:
        self.image = image
        self._results = dict(results)

    def __getitem__(self, name: str) -> HeadResult:
        if name not in self._results:
            raise MissingNameError(f"there is no head {name!r}; this prediction has {', '.join(self._results)}")
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Prediction({height} x {width}; {', '.join(self._results)})"

    @cached_property
    def primary(self) -> str | None:
        """The segmentation head that is least unsure of the photo, for its kind.

        None without one, or if there are several and the file does not give their entropy.
        """
        heads = [result for result in self._results.values() if isinstance(result, SegmentationResult)]
        if len(heads) == 1:
            return heads[0].name
        excess = {
            head.name: head.mean_entropy - head.about.typical_entropy for head in heads if head.mean_entropy is not None
        }
        return min(excess, key=lambda name: excess[name]) if heads and len(excess) == len(heads) else None

    @property
    def segmentation(self) -> SegmentationResult:
        """The primary segmentation."""
        result = self._results.get(self.primary or "")
        if not isinstance(result, SegmentationResult):
            raise DensevitError(f"no segmentation head is the primary one; name one of {', '.join(self._results)}")
        return result

    @property
    def labels(self) -> NDArray[Any]:
        """(H, W): the most likely class."""
        return self.segmentation.labels

    @property
    def scores(self) -> NDArray[np.float32]:
        """(H, W) in [0, 1]: probability of the label."""
        if self.segmentation.scores is None:
            raise DensevitError("the file has no scores; export it again with --scores")
        return self.segmentation.scores

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label."""
        return self.segmentation.class_names

    @property
    def shares(self) -> dict[str, float]:
        """Share of the photo that each class covers."""
        return self.segmentation.shares

    @property
    def depth_result(self) -> DepthResult:
        """The depth head's result."""
        for result in self._results.values():
            if isinstance(result, DepthResult):
                return result
        raise DensevitError(f"this file has no depth head; it has {', '.join(self._results)}")

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W): see ``depth_quantity`` and ``depth_unit``."""
        return self.depth_result.depth

    @property
    def depth_quantity(self) -> Quantity:
        """What the values are: "depth" or "relative_depth", larger is farther, or "disparity", larger is nearer."""
        return self.depth_result.quantity

    @property
    def depth_unit(self) -> str:
        """Metres, "m", or "" for disparity."""
        return self.depth_result.unit

    def overlay(self, head: str | None = None, alpha: float = 0.55) -> Picture:
        """(H, W, 3) uint8: a head's colours over the photo; by default the primary segmentation's, else the first's."""
        return self[head or self.primary or next(iter(self))].overlay(alpha)

    def save(
        self,
        folder: Path | str,
        stem: str = "prediction",
        *,
        extra: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Write every head's files and, last, ``<stem>.json`` into a folder, as densevit does.

        Args:
            folder: created if it does not exist.
            stem: start of the files' names.
            extra: further entries of the JSON record.
            overwrite: replace files that densevit did not write, or that were changed since.

        Returns:
            The record.

        Raises:
            DataError: if a file cannot be written, or one of these names belongs to a file of somebody else.
        """
        files = result_files({name: result.about for name, result in self.items()}, stem)
        size = (self.image.shape[0], self.image.shape[1])
        return save_record(
            Path(folder), stem, self, files, size=size, primary=self.primary, extra=extra, overwrite=overwrite
        )
