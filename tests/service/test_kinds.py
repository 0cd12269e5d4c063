"""A third kind of job, which this release does not have, goes all the way: its records are handed in, nothing else."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from api.resources import Resource, delete_one, shared_fields
from core.db.session import Database
from core.db.tables import job
from core.errors import Conflict, IdempotencyMismatch
from core.ids import is_id
from core.jobs.kinds import KINDS
from core.jobs.ledger.check import Ledger
from core.jobs.queries import JobView, get_job_view, list_job_views, list_views
from core.jobs.queue.submit import Idempotency, SubmitContext, SubmitResult, submit_as
from core.jobs.verbs import request_cancel
from core.settings import Limits, Settings
from core.store.local import LocalStore
from tests.support.jobs import OWNER, HeardHints, submitted, taken
from tests.support.statements import told
from tests.support.tiny_kind import SUM, SUM_ON_WORKER, SumSpec
from worker import provision
from worker.attempt import Slot, WorkerContext
from worker.kinds import WORKER_KINDS, load_function
from worker.launcher import ExecLauncher
from worker.supervisor import serve_one

SLOT = Slot(0, "cpu", "")
ENTRY = SubmitContext(OWNER, Limits(), 60.0)
SPEC = SumSpec(numbers=(1, 2, 39), name="small", metadata={"team": "a"})


def show(_service: Any, view: JobView) -> dict[str, Any]:
    return {**view.spec, **shared_fields(SUM, view, None, {"cancel": "cancel"}), "results": view.results}


SUMS = Resource(SUM, show)


@pytest.fixture
def service(db: Database) -> Any:
    """As much of the api as these answers need."""
    return SimpleNamespace(db=db, hints=HeardHints())


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Iterator[WorkerContext]:
    """A worker that has the kind beside those of the release."""
    settings = Settings.model_validate({"home": tmp_path, "lease_seconds": 6.0, "beat_seconds": 0.5})
    scratch = provision.Scratch(tmp_path / "scratch", "w")
    scratch.open()
    store, launcher = LocalStore(tmp_path / "store"), ExecLauncher("tests.support.tiny_kind")
    plain = WorkerContext("w", settings, db, store, launcher, scratch, threading.Event())
    yield replace(plain, job_kinds=(*KINDS, SUM), worker_kinds=(*WORKER_KINDS, SUM_ON_WORKER))
    scratch.close()


def test_a_job_of_a_new_kind_is_submitted_run_and_shown(db: Database, shop: WorkerContext, service: Any) -> None:
    done = submit_as(SUM, db, SPEC, ENTRY)
    assert is_id(done.job_id, "sum")
    assert serve_one(shop, SLOT)
    view = get_job_view(db, OWNER, done.job_id)
    assert (view.kind, view.status, view.stop_reason, view.results) == ("sum", "succeeded", "completed", {"sum": 42})
    found = SUMS.answer_created(service, OWNER, done)
    assert (found.status_code, found.headers["location"]) == (201, f"/v1/sums/{done.job_id}")
    shown = show(service, view)
    assert (shown["object"], shown["numbers"], shown["links"]["self"]) == ("sum", [1, 2, 39], f"/v1/sums/{done.job_id}")
    assert [moment["status"] for moment in shown["timeline"]] == ["queued", "running", "succeeded"]
    assert service.hints.heard == ["any"]


def test_it_is_listed_among_its_own(db: Database) -> None:
    mine, other = submit_as(SUM, db, SPEC, ENTRY).job_id, submitted(db)
    views, _ = list_views(db, OWNER, [job.c.kind == SUM.name], after=None, limit=20, order="desc")
    assert [view.id for view in views] == [mine]
    assert [view.id for view in list_job_views(db, OWNER)[0]] == [other]


def test_its_idempotency_key_means_one_job(db: Database) -> None:
    first = submit_as(SUM, db, SPEC, ENTRY, Idempotency("k", "digest"))
    again = submit_as(SUM, db, SPEC, ENTRY, Idempotency("k", "digest"))
    assert (again.job_id, first.created, again.created) == (first.job_id, True, False)
    with pytest.raises(IdempotencyMismatch):
        submit_as(SUM, db, SPEC, ENTRY, Idempotency("k", "another"))
    assert [each for each in Ledger(db, None).iter_findings() if each.rule != "promise"] == []


def test_it_is_cancelled_and_deleted_as_all_jobs_are(db: Database, service: Any) -> None:
    job_id = submit_as(SUM, db, SPEC, ENTRY).job_id
    answer = SUMS.carry_out(request_cancel, service, OWNER, job_id, None)
    assert answer.status_code == 202
    assert get_job_view(db, OWNER, job_id).status == "cancelled"
    assert service.hints.heard == []
    assert delete_one(service, OWNER, job_id, None).status_code == 204
    with pytest.raises(Conflict, match="The sum of this Idempotency-Key was deleted"):
        SUMS.answer_created(service, OWNER, SubmitResult(job_id, created=False, needs="any"))


def test_a_worker_without_the_kind_fails_the_job_and_says_why(db: Database) -> None:
    """As for a spec that its release cannot read: at the head of the queue it would hold up everybody."""
    job_id, other = submit_as(SUM, db, SPEC, ENTRY).job_id, submitted(db)
    found = taken(db)
    assert found is not None
    assert found.job_id == other
    view = get_job_view(db, OWNER, job_id)
    assert view.status == "failed"
    assert "there is no kind of job 'sum'" in (view.error or {})["message"]


def test_a_job_of_each_kind_is_claimed_with_the_same_statements(db: Database) -> None:
    """The kind is found in a tuple: it costs no query."""
    counts = []
    for submit_one in (lambda: submitted(db), lambda: submit_as(SUM, db, SPEC, ENTRY)):
        submit_one()
        with told(db) as asked:
            assert taken(db, kinds=(*KINDS, SUM)) is not None
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_both_sides_have_the_same_kinds() -> None:
    assert [kind.name for kind in KINDS] == [kind.name for kind in WORKER_KINDS]
    for field in ("name", "noun", "collection", "id_prefix"):
        assert len({getattr(kind, field) for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", WORKER_KINDS, ids=lambda kind: kind.name)
def test_an_assignment_says_its_kind_and_the_entry_point_is_there(kind: Any) -> None:
    """The runner finds the record by the assignment's `kind`, and the function by the record."""
    assert kind.assignment.model_fields["kind"].default == kind.name
    own = kind.own_process
    paths = (kind.entry_point,) if own is None else (own.launch, own.conclude)
    assert all(callable(load_function(path)) for path in paths)


def test_the_column_holds_the_name_of_the_kind(db: Database) -> None:
    """A name that leaves the process: other releases read it."""
    ids = [submitted(db), submit_as(SUM, db, SPEC, ENTRY).job_id]
    with db.read() as connection:
        found = connection.execute(select(job.c.kind).order_by(job.c.id)).scalars().all()
    assert (sorted(ids), found) == (ids, ["train", "sum"])
