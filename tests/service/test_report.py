"""What a worker says of itself: no slot is free before a runner could be started."""

import threading
from pathlib import Path

from core.db.session import Database
from core.jobs.workers import Tally, list_workers
from core.settings import Settings
from core.store.local import LocalStore
from tests.support.jobs import OWNER
from tests.support.service import until
from worker import provision
from worker.attempt import Shop, Slot
from worker.launcher import ExecLauncher
from worker.report import Reporter
from worker.slots import Slots


class StartingLauncher(ExecLauncher):
    """Like a zygote that imports torch until `ready` is set."""

    def __init__(self) -> None:
        self.ready = threading.Event()

    def wait_ready(self, timeout: float) -> bool:
        return self.ready.wait(timeout)


def test_slots_are_free_once_runners_can_start(db: Database, tmp_path: Path) -> None:
    """Also when the next report is not due for long; and not any more while a dead zygote is replaced."""
    settings = Settings.model_validate({"home": tmp_path, "beat_seconds": 600.0, "lease_seconds": 1200.0})
    launcher, scratch = StartingLauncher(), provision.Scratch(tmp_path / "scratch", "w")
    shop = Shop("w", settings, db, LocalStore(tmp_path / "store"), launcher, scratch, threading.Event())
    slots = Slots([Slot(index, "cpu", "") for index in range(2)])

    def reported() -> Tally | None:
        return next((view.slots["cpu"] for view in list_workers(db, OWNER)), None)

    reporter = Reporter(shop, slots)
    reporter.start()
    assert until("a first report", reported, 10) == Tally(2, 0)
    launcher.ready.set()
    until("a second one", lambda: reported() == Tally(2, 2), 10)
    reporter.stop()
    launcher.ready.clear()
    reporter = Reporter(shop, slots)
    reporter.start()
    assert until("a report of the next one", reported, 10) == Tally(2, 0)
    reporter.stop()
    assert reported() is None
