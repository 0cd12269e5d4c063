"""The split of a job's dataset, as its first attempt reported it."""

import base64
import zlib
from dataclasses import dataclass

from sqlalchemy import Connection, select

from core.db.session import Database
from core.db.tables import job, job_split
from core.db.upsert import insert_if_absent
from core.errors import Conflict, NotFound


class SplitUnknown(Conflict):
    """The split of this job is not recorded."""

    code = "split_unknown"


@dataclass(frozen=True, slots=True)
class JobSplit:
    """Row numbers of the dataset, ascending, from 0."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def record_split(connection: Connection, job_id: str, encoded: str) -> None:
    """Store the split, unless an earlier attempt has: it is the same at every attempt."""
    insert_if_absent(connection, job_split, job_id=job_id, codes=base64.b64decode(encoded))


def read_split(db: Database, project: str, job_id: str) -> JobSplit:
    """The split of a job.

    Raises:
        NotFound: the project has no such job.
        SplitUnknown: it has not started, is no training, has too many examples, or an earlier release trained it.
    """
    query = select(job.c.id, job_split.c.codes).outerjoin(job_split, job_split.c.job_id == job.c.id)
    with db.read() as connection:
        found = connection.execute(query.where(job.c.id == job_id, job.c.project == project)).one_or_none()
    if found is None:
        raise NotFound("There is no job with this id.")
    if found.codes is None:
        raise SplitUnknown(
            "the split of this job is not recorded: it has not started, has more than 2,000,000 examples, or was "
            "trained by an earlier release; docs/reproduce.md says how to compute it"
        )
    codes = zlib.decompress(found.codes)
    return JobSplit(*(tuple(row for row, code in enumerate(codes) if code == part) for part in range(3)))
