"""kill -9 in every phase of a removal: nobody ever sees half of it, and the next one ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select

from core.db.session import Database, open_database
from core.db.tables import checkpoint, job
from core.errors import NotFound
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.changes import mark_job_deleted
from core.jobs.checkpoints.records import list_checkpoint_rows, record_checkpoint
from core.jobs.garbage_collection import GarbageCollector
from core.jobs.ledger.check import Ledger
from core.lifecycle import Status
from core.settings import Settings
from core.store.local import LocalStore
from tests.service.removal import MOMENTS
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import OWNER, new_checkpoint, running

pytestmark = POSTGRESQL_IS_SLOW

ROOT = Path(__file__).resolve().parents[2]
FILES = ("manifest.json", "state.safetensors", "weights.safetensors")


def stored(db: Database, store: LocalStore, source: Path, steps: tuple[int, ...]) -> str:
    """An ended job whose checkpoints really lie in the store; of each step one, and the newest two are good."""
    source.write_bytes(b"x" * 1234)
    fence = running(db, checkpoints={"keep_last": 2})
    for step in steps:
        new = new_checkpoint(fence, step)
        digests = {store.put_file(source, f"{new.key}/{name}").sha256 for name in FILES}
        assert len(digests) == 1
        record_checkpoint(db, fence, new, [], resumable=True)
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    return fence.job_id


def rows(db: Database) -> tuple[int, int]:
    with db.read() as connection:
        count = [
            connection.execute(select(func.count()).select_from(table)).scalar_one() for table in (job, checkpoint)
        ]
    return count[0], count[1]


@pytest.mark.parametrize(
    ("moment", "objects", "left"),
    [  # of 6 objects of the deleted job and 3 that retention doomed; (jobs, checkpoints) of 2 and 2 + 3
        (MOMENTS[0], 9, (2, 5)),
        (MOMENTS[1], 8, (2, 5)),
        (MOMENTS[2], 0, (2, 5)),
        (MOMENTS[3], 0, (2, 2)),
        (MOMENTS[4], 0, (1, 2)),
    ],
)
def test_a_removal_that_is_killed(
    database_url: str, tmp_path: Path, moment: str, objects: int, left: tuple[int, int]
) -> None:
    db, store = open_database(database_url, pool_size=2), LocalStore(tmp_path / "store")
    try:
        deleted = stored(db, store, tmp_path / "source", (5, 10))
        stays = stored(db, store, tmp_path / "source", (5, 10, 15))
        mark_job_deleted(db, OWNER, deleted)
        good = [row.id for row in list_checkpoint_rows(db, OWNER, stays)]
        killed = subprocess.run(
            [sys.executable, "-m", "tests.service.removal", database_url, str(tmp_path), moment],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}"},
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        assert sum(1 for _ in store.list("jobs/")) == objects + 6
        assert rows(db) == left
        for _ in range(2):  # what is half removed is not there for anybody, nor is it an error; then it is gone
            assert [row.id for row in list_checkpoint_rows(db, OWNER, stays)] == good
            with pytest.raises(NotFound):
                list_checkpoint_rows(db, OWNER, deleted)
            assert [finding for finding in Ledger(db, store).iter_findings() if finding.rule == "object"] == []
            GarbageCollector(db, store, Settings(home=tmp_path)).run_due_chores()
        assert rows(db) == (1, 2)
        assert sum(1 for _ in store.list("jobs/")) == 6
    finally:
        db.close()
