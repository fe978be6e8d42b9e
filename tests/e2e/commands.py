"""Running ``densevit`` in a process of its own."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


def spawn(*arguments: object, cwd: Path | None = None) -> Outcome:
    """Run ``densevit ARGUMENTS`` to its end."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False, cwd=cwd)
    return Outcome(done.returncode, done.stdout, done.stderr)


def command(*arguments: object) -> list[str]:
    """The command line that runs ``densevit ARGUMENTS`` with this interpreter."""
    return [sys.executable, "-m", "densevit", *map(str, arguments)]
