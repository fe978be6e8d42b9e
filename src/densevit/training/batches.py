"""Batches as pure functions of the step, so that a resumed run gets the same data.

A step's batch is cut into ``accumulate`` micro-batches, and each of these into one part per process.
"""

import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from densevit.data.mixing import mix
from densevit.data.sample import Dataset
from densevit.data.transforms import Example, augment, crop, flip
from densevit.errors import ConfigError, DataError, DensevitError
from densevit.evaluation.selection import read_target
from densevit.tasks import Task
from densevit.training.config import SourceConfig, TrainConfig
from densevit.training.feature_cache import FeatureCache
from densevit.training.seeds import seed_everything
from densevit.training.signals import SIGNALS
from densevit.types import Size

_STREAM = 1_000_003
"""A prime that keeps the seeds of runs with different seeds apart."""

KEPT_BYTES = 2**30
"""Views of photos that stay in memory, so that they are read and augmented once where a run has few of them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one source contributes to one micro-batch of a process.

    Attributes:
        inputs: images (B, 3, H, W), or cached features (B, taps, P + N, C) in float16.
        grid: (h, w) of the token grid.
        targets: per head, stacked.
        images: (B, 3, H, W), where ``inputs`` are features and a head reads the image besides.
    """

    inputs: Tensor
    grid: Size
    targets: dict[str, Tensor]
    images: Tensor | None = None


class SourceBatches(TorchDataset[Batch]):
    """The batches of one source, by number of the micro-batch: the part of process ``rank`` of ``world``.

    Raises:
        ConfigError: if the batch cannot be divided among processes and micro-batches.
    """

    def __init__(
        self,
        dataset: Dataset,
        source: SourceConfig,
        config: TrainConfig,
        tasks: dict[str, Task],
        cache: FeatureCache | None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.dataset, self.source, self.config, self.cache = dataset, source, config, cache
        self.augment = source.augment or config.augment
        self.rank, self.world = rank, world
        self._kept: dict[tuple[int, int], tuple[NDArray[np.float16], Example]] = {}
        self._room = 0 if config.workers else KEPT_BYTES
        self.tasks = {head: tasks[head] for head in source.heads}
        if not len(dataset):
            raise DataError("the data set is empty; it needs at least one photo")
        wanted = None if config.features is None else config.features.images
        drawn = _order(config.seed, -1, len(dataset))[:wanted]
        self.chosen = range(len(dataset)) if wanted is None else sorted(drawn)
        if cache is not None and (self.augment.cutmix or self.augment.classmix):
            raise ConfigError(
                "augment has cutmix or classmix, but cached features cannot be mixed; set both to 0 or unset features"
            )
        decoders = [config.model.heads[head].decoder for head in source.heads]
        self.with_images = cache is not None and any(decoder.reads_image for decoder in decoders)
        self.size, rest = divmod(source.batch_size, config.accumulate * world)
        if rest:
            raise ConfigError(
                f"batch_size is {source.batch_size} but {world} processes with {config.accumulate} micro-batches each "
                f"share it; set sources[].batch_size to a multiple of {config.accumulate * world}, or change accumulate"
            )

    def describe(self) -> str:
        """The batch size, and how micro-batches and processes share it if there are several."""
        parts = [f"{self.size} photos"]
        parts += [f"{self.config.accumulate} micro-batches"] if self.config.accumulate > 1 else []
        parts += [f"{self.world} processes"] if self.world > 1 else []
        shares = f" = {' x '.join(parts)}" if len(parts) > 1 else " photos"
        return f"a batch of {self.source.batch_size}{shares} for {', '.join(self.source.heads)}"

    def __getitem__(self, number: int) -> Batch:
        """This process's part of micro-batch ``number``; the data set is shuffled again for each pass over it."""
        first = (number * self.world + self.rank) * self.size
        examples = self._mixed([self._example(draw) for draw in range(first, first + self.size)], first)
        targets = {
            head: torch.stack([read_target(head, task, example, self.dataset) for _, example in examples])
            for head, task in self.tasks.items()
        }
        patch = self.config.model.encoder.patch_size
        height, width = examples[0][1].image.shape[-2:]
        inputs = torch.stack([values for values, _ in examples])
        images = torch.stack([example.image for _, example in examples]) if self.with_images else None
        return Batch(inputs, (height // patch[0], width // patch[1]), targets, images)

    def prepare(self) -> Iterator[int]:
        """Encode every view of every image that the cache lacks; yields the number done so far."""
        features = self.config.features
        if self.cache is None or features is None:
            return
        for view in range(features.views):
            for place in range(self.rank, len(self.chosen), self.world):
                self.cache.ensure(self.view(self.chosen[place], view).image)
                yield view * len(self.chosen) + place + 1

    def _example(self, draw: int) -> tuple[Tensor, Example]:
        """The draw-th sample of the run: the input of the model, and the example with its targets."""
        count = len(self.chosen)
        index = self.chosen[_order(self.config.seed, draw // count, count)[draw % count]]
        generator = torch.Generator().manual_seed(self.config.seed * _STREAM + draw)
        if self.cache is None or self.config.features is None:
            seed_everything(self.config.seed, draw)  # for a data set that draws by itself
            example = augment(self.dataset[index], self.augment, generator)
            return example.image, example
        view = int(torch.randint(self.config.features.views, (), generator=generator))
        features, example = self._encoded_view(index, view)
        seed_everything(self.config.seed, draw)  # the step's dropout must not depend on what was kept
        return self._crop_features(features, example, generator)

    def _encoded_view(self, index: int, view: int) -> tuple[NDArray[np.float16], Example]:
        """The features (taps, P + N, C) of a view, mapped from their file, and the view; kept while there is room."""
        assert self.cache is not None
        if (found := self._kept.get((index, view))) is not None:
            return found
        seed_everything(self.config.seed, index, view)  # for a data set that draws by itself
        example = self.view(index, view)
        features = self.cache.read(example.image)
        tensors = (example.image, example.labels, example.depth, example.values)
        num_bytes = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        if num_bytes <= self._room:
            self._room -= num_bytes
            self._kept[index, view] = features, example
        return features, example

    def _mixed(self, examples: list[tuple[Tensor, Example]], first: int) -> list[tuple[Tensor, Example]]:
        """The examples after CutMix or ClassMix; ``first`` is the draw of the first one, which seeds its generator."""
        if not (self.augment.cutmix or self.augment.classmix):
            return examples
        seeds = [-(self.config.seed * _STREAM + first + offset) - 1 for offset in range(len(examples))]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return [(mixed.image, mixed) for mixed in mix([e for _, e in examples], self.augment, generators)]

    def view(self, index: int, view: int) -> Example:
        """A fixed view of an image; view 0 is not augmented."""
        config = self.augment.plain_view() if view == 0 else self.augment
        generator = torch.Generator().manual_seed((self.config.seed * _STREAM + index) * 64 + view)
        return augment(self.dataset[index], config, generator)

    def _crop_features(
        self, features: NDArray[np.float16], example: Example, generator: torch.Generator
    ) -> tuple[Tensor, Example]:
        """Features (taps, P + N, C) and the example, both cropped at token boundaries and mirrored."""
        config, encoder = self.config.features, self.config.model.encoder
        assert config is not None
        (ph, pw), num_prefix = encoder.patch_size, encoder.num_prefix
        grid = (example.image.shape[-2] // ph, example.image.shape[-1] // pw)
        tokens = features[:, num_prefix:].reshape(len(features), *grid, -1)  # (taps, h, w, C)
        if config.crop is not None:
            top = int(torch.randint(grid[0] - config.crop[0] + 1, (), generator=generator))
            left = int(torch.randint(grid[1] - config.crop[1] + 1, (), generator=generator))
            bottom, right = top + config.crop[0], left + config.crop[1]
            tokens = tokens[:, top:bottom, left:right]
            example = crop(example, (slice(top * ph, bottom * ph), slice(left * pw, right * pw)))
        if config.flip and torch.rand((), generator=generator) < 0.5:
            tokens, example = tokens[:, :, ::-1], flip(example)
        seen = tokens.reshape(len(tokens), -1, tokens.shape[-1])  # copies what was cropped or mirrored
        return torch.from_numpy(np.concatenate((features[:, :num_prefix], seen), axis=1)), example


def steps(batches: SourceBatches, start: int, end: int, workers: int) -> Generator[Batch, None, None]:
    """Micro-batches ``start`` to ``end``, prepared ahead by worker processes if there are any; close it after use."""
    if workers == 0:
        yield from (batches[number] for number in range(start, end))
        return
    ahead: Any = iter(
        DataLoader(
            _BatchOrError(batches),
            batch_size=None,
            sampler=range(start, end),
            num_workers=workers,
            prefetch_factor=2,
            worker_init_fn=_ignore_signals,
        )
    )
    try:
        for batch in ahead:
            if isinstance(batch, DensevitError):
                raise batch
            yield batch
    finally:
        # Workers ignore signals, so Python would wait for them forever where a traceback keeps the loader alive.
        ahead._shutdown_workers()


class _BatchOrError(TorchDataset[Batch | DensevitError]):
    """Batches, with errors as values: torch would bury an error of a worker in its traceback."""

    def __init__(self, batches: SourceBatches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> Batch | DensevitError:
        try:
            return self.batches[number]
        except DensevitError as error:
            return error


def _ignore_signals(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal, but the loop still needs batches to finish its step."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed * _STREAM + epoch)
    return tuple(torch.randperm(length, generator=generator).tolist())
