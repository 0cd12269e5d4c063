"""The one Celery task. A hint carries nothing: it may be lost, doubled or late."""

from celery import Celery

from core.queue import TASK
from worker.attempt import Shop
from worker.slots import Slots, serve


def add_work(app: Celery, shop: Shop, slots: Slots) -> None:
    """Register `basin.work`: take a free slot and serve until nothing waits; without one, drop the hint."""

    @app.task(name=TASK, ignore_result=True, acks_late=False, max_retries=0)  # type: ignore[untyped-decorator]
    def work() -> int:
        slots.hear()
        return serve(shop, slots, slots.kinds)
