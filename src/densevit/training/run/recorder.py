"""Everything in the run folder except the states: log, evaluations, report and models."""

import logging
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from densevit.checkpoints.derived import derived_card, parents
from densevit.checkpoints.native import Bundle, read_header, save_bundle
from densevit.config import to_yaml
from densevit.errors import DensevitError
from densevit.evaluation.inspection import EvaluationRecorder
from densevit.evaluation.snapshots import drop_evaluations, picture_path, save_evaluation
from densevit.io import link_or_copy, read_image, write_bytes_atomic, write_json
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.config import TrainConfig, made_from
from densevit.training.datasets import trained_on, write_descriptions
from densevit.training.lora import without_lora
from densevit.training.run.environment import environment, short_environment
from densevit.training.run.log import Row, RunLog, in_words, last_iterations, read_log
from densevit.training.run.progress import ProgressMeter, duration
from densevit.training.run.report import REPORT, write_report
from densevit.training.run.salvage import is_shallow, mappings, parse_json
from densevit.training.run.trackers import RunFacts, Trackers

_log = logging.getLogger(__name__)

HeadMetrics = dict[str, dict[str, Any]]
"""Per head what its metrics compute."""

REPORT_EVERY_S = 60.0
"""Between evaluations the report is rewritten after this time, so that a run that is killed has one too."""


class RunRecorder:
    """Records what happens in a run: in its folder, as a progress line, and in trackers.

    As a context manager it also records that the run failed or was interrupted.

    Args:
        start: iterations that are done already.
        metrics: results of the last evaluation of an earlier session.
        on_log: called with event and iteration of every line of the log.
        advice: what a person could do instead of a run of hours; None if there is nothing.

    Raises:
        ConfigError: a tracker's package is not installed.
    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        *,
        start: int,
        parameters: int,
        metrics: HeadMetrics | None = None,
        on_log: Callable[[str, int], None] | None = None,
        advice: str | None = None,
    ) -> None:
        self.config, self.out, self.done = config, out, start
        self.card = derived_card(config.card, parents(made_from(config)))
        identity, tracked, sessions = _read_environment(out)
        rows = read_log(out / "log.jsonl")
        tracked = {event: max(tracked.get(event, 0), last) for event, last in (tracked | last_iterations(rows)).items()}
        kept = last_iterations([row for row in rows if row["iteration"] <= start])
        name = f"{out.resolve().name}-{identity[:6]}"
        facts = RunFacts(out, config.project, name, identity, config.plain(), start)
        self.trackers = Trackers(config.trackers, facts, tracked=tracked, kept=kept)
        write_bytes_atomic(out / "config.yaml", to_yaml(config).encode(), internal=True)
        write_descriptions(config, out)
        drop_evaluations(out, after=start)
        self.log = RunLog(out / "log.jsonl", start=start, on_write=on_log)
        self.metrics = metrics or {}
        session = {"start": start, "seed": config.seed, "parameters": parameters, **environment()}
        record = {"id": identity, "told": tracked, "sessions": [*sessions, session]}
        write_json(out / "environment.json", record, internal=True)
        self.log.write("resume" if start else "start", start, environment=short_environment(), parameters=parameters)
        self.best_score = _score_of(out / "best.safetensors") if start else None
        evaluated = any(source.val is not None for source in config.sources)
        self.meter = ProgressMeter(
            start,
            config.iterations,
            eval_every=config.eval_every if evaluated else 0,
            images=sum(source.batch_size for source in config.sources),
            advice=advice,
        )
        self.best_done: int | None = None  # in this session
        self._stored: dict[str, Tensor] | None = {} if config.freeze == "encoder" else None
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
        """Record the ``done``-th step of the run with its losses per head."""
        self.done = done
        self.meter.step(done, losses, lr=lr)
        if done % self.config.log_every == 0 or done == 1:
            values = {"lr": lr, **{f"loss/{head}": round(x.item(), 5) for head, x in losses.items()}}
            if (rate := self.meter.images_per_second) is not None:
                values["images_per_second"] = round(rate, 2)
            self.log.write("step", done, **values)
            self.trackers.numbers("step", done, values)
        if time.monotonic() - self._reported > self._pause_s:
            self._report()

    def evaluated(
        self,
        done: int,
        metrics: HeadMetrics,
        model: DenseModel,
        tasks: dict[str, Task],
        recorder: EvaluationRecorder | None = None,
    ) -> None:
        """Record an evaluation after ``done`` steps, and save the model if it is the best so far."""
        self.done, self.metrics = done, metrics
        self.log.forget(done, "eval", "best")  # of an evaluation that was cut off
        seconds = round(self.meter.evaluated(), 2)
        for head, values in metrics.items():
            self.log.write("eval", done, head=head, evaluation_seconds=seconds, **values)
            numbers = {f"{head}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
            self.trackers.numbers("eval", done, numbers)
        score = score_of(metrics, tasks)
        if score is not None and (self.best_score is None or score >= self.best_score):
            self._save(model, tasks, "best.safetensors")
            self.best_score, self.best_done = score, done
            self.log.write("best", done, score=score)
        if recorder is not None and recorder.heads:
            with self._not_fatal("pictures"):
                self._save_pictures(done, recorder)
        self._report()

    def probed(self, metrics: HeadMetrics) -> None:
        """Record what a linear layer on the same features reaches on val."""
        for head, values in metrics.items():
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
            self.log.write("probe", 0, head=head, **numbers)
            _log.info("a linear probe of the features, for head %s: %s", head, in_words(numbers))
        self._report()

    def _save_pictures(self, done: int, recorder: EvaluationRecorder) -> None:
        folder = save_evaluation(self.out, done, recorder)
        if self.config.trackers:
            for head, record in recorder.heads.items():
                for number, image in enumerate(record.fixed, 1):
                    picture = read_image(picture_path(folder, head, "fixed", number))
                    self.trackers.picture(done, f"{head}/{number} {image.name}", picture)

    def finish(self, model: DenseModel, tasks: dict[str, Task]) -> Path:
        """Write the finished model with its metrics; returns its path.

        Where it is the one of the best evaluation, the file of that gets a second name and takes no space.
        """
        path, best = self.out / "model.safetensors", self.out / "best.safetensors"
        chosen = self.best_score is not None if self.config.select == "best" else self.best_done == self.done
        if chosen:
            link_or_copy(best, path)
        else:
            self._save(model, tasks, path.name)
        self._end("finished")
        for line in results_in_words(read_log(self.out / "log.jsonl"), tasks, best=self.config.select == "best"):
            _log.info("%s", line)
        return path

    def _save(self, model: DenseModel, tasks: dict[str, Task], name: str) -> Path:
        config = self.config
        card = self.card.model_copy(update={"metrics": {**self.card.metrics, **self.metrics}})
        bundle = Bundle(without_lora(model), tasks, config.fit, card, trained_on=trained_on(config))
        save_bundle(bundle, self.out / name, config.storage, stored=self._stored)
        return self.out / name

    def _end(self, outcome: str, **reason: str) -> None:
        self._ended = True
        with self._not_fatal("log"):
            self.log.write("end", self.done, outcome=outcome, **reason)
        self._report()
        self.trackers.close(finished=outcome == "finished")
        progress = f"{self.done} of {self.config.iterations} iterations, in {duration(self.log.seconds)}"
        _log.info("%s after %s; see %s", outcome, progress, self.out / REPORT)

    def _report(self) -> None:
        began = time.monotonic()
        with self._not_fatal("report"):
            write_report(self.out)
        self._reported = time.monotonic()
        self._pause_s = max(REPORT_EVERY_S, 50 * (self._reported - began))  # at most about 2 % of the time

    @contextmanager
    def _not_fatal(self, name: str) -> Iterator[None]:
        """A block whose failure is only a warning, given once: what merely shows a run must not stop it."""
        try:
            yield
        except Exception as error:
            if name not in self._warned:
                self._warned.add(name)
                _log.warning("the %s of %s could not be written (%s: %s)", name, self.out, type(error).__name__, error)


def score_of(metrics: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Task]) -> float | None:
    """The number by which evaluations are compared, larger is better: the mean of the heads' headline metrics.

    A metric that is better when lower counts negative. Heads without a finite one are left out; None if none is left.
    """
    values = []
    for head, task in tasks.items():
        name, higher = task.headline
        value = metrics.get(head, {}).get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            values.append(value if higher else -value)
    return math.fsum(values) / len(values) if values else None


def results_in_words(rows: Sequence[Row], tasks: Mapping[str, Task], *, best: bool) -> Iterator[str]:
    """Its headline metric for every head, at the best evaluation or the last one, and that of a linear probe.

    Classes that it never finds are named, since a mean over a few classes hides them.
    """
    chosen = max((row["iteration"] for row in rows if row["event"] == ("best" if best else "eval")), default=None)
    for head, task in tasks.items():
        name, _ = task.headline
        own = [row for row in rows if row.get("head") == head and isinstance(row.get(name), float)]
        measured = [row for row in own if row["event"] == "eval" and row["iteration"] == chosen]
        probes = [row[name] for row in own if row["event"] == "probe"]
        if measured:
            probe = f"; a linear probe of the same features has {probes[-1]:.4g}" if probes else ""
            yield f"head {head}: {name} {measured[-1][name]:.4g} after {chosen} steps{probe}"
            classes = measured[-1].get("per_class", {}).items()
            if missed := [one for one, figures in classes if figures["pixels"] and not figures["IoU"]]:
                named = ", ".join(missed[:8]) + (" ..." if len(missed) > 8 else "")
                yield f"head {head}: never finds {len(missed)} of {len(classes)} classes of val: {named}"


def _score_of(path: Path) -> float | None:
    """The score of a checkpoint by the metrics on its card; None if it cannot be read."""
    try:
        header = read_header(path)
    except DensevitError:
        return None
    return score_of({head: m for head, m in header.card.metrics.items() if isinstance(m, dict)}, header.tasks)


def _read_environment(out: Path) -> tuple[str, dict[str, int], list[Any]]:
    """Identity of the run in a folder, the last iteration of each event that trackers have, and its sessions."""
    try:
        record = parse_json((out / "environment.json").read_text(encoding="utf-8"))
        identity, sessions = str(record["id"]), list(record["sessions"])
        tracked = {str(event): int(iteration) for event, iteration in record["told"].items()}
        if not is_shallow(sessions):
            raise ValueError("nested too deep")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return uuid.uuid4().hex, {}, []
    return identity, tracked, mappings(sessions)
