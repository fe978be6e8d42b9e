"""Runs commands on hostile inputs, each in a child with bounded time and memory, and judges how it ended."""

import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from densevit.cli.main import main
from tests.fuzz.generators import GENERATORS, Generator, Scene, checkpoints

SECONDS, MEGABYTES = 60.0, 3_000
"""What a command may take for one small input."""

ENDS = {0, 1, 2}
"""Exit codes of a command that has coped: done, faults found in the data, or refused with a message."""


@dataclass(frozen=True)
class Finding:
    """An input that a command did not cope with."""

    generator: str
    seed: int
    words: tuple[str, ...]
    end: str
    output: str

    def __str__(self) -> str:
        tail = "\n".join(self.output.strip().splitlines()[-12:])
        return f"{self.generator} {self.seed}: {self.end}\n  densevit {' '.join(map(ascii, self.words))}\n{tail}"


def fuzz(name: str, seeds: range, folder: Path, *, seconds: float = SECONDS) -> Iterator[Finding | None]:
    """Run a generator's inputs, one by one: None for each that a command coped with."""
    scene = Scene.make(folder)
    generator: Generator = GENERATORS.get(name) or partial(checkpoints, scene=scene)
    for seed in seeds:
        place = Path(tempfile.mkdtemp(dir=folder))
        words = generator(random.Random(f"{name} {seed}"), place)
        if words[0] in {"predict", "evaluate"}:
            given = [] if "--model" in words else ["--model", str(scene.model)]
            words = [*words, *given, "--device", "cpu"]
        end, output = run(words, place / "log", seconds=seconds)
        yield None if end in ENDS else Finding(name, seed, tuple(words), str(end), output)
        shutil.rmtree(place, ignore_errors=True)


def run(words: list[str], log: Path, *, seconds: float) -> tuple[int | str, str]:
    """Exit code of a command, or what it exceeded, and its output."""
    if (child := os.fork()) == 0:
        _become(words, log)
    end = time.monotonic() + seconds
    exceeded = ""
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        with contextlib.suppress(OSError, IndexError):
            resident = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * resource.getpagesize() >> 20
            exceeded = exceeded or ("memory" if resident > MEGABYTES else "")
        exceeded = exceeded or ("time" if time.monotonic() > end else "")
        if exceeded:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(ended[1])
    return exceeded or code, log.read_text(errors="replace") if log.exists() else ""


def _become(words: list[str], log: Path) -> None:
    """Run the command in this child, and end."""
    code = 99
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False, errors="strict", buffering=1)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="strict", buffering=1)  # noqa: SIM115
        sys.argv = ["densevit", *words]
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code & 255)
