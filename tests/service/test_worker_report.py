"""What a worker says of itself: no slot is free before a runner could be started, and which GPUs it has."""

import threading
from pathlib import Path

from core.db.session import Database
from core.jobs.health.workers import SlotState, SlotUsage, list_worker_views
from core.settings import Settings
from core.store.local import LocalStore
from tests.support.jobs import OWNER
from tests.support.service import until
from worker import provision
from worker.attempt import Slot, WorkerContext
from worker.devices.report import DeviceReport
from worker.health_file import health_text
from worker.launcher import ExecLauncher
from worker.slots import SlotPool
from worker.worker_report import WorkerReporter

GPU = "GPU-11111111-aaaa-4bbb-8ccc-000000000001"


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
    shop = WorkerContext("w", settings, db, LocalStore(tmp_path / "store"), launcher, scratch, threading.Event())
    slots = SlotPool([Slot(index, "cpu", "") for index in range(2)])

    def reported() -> SlotUsage | None:
        return next((view.slots["cpu"] for view in list_worker_views(db, OWNER)), None)

    reporter = WorkerReporter(shop, slots)
    reporter.start()
    assert until("a first report", reported, 10) == SlotUsage(2, 0)
    launcher.ready.set()
    until("a second one", lambda: reported() == SlotUsage(2, 2), 10)
    reporter.stop()
    launcher.ready.clear()
    reporter = WorkerReporter(shop, slots)
    reporter.start()
    assert until("a report of the next one", reported, 10) == SlotUsage(2, 0)
    reporter.stop()
    assert reported() is None


def test_a_gpu_out_of_service_is_told_to_people_and_to_a_health_check(db: Database, tmp_path: Path) -> None:
    """The file needs no database, is readable for another user, and is gone with the worker."""
    file = tmp_path / "run" / "worker.state"
    file.parent.mkdir()
    settings = Settings.model_validate({"home": tmp_path, "beat_seconds": 0.1, "worker_state": file})
    launcher, scratch = StartingLauncher(), provision.Scratch(tmp_path / "scratch", "w")
    shop = WorkerContext("w", settings, db, LocalStore(tmp_path / "store"), launcher, scratch, threading.Event())
    slots = SlotPool([Slot(0, "gpu", GPU)], [DeviceReport(GPU, ok=True, name="H", memory_bytes=80)])
    reporter = WorkerReporter(shop, slots)
    reporter.start()
    until("the file", file.exists, 10)
    assert file.read_text() == "starting\n"
    launcher.ready.set()
    until("it is ready", lambda: file.read_text() == "ready\n", 10)
    assert file.stat().st_mode & 0o777 == 0o644
    mine = slots.take_slot("gpu")
    assert mine
    slots.retire_slot(mine, DeviceReport.from_failure(GPU, "timeout", "no answer\nin 90 s"))
    until("it is not", lambda: file.read_text().startswith("out of service\n"), 10)
    assert file.read_text().splitlines()[1:] == [f"{GPU} is out of service (timeout): no answer in 90 s"]

    def state() -> SlotState:
        return list_worker_views(db, OWNER)[0].states[0]

    until("a report", lambda: not state().in_service, 10)
    assert (state().device, state().name, state().memory_bytes, state().reason) == (GPU, "H", 80, "timeout")
    assert list_worker_views(db, OWNER)[0].slots == {"gpu": SlotUsage(0, 0, ("timeout",))}
    slots.restore_slot(mine)
    until("another", lambda: state().in_service, 10)
    reporter.stop()
    assert list(file.parent.iterdir()) == []


def test_a_file_that_cannot_be_written_stops_nothing(db: Database, tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path, "worker_state": tmp_path / "none" / "file"})
    launcher, scratch = StartingLauncher(), provision.Scratch(tmp_path / "scratch", "w")
    shop = WorkerContext("w", settings, db, LocalStore(tmp_path / "store"), launcher, scratch, threading.Event())
    reporter = WorkerReporter(shop, SlotPool([Slot(0, "cpu", "")]))
    reporter.start()
    until("a report", lambda: list_worker_views(db, OWNER), 10)
    reporter.stop()


def test_a_worker_is_ready_while_one_slot_is_in_service() -> None:
    out = SlotState("gpu", GPU, in_service=False, since=0.0, reason="failed", detail="ECC")
    text = health_text({"cpu": SlotUsage(1, 0), "gpu": SlotUsage(0, 0)}, [out], ready=True)
    assert text == f"ready\n{GPU} is out of service (failed): ECC\n"
    assert health_text({"gpu": SlotUsage(0, 0)}, [out], ready=False).startswith("starting\n")
