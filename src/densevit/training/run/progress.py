"""Progress of a run in one line: iteration, losses, learning rate, images per second, time left, memory.

Lines go to the logger ``densevit.progress``: at INFO rarely, for a log file; at DEBUG several times a second, for a
terminal that overwrites the line.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line imports the name of the logger, and must start without torch
    from torch import Tensor

from densevit.memory import peak_bytes

PROGRESS = "densevit.progress"
LIVE_S = 0.2
"""Seconds between two updates of the live line."""
QUIET_S = (10.0, 300.0)
"""Bounds of the seconds between two lines of a log, which are a twentieth of the time so far."""
LONG_S = 3600.0
"""A run that has more than this left after its first steps says so, with advice."""
FIRST_STEPS = 3
RECENT = 50
"""Steps and evaluations over which speed is averaged."""

_log = logging.getLogger(PROGRESS)
_lasting = logging.getLogger(__name__)  # whose lines a terminal does not overwrite


class ProgressMeter:
    """Speed and time left of a run.

    Args:
        start: iterations that are done already.
        iterations: number of iterations of the whole run.
        eval_every: iterations between evaluations, 0 for none.
        images: per step.
        advice: what a person could do instead of a run of hours; None if there is nothing.
        clock: returns seconds.
    """

    def __init__(
        self,
        start: int,
        iterations: int,
        *,
        eval_every: int,
        images: int,
        advice: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.iterations, self.eval_every, self.images = iterations, eval_every, images
        self.done, self._clock, self._advice = start, clock, advice
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._evaluations: deque[float] = deque(maxlen=RECENT)
        self._began = self._last = clock()
        self._drawn = self._logged = -float("inf")
        self._warm = False

    def step(self, done: int, losses: "Mapping[str, Tensor]", *, lr: float) -> None:
        """Count a step, and log a line when one is due."""
        now = self._clock()
        if self._warm:  # the first step is slower than the others
            self._steps.append(now - self._last)
        self._warm = True
        self.done, self._last = done, now
        if len(self._steps) >= FIRST_STEPS and self._advice is not None:
            if (left := self.seconds_left) is not None and left > LONG_S:
                _lasting.warning("at this speed %s are left; %s", duration(left), self._advice)
            self._advice = None
        pause = min(max((now - self._began) / 20, QUIET_S[0]), QUIET_S[1])
        if now - self._logged >= pause or done == self.iterations:
            self._logged = self._drawn = now
            _log.info("%s", self._line(losses, lr))
        elif now - self._drawn >= LIVE_S and _log.isEnabledFor(logging.DEBUG):
            self._drawn = now
            _log.debug("%s", self._line(losses, lr))

    def evaluated(self) -> float:
        """Count an evaluation that ends now; returns the seconds since the last step."""
        now = self._clock()
        taken, self._last = now - self._last, now
        self._evaluations.append(taken)
        return taken

    @property
    def images_per_second(self) -> float | None:
        """Speed over the last ``RECENT`` steps, without evaluations; None before the second step."""
        total = sum(self._steps)
        return self.images * len(self._steps) / total if total > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Time for the remaining steps and evaluations at the recent speed; None before the second step."""
        if not self._steps:
            return None
        seconds = (self.iterations - self.done) * sum(self._steps) / len(self._steps)
        if self.eval_every and self._evaluations:
            # One at every multiple of eval_every, and one at the end.
            remaining = -(-self.iterations // self.eval_every) - self.done // self.eval_every
            seconds += remaining * sum(self._evaluations) / len(self._evaluations)
        return seconds

    def _line(self, losses: "Mapping[str, Tensor]", lr: float) -> str:
        values = {head: loss.item() for head, loss in losses.items()}
        loss = f"loss {sum(values.values()):.4g}"
        if len(values) > 1:
            loss += f" ({', '.join(f'{head} {value:.3g}' for head, value in values.items())})"
        parts = [f"iteration {self.done}/{self.iterations}", loss, f"lr {lr:.2e}"]
        if (rate := self.images_per_second) is not None:
            parts.append(f"{rate:.3g} images/s")
        if (left := self.seconds_left) is not None and self.done < self.iterations:
            parts.append(f"{duration(left)} left")
        if (memory := peak_bytes()) is not None:
            parts.append(f"{memory / 2**30:.1f} GiB")
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """A time in its two largest units: ``2 d 3 h``, ``1 h 05 min``, ``3 min 20 s``, ``12 s``."""
    total = max(round(seconds), 0)
    days, hours, minutes = total // 86400, total // 3600 % 24, total // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {total % 60:02} s" if minutes else f"{total} s"
