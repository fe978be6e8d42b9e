"""The program of a worker process, which holds one workload, so that no two programs share a process.

It reads requests, one JSON object per line, from its standard input, and writes each answer as one line to its original
standard output; whatever the libraries print goes to the standard error.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densevit.checkpoints.native import save_bundle
from densevit.device import keep_freed_memory
from densevit.errors import DensevitError
from densevit.memory import peak_during
from densevit_lab.benchmark.flops import count_flops
from densevit_lab.benchmark.machine import gemm_rates
from densevit_lab.benchmark.peers import open_peer
from densevit_lab.benchmark.workloads import Workload, WorkloadSpec, build_workload

Request = dict[str, Any]
Answer = dict[str, Any]


class Worker:
    """The requests that a worker answers: one method each."""

    workload: Workload

    def load(self, request: Request) -> Answer:
        """Build a workload for a number of threads."""
        torch.set_num_threads(request["threads"])
        if cv2 := sys.modules.get("cv2"):
            cv2.setNumThreads(request["threads"])
        if request.get("keep_freed_memory"):
            keep_freed_memory()
        began = time.perf_counter()
        self.workload = build_workload(WorkloadSpec.parse(request["workload"]))
        return {"seconds": time.perf_counter() - began}

    def run(self, request: Request) -> Answer:
        """Time one prediction; its output goes to a file if one is named."""
        gc.collect()
        image = Path(request["image"])
        cpu, wall = time.process_time(), time.perf_counter()
        output = self.workload(image)
        sample = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        if request.get("output"):
            np.save(request["output"], output)
        return sample

    def flops(self, request: Request) -> Answer:
        """Count the floating-point operations of one prediction."""
        return {"flops": count_flops(lambda: self.workload(Path(request["image"])))}

    def first(self, request: Request) -> Answer:
        """Run for the first time in this process, and measure memory too; operations only on request."""
        answer: Answer = {}

        def run() -> None:
            answer.update(self.run(request))

        def run_counted() -> None:
            answer["flops"] = count_flops(run)

        gc.collect()
        memory = peak_during(run_counted if request.get("flops") else run)
        return {**answer, "memory": asdict(memory) | {"transient": memory.transient}}

    def convert(self, request: Request) -> Answer:
        """Build a peer and write its weights as a native checkpoint."""
        spec = WorkloadSpec.parse(request["workload"])
        save_bundle(open_peer(spec.source, spec.options).bundle(), Path(request["weights"]))
        return {}

    def gemm(self, request: Request) -> Answer:
        """Measure the machine's rates of float32 matrix products with one thread."""
        return {"rates": gemm_rates(request.get("seconds", 0.25))}


def serve(reply: Callable[[Answer], None]) -> None:
    """Answer requests until the input ends; an error is an answer too."""
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply(getattr(worker, request["do"])(request))
        except DensevitError as error:
            reply({"error": str(error)})
        except Exception as error:  # a peer may raise anything, and the other cases go on
            reply({"error": f"{type(error).__name__}: {error}"})


def main() -> None:
    """Keep the standard output for answers, and redirect what libraries print to the standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)

        def reply(answer: Answer) -> None:
            replies.write(json.dumps(answer) + "\n")
            replies.flush()

        serve(reply)


if __name__ == "__main__":
    main()
