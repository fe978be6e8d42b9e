"""Batches of windows or images: a given size or what fits into memory, halved when memory runs out.

Images come one by one and are taken as they are asked for; those of one size that follow each other run together.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.errors import ConfigError, DataError, DensevitError
from densevit.io import as_image
from densevit.limits import limits
from densevit_runtime.io.arrays import CHANNELS

Batch = int | Literal["auto"]
Pixels = NDArray[np.uint8]

HELD_PIXELS = 64_000_000
"""Most pixels of images that wait to be run together."""

_LARGEST = 32
_SHARE = 0.5
"""Share of the free memory that windows may take."""

_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")
_ONEDNN_SIGNS = ("could not create a primitive", "could not create a memory", "could not execute a primitive")
"""oneDNN's messages when memory runs out. They give no reason, so with a single window there may be another."""
_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the host or the device ran out of memory."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in (*_SIGNS, *_ONEDNN_SIGNS))


def in_batches(
    run: Callable[[Sequence[_Item]], Sequence[_Result]],
    items: Sequence[_Item],
    batch: Batch,
    *,
    device: torch.device,
    what: str,
    size: "Sizes | None" = None,
) -> Iterator[_Result]:
    """Run items in batches and yield their results in order.

    When memory runs out the batch is halved for good, with a warning. "auto" is 1 on a CPU, where larger batches gain
    nothing, and on a GPU as many as half its free memory holds, judging by the first item.

    Args:
        run: items -> a result for each.
        items: in order.
        batch: items at a time, or "auto".
        device: on which ``run`` runs.
        what: what an item is, for messages.
        size: of the batches so far, where items come in several calls.

    Raises:
        DensevitError: if there is not enough memory for one item.
    """
    size = size or Sizes(batch, device)
    done = 0
    while done < len(items):
        now = items[done : done + size.now]
        failed = None
        try:
            results = run(now)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            failed = (str(error) or type(error).__name__).splitlines()[0]
        if failed is not None:  # outside of the except clause, whose traceback would keep the tensors alive
            size.halve(what, failed)
            continue
        size.measured()
        yield from results
        done += len(now)


class Sizes:
    """The size of the next batch."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self._device = device
        self._probing = batch == "auto" and device.type == "cuda"
        self.now = batch if isinstance(batch, int) else 1
        if self._probing:
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)

    def halve(self, what: str, failed: str) -> None:
        """Halve the batch after a failure, whose message is ``failed``."""
        if self.now == 1:
            raise DensevitError(
                f"there is not enough memory on {self._device} for one {what} ({failed}); choose a smaller window, or "
                "a machine with more memory"
            )
        _log.warning("not enough memory for %d %ss at once; continuing with %d", self.now, what, self.now // 2)
        self.now //= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def measured(self) -> None:
        """After the first item of "auto" on a GPU, choose the batch by the memory that it took."""
        if not self._probing:
            return
        self._probing = False
        one = max(torch.cuda.max_memory_allocated(self._device) - self._before, 1)
        free, _ = torch.cuda.mem_get_info(self._device)
        fitting = int(free * _SHARE / one)
        self.now = next((n for n in (_LARGEST, 16, 8, 4, 2) if n <= fitting), 1)


def run_many(
    images: Iterable[Any],
    run: Callable[[Sequence[Pixels]], Sequence[_Result]],
    batch: Batch,
    device: torch.device,
) -> Iterator[_Result]:
    """The results of all images, in order; each batch is of one size, and read when its first result is asked for.

    Args:
        images: see ``items_of``.
        run: images (H, W, 3) of one size -> a result for each.
        batch: images at a time; "auto" as in ``in_batches``.
        device: on which ``run`` runs.

    Raises:
        DataError: an image cannot be read, with its place, after the results of those before it; no images.
        ConfigError: another batch.
    """
    if batch != "auto" and (isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= limits().batch):
        raise ConfigError(f"batch is {batch!r}; 1 to {limits().batch:,} images, or 'auto', are accepted")
    items = items_of(images)  # refused at once, not at the first result

    def results() -> Iterator[_Result]:
        size = Sizes(batch, device)
        waiting: list[Pixels] = []
        for number, image in enumerate(items):
            try:
                pixels = as_image(image)
            except DataError as error:
                yield from in_batches(run, waiting, batch, device=device, what="image", size=size)
                raise DataError(f"image {number} (counted from 0): {error}") from error
            full = len(waiting) >= size.now or sum(map(np.size, waiting)) + pixels.size > 3 * HELD_PIXELS
            if waiting and (full or pixels.shape != waiting[0].shape):
                yield from in_batches(run, waiting, batch, device=device, what="image", size=size)
                waiting = []
            waiting.append(pixels)
        yield from in_batches(run, waiting, batch, device=device, what="image", size=size)

    return results()


def items_of(images: Iterable[Any]) -> Iterator[Any]:
    """The images of a list, a generator, or an array or tensor (B, C, H, W), (B, H, W, C) or (B, H, W).

    Raises:
        DataError: it is one image, or none at all.
    """
    shape = tuple(images.shape) if isinstance(images, np.ndarray | torch.Tensor) else None
    if isinstance(images, str | os.PathLike):
        raise DataError(f"{images!r} is one path; an iterable of images is accepted; give [{images!r}], or use predict")
    if shape is not None and (len(shape) not in (3, 4) or (len(shape) == 3 and {shape[0], shape[2]} & CHANNELS)):
        raise DataError(
            f"the images are an array {shape}; (B, C, H, W), (B, H, W, C) and (B, H, W) of B images are accepted; put "
            "a single one into a list, or use predict"
        )
    try:
        return iter(images)
    except TypeError:
        raise DataError(
            f"the images are of type {type(images).__name__}; an iterable of images is accepted; put a single one into "
            "a list, or use predict"
        ) from None
