"""A recorder whose store is away: for a while, for ever, or deaf."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.db.session import Database
from core.jobs.attempt.fence import Fence
from core.jobs.checkpoints.records import list_checkpoint_rows
from core.jobs.verbs import request_cancel
from core.store.base import Digest, StoreTransient
from core.store.local import LocalStore
from tests.service.test_recorder import checkpoint, found, points, warnings
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import OWNER
from tests.support.service import until
from worker.backlog import Backlog
from worker.heartbeat import Heartbeat
from worker.recorder import Recorder

pytestmark = POSTGRESQL_IS_SLOW


class StuckStore(LocalStore):
    """A store that is away for ever, or hangs until it is let go."""

    def __init__(self, root: Path, *, hangs: bool) -> None:
        super().__init__(root)
        self.hangs = hangs
        self.go = threading.Event()

    def put_file(self, path: Path, key: str) -> Digest:
        if self.hangs:
            self.go.wait(60.0)
        raise StoreTransient("away")


@pytest.mark.parametrize("hangs", [False, True])
def test_a_cancel_does_not_wait_for_a_store(
    db: Database,
    fence: Fence,
    heart_of: Callable[..., Heartbeat],
    tmp_path: Path,
    hangs: bool,
) -> None:
    backlog, store, heart = Backlog(tmp_path / "spill"), StuckStore(tmp_path / "store", hangs=hangs), heart_of(fence)
    heart.start()
    recorder = Recorder(heart, store, backlog, None, tmp_path, cancel_seconds=3.0)
    recorder.start()
    backlog.put(checkpoint(tmp_path, 1))
    closing = threading.Thread(target=recorder.close, daemon=True)
    closing.start()
    closing.join(0.5)
    assert closing.is_alive()
    request_cancel(db, OWNER, fence.job_id)
    closing.join(8.0)
    assert not closing.is_alive()
    assert hangs or recorder.missing == {"last"}
    store.go.set()


class AwayStore(LocalStore):
    """A store that is away until it is let go."""

    tries = 0
    away = True

    def put_file(self, path: Path, key: str) -> Digest:
        self.tries += 1
        if self.away:
            raise StoreTransient("no answer")
        return super().put_file(path, key)


def test_a_store_that_is_away_is_waited_for(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    """One event says so, whatever the training says meanwhile waits, and in the end everything is there."""
    backlog, store = Backlog(tmp_path / "spill", memory_bytes=200), AwayStore(tmp_path / "store")
    heart = heart_of(fence)
    heart.start()  # else its writes are held as soon as this takes longer than a lease
    recorder = Recorder(heart, store, backlog, None, tmp_path)
    recorder.start()
    backlog.put(points(lr=[(0, 0.1)]))
    backlog.put(checkpoint(tmp_path, 1))
    until("several tries", lambda: store.tries > 2)
    for step in range(1, 20):
        backlog.put(points(lr=[(step, 0.2)]))
    backlog.put(checkpoint(tmp_path, 20))
    assert (tmp_path / "spill").stat().st_size > 0
    assert warnings(db, fence) == ["store_away"]
    store.away = False
    rest = recorder.close()
    backlog.discard_all()
    assert (recorder.failure, recorder.missing, rest) == (None, set(), ())
    assert [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [1, 20]
    assert found(db, fence) == [(0, 0.1), *((step, 0.2) for step in range(1, 20))]
    assert warnings(db, fence) == ["store_away"]


def test_an_upload_is_not_tried_for_ever(fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path) -> None:
    backlog, store = Backlog(tmp_path / "spill"), StuckStore(tmp_path / "store", hangs=False)
    recorder = Recorder(heart_of(fence, outage_seconds=0.5), store, backlog, None, tmp_path)
    backlog.put(checkpoint(tmp_path, 1))
    recorder.start()
    closing = threading.Thread(target=recorder.close, daemon=True)
    closing.start()
    closing.join(5.0)
    assert (closing.is_alive(), recorder.missing) == (False, {"last"})
