"""Hints: "there may be work", sent through Celery. They may be lost, duplicated or late; no process relies on them."""

import logging
import queue
import threading
from typing import Any, Final

from core.lifecycle import LIGHT
from core.settings import Settings

log = logging.getLogger(__name__)

TASK: Final = "basin.work"
QUEUES: Final = {"cpu": ("cpu",), "gpu": ("gpu",), "any": ("cpu", "gpu"), LIGHT: (LIGHT,)}

_WAITING: Final = 64  # more hints than there are slots to take them
_DEEP: Final = 100  # hints in the broker that no worker took: more would only fill its memory
_TIMEOUT: Final = 3.0
_GOODBYE: Final = 0.5


def celery_settings(settings: Settings) -> dict[str, Any]:
    """The Celery settings that the sender of hints and the worker share."""
    return {
        "broker_url": settings.resolved_broker_url(),
        "broker_transport_options": {
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "max_retries": 1,
            "global_keyprefix": "basin:",
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_publish_retry": False,
        "task_default_queue": "cpu",
        "worker_pool": "threads",
        "worker_enable_remote_control": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


class Hints:
    """Sends hints from a separate thread; `send` and `close` return at once, whatever state the broker is in."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Import Celery in the background now rather than at the first hint."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._send_queued, name="hints", daemon=True)
                self._thread.start()

    def send(self, needs: str) -> None:
        """Hint that a job with these needs, a key of QUEUES, waits; the hint is dropped when too many are unsent."""
        self.start()
        try:
            self._waiting.put_nowait(needs)
        except queue.Full:
            log.debug("too many hints wait for the broker; this one is dropped")

    def close(self) -> None:
        """Stop sending; the thread has half a second to close its connection to the broker."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            self._waiting.get_nowait()
            self._waiting.put_nowait(None)
        thread.join(_GOODBYE)

    def _send_queued(self) -> None:
        app = _make_sender(self._settings)
        failing = False
        while (needs := self._waiting.get()) is not None and not self._closed:
            try:
                for name in QUEUES[needs]:
                    _publish_hint(app, name)
                failing = False
            except Exception as error:  # noqa: BLE001 - hints are best effort, whatever fails
                # One line for each outage, not for each hint.
                log.log(logging.DEBUG if failing else logging.WARNING, "the broker took no hint: %s", error)
                failing = True
        app.close()


def _make_sender(settings: Settings) -> Any:
    from celery import Celery

    shared = celery_settings(settings)
    hurried = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    app = Celery("basin-hints", set_as_current=False)
    app.conf.update(shared | {"broker_transport_options": shared["broker_transport_options"] | hurried})
    return app


def _publish_hint(app: Any, name: str) -> None:
    with app.producer_or_acquire() as producer:
        depth = producer.channel.queue_declare(name, durable=True, auto_delete=False).message_count
        if depth < _DEEP:
            app.send_task(TASK, queue=name, producer=producer, retry=False, ignore_result=True)
