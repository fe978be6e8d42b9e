"""``python -m tests.fuzz``: hostile inputs for a while; the exit code is 1 if a command did not cope with one."""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.fuzz.generators import GENERATORS
from tests.fuzz.harness import Finding, fuzz

LOADED = (
    *("inference.predictor", "doctor.examine", "data", "evaluation.evaluate"),
    *("checkpoints.merge", "io.gdal", "training.start"),
)


def main() -> int:
    """Take turns among the generators until the time is over."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=0, help="of the first input; the next ones count on")
    options.add_argument("--only", choices=[*GENERATORS, "checkpoints"], help="one generator")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    for module in LOADED:  # once, before the children fork
        importlib.import_module(f"densevit.{module}")
    seeds = range(chosen.seed, sys.maxsize)
    found: list[Finding] = []
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        names = [chosen.only] if chosen.only else [*GENERATORS, "checkpoints"]
        for name in names:
            (Path(folder) / name).mkdir()
        runs = {name: fuzz(name, seeds, Path(folder) / name) for name in names}
        end = time.monotonic() + chosen.seconds
        while time.monotonic() < end:
            for run in runs.values():
                finding = next(run)
                count += 1
                if finding is not None:
                    found.append(finding)
                    print(finding, flush=True)
    print(f"{count} inputs from seed {chosen.seed} on, {len(found)} findings")
    return 1 if found else 0


sys.exit(main())
