"""The slots of this worker, who may use them, and the bootstep that polls when no hint comes."""

import logging
import math
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from celery import bootsteps

from core.db.session import is_transient
from core.errors import Misconfigured
from core.jobs.claim import count_waiting
from core.jobs.workers import Tally
from core.recipe.plan import SlotKind
from worker.attempt import Shop, Slot
from worker.supervisor import serve_one

log = logging.getLogger(__name__)

_GPU_DEVICE: Final = re.compile(r"nvidia(\d+)")
_JOIN_SECONDS: Final = 60.0


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """What CUDA would call its devices, found without asking CUDA: that would spoil every process forked later."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in {"", "-1"}]
    found = (_GPU_DEVICE.fullmatch(path.name) for path in devices.iterdir())
    return [str(index) for index in range(sum(match is not None for match in found))]


def plan_slots(count: int, queues: Sequence[str], gpus: Sequence[str]) -> tuple[Slot, ...]:
    """One slot for each GPU first, as far as the queues want GPUs; the others compute on the CPU.

    Raises:
        Misconfigured: the queues and this machine leave no slot.
    """
    if count < 1 or not set(queues) or not set(queues) <= {"cpu", "gpu"}:
        raise Misconfigured("a worker needs at least one slot, and its queues are cpu, gpu or both")
    devices = list(gpus)[:count] if "gpu" in queues else []
    slots = [Slot(index, "gpu", device) for index, device in enumerate(devices)]
    if "cpu" in queues:
        slots += [Slot(index, "cpu", "") for index in range(len(slots), count)]
    if not slots:
        raise Misconfigured("this machine shows no GPU; serve the cpu queue too, or see CUDA_VISIBLE_DEVICES")
    return tuple(slots)


class Slots:
    """Which slots are free, and since when. Taking one never waits."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._lock = threading.Lock()
        self._free = {slot: time.monotonic() for slot in slots}
        self._missed = False
        self._heard_at = -math.inf
        self._kinds = Counter(slot.kind for slot in slots)
        self.kinds: tuple[SlotKind, ...] = tuple(dict.fromkeys(slot.kind for slot in slots))
        self.count = len(slots)

    def take(self, kind: SlotKind) -> Slot | None:
        """A free slot of this kind; when there is none, whoever lets go of one is told to look again."""
        with self._lock:
            for slot in self._free:
                if slot.kind == kind:
                    del self._free[slot]
                    return slot
            self._missed = True
            return None

    def release(self, slot: Slot) -> bool:
        """Give a slot back; whether somebody came in vain since the last time that this was asked."""
        with self._lock:
            self._free[slot] = time.monotonic()
            missed, self._missed = self._missed, False
            return missed

    def hear(self) -> None:
        """A hint has arrived: the broker is well."""
        self._heard_at = time.monotonic()

    def heard(self, seconds: float) -> bool:
        """Whether a hint has arrived in the last seconds."""
        return time.monotonic() - self._heard_at <= seconds

    def tally(self) -> dict[str, Tally]:
        """How many slots there are of each kind, and how many are free."""
        with self._lock:
            free = Counter(slot.kind for slot in self._free)
        return {kind: Tally(count, free[kind]) for kind, count in self._kinds.items()}

    def idle(self, seconds: float) -> list[SlotKind]:
        """The kinds of the slots that have been free for that long, one entry for each slot."""
        before = time.monotonic() - seconds
        with self._lock:
            return [slot.kind for slot, since in self._free.items() if since <= before]


def serve(shop: Shop, slots: Slots, kinds: Sequence[SlotKind]) -> int:
    """Take a free slot of each kind in turn and serve the best queued jobs until nothing waits; jobs served."""
    served = 0
    for kind in kinds:
        again = True
        while again and (slot := slots.take(kind)) is not None:
            try:
                while not shop.stopping.is_set() and serve_one(shop, slot):
                    served += 1
            finally:
                again = slots.release(slot) and not shop.stopping.is_set()
    return served


class Poll:
    """Looks into the database when a slot has been free for a while: all it takes to live without a broker.

    One plain read for the whole worker; while hints arrive, half as often.
    """

    def __init__(self, shop: Shop, slots: Slots) -> None:
        self._shop = shop
        self._slots = slots
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)
        self._serving: list[threading.Thread] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when everything that the poll has started is done; `stopping` must be set."""
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in (self._thread, *self._serving):
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        settings = self._shop.settings
        seconds = settings.poll_seconds
        hinted = False
        while not self._shop.stopping.wait(2 * seconds if hinted else seconds):
            # The longer pause alone is as long as a job may wait: a slot that is free now is not left for the next.
            self._look(Counter(self._slots.idle(0.0 if hinted else seconds)))
            hinted = self._slots.heard(settings.hint_after_seconds)

    def _look(self, idle: Mapping[SlotKind, int]) -> None:
        """Have the idle slots, counted by kind, serve what waits: as many of them as there are jobs."""
        self._serving = [thread for thread in self._serving if thread.is_alive()]
        if not idle or (len(idle) > 1 and not self._waiting(tuple(idle), 1)):
            return
        for kind, slots in idle.items():
            for _ in range(self._waiting((kind,), slots)):
                thread = threading.Thread(
                    target=serve, args=(self._shop, self._slots, (kind,)), name="polled", daemon=True
                )
                thread.start()
                self._serving.append(thread)

    def _waiting(self, kinds: Sequence[SlotKind], most: int) -> int:
        try:
            return count_waiting(self._shop.db, (*kinds, "any"), most)
        except Exception as error:
            if not is_transient(error):
                log.exception("a poll failed")
            return 0


def poll_step(make: Callable[[], Poll]) -> type[bootsteps.StartStopStep]:
    """A Celery bootstep that polls in the worker's main process, from its start to its stop."""

    class PollStep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
        def create(self, parent: Any) -> Poll:
            return make()

    return PollStep
