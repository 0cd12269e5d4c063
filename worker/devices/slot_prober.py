"""A thread that probes the GPU slots that are out of service, and offers them again."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from worker.attempt import Slot
from worker.devices.devices import Devices
from worker.devices.report import DeviceReport

log = logging.getLogger(__name__)

FIRST_SECONDS: Final = 15.0
TICK_SECONDS: Final = 1.0


class RetirableSlots(Protocol):
    """The part of SlotPool that the prober needs."""

    def retired_slots(self) -> dict[Slot, DeviceReport]: ...

    def is_empty(self, slot: Slot) -> bool: ...

    def retire_slot(self, slot: Slot, report: DeviceReport) -> None: ...

    def restore_slot(self, slot: Slot, report: DeviceReport) -> None: ...


class SlotProber:
    """Probes each retired slot after `first_seconds`, then after twice as long each time, at most `last_seconds`.

    A slot that fails again within `last_seconds` of its return continues with its last pause, doubled, so that a device
    which fails under every job is not offered every few seconds.
    """

    def __init__(  # noqa: PLR0913 - slots, devices, and the times
        self,
        slots: RetirableSlots,
        devices: Devices,
        stopping: threading.Event,
        last_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._slots = slots
        self._devices = devices
        self._stopping = stopping
        self._last_seconds = last_seconds
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._pauses: dict[Slot, float] = {}  # the pause before the next probe, or before the last one
        self._due: dict[Slot, float] = {}
        self._restored_at: dict[Slot, float] = {}
        self._thread = threading.Thread(target=self._run, name="slot-prober", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def probe_due(self) -> None:
        """Probe the retired slots that are due."""
        for slot in self._slots.retired_slots():
            if slot not in self._due:
                self._schedule_probe(slot)
            elif self._clock() >= self._due[slot]:
                self._probe_slot(slot)

    def _schedule_probe(self, slot: Slot) -> None:
        """Schedule the first probe of a slot that has just been retired."""
        relapse = self._clock() - self._restored_at.get(slot, -float("inf")) < self._last_seconds
        first = min(FIRST_SECONDS, self._last_seconds)
        self._pauses[slot] = min(2 * self._pauses[slot], self._last_seconds) if relapse else first
        self._due[slot] = self._clock() + self._pauses[slot]

    def _probe_slot(self, slot: Slot) -> None:
        if not self._slots.is_empty(slot):
            report = self._slots.retired_slots()[slot]
        elif slot.kind == "gpu":
            report = self._devices.check_device(slot.devices or "")
        else:
            report = DeviceReport(slot.kind, ok=True)
        if report.ok:
            log.info("slot %d is back in service", slot.index)
            del self._due[slot]
            self._restored_at[slot] = self._clock()
            self._slots.restore_slot(slot, report)
            return
        self._slots.retire_slot(slot, report)
        self._pauses[slot] = min(2 * self._pauses[slot], self._last_seconds)
        self._due[slot] = self._clock() + self._pauses[slot]

    def _run(self) -> None:
        while not self._stopping.wait(self._tick_seconds):
            try:
                self.probe_due()
            except Exception:
                log.exception("a probe failed")
