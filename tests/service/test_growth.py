"""What a read costs does not grow with what lies in the database: by the query plans of both databases."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text, update

from core.db.session import Database
from core.db.tables import job
from core.jobs.queries import get_job_view, job_version, list_job_views
from core.jobs.queue.claim import count_waiting
from core.jobs.queue.estimates import forecast_queue
from core.jobs.search import JobSearch
from tests.support.jobs import OWNER, submitted, taken
from tests.support.statements import told


def plans(db: Database, read: Callable[[], Any]) -> list[tuple[str, str]]:
    """Each statement of a read, and how the database carries it out."""
    with told(db) as asked:
        read()
    with db.read() as connection:
        if db.dialect == "postgresql":
            # On tables as small as these, an index is no use.
            connection.execute(text("SET enable_seqscan = off"))
            explain = "EXPLAIN "
        else:
            explain = "EXPLAIN QUERY PLAN "
        found = []
        for statement, given in asked:
            lines = connection.exec_driver_sql(explain + statement, given).all()
            found.append((statement, "\n".join(str(line[-1]) for line in lines)))
        if db.dialect == "postgresql":
            connection.execute(text("RESET enable_seqscan"))
    return found


@pytest.fixture
def parent(db: Database) -> str:
    """A running job with a child, among others that wait."""
    parent, child = submitted(db), submitted(db)
    assert taken(db) is not None
    with db.write() as connection:
        connection.execute(update(job).where(job.c.id == child).values(parent_id=parent, parent_verb="retry"))
    for _ in range(3):
        submitted(db, metadata={"group": "a"})
    assert get_job_view(db, OWNER, parent).children == (child,)
    return parent


READS: dict[str, Callable[[Database, str], Any]] = {
    "job": lambda db, parent: get_job_view(db, OWNER, parent),
    "version": lambda db, parent: job_version(db, OWNER, parent),
    "open": lambda db, _: list_job_views(db, OWNER, JobSearch(statuses=("running", "pausing", "queued"))),
    "labelled": lambda db, _: list_job_views(db, OWNER, JobSearch(metadata={"group": "a"})),
    "outlook": lambda db, _: forecast_queue(db, OWNER, 12.0),
    "waiting": lambda db, _: count_waiting(db, ("cpu", "any"), 1),
}
# SQLite's words for a walk through a table, or through all jobs of a project; the workers are few.
WALKS = re.compile(r"SCAN (?!worker|busy)|ix_job_project_id \(project=\?\)$", re.MULTILINE)


@pytest.mark.parametrize("read", READS)
def test_no_read_walks_through_what_ended_long_ago(db: Database, parent: str, read: str) -> None:
    found = plans(db, lambda: READS[read](db, parent))
    assert found
    walk = WALKS if db.dialect == "sqlite" else re.compile(r"Seq Scan on (?!worker)")
    assert [(statement, plan) for statement, plan in found if walk.search(plan)] == []


def test_a_page_of_jobs_reads_what_belongs_to_them_by_index(db: Database, parent: str) -> None:
    """The page itself is walked to, in the order of the ids; the rest is looked up."""
    page, *rest = plans(db, lambda: list_job_views(db, OWNER))
    assert len(rest) == 4
    walk = WALKS if db.dialect == "sqlite" else re.compile(r"Seq Scan on (?!worker)")
    assert [(statement, plan) for statement, plan in rest if walk.search(plan)] == []
    assert "ix_job_project_id" in page[1]
    places = next(plan for statement, plan in rest if "rival" in statement)
    assert "ix_job_state_queue" in places
    children = next(plan for statement, plan in rest if "parent_id IN" in statement)
    assert "ix_job_parent_id" in children
    assert parent in [view.id for view in list_job_views(db, OWNER)[0]]
