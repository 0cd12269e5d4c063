"""Every request in every state, twice, in any order and two at once, while workers come and go, answered as promised.

Hypothesis draws the order. `--hypothesis-profile thorough` draws twenty times as many, other ones each time.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from core.db.session import Database
from core.db.tables import job as job_table
from core.jobs.attempt.fence import Fence, Fenced
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.attempt.reconcile import Reconciler
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.queries import job_version
from core.lifecycle import Status
from tests.api.conftest import service_of
from tests.api.reference import HELD, MAX_LOSSES, VERBS, Answer, Known, Op, Reference
from tests.api.test_jobs import IRIS
from tests.support.jobs import last_tick, new_checkpoint, run_out, taken

MOST_JOBS: Final = 5
LOCAL: Final = "default"  # the project of who asks without a key

picks = st.integers(0, 59)  # divided by any number of jobs up to five, each is as likely
verbs = st.sampled_from([Op(verb) for verb in VERBS])
patches = st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from([None, 0, 7]), st.booleans()).map(
    lambda drawn: Op("patch", name=drawn[0], priority=drawn[1], stale=drawn[2])
)
retries = st.booleans().map(lambda again: Op("retry", again=again))
forks = st.booleans().map(lambda longer: Op("fork", longer=longer))
endings = st.sampled_from(
    [Op("give back"), Op("lose"), Op("finish", status="succeeded"), Op("finish", status="failed")]
)
requests = st.one_of(verbs, verbs, patches, retries, forks, st.just(Op("delete")))
EXAMPLES: Final = 15


class AnyOrder(RuleBasedStateMachine):
    """`ids[n]` is the job that the reference knows as n."""

    def __init__(self, client: TestClient, reconciler: Reconciler, threads: ThreadPoolExecutor) -> None:
        super().__init__()
        self.client, self.reconciler, self.threads = client, reconciler, threads
        self.db: Database = service_of(client).db
        self.reference = Reference()
        self.ids: list[str] = []
        self.seen: dict[str, tuple[int, dict[str, Any]]] = {}
        self.shown: dict[str, dict[str, Any]] | None = (
            None  # the list, where nothing has changed since it was asked for
        )

    def teardown(self) -> None:
        with self.db.write() as connection:
            connection.execute(delete(job_table))

    # what owners do

    @initialize()
    def begin(self) -> None:
        self.submit(0)

    @rule(priority=st.sampled_from([0, 7]))
    @precondition(lambda self: len(self.ids) < MOST_JOBS)
    def submit(self, priority: int) -> None:
        answer = self.client.post("/v1/jobs", json=IRIS | {"epochs": 50, "priority": priority})
        assert answer.status_code == 201
        self.ids.append(answer.json()["id"])
        self.reference.jobs.append(Known(priority=priority))

    @rule(pick=picks, op=requests, twice=st.booleans())
    def request(self, pick: int, op: Op, twice: bool) -> None:
        number = pick % len(self.ids)
        for _ in range(1 + twice):
            self._settle([self._send(number, op)], number, [(op,)])

    @rule(pick=picks, first=requests, second=st.one_of(requests, endings))
    def at_once(self, pick: int, first: Op, second: Op) -> None:
        """Two threads: both answers, and what is so afterwards, are those of one after the other."""
        number = pick % len(self.ids)
        ops = [first, second]
        answers = list(self.threads.map(lambda op: self._send(number, op), ops))
        self._settle(answers, number, [(first, second), (second, first)])

    @rule(pick=picks)
    def read(self, pick: int) -> None:
        number = pick % len(self.ids)
        path, job = f"/v1/jobs/{self.ids[number]}", self.reference.jobs[number]
        answer = self.client.get(path)
        assert answer.status_code == (404 if job.gone else 200)
        if not job.gone:
            tag = answer.headers["etag"]
            assert tag == f'W/"{job_version(self.db, LOCAL, self.ids[number])}"'
            assert self.client.get(path, headers={"If-None-Match": tag}).status_code == 304
            assert self.client.get(path, headers={"If-None-Match": 'W/"0"'}).status_code == 200

    # what workers do

    @rule()
    def claim(self) -> None:
        waiting = {id_ for id_, job in zip(self.ids, self.reference.jobs, strict=True) if job.status == "queued"}
        found = taken(self.db)
        assert (found is None) is (not waiting)
        if found is not None:
            assert found.job_id in waiting
            number = self.ids.index(found.job_id)
            stands = self.reference.jobs[number].stands
            assert (found.checkpoint and found.checkpoint.step) == (stands and stands.step)
            self.reference.claimed(number)
            assert found.attempt == self.reference.jobs[number].attempt

    @rule(pick=picks)
    def checkpoint(self, pick: int) -> None:
        number, held = self._held(pick)
        if held is not None:
            stands = self.reference.jobs[number].stands
            step = stands.step + 4 if stands else 4
            record_checkpoint(self.db, held, new_checkpoint(held, step), (), resumable=True)
            self.reference.checkpointed(number, step)

    @rule(pick=picks)
    def heartbeat(self, pick: int) -> None:
        number, held = self._held(pick)
        if held is not None:
            wish = record_heartbeat(self.db, held, lease_seconds=600.0, progress={"step": 1, "fraction": 0.01})
            assert wish == {"running": "run", "pausing": "pause", "cancelling": "cancel"}[self._status(number)]

    @rule(pick=picks, op=endings)
    def end(self, pick: int, op: Op) -> None:
        number, held = self._held(pick)
        if held is not None:
            self._settle([self._send(number, op)], number, [(op,)])

    @rule(pick=picks)
    def zombie(self, pick: int) -> None:
        """A write of the attempt before, or of one that nobody holds any more."""
        number = pick % len(self.ids)
        job = self.reference.jobs[number]
        old = Fence(self.ids[number], job.attempt - (job.status in HELD))
        assert record_heartbeat(self.db, old, lease_seconds=600.0) is None
        with pytest.raises(Fenced):
            record_checkpoint(self.db, old, new_checkpoint(old, 99), (), resumable=True)

    @rule(pick=picks)
    def reconcile(self, pick: int) -> None:
        """A round; the lease of one job has run out."""
        number, held = self._held(pick)
        last_tick(self.db, 1.0)
        if held is not None:
            run_out(self.db, held.job_id)
            self.reference.apply(number, Op("lose"))
        assert self.reconciler.reclaim_expired_leases() == (held is not None)
        assert self.reconciler.apply_desired_states() == 0, "owners' wishes for jobs that nobody runs are met at once"
        self.reconciler.send_hints()

    # how it is asked, and what must come

    def _status(self, number: int) -> str:
        return self.reference.jobs[number].status

    def _held(self, pick: int) -> tuple[int, Fence | None]:
        held = [number for number in range(len(self.ids)) if self._status(number) in HELD]
        if not held:
            return 0, None
        number = held[pick % len(held)]
        return number, Fence(self.ids[number], self.reference.jobs[number].attempt)

    def _send(self, number: int, op: Op) -> tuple[Answer, str | None]:
        """The answer, and the id of the job that it made."""
        if op.kind in {"finish", "give back", "lose"}:
            return self._work(Fence(self.ids[number], self.reference.jobs[number].attempt), op), None
        path = f"/v1/jobs/{self.ids[number]}"
        match op.kind:
            case "delete":
                answer = self.client.delete(path)
            case "patch":
                body = {name: value for name in ("name", "priority") if (value := getattr(op, name)) is not None}
                answer = self.client.patch(path, json=body, headers={"If-Match": 'W/"0"' if op.stale else "*"})
            case "retry":
                answer = self.client.post(f"{path}/retry", json={"again": op.again})
            case "fork":
                answer = self.client.post(f"{path}/fork", json={"changes": {"epochs": 60} if op.longer else {}})
            case verb:
                answer = self.client.post(f"{path}/{verb}")
        body = answer.json() if answer.content else {}
        told = body["current_status"] if answer.status_code == 409 else None
        return Answer(answer.status_code, told), body["id"] if answer.status_code == 201 else None

    def _work(self, fence: Fence, op: Op) -> Answer:
        try:
            if op.kind == "finish":
                finish_job(self.db, fence, TerminalState(Status(op.status)))
            else:
                give_back(self.db, fence, cause=op.kind, lost=op.kind == "lose", max_losses=MAX_LOSSES)
        except Fenced:
            return Answer(409)
        return Answer(200)

    def _settle(self, answers: list[tuple[Answer, str | None]], number: int, orders: list[tuple[Op, ...]]) -> None:
        """Take over what the first order that explains the answers, and what is so now, leads to."""
        got = [answer for answer, _ in answers]
        self.shown = shown = self._listed()
        for turn, order in enumerate(orders):
            wanted = deepcopy(self.reference)
            told, made = [], []
            for op in order:
                told.append(wanted.apply(number, op))
                made.append(len(wanted.jobs) if told[-1].code == 201 else None)
            came = answers[::-1] if turn else answers
            new = [id_ for _, id_ in came if id_ is not None]
            if told == [answer for answer, _ in came] and self._holds(wanted, [*self.ids, *new], shown):
                self.reference, self.ids = wanted, [*self.ids, *new]
                return
        raise AssertionError((got, shown, orders, self.reference))

    def _listed(self) -> dict[str, dict[str, Any]]:
        answer = self.client.get("/v1/jobs?limit=100")
        assert answer.status_code == 200
        return {body["id"]: body for body in answer.json()["data"]}

    def _holds(self, wanted: Reference, ids: list[str], shown: dict[str, dict[str, Any]]) -> bool:
        known = {
            id_: (job.status, job.attempt, job.name, job.priority, self._children(wanted, number, ids))
            for number, (id_, job) in enumerate(zip(ids, wanted.jobs, strict=True))
            if not job.gone
        }
        names = ("status", "attempt", "name", "priority", "children")
        return known == {id_: tuple(body[name] for name in names) for id_, body in shown.items()}

    def _children(self, wanted: Reference, number: int, ids: list[str]) -> list[str]:
        return [ids[place] for place, job in enumerate(wanted.jobs) if job.parent == number and not job.gone]

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        """The list tells what the reference knows; whoever changed has another ETag, and who did not kept it."""
        shown, self.shown = self.shown or self._listed(), None
        assert self._holds(self.reference, self.ids, shown)
        for id_, body in shown.items():
            timeless = body | {"queue": None, "progress": body["progress"] | {"eta_seconds": None}}
            version = job_version(self.db, LOCAL, id_)
            before, old = self.seen.get(id_, (0, {}))
            assert version >= before
            assert version > before or timeless == old, (old, timeless)
            self.seen[id_] = version, timeless


@pytest.fixture
def machine(shared: TestClient) -> Iterator[Callable[[], AnyOrder]]:
    service = service_of(shared)
    reconciler = Reconciler(service.db, service.store, service.hints, service.settings)
    reconciler.reclaim_expired_leases()
    with ThreadPoolExecutor(2) as threads:
        yield lambda: AnyOrder(shared, reconciler, threads)


@pytest.mark.timeout(600)
def test_any_order(machine: Callable[[], AnyOrder]) -> None:
    thorough = settings.get_current_profile_name() == "thorough"
    budget = settings(
        max_examples=20 * EXAMPLES if thorough else EXAMPLES,
        derandomize=not thorough,
        stateful_step_count=40,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=budget)
