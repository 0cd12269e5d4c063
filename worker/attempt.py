"""The values that a supervisor works with: a slot, what a worker's supervisors share, and one attempt."""

# ruff: noqa: N818 - the names say what happened

import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from core.db.session import Database
from core.jobs.attempt.fence import Fence
from core.jobs.kinds import KINDS, JobKind
from core.jobs.queue.claim import Claim
from core.lifecycle import LIGHT
from core.recipe.plan import SlotKind
from core.settings import Settings
from core.store.base import Store
from worker import provision
from worker.devices.devices import Devices
from worker.devices.report import DeviceReport
from worker.heartbeat import Heartbeat
from worker.kinds import WORKER_KINDS, WorkerKind, find_worker_kind
from worker.launcher import Launcher, RunnerProcess

PlaceKind = SlotKind | Literal["light"]
"""What a worker offers: slots that compute on the CPU or a GPU, and its light lane beside them."""


@dataclass(frozen=True)
class Slot:
    """A place for one runner. `devices` becomes CUDA_VISIBLE_DEVICES; None does not set it.

    The light lane is a slot of the kind `light`: it takes only jobs that need it, and no slot takes those.
    """

    index: int
    kind: PlaceKind
    devices: str | None = None

    @property
    def needs(self) -> Sequence[str]:
        return needs_served((self.kind,))

    @property
    def computes_on(self) -> SlotKind:
        """The kind of device of its execution plans."""
        return "gpu" if self.kind == "gpu" else "cpu"


def needs_served(kinds: Iterable[PlaceKind]) -> tuple[str, ...]:
    """What jobs may need that slots of these kinds take."""
    given = tuple(kinds)
    return given if set(given) <= {LIGHT} else (*given, "any")


@dataclass(frozen=True)
class WorkerContext:
    """What every supervisor of this worker works with."""

    name: str
    settings: Settings
    db: Database
    store: Store
    launcher: Launcher
    scratch: provision.Scratch
    stopping: threading.Event
    devices: Devices = field(default_factory=Devices)
    job_kinds: tuple[JobKind[Any], ...] = KINDS
    worker_kinds: tuple[WorkerKind, ...] = WORKER_KINDS


class SlotFailed(Exception):
    """A slot cannot be used now; its job, if any, is given back. `leftover` is a runner that cannot be killed."""

    def __init__(self, report: DeviceReport, leftover: RunnerProcess | None = None) -> None:
        super().__init__(report.describe_with_remedy())
        self.report = report
        self.leftover = leftover


@dataclass(frozen=True)
class Attempt:
    """The value that each stage of the supervisor receives."""

    context: WorkerContext
    slot: Slot
    claim: Claim
    heartbeat: Heartbeat
    folder: provision.AttemptFolder
    held: ExitStack = field(default_factory=ExitStack)
    """What is held as long as the attempt: locks of cached datasets, descriptors."""

    @property
    def kind(self) -> WorkerKind:
        return find_worker_kind(self.context.worker_kinds, self.claim.kind)

    @property
    def fence(self) -> Fence:
        return Fence(self.claim.job_id, self.claim.attempt)
