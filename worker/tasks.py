"""The one Celery task. A hint carries nothing: it may be lost, doubled or late."""

from celery import Celery

from core.queue import TASK
from worker.attempt import WorkerContext
from worker.slots import SlotPool, serve_slots


def register_work(app: Celery, context: WorkerContext, slots: SlotPool) -> None:
    """Register `basin.work`: take a free slot and serve until nothing waits; without one, drop the hint."""

    @app.task(name=TASK, ignore_result=True, acks_late=False, max_retries=0)  # type: ignore[untyped-decorator]
    def serve_hint() -> int:
        slots.record_hint()
        return serve_slots(context, slots, slots.kinds)
