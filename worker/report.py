"""This worker's row for people: written every few seconds, removed at the end. No job depends on it."""

import logging
import threading
import time
from dataclasses import replace
from typing import Final

from core.db.session import is_transient
from core.jobs.workers import Tally, WorkerReport, forget_worker, report_worker
from worker.attempt import Shop
from worker.slots import Slots

log = logging.getLogger(__name__)

_PATIENCE: Final = 3.0
_READY_TICK: Final = 0.2


class Reporter:
    """Reports every `beat_seconds` from `start` to `stop`, and as soon as runners can be started.

    While none can, because the zygote still imports torch or is being replaced, no slot counts as free.
    """

    def __init__(self, shop: Shop, slots: Slots) -> None:
        self._shop = shop
        self._slots = slots
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more reports, and no row; one that cannot be removed now is dropped by CARE after a day."""
        self._stopped.set()
        self._thread.join(_PATIENCE)
        try:
            forget_worker(self._shop.db, self._shop.name)
        except Exception as error:
            if not is_transient(error):
                log.exception("the worker's row could not be removed")

    def _run(self) -> None:
        while not self._stopped.is_set():
            ready = self._shop.launcher.wait_ready(0.0)
            try:
                report_worker(self._shop.db, WorkerReport(self._shop.name, self._tally(ready=ready)))
            except Exception as error:
                if not is_transient(error):
                    log.exception("a report failed")
            self._rest(ready=ready)

    def _tally(self, *, ready: bool) -> dict[str, Tally]:
        tally = self._slots.tally()
        return tally if ready else {kind: replace(of_kind, free=0) for kind, of_kind in tally.items()}

    def _rest(self, *, ready: bool) -> None:
        """Until the next report is due; a worker that has become ready says so at once."""
        seconds = self._shop.settings.beat_seconds
        if ready:
            self._stopped.wait(seconds)
            return
        deadline = time.monotonic() + seconds
        while not self._stopped.wait(_READY_TICK) and time.monotonic() < deadline:
            if self._shop.launcher.wait_ready(0.0):
                return
