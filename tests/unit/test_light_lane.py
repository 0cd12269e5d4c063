"""The light lane: a place beside the slots, with jobs, hints and counts of its own."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from core.jobs.health.workers import SlotUsage
from core.jobs.queue.estimates import QueueForecast, wait_reason
from core.jobs.queue.rank import no_slot
from core.settings import Settings
from worker import tasks
from worker.attempt import Slot, needs_served
from worker.health_file import health_text
from worker.slots import SlotPool, with_light_lane

LANE = Slot(1, "light", "")
SLOTS = with_light_lane((Slot(0, "cpu", ""),))


def test_it_takes_light_jobs_alone_and_no_slot_takes_them() -> None:
    assert (Slot(0, "cpu", ""), LANE) == SLOTS
    assert (LANE.needs, LANE.computes_on) == (("light",), "cpu")
    assert needs_served(("cpu", "light")) == ("cpu", "light", "any")
    assert needs_served(("light",)) == ("light",)
    assert "light" not in Slot(0, "gpu", "GPU-a").needs


def test_a_training_that_finds_no_slot_is_not_forgotten_when_the_lane_is_free_again() -> None:
    """The lane could not take it: only a slot of the kind that was missed must look again."""
    slots = SlotPool(SLOTS)
    slot, lane = slots.take_slot("cpu"), slots.take_slot("light")
    assert slot is not None
    assert lane is not None
    assert slots.take_slot("cpu") is None
    assert not slots.release_slot(lane)
    assert slots.release_slot(slot)


def test_a_full_lane_leaves_the_slots_alone() -> None:
    slots = SlotPool(SLOTS)
    assert slots.take_slot("light") == LANE
    assert slots.take_slot("light") is None
    assert slots.take_slot("cpu") is not None
    assert slots.count_slots() == {"cpu": SlotUsage(1, 0), "light": SlotUsage(1, 0)}


@pytest.mark.parametrize(("queue", "kinds"), [("light", ["light"]), ("cpu", ["cpu"]), ("gpu", ["cpu"])])
def test_a_hint_goes_to_the_lane_or_to_the_slots(queue: str, kinds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread for both would train for hours before it came to the lane."""
    served: list[list[str]] = []
    monkeypatch.setattr(tasks, "serve_slots", lambda _context, _slots, given: served.append(list(given)) or 0)
    app = Celery("test", set_as_current=False)
    context: Any = SimpleNamespace()
    tasks.register_work(app, context, SlotPool(SLOTS))
    app.tasks[tasks.TASK].apply(routing_key=queue)
    assert served == [kinds]


def test_a_worker_is_ready_by_its_slots() -> None:
    """A lane without a slot trains nothing."""
    assert health_text({"gpu": SlotUsage(0, 0), "light": SlotUsage(1, 1)}, (), ready=True) == "out of service\n"
    assert health_text({"gpu": SlotUsage(1, 0), "light": SlotUsage(1, 1)}, (), ready=True) == "ready\n"


def test_why_a_light_job_waits() -> None:
    slots = {"cpu": SlotUsage(2, 0), "light": SlotUsage(1, 0)}
    assert wait_reason("light", 1, slots).message == "The only light lane is busy; one job goes first."
    assert wait_reason("light", 0, {**slots, "light": SlotUsage(1, 1)}).code == "starting"
    assert (
        wait_reason("light", 0, {"cpu": SlotUsage(2, 2)}).message == "No worker has a light lane; there are cpu slots."
    )
    assert wait_reason("gpu", 0, slots).message == "No worker has a gpu slot; there are cpu slots."
    assert wait_reason("light", 0, slots, running=3, most=3).code == "slots_busy"  # the limit is of trainings


def test_the_length_of_trainings_says_nothing_about_it() -> None:
    forecast = QueueForecast({"cpu": SlotUsage(1, 0), "light": SlotUsage(1, 0)}, running=0, usual=1000.0)
    assert forecast.forecast_start("light", 0, desired="run", most=None)[1] is None
    assert forecast.forecast_start("cpu", 0, desired="run", most=None)[1] == 500.0


def test_no_lane_is_a_warning_where_workers_report() -> None:
    expected = "No worker that reports now has a light lane; the job waits until one comes."
    assert no_slot("light", {"cpu"}) == expected
    assert no_slot("light", {"cpu", "light"}) is None
    assert no_slot("light", ()) is None


def test_a_worker_may_have_none() -> None:
    assert Settings.model_validate({}).light_lane
    assert not Settings.model_validate({"light_lane": False}).light_lane
