"""The one Celery task. A hint carries nothing: it may be lost, doubled or late."""

from typing import Any

from celery import Celery

from core.lifecycle import LIGHT
from core.queue import TASK
from worker.attempt import WorkerContext
from worker.slots import SlotPool, serve_slots


def register_work(app: Celery, context: WorkerContext, slots: SlotPool) -> None:
    """Register `basin.work`: take a free slot and serve until nothing waits; without one, drop the hint.

    A hint of the queue `light` is for the light lane alone, every other one for the slots: a thread that trains in a
    slot must not be the one that the light lane waits for.
    """

    @app.task(name=TASK, bind=True, shared=False, ignore_result=True, acks_late=False, max_retries=0)  # type: ignore[untyped-decorator]
    def serve_hint(self: Any) -> int:
        slots.record_hint()
        light = (self.request.delivery_info or {}).get("routing_key") == LIGHT
        return serve_slots(context, slots, [kind for kind in slots.kinds if (kind == LIGHT) is light])
