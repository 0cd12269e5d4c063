"""Projects: they decide who sees a row, and who shares limits and idempotency keys; owners decide neither."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from core.db.session import Database
from core.db.tables import api_key, job, job_state
from core.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from core.jobs.keys import create_key, get_key, list_keys, revoke_key
from core.jobs.projects import (
    create_project,
    list_projects,
    owner_of_project,
    project_of_owner,
)
from core.jobs.queries import get_job_view, list_job_views
from core.jobs.queue.claim import anything_waiting
from core.jobs.queue.estimates import list_queued_jobs
from core.jobs.queue.submit import Idempotency, create_job
from core.settings import Limits
from tests.support.jobs import small_spec, taken

ANYBODY = st.sampled_from(["local", "default", "alice"]) | st.text(min_size=1, max_size=20)


def make(db: Database, owner: str, project: str, **given: Limits | Idempotency) -> str:
    return create_job(db, small_spec(), owner=owner, project=project, **given).job_id  # type: ignore[arg-type]


@given(ANYBODY, ANYBODY)
def test_owners_who_name_no_project_share_none(one: str, other: str) -> None:
    """As before there were projects: what is made without a key is local's, and its project is the default one."""
    assert (project_of_owner(one) == project_of_owner(other)) == (one == other)
    assert owner_of_project(project_of_owner(one)) == one
    assert (project_of_owner(one) == "default") == (one == "local")


def test_a_row_has_its_maker_and_its_project(db: Database) -> None:
    made = {(owner, project): make(db, owner, project) for owner, project in product(("alice", "bob"), ("x", "y"))}
    with db.read() as connection:
        rows = connection.execute(select(job.c.id, job.c.owner, job.c.project)).all()
        states = connection.execute(select(job_state.c.job_id, job_state.c.owner, job_state.c.project)).all()
    expected = {(job_id, owner, project) for (owner, project), job_id in made.items()}
    assert {tuple(row) for row in rows} == {tuple(row) for row in states} == expected


def test_those_who_share_a_project_see_the_same_jobs(db: Database) -> None:
    shared = [make(db, "bob", "vision"), make(db, "alice", "vision")]
    apart = make(db, "alice", "speech")
    assert [view.id for view in list_job_views(db, "vision")[0]] == [*reversed(shared)]
    assert [view.id for view in list_job_views(db, "speech")[0]] == [apart]
    assert {one.job_id for one in list_queued_jobs(db, "vision", {}, 10)[0]} == set(shared)
    assert get_job_view(db, "speech", apart).project == "speech"
    for project in ("vision", "alice", "default", ""):
        with pytest.raises(NotFound):
            get_job_view(db, project, apart)


def test_the_queue_of_a_project_is_as_long_as_allowed(db: Database) -> None:
    """Whoever makes the jobs. The same owner may have as many again in another project."""
    two = Limits(queued_jobs=2)
    make(db, "alice", "vision", limits=two)
    make(db, "bob", "vision", limits=two)
    with pytest.raises(QuotaExceeded) as refused:
        make(db, "carol", "vision", limits=two)
    assert refused.value.extra == {"limit": "queued_jobs", "allowed": 2, "used": 2}
    assert make(db, "alice", "speech", limits=two)


def test_as_many_jobs_of_a_project_run_as_allowed(db: Database) -> None:
    one = Limits(running_jobs=1)
    first = make(db, "alice", "vision", limits=one)
    make(db, "bob", "vision", limits=one)
    other = make(db, "alice", "speech", limits=one)
    assert [found.job_id for _ in range(3) if (found := taken(db))] == [first, other]
    assert not anything_waiting(db, ["cpu", "any"])


def test_an_idempotency_key_holds_in_its_project(db: Database) -> None:
    promise = Idempotency("once", "digest")
    first = make(db, "alice", "vision", idempotency=promise)
    assert make(db, "bob", "vision", idempotency=promise) == first
    others = [make(db, "alice", project, idempotency=promise) for project in ("speech", "default", "local")]
    assert len({first, *others}) == 4


def test_projects_are_made_once_and_listed_by_name(db: Database) -> None:
    """There is one from the beginning."""
    assert [(one.name, one.created_by) for one in list_projects(db)] == [("default", "local")]
    made = create_project(db, "Vision 2", "alice")
    assert (made.name, made.created_by) == ("Vision 2", "alice")
    assert made.created_at > list_projects(db, "default")[0].created_at
    for taken_name in ("Vision 2", "default"):
        with pytest.raises(Conflict):
            create_project(db, taken_name, "bob")
    assert [one.name for one in list_projects(db)] == ["Vision 2", "default"]
    assert list_projects(db, "Vision 2") == [made]


@pytest.mark.parametrize("name", ["", "a" * 201, "a\nb", "a\u202eb"])
def test_names_that_cannot_be_shown_are_refused(db: Database, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        create_project(db, name, "local")
    assert [problem.pointer for problem in refused.value.errors] == ["/name"]
    assert len(list_projects(db)) == 1


def test_a_key_is_of_one_project(db: Database) -> None:
    create_project(db, "vision", "local")
    mine, _ = create_key(db, owner="alice", project="vision")
    theirs, _ = create_key(db, owner="alice", project="default")
    assert (mine.project, theirs.project) == ("vision", "default")
    assert [key.id for key in list_keys(db, project="vision")] == [mine.id]
    assert [key.id for key in list_keys(db, "alice")] == [mine.id, theirs.id]
    for call in (get_key, revoke_key):
        with pytest.raises(NotFound):
            call(db, "default", mine.id)
    assert revoke_key(db, "vision", mine.id).status == "revoked"
    assert get_key(db, None, theirs.id).status == "active"


def test_a_key_of_no_project_is_not_made(db: Database) -> None:
    with pytest.raises(InvalidRequest) as refused:
        create_key(db, owner="local", project="vision")
    assert [problem.pointer for problem in refused.value.errors] == ["/project"]
    with db.read() as connection:
        assert connection.execute(select(api_key.c.id)).all() == []


def test_a_key_that_names_no_project_opens_its_owners_own(db: Database) -> None:
    """So that a command from before there were projects still makes keys that see their owner's jobs, and no others."""
    keys = [create_key(db, owner=owner)[0] for owner in ("local", "alice", "default", "alice")]
    assert [key.project for key in keys] == ["default", "alice", "local", "alice"]
    assert [one.name for one in list_projects(db)] == ["alice", "default", "local"]
