"""What torchrun, or another launcher, says in the environment about the processes of a run."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from densevit.errors import ConfigError

SILENT_S = 5.0
"""A process that waits longer than this for the others says so."""
_ADVICE = "start the run with torchrun, or unset WORLD_SIZE and RANK to train in one process"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """The place of this process among those that were started together.

    Attributes:
        rank: number of this process, 0 for the first.
        local_rank: its number on this machine.
        world: number of processes.
        restarted: torchrun has restarted the processes.
        address: host and port at which the processes meet; empty for one process.
    """

    rank: int = 0
    local_rank: int = 0
    world: int = 1
    restarted: bool = False
    address: str = ""


def read_launch() -> Launch:
    """The place of this process; one process if the environment names no other.

    Raises:
        ConfigError: the variables are incomplete or contradict each other, such as a ``WORLD_SIZE`` that is left over.
    """
    world, restarts = _number("WORLD_SIZE", 1, low=1), _number("TORCHELASTIC_RESTART_COUNT", 0, low=0)
    if world == 1:  # RANK may be left over
        return Launch(restarted=restarts > 0)
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {world} but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set; {_ADVICE}"
        )
    rank, local_rank = _number("RANK", 0, low=0, high=world - 1), _number("LOCAL_RANK", 0, low=0, high=world - 1)
    port = _number("MASTER_PORT", 0, low=0, high=65535)
    return Launch(rank, local_rank, world, restarts > 0, f"{os.environ['MASTER_ADDR']}:{port}")


def is_first() -> bool:
    """Whether this process is the first, or the only one, of its run.

    Raises:
        ConfigError: as ``read_launch``.
    """
    return read_launch().rank == 0


@contextmanager
def meeting(launch: Launch, timeout_s: float) -> Iterator[None]:
    """A block in which this process waits for the others: a line says so if it takes long.

    Raises:
        ConfigError: the processes cannot meet.
    """

    def explain() -> None:
        _log.warning(
            "process %d of %d waits for the others at %s, for up to %g s; were all of them started?",
            launch.rank, launch.world, launch.address, timeout_s,
        )  # fmt: skip

    timer = threading.Timer(SILENT_S, explain)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:  # torch's errors of stores and networks are RuntimeErrors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"process {launch.rank} of {launch.world} did not find the others at {launch.address} within "
            f"{timeout_s:g} s ({lines[0][:200]}); start all of them with one MASTER_ADDR and a free MASTER_PORT, or "
            "raise timeout_s"
        ) from error
    finally:
        timer.cancel()


def _number(name: str, default: int, *, low: int, high: int = 999_999) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    short = text.isascii() and text.isdecimal() and len(text) < 10
    if not short or not low <= int(text) <= high:
        raise ConfigError(f"{name} is {text[:40]!r} in the environment but {low} to {high} is accepted; {_ADVICE}")
    return int(text)
