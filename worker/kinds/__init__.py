"""The kinds of job that a worker runs. A new one needs a file and a line here, and one in `core/jobs/kinds`."""

from typing import Final

from worker.kinds.analysis import ANALYSIS
from worker.kinds.base import Provider, WorkerKind, find_worker_kind
from worker.kinds.train import TRAIN

WORKER_KINDS: Final[tuple[WorkerKind, ...]] = (
    TRAIN,
    ANALYSIS,
)

__all__ = ["WORKER_KINDS", "Provider", "WorkerKind", "find_worker_kind"]
