"""The split of a job is recorded with its first attempt, and answered as row numbers."""

import base64
import zlib

import pytest
import torch
from sqlalchemy import delete, select

from core.db.session import Database
from core.db.tables import job, job_split
from core.engine.datasets import splitting
from core.engine.datasets.splitting import SplitIndices, encode_split
from core.errors import NotFound
from core.jobs.attempt.heartbeat import report_start
from core.jobs.splits import SplitUnknown, read_split
from tests.support.jobs import OWNER, running

ROWS = SplitIndices(torch.tensor([0, 3, 5]), torch.tensor([1]), torch.tensor([4]))  # row 2 is in none of them


def test_a_split_is_a_byte_for_each_example() -> None:
    encoded = encode_split(ROWS)
    assert encoded is not None
    assert zlib.decompress(base64.b64decode(encoded)) == bytes([0, 1, 3, 0, 2, 0])


def test_a_large_split_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "MOST_ENCODED", 5)
    assert encode_split(ROWS) is None


def test_the_first_attempt_records_it(db: Database) -> None:
    """A later attempt reports the same split, and the row stays."""
    fence = running(db)
    with pytest.raises(SplitUnknown, match="has not started"):
        read_split(db, OWNER, fence.job_id)
    for _ in range(2):
        report_start(db, fence, environment={}, split=encode_split(ROWS))
    found = read_split(db, OWNER, fence.job_id)
    assert (found.train, found.validation, found.test) == ((0, 3, 5), (1,), (4,))
    with pytest.raises(NotFound):
        read_split(db, "another", fence.job_id)


def test_it_goes_with_its_job(db: Database) -> None:
    """A deleted job leaves no row behind."""
    fence = running(db)
    report_start(db, fence, environment={}, split=encode_split(ROWS))
    with db.write() as connection:
        connection.execute(delete(job).where(job.c.id == fence.job_id))
        assert connection.execute(select(job_split)).all() == []
