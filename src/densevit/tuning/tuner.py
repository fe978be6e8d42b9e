"""``densevit tune``: quality and cost of cheaper settings of a model, measured on the user's machine and data.

All settings share the model's weights and take turns on every photo, so a machine that slows down meanwhile slows all
of them. After a few photos those are given up that cannot win any more.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import torch
import yaml
from pydantic import Field
from torch import Tensor

from densevit.checkpoints.native import Bundle
from densevit.config import Config
from densevit.data import Dataset
from densevit.data.sample import Sample
from densevit.data.transforms import targets_of
from densevit.encoder.token_merging_rules import AnyMerging, TomeMerging
from densevit.errors import ConfigError, DataError
from densevit.evaluation.selection import read_target
from densevit.inference.decode import decode
from densevit.inference.pipeline import predict_logits
from densevit.inference.speed import SpeedConfig, apply_speed
from densevit.inference_config import InferenceConfig
from densevit.memory import peak_during, release_freed_memory
from densevit.model import DenseModel
from densevit.tasks import Metrics, Task
from densevit.tuning.pareto import Budget, Figure, Point

RUNGS = ((3, 4.0), (10, 2.0))
"""After so many photos, settings are given up that lie that many points behind one that costs no more."""


class GridConfig(Config):
    """The values of each switch; every combination is measured. None is the model as it is.

    Attributes:
        short_side: in pixels.
        whole: without the windows and mirror images of the model.
        patch_size: in pixels.
        merging: of tokens.
        exit_block: last block of the encoder.
    """

    short_side: tuple[int | None, ...] = Field(default=(None,), min_length=1)
    whole: tuple[bool, ...] = Field(default=(False,), min_length=1)
    patch_size: tuple[int | None, ...] = Field(default=(None,), min_length=1)
    merging: tuple[AnyMerging | None, ...] = Field(default=(None,), min_length=1)
    exit_block: tuple[int | None, ...] = Field(default=(None,), min_length=1)

    def settings(self) -> list[SpeedConfig]:
        """Every combination once, and first the model as it is; at another short side photos are whole anyway."""
        names, values = zip(*self, strict=True)
        every = (SpeedConfig(**dict(zip(names, chosen, strict=True))) for chosen in itertools.product(*values))
        shortest = (s if s.short_side is None else s.model_copy(update={"whole": False}) for s in every)
        plain = SpeedConfig()
        return [plain, *(setting for setting in dict.fromkeys(shortest) if setting != plain)]


def default_grid(bundle: Bundle, head: str) -> GridConfig:
    """Three photo sizes, whole too if the model has windows, two patch sizes if it can, three mergings, two exits."""
    encoder = bundle.model.config.encoder
    patch, short_side, last = encoder.patch_size[0], bundle.fit.for_head(head).short_side, encoder.taps[-1]
    smaller = [max(round(short_side * share / patch), 1) * patch for share in (0.8, 0.65)]
    earlier = encoder.taps[-2] if len(encoder.taps) > 1 else last * 3 // 4
    return GridConfig(
        short_side=(None, *dict.fromkeys(side for side in smaller if side < short_side)),
        whole=(False,) if bundle.fit.for_head(head).single_pass else (False, True),
        patch_size=(None,) if encoder.stem is not None else (None, patch * 3 // 2),
        merging=(None, TomeMerging(share=0.35), TomeMerging()),
        exit_block=(None, earlier) if TomeMerging().first <= earlier < last else (None,),
    )


@dataclass(eq=False)
class Candidate:
    """A setting under measurement."""

    speed: SpeedConfig
    model: DenseModel
    config: InferenceConfig
    metrics: Metrics
    seconds: list[float] = field(default_factory=list)
    peak_mb: float | None = None
    alive: bool = True


class Tuner:
    """Measures settings side by side; what is measured so far can be read at any time, also after an interruption."""

    def __init__(self, bundle: Bundle, head: str, settings: Sequence[SpeedConfig], *, device: torch.device) -> None:
        self.head, self.device = head, device
        self.task: Task = bundle.tasks[head]
        self.figure = Figure(*self.task.headline)
        bundle.model.eval().to(device)
        self.candidates = []
        for speed in settings:
            cheaper = apply_speed(bundle, speed)
            self.candidates.append(Candidate(speed, cheaper.model, cheaper.fit.for_head(head), self.task.new_metrics()))
        self.wanted = 0
        self.samples: list[Sample] = []

    def run(
        self, dataset: Dataset, indices: Sequence[int], budget: Budget, progress: Callable[[int, int], None]
    ) -> list[Point]:
        """Measure on some photos of a data set.

        Args:
            dataset: with the targets that the head needs.
            indices: of the photos.
            budget: settings far beyond it are given up early.
            progress: called with (photos done, settings still measured).

        Raises:
            DataError: if a photo has no target.
        """
        if not indices:
            raise DataError("there are no photos to measure on; it needs at least one; raise --limit or name others")
        self.wanted = len(indices)
        for done, index in enumerate(indices, start=1):
            sample = dataset[index]
            target = read_target(self.head, self.task, targets_of(sample), dataset)
            for candidate in self._alive():
                if not candidate.seconds:
                    self.predict(candidate, sample)  # first use of every shape is slower
                began = time.perf_counter()
                prediction = self.predict(candidate, sample)
                candidate.seconds.append(time.perf_counter() - began)
                candidate.metrics.update(prediction[None], target[None])
            for photos, slack in RUNGS:
                if done == photos and done < self.wanted:
                    self._give_up(budget, slack)
            progress(done, len(self._alive()))
        for candidate in self._alive():
            release_freed_memory()
            memory = peak_during(partial(self.predict, candidate, sample), self.device)
            candidate.peak_mb = memory.peak / 1e6 if memory.exact else None
        return self.points()

    def predict(self, candidate: Candidate, sample: Sample) -> Tensor:
        """What the task predicts for an image at its own size, on the CPU."""
        with torch.inference_mode():
            logits = predict_logits(candidate.model, {self.head: self.task}, sample.image, candidate.config)[self.head]
            return decode(self.task, logits).cpu()

    def points(self) -> list[Point]:
        """What was measured: complete points and those given up; none before the first photo."""
        return [self._point(candidate) for candidate in self.candidates if candidate.seconds]

    def _alive(self) -> list[Candidate]:
        return [candidate for candidate in self.candidates if candidate.alive]

    def _point(self, candidate: Candidate) -> Point:
        both = (candidate, self.candidates[0])
        quality, reference = (float(one.metrics.compute()[self.figure.name]) for one in both)
        return Point(
            speed=candidate.speed,
            photos=len(candidate.seconds),
            quality=quality,
            loss=self.figure.loss(quality, reference),
            milliseconds=median(candidate.seconds) * 1000,
            peak_mb=candidate.peak_mb,
            complete=len(candidate.seconds) == self.wanted,
        )

    def _give_up(self, budget: Budget, slack: float) -> None:
        """Drop settings that another beats clearly at no higher cost, or that are far beyond the budget."""
        if not self.figure.higher_is_better:  # its unit is unknown, so a slack in points means nothing
            return
        points = {candidate: self._point(candidate) for candidate in self._alive()}
        for candidate, point in points.items():
            beaten = any(p.milliseconds <= point.milliseconds and p.loss + slack < point.loss for p in points.values())
            beyond = (budget.kind == "loss" and point.loss > budget.amount + slack) or (
                budget.kind == "time" and point.milliseconds > 2 * budget.amount
            )
            if candidate is not self.candidates[0] and (beaten or beyond):
                candidate.alive = False


def spread(total: int, limit: int | None) -> list[int]:
    """At most ``limit`` indices of 0..total-1, evenly spread.

    Raises:
        ConfigError: for a limit below one.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit is {limit}; at least one photo is needed; raise it or leave it out")
    count = total if limit is None else min(limit, total)
    return [i * total // count for i in range(count)]


def preset_text(point: Point, figure: Figure, budget: Budget, model: str) -> str:
    """The YAML that ``--speed`` reads, with what was measured as comments."""
    memory = "" if point.peak_mb is None else f", {point.peak_mb:.0f} MB"
    lines = [
        f"# {model}: {point.name}; chosen for a budget of {budget.text}",
        f"# {figure.name} {point.quality:.4f} (loss {point.loss:+.2f}), {point.milliseconds:.0f} ms a photo{memory}; "
        f"measured on {point.photos} photos",
        yaml.safe_dump(point.speed.set_values(), sort_keys=False),
    ]
    return "\n".join(lines)
