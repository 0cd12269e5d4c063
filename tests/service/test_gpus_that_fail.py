"""Workers whose GPUs fail: real runners on GPUs that a file plays, claims and conclusions in a real database."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from core.db.session import Database
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import give_back
from core.jobs.branch import create_fork
from core.jobs.events.record import list_events
from core.jobs.queries import JobView, get_job_view
from core.jobs.queue.submit import SubmitContext
from core.jobs.verbs import request_cancel
from core.recipe.data.materialise import materialise_dataset
from core.settings import Limits, Settings
from core.store.local import LocalStore
from tests.support.fake_gpu import FILE_VARIABLE, A, B, FakeGpuLauncher, FakeMachine, Fault
from tests.support.jobs import OWNER, small_spec, state_of, submitted
from tests.support.service import ROOT, until
from worker import provision
from worker.attempt import Slot, WorkerContext
from worker.devices.devices import Devices
from worker.devices.report import DeviceReport
from worker.devices.slot_prober import SlotProber
from worker.launcher import ProcessExit, RunnerProcess
from worker.slots import SlotPool, serve_slots

TIMINGS: Final = {
    "lease_seconds": 6.0,
    "beat_seconds": 0.5,
    "unkillable_seconds": 0.3,
    "device_probe_seconds": 0.05,
}
STALLS: Final = TIMINGS | {"stall_seconds": 1.0}
SPEC: Final = {"data": {"name": "iris"}, "epochs": 3, "checkpoints": {"every": "4st"}}  # 12 steps


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The claims and the plans of a mixed fleet are tested on both, see test_mixed_fleet."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeMachine, FakeGpuLauncher, Path]]:
    """The machine, its zygote, which takes seconds to start, and the datasets."""
    folder = tmp_path_factory.mktemp("machine")
    machine, datasets = FakeMachine(folder / "gpus.json"), folder / "datasets"
    materialise_dataset(small_spec(**SPEC).data, datasets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FILE_VARIABLE, str(machine.path))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "sdk")]))
        launcher = FakeGpuLauncher()
        launcher.start()
        assert launcher.wait_ready(60.0)
    yield machine, launcher, datasets
    launcher.stop()


@pytest.fixture
def machine(made: tuple[FakeMachine, FakeGpuLauncher, Path]) -> FakeMachine:
    made[0].reset()
    return made[0]


class FakeWorker:
    """A worker with some slots; it serves when it is told to, until nothing waits that it could take."""

    def __init__(self, context: WorkerContext, *slots: Slot) -> None:
        self.context = context
        self.slots = SlotPool(slots)
        self._prober = SlotProber(self.slots, context.devices, context.stopping, context.settings.device_probe_seconds)

    def serve(self) -> int:
        return serve_slots(self.context, self.slots, self.slots.kinds)

    def why_out(self) -> list[str | None]:
        return [report.reason for report in self.slots.retired_slots().values()]

    def is_whole(self) -> bool:
        """Whether all slots are in service, after a look at those that are not."""
        self._prober.probe_due()
        return not self.slots.retired_slots()

    def probe_twice(self, machine: FakeMachine) -> None:
        before = len(machine.probed)
        until("two probes", lambda: self.is_whole() or len(machine.probed) >= before + 2)


Hire = Callable[..., FakeWorker]


@pytest.fixture
def hire(
    db: Database, tmp_path: Path, machine: FakeMachine, made: tuple[FakeMachine, FakeGpuLauncher, Path]
) -> Iterator[Hire]:
    """Makes a worker with slots for these GPUs, or one for the CPU; keywords replace parts of its context."""
    _, launcher, datasets = made
    Settings(home=tmp_path).datasets.symlink_to(datasets)
    opened: list[provision.Scratch] = []

    def begin(*tokens: str, timings: Mapping[str, float] = TIMINGS, **parts: Any) -> FakeWorker:
        name, settings = f"w{len(opened)}", Settings.model_validate({**timings, "home": tmp_path})
        scratch = provision.Scratch(tmp_path / "scratch", name)
        scratch.open()
        opened.append(scratch)
        store = LocalStore(tmp_path / "store")
        shop = WorkerContext(name, settings, db, store, launcher, scratch, threading.Event(), machine.devices())
        slots = [Slot(index, "gpu", token) for index, token in enumerate(tokens)] or [Slot(0, "cpu", "")]
        return FakeWorker(replace(shop, **parts), *slots)

    yield begin
    for scratch in opened:
        scratch.close()


def job(db: Database, name: str, device: str = "gpu", **changes: Any) -> str:
    return submitted(db, **(SPEC | {"name": name, "resources": {"device": device}} | changes))


def view(db: Database, job_id: str) -> JobView:
    return get_job_view(db, OWNER, job_id)


def standing(db: Database, job_id: str) -> tuple[str, int, int]:
    state = state_of(db, job_id)
    return state["status"], state["attempt"], state["losses"]


def warnings(db: Database, job_id: str) -> list[str]:
    return [each.data["code"] for each in list_events(db, OWNER, job_id, types=["warning"])]


@pytest.mark.parametrize("exact", [True, False])
def test_a_fleet_loses_no_job_with_a_gpu(db: Database, machine: FakeMachine, hire: Hire, exact: bool) -> None:
    """It dies in the middle of a job; what may run on a CPU does, the rest waits until the GPU is back."""
    wanted = {
        "first": ("gpu", True),
        "victim": ("auto", exact),
        "auto": ("auto", True),
        "loose": ("auto", False),
        "gpu": ("gpu", True),
        "loose_gpu": ("gpu", False),
        "cpu": ("cpu", True),
    }
    jobs = {name: job(db, name, device, deterministic=same) for name, (device, same) in wanted.items()}
    machine.set_fault("victim", "dies", step=6)
    with_gpu, with_cpu = hire(A), hire()
    assert with_gpu.serve() == 1
    assert with_gpu.why_out() == ["failed"]
    assert with_gpu.serve() == 0
    assert standing(db, jobs["victim"]) == ("queued", 1, 0)
    assert view(db, jobs["victim"]).timeline[-1].detail == (
        "its GPU failed: CUDA error: an illegal memory access was encountered"
    )
    with_cpu.serve()
    left = {name for name, job_id in jobs.items() if standing(db, job_id)[0] == "queued"}
    assert left == {"gpu", "loose_gpu"} | ({"victim"} if exact else set())
    with_gpu.probe_twice(machine)
    assert (with_gpu.why_out(), with_gpu.serve()) == (["failed"], 0)
    machine.set_gpu(A)
    until("the GPU is back", with_gpu.is_whole)
    assert with_gpu.serve() == len(left)
    found = {name: standing(db, job_id) for name, job_id in jobs.items()}
    assert found == {name: ("succeeded", 2 if name == "victim" else 1, 0) for name in jobs}
    resume = view(db, jobs["victim"]).resume
    assert resume is not None
    assert resume["fidelity"] == ("exact" if exact else "approximate")
    assert ("kind: cuda before, cpu now" in resume["reasons"]) is not exact
    assert warnings(db, jobs["victim"]) == ([] if exact else ["planned_anew"])


def test_a_fork_goes_on_on_a_gpu_and_another_one_back_on_a_cpu(db: Database, hire: Hire) -> None:
    """Approximately, and it says why."""
    (with_gpu, with_cpu), at = (hire(A), hire()), job(db, "job", "cpu")
    assert with_cpu.serve() == 1
    for worker, device, reason in (
        (with_gpu, "gpu", "kind: cpu before, cuda now"),
        (with_cpu, "cpu", "kind: cuda before, cpu now"),
    ):
        changes = {"resources": {"device": device}, "epochs": 4 if device == "gpu" else 5}
        at = create_fork(db, at, SubmitContext(OWNER, Limits(), 60.0), changes=changes).job_id
        assert worker.serve() == 1
        resume = view(db, at).resume or {}
        assert (standing(db, at), resume["fidelity"]) == (("succeeded", 1, 0), "approximate")
        assert reason in resume["reasons"]


def test_a_job_that_breaks_a_gpu_that_works_is_stopped_by_its_losses(
    db: Database, machine: FakeMachine, hire: Hire
) -> None:
    """Three times, and the slot rests after each, so that others have time to take what waits."""
    bad, good = job(db, "bad"), job(db, "good")
    machine.set_fault("bad", "sticky", step=2, times=9)
    worker = hire(A)
    for loss in (1, 2, 3):
        worker.serve()
        assert standing(db, bad) == ("failed" if loss == 3 else "queued", loss, loss)
        assert (worker.why_out(), worker.serve(), standing(db, good)[0]) == (["failed"], 0, "queued")
        until("the GPU is back", worker.is_whole)
    error = view(db, bad).error
    assert error is not None
    assert error["code"] == "worker_lost"
    assert worker.serve() == 1
    assert standing(db, good) == ("succeeded", 1, 0)


def test_memory_that_others_took_costs_a_job_nothing(db: Database, machine: FakeMachine, hire: Hire) -> None:
    """Neither a loss nor its plan: fewer examples at once would not help."""
    job_id = job(db, "job")
    machine.set_fault("job", "foreign", step=2)
    worker = hire(A)
    worker.serve()
    assert (standing(db, job_id), worker.why_out()) == (("queued", 1, 0), ["memory_in_use"])
    assert "out of memory, which others use" in (view(db, job_id).timeline[-1].detail or "")
    worker.probe_twice(machine)
    assert worker.why_out() == ["memory_in_use"]
    machine.set_gpu(A)
    until("there is room", worker.is_whole)
    worker.serve()
    assert (standing(db, job_id), warnings(db, job_id)) == (("succeeded", 2, 0), [])
    assert "micro_batch" not in (view(db, job_id).plan or {})


@pytest.mark.parametrize(
    ("fault", "status", "told"), [("oom_forward", "succeeded", ["remedy"]), ("oom_build", "failed", [])]
)
def test_only_memory_of_a_pass_is_saved_by_fewer_examples_at_once(
    db: Database, machine: FakeMachine, hire: Hire, *, fault: Fault, status: str, told: list[str]
) -> None:
    job_id = job(db, "job")
    machine.set_fault("job", fault, step=-1 if fault == "oom_build" else 2)
    worker = hire(A)
    worker.serve()
    assert (standing(db, job_id)[0], worker.why_out()) == (status, [])
    assert [each for each in warnings(db, job_id) if each != "attempt_failed"] == told
    assert (view(db, job_id).plan or {}).get("micro_batch") == (16 if told else None)
    assert machine.probed == []


def test_nothing_is_claimed_for_a_gpu_whose_memory_is_taken(db: Database, machine: FakeMachine, hire: Hire) -> None:
    job_id = job(db, "job")
    machine.set_gpu(A, free=0.2)
    worker = hire(A)
    assert worker.serve() == 0
    assert (standing(db, job_id), worker.why_out()) == (("queued", 0, 0), ["memory_in_use"])
    machine.set_gpu(A)
    until("there is room", worker.is_whole)
    assert worker.serve() == 1


def test_what_a_gpu_cannot_take_goes_to_the_next_one_at_once(db: Database, machine: FakeMachine, hire: Hire) -> None:
    """Also what one has just given back."""
    job_id, victim = job(db, "job"), job(db, "victim")
    machine.set_gpu(A, free=0.2)
    worker = hire(A, B)
    assert worker.serve() == 2
    assert [standing(db, each)[0] for each in (job_id, victim)] == ["succeeded", "succeeded"]
    machine.set_gpu(A)
    until("there is room", worker.is_whole)
    victim = job(db, "victim")
    machine.set_fault("victim", "dies", step=2)
    worker.serve()
    assert (standing(db, victim), worker.why_out()) == (("succeeded", 2, 0), ["failed"])


@pytest.mark.parametrize(("fault", "losses"), [("killed", 1), ("killed_by_driver", 0), ("hangs", 1)])
def test_a_gpu_is_probed_after_a_runner_that_ended_without_a_word(
    db: Database, machine: FakeMachine, hire: Hire, fault: Fault, losses: int
) -> None:
    """Before it is offered again; where it is found broken, that was no loss of the job's."""
    job_id = job(db, "job")
    machine.set_fault("job", fault, step=2)
    worker = hire(A, timings=STALLS if fault == "hangs" else TIMINGS)
    worker.serve()
    assert machine.probed == [A]
    if fault == "killed_by_driver":
        assert (standing(db, job_id), worker.why_out()) == (("queued", 1, 0), ["failed"])
        machine.set_gpu(A)
        until("the GPU is back", worker.is_whole)
        worker.serve()
    lost = ["attempt_lost"] * losses
    assert (standing(db, job_id)[:2], warnings(db, job_id)) == (("succeeded", 2), lost)


@pytest.mark.parametrize("fault", ["killed", "sticky"])
def test_who_waits_for_an_attempt_to_end_does_not_wait_for_a_probe(
    db: Database, machine: FakeMachine, hire: Hire, fault: Fault
) -> None:
    begun, answer = threading.Event(), threading.Event()

    def slow(token: str) -> DeviceReport:
        begun.set()
        answer.wait(60.0)
        return machine.probe(token)

    job_id = job(db, "job")
    machine.set_fault("job", fault, step=2)
    worker = hire(A, devices=Devices(slow, machine, settle_seconds=0.0))
    serving = threading.Thread(target=worker.serve, daemon=True)
    serving.start()
    try:
        assert begun.wait(60.0)
        request_cancel(db, OWNER, job_id)
        until("it is cancelled", lambda: state_of(db, job_id)["status"] == "cancelled", 20.0)
    finally:
        answer.set()
        serving.join(20.0)
    assert not serving.is_alive()


class Unkillable(RunnerProcess):
    """Its pipe is closed, and no signal ends it."""

    def __init__(self, at_last: Callable[[], object]) -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        super().__init__(ours)
        self._at_last = at_last

    def kill(self) -> None:
        self._at_last()


class HangingOnA(FakeGpuLauncher):
    """Runners on one GPU cannot be killed; all others are those of a real launcher."""

    def __init__(self, real: FakeGpuLauncher, at_last: Callable[[], object] = lambda: None) -> None:
        self._real = real
        self._at_last = at_last
        self.hanging: list[Unkillable] = []

    def wait_ready(self, timeout: float) -> bool:
        return self._real.wait_ready(timeout)

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        if devices != A or self.hanging:
            return self._real.launch(stderr, devices)
        self.hanging.append(Unkillable(self._at_last))
        return self.hanging[0]


def heartbeat_threads(job_id: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == f"heartbeat-{job_id}"]


def test_a_runner_that_cannot_be_killed_costs_its_slot_and_one_loss(
    db: Database, machine: FakeMachine, hire: Hire, made: tuple[FakeMachine, FakeGpuLauncher, Path]
) -> None:
    """Others go on; the slot is offered again when the process is gone and the GPU works."""
    job_id = job(db, "job")
    launcher = HangingOnA(made[1])
    worker = hire(A, launcher=launcher)
    begun = time.monotonic()
    assert worker.serve() == 0
    assert time.monotonic() - begun < TIMINGS["lease_seconds"]
    assert (standing(db, job_id), worker.why_out()) == (("queued", 1, 1), ["unkillable"])
    assert (state_of(db, job_id)["lease_until"], heartbeat_threads(job_id)) == (None, [])
    others = hire(B)
    assert others.serve() == 1
    assert standing(db, job_id)[:2] == ("succeeded", 2)
    for _ in range(2):
        time.sleep(TIMINGS["device_probe_seconds"])
        assert not worker.is_whole()
    assert (worker.why_out(), machine.probed) == (["unkillable"], [])
    launcher.hanging[0].set_exit(ProcessExit(signal=9))
    until("the slot is back", worker.is_whole)
    assert machine.probed == [A]
    next_id = job(db, "next")
    worker.serve()
    assert standing(db, next_id)[0] == "succeeded"


def test_a_slot_is_out_of_service_although_its_attempt_was_taken_away(
    db: Database, hire: Hire, made: tuple[FakeMachine, FakeGpuLauncher, Path]
) -> None:
    """In the very moment in which it was to be concluded: nobody is put into the slot all the same."""
    job_id = job(db, "job")

    def take_away() -> None:
        if state_of(db, job_id)["status"] == "running":
            give_back(db, Fence(job_id, 1), cause="taken away", lost=False, max_losses=3)
            request_cancel(db, OWNER, job_id)

    unheard = TIMINGS | {"beat_seconds": 3.0}  # only the conclusion finds it out
    worker = hire(A, timings=unheard, launcher=HangingOnA(made[1], take_away))
    worker.serve()
    assert (standing(db, job_id)[0], worker.why_out()) == ("cancelled", ["unkillable"])
