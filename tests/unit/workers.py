"""A worker of the benchmark that answers in the test's process."""

import json
from typing import Any

from densevit.errors import DensevitError
from densevit_lab.benchmark.process import WorkerError, WorkerProcess
from densevit_lab.benchmark.worker import Worker


class WorkerHere(WorkerProcess):
    """Answers in this process: a real one takes seconds to import torch."""

    def __init__(self, **_: Any) -> None:
        self.worker = Worker()

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self.worker, command)(json.loads(json.dumps(request)))
        except (DensevitError, KeyError) as error:
            raise WorkerError(str(error)) from None
        return answer

    def close(self) -> None:
        pass
