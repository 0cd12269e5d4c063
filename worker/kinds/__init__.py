"""The kinds of job that a worker runs. A new one needs a file and a line here, and one in `core/jobs/kinds`."""

from typing import Final

from worker.kinds.analysis import ANALYSIS
from worker.kinds.base import OwnProcess, Provider, WorkerKind, find_worker_kind, load_function
from worker.kinds.prepare import PREPARE
from worker.kinds.train import TRAIN

WORKER_KINDS: Final[tuple[WorkerKind, ...]] = (
    TRAIN,
    ANALYSIS,
    PREPARE,
)

__all__ = ["WORKER_KINDS", "OwnProcess", "Provider", "WorkerKind", "find_worker_kind", "load_function"]
