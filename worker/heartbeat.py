"""The heartbeat of one attempt: renews the lease, writes progress, reads the desired status, and detects the end.

Deadlines run on this machine's monotonic clock from the moment at which the last good heartbeat was *sent*. The lease
in the database cannot end earlier, even where the clocks differ.
"""

# ruff: noqa: N818 - the names say what happened

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from core.db.session import Database, is_transient
from core.jobs.attempt.fence import Fence, Fenced
from core.jobs.attempt.heartbeat import record_heartbeat
from core.lifecycle import Desired
from core.logs import with_log_context
from core.settings import Settings

log = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 0.5  # progress in the database is at most this old while the engine reports
_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 2.0
T = TypeVar("T")


class AttemptAbandoned(Exception):
    """The attempt was abandoned while a write was still pending."""


class JobCancelled(Exception):
    """The job is cancelled: a store call that fails is not retried."""


class Heartbeat:
    """Sends heartbeats in its own thread, so that a slow upload does not delay them; every write goes through it.

    It abandons the attempt permanently when the database stays away for `outage_seconds`.
    """

    def __init__(
        self,
        db: Database,
        fence: Fence,
        settings: Settings,
        stopping: threading.Event,
        claimed_at: float,
    ) -> None:
        self.db = db
        self.fence = fence
        self.settings = settings
        self.stopping = stopping
        self._stopping_since: float | None = None
        self._good_at = claimed_at
        self._progress: dict[str, Any] | None = None
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(
            target=with_log_context(self._heartbeat_loop), name=f"heartbeat-{fence.job_id}", daemon=True
        )
        self.desired = Desired.RUN
        self.cancelled_at: float | None = None  # when a heartbeat returned it, on this machine's monotonic clock
        self.fenced = False
        self.given_up = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more heartbeats; writes may continue while the lease is fresh."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def report_progress(self, progress: dict[str, Any]) -> None:
        """Set the newest progress; a heartbeat writes it within PROGRESS_SECONDS."""
        self._progress = progress

    def silence_seconds(self) -> float:
        """Seconds since the last good heartbeat was sent."""
        return time.monotonic() - self._good_at

    def mark_fenced(self) -> None:
        """The fence refused a write: this attempt is over."""
        with self._changed:
            self.fenced = True
            self._changed.notify_all()

    def retry_write(self, action: Callable[[], T]) -> T:
        """Do one idempotent write, and retry it while the database or the store fails temporarily.

        It waits while the last good heartbeat is older than 0.75 of the lease: another worker may then own the job.

        Raises:
            Fenced: this attempt is over.
            AttemptAbandoned: the database stayed away for too long.
        """
        return self._retry_call(action, lambda _: None)

    def retry_store_call(self, action: Callable[[], T], patience: float) -> T:
        """Do one store call, and retry temporary failures for `patience` seconds, unless the job is cancelled.

        Raises:
            JobCancelled: the call failed temporarily, and the job is cancelled.
            Fenced: this attempt is over.
            AttemptAbandoned: the database stayed away for too long.
        """
        deadline = time.monotonic() + patience

        def check_deadline(error: Exception) -> None:
            if self.desired is Desired.CANCEL:
                raise JobCancelled(self.fence.job_id) from error
            if time.monotonic() >= deadline:
                raise error

        return self._retry_call(action, check_deadline)

    def _retry_call(self, action: Callable[[], T], on_error: Callable[[Exception], None]) -> T:
        delay = _FIRST_DELAY
        while True:
            self._wait_until_fresh()
            try:
                return action()
            except Fenced:
                self.mark_fenced()
                raise
            except Exception as error:
                if not is_transient(error):
                    raise
                on_error(error)
                log.warning("job %s: a call failed and is tried again: %s", self.fence.job_id, error)
            self._pause_retry(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, _LAST_DELAY)

    def _wait_until_fresh(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.fenced or self.given_up or self._is_fresh())
            if self.fenced:
                raise Fenced(self.fence)
            if self.given_up:
                raise AttemptAbandoned(self.fence.job_id)

    def _pause_retry(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.fenced or self.given_up, seconds)

    def _is_fresh(self) -> bool:
        return self.silence_seconds() <= self.settings.hold_seconds

    def _heartbeat_loop(self) -> None:
        sent: dict[str, Any] | None = None
        sent_at = self._good_at
        while True:
            progress, now = self._progress, time.monotonic()
            if progress is not sent or now - sent_at >= self.settings.beat_seconds or not self._is_fresh():
                sent_at = now
                if self._send_heartbeat(now, progress):
                    sent = progress
            self._check_outage(now)
            with self._changed:
                if self._changed.wait_for(lambda: self._stopped or self.fenced or self.given_up, PROGRESS_SECONDS):
                    return

    def _check_outage(self, now: float) -> None:
        """Abandon the attempt when the database was away for too long, or longer than a stopping worker may wait."""
        if self.stopping.is_set() and self._stopping_since is None:
            self._stopping_since = now
        stuck = self._stopping_since is not None and now - self._stopping_since > self.settings.stop_grace_seconds + 2
        if stuck or self.silence_seconds() > self.settings.outage_seconds:
            with self._changed:
                self.given_up = True
                self._changed.notify_all()

    def _send_heartbeat(self, now: float, progress: dict[str, Any] | None) -> bool:
        try:
            desired = record_heartbeat(
                self.db, self.fence, lease_seconds=self.settings.lease_seconds, progress=progress
            )
        except Exception as error:  # noqa: BLE001 - one failed heartbeat must not end the thread, and with it the job
            level = logging.WARNING if is_transient(error) else logging.ERROR
            log.log(level, "job %s: a heartbeat failed: %s", self.fence.job_id, error)
            return False
        if desired is None:
            self.mark_fenced()
            return False
        with self._changed:
            self._good_at = now
            self.desired = desired
            if desired is Desired.CANCEL and self.cancelled_at is None:
                self.cancelled_at = now
            self._changed.notify_all()
        return True
