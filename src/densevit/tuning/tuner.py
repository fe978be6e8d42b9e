"""``densevit tune``: metric and cost of cheaper settings of a model, measured on the user's machine and data.

All settings share the model's weights and take turns on every photo, so a machine that slows down meanwhile slows all
of them. After a few photos those are given up that cannot win any more.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
import yaml
from pydantic import Field, model_validator
from torch import Tensor

from densevit.checkpoints.native import Bundle
from densevit.config import Config
from densevit.data import Dataset
from densevit.data.sample import Sample
from densevit.data.transforms import targets_of
from densevit.encoder.token_merging_rules import AnyMerging, TomeMerging
from densevit.errors import DataError
from densevit.evaluation.figure import Figure
from densevit.evaluation.selection import read_target
from densevit.inference.decode import decode
from densevit.inference.pipeline import predict_logits
from densevit.inference.speed import SpeedConfig, apply_speed, refuse_whole
from densevit.inference_config import DEFAULT_QUALITY, InferenceConfig, Quality
from densevit.memory import peak_during, release_freed_memory
from densevit.model import DenseModel
from densevit.tasks import Metrics, Task
from densevit.tuning.pareto import Budget, Point

RUNGS = ((3, 4.0), (10, 2.0))
"""After so many photos, settings are given up that lie that many points behind one that costs no more."""


class GridConfig(Config):
    """The values of each switch; every combination is measured. None is the model as it is.

    Attributes:
        short_side: in pixels.
        quality: "fast", "best", or None for the quality that the model is tuned at; of photos at a ``short_side`` of
            their own it changes nothing.
        patch_size: in pixels.
        merging: of tokens.
        exit_block: last block of the encoder.
    """

    short_side: tuple[int | None, ...] = Field(default=(None,), min_length=1)
    quality: tuple[Quality | None, ...] = Field(default=(None,), min_length=1)
    patch_size: tuple[int | None, ...] = Field(default=(None,), min_length=1)
    merging: tuple[AnyMerging | None, ...] = Field(default=(None,), min_length=1)
    exit_block: tuple[int | None, ...] = Field(default=(None,), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _refuse_whole(cls, data: Any) -> Any:
        refuse_whole(data, "the grid", "write quality: [best, fast] to compare both")
        return data

    def settings(self, quality: Quality = DEFAULT_QUALITY) -> list[SpeedConfig]:
        """Every combination once, and first the model as it is at a quality."""
        names, values = zip(*self, strict=True)
        every = (dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values))
        plain = _setting({}, quality)
        others = dict.fromkeys(_setting(chosen, quality) for chosen in every)
        return [plain, *(setting for setting in others if setting != plain)]


def _setting(chosen: dict[str, Any], quality: Quality) -> SpeedConfig:
    """The switches of a combination, in the one form that equal settings have; the default quality is not named."""
    wanted = chosen.get("quality") or quality
    unnamed = chosen.get("short_side") is not None or wanted == quality == DEFAULT_QUALITY
    return SpeedConfig(**{**chosen, "quality": None if unnamed else wanted})


def default_grid(bundle: Bundle, head: str, quality: Quality = DEFAULT_QUALITY) -> GridConfig:
    """Three photo sizes, two patch sizes if it can, three mergings, two exits; and one pass besides windows."""
    encoder, fit = bundle.model.config.encoder, bundle.fit.at_quality(quality).for_head(head)
    patch, short_side, last = encoder.patch_size[0], fit.short_side, encoder.taps[-1]
    smaller = [max(round(short_side * share / patch), 1) * patch for share in (0.8, 0.65)]
    earlier = encoder.taps[-2] if len(encoder.taps) > 1 else last * 3 // 4
    compared = quality == "best" and bundle.fit.differs_by_quality([head])
    whole = () if fit.single_pass or compared else (short_side,)
    return GridConfig(
        short_side=(None, *whole, *dict.fromkeys(side for side in smaller if side < short_side)),
        quality=(None, "fast") if compared else (None,),
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
            fit = cheaper.fit.at_quality(speed.quality or DEFAULT_QUALITY).for_head(head)
            self.candidates.append(Candidate(speed, cheaper.model, fit, self.task.new_metrics()))
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
                    self._give_up(budget, slack * self.figure.point)
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
        value, reference = (float(one.metrics.compute()[self.figure.name]) for one in both)
        return Point(
            speed=candidate.speed,
            photos=len(candidate.seconds),
            value=value,
            loss=self.figure.loss(value, reference),
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


def preset_text(point: Point, figure: Figure, budget: Budget, model: str) -> str:
    """The YAML that ``--speed`` reads, with what was measured as comments."""
    memory = "" if point.peak_mb is None else f", {point.peak_mb:.0f} MB"
    lines = [
        f"# {model}: {point.name}; chosen for a budget of {budget.text}",
        f"# {figure.name} {point.value:.4f} (loss {figure.show(point.loss, '+')}), {point.milliseconds:.0f} ms a photo"
        f"{memory}; measured on {point.photos} photos",
        yaml.safe_dump(point.speed.set_values(), sort_keys=False),
    ]
    return "\n".join(lines)
