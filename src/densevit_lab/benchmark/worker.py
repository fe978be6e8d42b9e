"""The program of a worker process, which holds one workload, so that no two programs share a process.

It reads requests, one JSON object per line, from its standard input, and writes each answer as one line to its original
standard output; whatever the libraries print goes to the standard error.
"""

import gc
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densevit.checkpoints.create import preset_bundle
from densevit.checkpoints.native import save_bundle
from densevit.device import keep_freed_memory
from densevit.errors import DensevitError
from densevit.memory import peak_during
from densevit_lab.benchmark.flops import count_flops
from densevit_lab.benchmark.machine import gemm_rates
from densevit_lab.benchmark.metrics import measure_metric
from densevit_lab.benchmark.peers import open_peer
from densevit_lab.benchmark.workloads import Workload, WorkloadSpec, build_workload

Message = dict[str, Any]


class Worker:
    """The requests that a worker answers: one method each."""

    workload: Workload
    spec: WorkloadSpec

    def load(self, request: Message) -> Message:
        """Build a workload for a number of threads."""
        torch.set_num_threads(request["threads"])
        if cv2 := sys.modules.get("cv2"):
            cv2.setNumThreads(request["threads"])
        if request.get("keep_freed_memory"):
            keep_freed_memory()
        began = time.perf_counter()
        self.spec = WorkloadSpec.parse(request["workload"])
        self.workload = build_workload(self.spec)
        return {"seconds": time.perf_counter() - began}

    def run(self, request: Message) -> Message:
        """Time one prediction; its output goes to a file if one is named."""
        gc.collect()
        image = Path(request["image"])
        cpu, wall = time.process_time(), time.perf_counter()
        output = self.workload(image)
        sample = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        if request.get("output"):
            np.save(request["output"], output)
        return sample

    def flops(self, request: Message) -> Message:
        """Count the floating-point operations of one prediction."""
        return {"flops": count_flops(lambda: self.workload(Path(request["image"])))}

    def first(self, request: Message) -> Message:
        """Run for the first time in this process, and measure memory too; operations only on request."""
        answer: Message = {}

        def run() -> None:
            answer.update(self.run(request))

        def run_counted() -> None:
            answer["flops"] = count_flops(run)

        gc.collect()
        memory = peak_during(run_counted if request.get("flops") else run)
        return {**answer, "memory": asdict(memory) | {"transient": memory.transient}}

    def convert(self, request: Message) -> Message:
        """Build a peer and write its weights as a native checkpoint."""
        spec = WorkloadSpec.parse(request["workload"])
        save_bundle(open_peer(spec.source, spec.options).bundle(), Path(request["weights"]))
        return {}

    def draw(self, request: Message) -> Message:
        """Write the random weights of a preset as a native checkpoint."""
        torch.manual_seed(0)
        save_bundle(preset_bundle(request["source"]), Path(request["weights"]))
        return {}

    def evaluate(self, request: Message) -> Message:
        """Measure the metric of the workload on a data set."""
        facts: Message = {key: request[key] for key in ("source", "limit", "reference")}
        facts |= {key: Path(request[key]) for key in ("data", "folder")}
        return measure_metric(self.workload, head=self.spec.head, **facts).plain()

    def gemm(self, request: Message) -> Message:
        """Measure the machine's rates of float32 matrix products with one thread."""
        return {"rates": gemm_rates(request.get("seconds", 0.25))}


def main() -> None:
    """Answer requests until the input ends; an error is an answer too."""
    worker = Worker()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = getattr(worker, request["do"])(request)
            except DensevitError as error:
                answer = {"error": str(error)}
            except Exception as error:  # a peer may raise anything, and the other cases go on
                answer = {"error": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(answer) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
