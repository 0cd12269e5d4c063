"""This worker's row in the list of workers, and its health file: written every few seconds, removed at the end.

No job depends on them.
"""

import logging
import threading
import time
from dataclasses import replace
from typing import Final

from core.db.session import is_transient
from core.jobs.health.workers import SlotUsage, WorkerReport, delete_worker, report_worker
from core.lifecycle import LIGHT
from core.recipe.plugins import installed_plugins
from worker.attempt import WorkerContext
from worker.health_file import HealthFile, health_text
from worker.slots import SlotPool

log = logging.getLogger(__name__)

_PATIENCE: Final = 3.0
_READY_TICK: Final = 0.2


class WorkerReporter:
    """Reports from `start` to `stop`: what is new, every `beat_seconds`, and what is half a lease old.

    While no runner can be started, because the zygote still imports torch or is being replaced, no slot counts as free.
    The health file needs no database, and is written first.
    """

    def __init__(self, context: WorkerContext, slots: SlotPool) -> None:
        self._context = context
        self._slots = slots
        self._health = HealthFile(context.settings.worker_state)
        self._plugins = {each.name: each.version for each in installed_plugins().joined}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._report_loop, name="report", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more reports, no file, and no row; garbage collection removes a row that cannot be removed now."""
        self._stopped.set()
        self._thread.join(_PATIENCE)
        self._health.remove()
        try:
            delete_worker(self._context.db, self._context.name)
        except Exception as error:
            if not is_transient(error):
                log.exception("the worker's row could not be removed")

    def _report_loop(self) -> None:
        told: WorkerReport | None = None
        told_at, fresh = 0.0, self._context.settings.lease_seconds / 2
        while not self._stopped.is_set():
            ready, now = self._context.launcher.wait_ready(0.0), time.monotonic()
            report = WorkerReport(
                self._context.name, self._send_report(ready=ready), self._slots.slot_states(), self._plugins
            )
            self._health.write(health_text(report.slots, report.states, ready=ready))
            try:
                if report != told or now - told_at >= fresh:
                    report_worker(self._context.db, report)
                    told, told_at = report, now
            except Exception as error:
                if not is_transient(error):
                    log.exception("a report failed")
            self._wait_until_due(ready=ready)

    def _send_report(self, *, ready: bool) -> dict[str, SlotUsage]:
        tally = self._slots.count_slots()
        waits = () if ready else tuple(tally.keys() - {LIGHT})  # the light lane needs no zygote
        return tally | {kind: replace(tally[kind], free=0) for kind in waits}

    def _wait_until_due(self, *, ready: bool) -> None:
        """Until the next report is due; a worker that has become ready reports at once."""
        seconds = self._context.settings.beat_seconds
        if ready:
            self._stopped.wait(seconds)
            return
        deadline = time.monotonic() + seconds
        while not self._stopped.wait(_READY_TICK) and time.monotonic() < deadline:
            if self._context.launcher.wait_ready(0.0):
                return
