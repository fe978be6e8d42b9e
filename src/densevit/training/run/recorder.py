"""The run folder, beside the states: what was done, what came out of it, how it looks, and the models."""

import json
import logging
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from densevit.checkpoints.native import Bundle, read_header, save_bundle
from densevit.config import to_yaml
from densevit.errors import DensevitError
from densevit.evaluation.inspection import EvaluationRecorder
from densevit.evaluation.snapshots import drop_evaluations, picture_path, save_evaluation
from densevit.io import read_image, write_bytes_atomic, write_json
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.config import TrainConfig
from densevit.training.lora import without_lora
from densevit.training.run.environment import environment, short_environment
from densevit.training.run.log import RunLog, reached, read_log
from densevit.training.run.progress import ProgressMeter, duration
from densevit.training.run.report import REPORT, write_report
from densevit.training.run.trackers import RunFacts, Trackers

_log = logging.getLogger(__name__)

Figures = dict[str, dict[str, Any]]

REPORT_EVERY_S = 60.0
"""Between evaluations the report is written again after this time, so a run that is killed has one too."""


class Run:
    """What the loop tells, written to the folder ``out``; shown as progress, report and to trackers.

    As a context manager it also notes how the run ends when it fails or is interrupted.

    Args:
        config: the run.
        out: its folder.
        start: iterations that are done already.
        parameters: of the model.

    Attributes:
        figures: of the last evaluation, per head.

    Raises:
        ConfigError: a tracker's package is not installed.
    """

    def __init__(self, config: TrainConfig, out: Path, *, start: int, parameters: int) -> None:
        self.config, self.out, self.done = config, out, start
        identity, told, sessions = _earlier(out)
        rows = read_log(out / "log.jsonl")
        told = {event: max(told.get(event, 0), last) for event, last in (told | reached(rows)).items()}
        kept = reached([row for row in rows if row["iteration"] <= start])
        name = f"{out.resolve().name}-{identity[:6]}"
        facts = RunFacts(out, config.project, name, identity, config.plain(), start)
        self.trackers = Trackers(config.trackers, facts, told=told, kept=kept)
        write_bytes_atomic(out / "config.yaml", to_yaml(config).encode())
        drop_evaluations(out, after=start)
        self.log = RunLog(out / "log.jsonl", start=start)
        self.figures: Figures = {
            row["head"]: {name: value for name, value in row.items() if name not in _OF_THE_ROW}
            for row in self.log.rows
            if row["event"] == "eval" and row["iteration"] == start and "head" in row
        }
        session = {"start": start, "seed": config.seed, "parameters": parameters, **environment()}
        record = {"id": identity, "told": told, "sessions": [*sessions, session]}
        write_json(out / "environment.json", record)
        self.log.write("resume" if start else "start", start, environment=short_environment(), parameters=parameters)
        self.best = _score_of(out / "best.safetensors") if start else None
        evaluated = any(source.val is not None for source in config.sources)
        self.pace = ProgressMeter(
            start,
            config.iterations,
            eval_every=config.eval_every if evaluated else 0,
            images=sum(source.batch_size for source in config.sources),
        )
        self._reported = time.monotonic()
        self._pause_s = REPORT_EVERY_S
        self._ended = False
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended:
            failed = isinstance(error, Exception)
            reason = {"error": f"{type(error).__name__}: {error}"} if failed else {}
            self._end("failed" if failed else "interrupted", **reason)

    def step(self, done: int, losses: dict[str, Tensor], *, lr: float) -> None:
        """Note a step, the ``done``-th of the run, by its losses per head."""
        self.done = done
        self.pace.step(done, losses, lr=lr)
        if done % self.config.log_every == 0 or done == 1:
            values = {"lr": lr, **{f"loss/{head}": round(x.item(), 5) for head, x in losses.items()}}
            if (rate := self.pace.images_per_second) is not None:
                values["images_per_second"] = round(rate, 2)
            self.log.write("step", done, **values)
            self.trackers.numbers("step", done, values)
        if time.monotonic() - self._reported > self._pause_s:
            self._report()

    def evaluated(
        self,
        done: int,
        figures: Figures,
        model: DenseModel,
        tasks: dict[str, Task],
        watch: EvaluationRecorder | None = None,
    ) -> None:
        """Note figures per head.

        Args:
            done: finished steps.
            figures: as ``evaluate`` gives them.
            model: with the weights that they belong to.
            tasks: of its heads.
            watch: what was seen besides, in all processes together, for pictures and the report.
        """
        self.done, self.figures = done, figures
        self.log.forget(done, "eval", "best")  # of an evaluation that was cut off
        seconds = round(self.pace.evaluated(), 2)
        for head, values in figures.items():
            self.log.write("eval", done, head=head, evaluation_seconds=seconds, **values)
            numbers = {f"{head}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
            self.trackers.numbers("eval", done, numbers)
        score = score_of(figures, tasks)
        if score is not None and (self.best is None or score >= self.best):
            self._save(model, tasks, "best.safetensors")
            self.best = score
            self.log.write("best", done, score=score)
        if watch is not None and watch.heads:
            with self._spared("pictures"):
                self._show(done, watch)
        self._report()

    def _show(self, done: int, watch: EvaluationRecorder) -> None:
        folder = save_evaluation(self.out, done, watch)
        if self.config.trackers:
            for head, kept in watch.heads.items():
                for number, seen in enumerate(kept.fixed, 1):
                    picture = read_image(picture_path(folder, head, "fixed", number))
                    self.trackers.picture(done, f"{head}/{number} {seen.name}", picture)

    def finish(self, model: DenseModel, tasks: dict[str, Task]) -> Path:
        """Write the finished model with its last figures; returns where."""
        path = self._save(model, tasks, "model.safetensors")
        self._end("finished")
        return path

    def _save(self, model: DenseModel, tasks: dict[str, Task], name: str) -> Path:
        config = self.config
        card = config.card.model_copy(update={"metrics": {**config.card.metrics, **self.figures}})
        save_bundle(Bundle(without_lora(model), tasks, config.fit, card), self.out / name, config.storage)
        return self.out / name

    def _end(self, outcome: str, **reason: str) -> None:
        self._ended = True
        with self._spared("log"):
            self.log.write("end", self.done, outcome=outcome, **reason)
        self._report()
        self.trackers.close(finished=outcome == "finished")
        spent = duration(self.log.seconds)
        _log.info(
            "%s after %d of %d iterations, in %s; see %s",
            outcome,
            self.done,
            self.config.iterations,
            spent,
            self.out / REPORT,
        )

    def _report(self) -> None:
        began = time.monotonic()
        with self._spared("report"):
            write_report(self.out)
        self._reported = time.monotonic()
        self._pause_s = max(REPORT_EVERY_S, 50 * (self._reported - began))  # at most some 2 % of the time

    @contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """Nothing that only shows a run may stop it: what fails within is a warning, once."""
        try:
            yield
        except Exception as error:
            if what not in self._warned:
                self._warned.add(what)
                _log.warning("the %s of %s could not be written (%s: %s)", what, self.out, type(error).__name__, error)


_OF_THE_ROW = frozenset({"event", "iteration", "seconds", "head", "evaluation_seconds"})


def score_of(figures: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Task]) -> float | None:
    """By which evaluations are compared, larger is better: the mean of the heads' headline figures.

    A figure of which less is better counts negative. Heads in whose val data there is nothing to measure are left
    out; None if there is no other.
    """
    values = []
    for head, task in tasks.items():
        name, higher = task.headline
        value = figures.get(head, {}).get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            values.append(value if higher else -value)
    return math.fsum(values) / len(values) if values else None


def _score_of(path: Path) -> float | None:
    """The score of a checkpoint by the figures on its card; None without one that can be read."""
    try:
        header = read_header(path)
    except DensevitError:
        return None
    return score_of({head: m for head, m in header.card.metrics.items() if isinstance(m, dict)}, header.tasks)


def _earlier(out: Path) -> tuple[str, dict[str, int], list[Any]]:
    """Of the run in a folder: identity, the last iterations that trackers were told of, and its sessions."""
    try:
        record = json.loads((out / "environment.json").read_text(encoding="utf-8"))
        identity, sessions = str(record["id"]), list(record["sessions"])
        told = {str(event): int(iteration) for event, iteration in record["told"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return uuid.uuid4().hex, {}, []
    return identity, told, sessions
