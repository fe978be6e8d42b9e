"""A child process that holds one side and runs it on demand, so that neither side shares a process with the other.

It reads requests, one JSON object a line, from its standard input, and answers each by one line on the output that it
was started with; whatever the libraries print goes to the standard error.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
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
from densevit_lab.benchmark.peers import PEERS, open_peer
from densevit_lab.benchmark.sides import Side, SideSpec, build_side

Request = dict[str, Any]
Answer = dict[str, Any]


class Child:
    """The state of a child: at most one side."""

    def __init__(self) -> None:
        self.side: Side | None = None

    def load(self, request: Request) -> Answer:
        """Build a side with so many threads."""
        torch.set_num_threads(request["threads"])
        if cv2 := sys.modules.get("cv2"):
            cv2.setNumThreads(request["threads"])
        if request.get("keep_freed_memory"):
            keep_freed_memory()
        began = time.perf_counter()
        self.side = build_side(SideSpec.parse(request["side"]))
        return {"seconds": time.perf_counter() - began}

    def run(self, request: Request) -> Answer:
        """One prediction: seconds of the clock and of the CPU; its output goes to a file if one is named."""
        gc.collect()
        return self._predict(request)

    def _predict(self, request: Request) -> Answer:
        image, predict = Path(request["image"]), self._side().predict
        cpu, wall = time.process_time(), time.perf_counter()
        output = predict(image)
        sample = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        if request.get("output"):
            np.save(request["output"], output)
        return sample

    def flops(self, request: Request) -> Answer:
        """Floating-point operations of one prediction."""
        return {"flops": count_flops(lambda: self._side().predict(Path(request["image"])))}

    def first(self, request: Request) -> Answer:
        """The first prediction of this process: a sample as of ``run``, and the memory and operations it needed."""
        gc.collect()
        answer: Answer = {}

        def predict() -> None:
            answer.update(self._predict(request))

        def count() -> None:
            answer["flops"] = count_flops(predict)

        found = peak_during(count if request.get("flops") else predict)
        memory = {"before": found.before, "peak": found.peak, "transient": found.transient, "exact": found.exact}
        return {**answer, "memory": memory}

    def convert(self, request: Request) -> Answer:
        """Build a peer and write its weights as a native checkpoint."""
        spec = SideSpec.parse(request["side"])
        peer = open_peer(spec.source, spec.options, "cpu")
        bundle = peer.bundle()
        save_bundle(bundle, Path(request["weights"]))
        return {"parameters": bundle.model.num_parameters(), "provenance": PEERS[spec.source].title}

    def gemm(self, request: Request) -> Answer:
        """The machine's rates of float32 matrix products, one thread."""
        return {"rates": gemm_rates(request.get("seconds", 0.25))}

    def _side(self) -> Side:
        assert self.side is not None, "load comes first"
        return self.side


def serve(answer: Callable[[Answer], None]) -> None:
    """Answer requests until the input ends; an error is an answer too."""
    child = Child()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(getattr(child, request["do"])(request))
        except DensevitError as error:
            answer({"error": str(error)})
        except Exception as error:  # a peer may raise anything, and the other cases shall go on
            answer({"error": f"{type(error).__name__}: {error}"})


def main() -> None:
    """Keep the output for answers, and send what libraries print to the standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)

        def answer(content: Answer) -> None:
            replies.write(json.dumps(content) + "\n")
            replies.flush()

        serve(answer)


if __name__ == "__main__":
    main()
