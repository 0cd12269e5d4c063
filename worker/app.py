"""The worker process: the Celery app, and every object whose lifetime is that of the worker."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from celery import Celery, signals
from celery.apps import worker as celery_worker

from core.db.migrate import is_behind, unfit_reason
from core.db.session import Database, is_transient, open_database
from core.errors import Misconfigured
from core.jobs.attempt.reconcile import Reconciler
from core.jobs.store_identity import open_identified_store
from core.queue import Hints, celery_settings
from core.recipe.plugins import installed_plugins
from core.settings import Settings
from worker import provision
from worker.attempt import Slot, WorkerContext
from worker.devices.devices import Devices
from worker.devices.report import DeviceReport
from worker.devices.slot_prober import SlotProber
from worker.launcher import best_launcher
from worker.runner_user import prepare_runner_user
from worker.slots import SlotPoller, SlotPool, poll_step, with_light_lane
from worker.tasks import register_work
from worker.worker_report import WorkerReporter

log = logging.getLogger(__name__)

SCHEMA_SECONDS: Final = 30.0


def make_app(settings: Settings, context: WorkerContext, slots: SlotPool) -> Celery:
    """The Celery app: hints in, and the poll as a bootstep."""
    app = Celery("basin", set_as_current=False)
    app.conf.update(celery_settings(settings), worker_hijack_root_logger=False, worker_redirect_stdouts=False)
    register_work(app, context, slots)
    app.steps["worker"].add(poll_step(lambda: SlotPoller(context, slots)))
    return app


def run_worker(settings: Settings, slots: tuple[Slot, ...], gpus: Sequence[DeviceReport] = ()) -> int:
    """Work until SIGTERM or SIGINT; the exit status. `gpus` are those of the slots, as they were found.

    Raises:
        Misconfigured: the schema of the database is older than this release needs, or too new for it.
    """
    with open_context(settings) as context:
        offered = SlotPool(with_light_lane(slots) if settings.light_lane else slots, gpus)
        app = make_app(settings, context, offered)
        reporter = WorkerReporter(context, offered)
        prober = SlotProber(offered, context.devices, context.stopping, settings.device_probe_seconds)

        asked: list[bool] = []

        def on_stop(how: str, **_: Any) -> None:
            context.stopping.set()
            asked.append(how == "Warm")

        signals.worker_shutting_down.connect(on_stop, weak=False)
        signals.setup_logging.connect(_keep_logging, weak=False)
        celery_worker.safe_say = _ignore_signal
        worker = app.Worker(
            hostname=context.name,
            # One thread more than places (slots and the light lane): with every thread busy, Celery would not wait for
            # hints, and look for the next one up to a second after a thread is free. The spare one drops hints that
            # find no place.
            concurrency=offered.count + 1,
            queues=",".join(offered.kinds),
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        reporter.start()
        prober.start()
        try:
            worker.start()
        finally:
            context.stopping.set()
            reporter.stop()
        # Celery exits with a failure after Ctrl-C; a stop that was requested and done exits with 0.
        return 0 if all(asked) and asked else int(worker.exitcode or 1)


@contextmanager
def open_context(settings: Settings) -> Iterator[WorkerContext]:
    """Open everything that a supervisor works with; close it in the reverse order."""
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    user = prepare_runner_user(settings)  # before there are threads
    with ExitStack() as stack:
        launcher = best_launcher(settings.zygote_silence_seconds, user)
        launcher.start()  # first: importing torch takes longer than all the rest
        stack.callback(launcher.stop)
        installed_plugins()  # a broken plug-in is logged now, not at the first job
        db = open_database(settings.resolved_database_url(), trusting=True)
        stack.callback(db.close)
        _await_schema(db)
        store = open_identified_store(settings, db)
        hints = Hints(settings)
        stack.callback(hints.close)
        scratch = provision.Scratch(settings.scratch, name, user)
        scratch.open()
        stack.callback(scratch.close)
        reconciler = Reconciler(db, store, hints, settings)
        reconciler.start()
        stack.callback(reconciler.stop)
        warming = provision.prefetch_datasets(settings.datasets)
        if warming is not None:
            stack.callback(provision.stop_prefetch, warming)
        devices = Devices(free_share=settings.gpu_free_share)
        yield WorkerContext(name, settings, db, store, launcher, scratch, threading.Event(), devices)


def _await_schema(db: Database) -> None:
    """Wait until the schema fits: the migration and the database may start after this worker."""
    deadline = time.monotonic() + SCHEMA_SECONDS
    problem: str | None = "the database is away"
    while True:
        try:
            problem = unfit_reason(db)
            if problem is None or not is_behind(db):
                break
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("the database is away: %s", error)
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if problem:
        raise Misconfigured(problem)


def _ignore_signal(*_: Any) -> None:
    """Celery prints a stop directly to stdout, which would break the lines of the structured log."""


def _keep_logging(**_: Any) -> None:
    """A handler of this signal keeps Celery from setting up its own logging."""
