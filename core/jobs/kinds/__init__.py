"""The kinds of job. A new kind needs a file here, a line in the tuple, and the same in `worker/kinds`."""

from typing import Any, Final

from core.jobs.kinds.analysis import ANALYSIS
from core.jobs.kinds.base import JobKind, QueuedSpec, Reads, Retention, find_kind
from core.jobs.kinds.prepare import PREPARE
from core.jobs.kinds.train import TRAIN

KINDS: Final[tuple[JobKind[Any], ...]] = (
    TRAIN,
    ANALYSIS,
    PREPARE,
)

__all__ = ["ANALYSIS", "KINDS", "PREPARE", "TRAIN", "JobKind", "QueuedSpec", "Reads", "Retention", "find_kind"]
