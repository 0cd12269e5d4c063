"""Fixtures of tests that watch one attempt from the worker's side."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from core.db.session import Database
from core.jobs.attempt.fence import Fence
from core.settings import Settings
from tests.support.jobs import running
from worker.heartbeat import Heartbeat

TIMINGS = {"lease_seconds": 2.0, "beat_seconds": 0.2, "outage_seconds": 600.0, "stop_grace_seconds": 25.0}


@pytest.fixture
def fence(db: Database) -> Fence:
    return running(db)


@pytest.fixture
def heart_of(db: Database) -> Iterator[Callable[..., Heartbeat]]:
    made: list[Heartbeat] = []

    def make(fence: Fence, database: Database = db, **timings: float) -> Heartbeat:
        settings = Settings.model_validate(TIMINGS | timings)
        made.append(Heartbeat(database, fence, settings, threading.Event(), time.monotonic()))
        return made[-1]

    yield make
    for heart in made:
        heart.stop()
