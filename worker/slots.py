"""The slots of this worker, who may use them, and the bootstep that polls when no hint comes."""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from celery import bootsteps

from core.db.session import is_transient
from core.errors import Misconfigured
from core.jobs.health.workers import SlotState, SlotUsage
from core.jobs.queue.claim import count_waiting
from core.lifecycle import LIGHT
from core.recipe.plugins import plugin_names
from worker.attempt import PlaceKind, Slot, SlotFailed, WorkerContext, needs_served
from worker.devices.report import DeviceReport
from worker.launcher import RunnerProcess
from worker.supervisor import serve_one

log = logging.getLogger(__name__)

_JOIN_SECONDS: Final = 60.0


def plan_slots(count: int, queues: Sequence[str], gpus: Sequence[DeviceReport]) -> tuple[Slot, ...]:
    """One slot for each GPU that works first, as far as the queues want GPUs; the others compute on the CPU. GPUs that
    do not work come last, beside the `count` slots: they are slots when they work again, see SlotPool.

    Raises:
        Misconfigured: the queues and this machine leave no slot; the message names the fault of each GPU.
    """
    if count < 1 or not set(queues) or not set(queues) <= {"cpu", "gpu"}:
        raise Misconfigured("a worker needs at least one slot, and its queues are cpu, gpu or both")
    wanted = gpus if "gpu" in queues else ()
    working = [report.token for report in wanted if report.ok][:count]
    broken = [report for report in wanted if not report.ok]
    slots = [Slot(index, "gpu", token) for index, token in enumerate(working)]
    if "cpu" in queues:
        slots += [Slot(index, "cpu", "") for index in range(len(slots), count)]
    if not slots:
        nothing = "this machine shows no GPU that no other worker has, see CUDA_VISIBLE_DEVICES"
        found = "; ".join(report.describe_with_remedy() for report in broken) or nothing
        raise Misconfigured(f"there is no GPU to serve ({found}); serve the cpu queue too, or mend it")
    later = enumerate(broken[: count - len(working)], len(slots))
    return (*slots, *(Slot(index, "gpu", report.token) for index, report in later))


def with_light_lane(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """The slots of a worker, and its light lane beside them."""
    return (*slots, Slot(len(slots), LIGHT, ""))


class SlotPool:
    """Which slots are free, and since when; which are out of service, and why. Taking one never waits."""

    def __init__(self, slots: Sequence[Slot], gpus: Sequence[DeviceReport] = ()) -> None:
        """`gpus` are the devices of the slots as they were found; slots with one that does not work begin out of
        service.
        """
        reports = {report.token: report for report in gpus}
        self._lock = threading.Lock()
        self._all = tuple(slots)
        self._devices = {slot: reports[slot.devices] for slot in slots if slot.devices in reports}
        self._retired = {slot: report for slot, report in self._devices.items() if not report.ok}
        self._since = dict.fromkeys(slots, time.time())  # of being in service, or out of it
        self._leftovers: dict[Slot, RunnerProcess] = {}
        self._free = {slot: time.monotonic() for slot in slots if slot not in self._retired}
        self._missed: set[PlaceKind] = set()
        self._hinted_at = -math.inf
        self.kinds: tuple[PlaceKind, ...] = tuple(dict.fromkeys(slot.kind for slot in slots))
        self.count = len(slots)

    def take_slot(self, kind: PlaceKind) -> Slot | None:
        """A free slot of this kind; when there is none, the next `release_slot` of this kind returns True."""
        with self._lock:
            for slot in self._free:
                if slot.kind == kind:
                    del self._free[slot]
                    return slot
            self._missed.add(kind)
            return None

    def release_slot(self, slot: Slot) -> bool:
        """Give a slot back; True when `take_slot` found no slot of its kind since the last call."""
        with self._lock:
            if slot in self._retired:
                return False
            self._free[slot] = time.monotonic()
            missed = slot.kind in self._missed
            self._missed.discard(slot.kind)
            return missed

    def retire_slot(self, slot: Slot, report: DeviceReport, leftover: RunnerProcess | None = None) -> None:
        """Take a slot out of service, also one that is taken or out already. `leftover` is a runner still in it."""
        with self._lock:
            if slot not in self._retired:
                self._since[slot] = time.time()
            self._retired[slot] = report
            self._remember_device(slot, report)
            if leftover is not None:
                self._leftovers[slot] = leftover

    def restore_slot(self, slot: Slot, report: DeviceReport | None = None) -> None:
        """Offer a slot again that was out of service. `report` is the probe that its device has passed."""
        with self._lock:
            if self._retired.pop(slot, None) is not None:
                self._free[slot] = time.monotonic()
                self._since[slot] = time.time()
            if report is not None:
                self._remember_device(slot, report)

    def is_empty(self, slot: Slot) -> bool:
        """Whether no unkillable runner is left in a slot."""
        with self._lock:
            leftover = self._leftovers.get(slot)
            if leftover is not None and leftover.wait(0.0) is None:
                return False
            self._leftovers.pop(slot, None)
            return True

    def retired_slots(self) -> dict[Slot, DeviceReport]:
        """The slots that are out of service, and why."""
        with self._lock:
            return dict(self._retired)

    def slot_states(self) -> tuple[SlotState, ...]:
        """The slots with a GPU, and those of any kind that are out of service."""
        with self._lock:
            return tuple(self._slot_state(slot) for slot in self._all if slot.kind == "gpu" or slot in self._retired)

    def _slot_state(self, slot: Slot) -> SlotState:
        wrong, device = self._retired.get(slot), self._devices.get(slot)
        return SlotState(
            kind=slot.kind,
            device=slot.devices or "",
            in_service=wrong is None,
            since=self._since[slot],
            name=device.name if device else None,
            memory_bytes=device.memory_bytes if device else None,
            reason=wrong.reason or "failed" if wrong else None,
            detail=wrong.detail if wrong else None,
        )

    def _remember_device(self, slot: Slot, report: DeviceReport) -> None:
        """Keep the report of a probe that has opened the device; other reports have no name and memory size."""
        if report.name is not None:
            self._devices[slot] = report

    def record_hint(self) -> None:
        """Note the time of a hint: the broker works."""
        self._hinted_at = time.monotonic()

    def hinted_within(self, seconds: float) -> bool:
        """Whether a hint has arrived in the last seconds."""
        return time.monotonic() - self._hinted_at <= seconds

    def count_slots(self) -> dict[str, SlotUsage]:
        """How many slots of each kind are in service, and how many of them are free."""
        with self._lock:
            free = Counter(slot.kind for slot in self._free)
            working = Counter(slot.kind for slot in self._all if slot not in self._retired)
        return {kind: SlotUsage(working[kind], free[kind]) for kind in self.kinds}

    def idle_kinds(self, seconds: float) -> list[PlaceKind]:
        """The kinds of the slots that have been free for `seconds`, one entry for each slot."""
        before = time.monotonic() - seconds
        with self._lock:
            return [slot.kind for slot, since in self._free.items() if since <= before]


def serve_slots(context: WorkerContext, slots: SlotPool, kinds: Sequence[PlaceKind]) -> int:
    """Take a free slot of each kind in turn and serve the best queued jobs until nothing waits; jobs served."""
    served = 0
    for kind in kinds:
        again = True
        while again and (slot := slots.take_slot(kind)) is not None:
            failed = False
            try:
                while not context.stopping.is_set() and serve_one(context, slot):
                    served += 1
            except SlotFailed as failure:
                failed = True  # the job still waits: for another slot of this kind
                log.warning("slot %d is out of service: %s", slot.index, failure.report.describe_with_remedy())
                slots.retire_slot(slot, failure.report, failure.leftover)
            finally:
                again = (slots.release_slot(slot) or failed) and not context.stopping.is_set()
    return served


class SlotPoller:
    """Queries the database when a slot has been free for a while, so that jobs run without a broker too.

    One plain read for the whole worker; while hints arrive, half as often.
    """

    def __init__(self, context: WorkerContext, slots: SlotPool) -> None:
        self._context = context
        self._slots = slots
        self._thread = threading.Thread(target=self._poll_loop, name="poll", daemon=True)
        self._serving: list[threading.Thread] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when everything that the poll has started is done; `stopping` must be set."""
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in (self._thread, *self._serving):
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _poll_loop(self) -> None:
        settings = self._context.settings
        seconds = settings.poll_seconds
        hinted = False
        while not self._context.stopping.wait(2 * seconds if hinted else seconds):
            # The doubled pause is the longest that a job may wait, so every slot that is free now is served.
            self._serve_idle(Counter(self._slots.idle_kinds(0.0 if hinted else seconds)))
            hinted = self._slots.hinted_within(settings.hint_after_seconds)

    def _serve_idle(self, idle: Mapping[PlaceKind, int]) -> None:
        """Have the idle slots, counted by kind, serve what waits: as many of them as there are jobs."""
        self._serving = [thread for thread in self._serving if thread.is_alive()]
        if not idle or (len(idle) > 1 and not self._count_waiting(tuple(idle), 1)):
            return
        for kind, slots in idle.items():
            for _ in range(self._count_waiting((kind,), slots)):
                thread = threading.Thread(
                    target=serve_slots, args=(self._context, self._slots, (kind,)), name="polled", daemon=True
                )
                thread.start()
                self._serving.append(thread)

    def _count_waiting(self, kinds: Sequence[PlaceKind], most: int) -> int:
        try:
            return count_waiting(self._context.db, needs_served(kinds), most, plugin_names())
        except Exception as error:
            if not is_transient(error):
                log.exception("a poll failed")
            return 0


def poll_step(make: Callable[[], SlotPoller]) -> type[bootsteps.StartStopStep]:
    """A Celery bootstep that polls in the worker's main process, from its start to its stop."""

    class PollStep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        def create(self, parent: Any) -> SlotPoller:
            return make()

    return PollStep
