"""This worker's row for people: written every few seconds, removed at the end. No job depends on it."""

import logging
import threading
import time
from typing import Final

from core.db.session import is_transient
from core.jobs.workers import WorkerReport, forget_worker, report_worker
from worker.attempt import Shop
from worker.slots import Slots

log = logging.getLogger(__name__)

_PATIENCE: Final = 3.0


class Reporter:
    """Reports from `start` to `stop`. It looks every `beat_seconds`, and writes what is new or half a lease old."""

    def __init__(self, shop: Shop, slots: Slots) -> None:
        self._shop = shop
        self._slots = slots
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more reports, and no row; one that cannot be removed now is dropped by CARE later."""
        self._stopped.set()
        self._thread.join(_PATIENCE)
        try:
            forget_worker(self._shop.db, self._shop.name)
        except Exception as error:
            if not is_transient(error):
                log.exception("the worker's row could not be removed")

    def _run(self) -> None:
        told: WorkerReport | None = None
        told_at, fresh = 0.0, self._shop.settings.lease_seconds / 2
        while not self._stopped.is_set():
            report, now = WorkerReport(self._shop.name, self._slots.tally()), time.monotonic()
            try:
                if report != told or now - told_at >= fresh:
                    report_worker(self._shop.db, report)
                    told, told_at = report, now
            except Exception as error:
                if not is_transient(error):
                    log.exception("a report failed")
            self._stopped.wait(self._shop.settings.beat_seconds)
