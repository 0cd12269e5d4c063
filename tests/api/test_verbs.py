"""Every verb in every state, twice, in any order and all at once."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete

from api.app import create_app
from api.dependencies import Service
from core.db.session import Database
from core.db.tables import job as job_table
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.keys import create_key
from core.jobs.queries import get_job_view
from core.jobs.verbs import request_cancel, request_pause, request_resume
from core.lifecycle import TERMINAL, TRANSITIONS, Desired, Status, Verb, desired_after, displayed_status, settled_status
from core.settings import Limits
from tests.api.conftest import service_of, settings_for, started
from tests.api.reference import AFTER, VERBS
from tests.support.jobs import OWNER, new_checkpoint, running, submitted, taken


class Place(NamedTuple):
    """Where a job is, and what its owner wants."""

    status: Status
    desired: Desired

    def after(self, verb: Verb) -> "Place | None":
        """What the table makes of a verb; None: refused."""
        desired = desired_after(self.status, self.desired, verb)
        return None if desired is None else Place(settled_status(self.status, desired) or self.status, desired)

    def shown(self) -> str:
        return displayed_status(self.status, self.desired)


def deeds(place: Place) -> Iterator[tuple[str, Place]]:
    """All that can happen to a job there: each verb, and what a worker does."""
    for verb in Verb:
        if found := place.after(verb):
            yield verb, found
    if place == START:
        yield "claim", place._replace(status=Status.RUNNING)
    if place.status is Status.RUNNING:
        rest = settled_status(Status.PAUSED, place.desired) or Status.PAUSED
        yield "give back", place._replace(status=rest)
        for ending in TRANSITIONS[Status.RUNNING] & TERMINAL - {rest if rest in TERMINAL else Status.CANCELLED}:
            yield ending, place._replace(status=ending)


def ways() -> dict[Place, tuple[str, ...]]:
    """By each place that a job can get to, the shortest way there from its submission."""
    found: dict[Place, tuple[str, ...]] = {START: ()}
    frontier = [START]
    for place in frontier:  # grows as places are found
        for deed, there in deeds(place):
            if there not in found:
                found[there] = (*found[place], deed)
                frontier.append(there)
    return found


START = Place(Status.QUEUED, Desired.RUN)
WAYS = ways()
EVERY = [pytest.param(place, verb, id=f"{'+'.join(place)}-{verb}") for place in WAYS for verb in Verb]


def brought_to(place: Place, db: Database) -> str:
    """A job of OWNER that went the way there."""
    job_id = submitted(db)
    verbs = {"cancel": request_cancel, "pause": request_pause, "resume": request_resume}
    for deed in WAYS[place]:
        if deed in verbs:
            verbs[deed](db, OWNER, job_id)
        elif deed == "claim":
            assert taken(db)
        elif deed == "give back":
            give_back(db, Fence(job_id, 1), cause="as its owner asked", lost=False, max_losses=3)
        else:
            finish_job(db, Fence(job_id, 1), TerminalState(Status(deed)))
    return job_id


def test_every_state_can_be_reached() -> None:
    """The ways end in every status that there is, and in every one that users read."""
    assert {place.status for place in WAYS} == set(Status)
    assert {place.shown() for place in WAYS} == set(AFTER)


@pytest.mark.parametrize("place", WAYS, ids="+".join)
def test_the_table_promises_what_was_written_down(place: Place) -> None:
    """The reference of all other tests is a table by hand, of what users read."""
    after = [found.shown() if (found := place.after(Verb(verb))) else None for verb in VERBS]
    assert after == list(AFTER[place.shown()])


def headers_for(db: Database) -> dict[str, str]:
    """OWNER's key."""
    _, text = create_key(db, owner=OWNER)
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def headers(service: Service) -> dict[str, str]:
    return headers_for(service.db)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestClient]:
    """One app for all, without jobs, on SQLite; on PostgreSQL it is the same once more."""
    if request.param == "postgresql":
        yield from started(create_app(settings_for(tmp_path, request.getfixturevalue("postgresql_url"))))
    else:
        yield request.getfixturevalue("shared")
        with service_of(request.getfixturevalue("shared")).db.write() as connection:
            connection.execute(delete(job_table))


@pytest.mark.parametrize(("place", "verb"), EVERY)
def test_each_verb_in_each_state_twice(asked: TestClient, place: Place, verb: Verb) -> None:
    """As the table of transitions has it; the second time changes nothing, and says nothing in the timeline."""
    db = service_of(asked).db
    headers, job_id = headers_for(db), brought_to(place, db)
    before = get_job_view(db, OWNER, job_id)
    assert before.status == place.shown()
    there = place.after(verb)
    seen = []
    for body in (None, {}):
        answer = asked.post(f"/v1/jobs/{job_id}/{verb}", json=body, headers=headers)
        told = answer.json()["status"] if there else answer.json()["current_status"]
        assert (answer.status_code, told) == ((202, there.shown()) if there else (409, place.shown()))
        seen.append(get_job_view(db, OWNER, job_id))
    assert seen[0] == seen[1]
    if there in {None, place}:
        assert seen[0] == before
    else:
        assert there is not None
        assert [moment.status for moment in seen[0].timeline] == [*(m.status for m in before.timeline), there.shown()]
        assert (seen[0].status, seen[0].desired) == (there.shown(), there.desired)
        ended = there.status in TERMINAL
        assert ((seen[0].finished_at is not None), seen[0].stop_reason) == (ended, "cancelled" if ended else None)
        assert (seen[0].queue is not None) == (there.shown() == "queued")


@pytest.mark.parametrize("status", ["queued", "running", "pausing", "paused", "cancelling"])
def test_all_verbs_at_once_in_any_order(
    client: TestClient, service: Service, headers: dict[str, str], status: str
) -> None:
    """Nothing but 202 and 409; a cancel among them has the last word; each step of the timeline is one of the table."""
    dice = random.Random(status)
    place = next(each for each in WAYS if each.shown() == status)
    for cancels in (False, True):
        job_id = brought_to(place, service.db)
        said = [dice.choice(VERBS[1:]) for _ in range(12)] + ["cancel"] * cancels
        dice.shuffle(said)
        paths = [f"/v1/jobs/{job_id}/{verb}" for verb in said]
        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(lambda path: client.post(path, headers=headers), paths))
        gone = {"cancelling", "cancelled"}
        for answer in answers:
            assert answer.status_code in {202, 409}, answer.text
            if answer.status_code == 409:
                assert answer.json()["current_status"] in gone
        view = get_job_view(service.db, OWNER, job_id)
        assert (view.status in gone) is (cancels or status == "cancelling")
        path = [moment.status for moment in view.timeline]
        for before, after in pairwise(path):
            assert after in {*AFTER[before], "running"} - {None, before}, path


def test_a_pause_takes_effect_and_a_resume_sends_a_hint(
    client: TestClient, service: Service, headers: dict[str, str]
) -> None:
    """As a CPU worker plays it: it gives back what is pausing; the job keeps its checkpoint and its kind of slot."""
    heard = service.hints.heard  # type: ignore[attr-defined]
    fence = running(service.db)
    kept = record_checkpoint(service.db, fence, new_checkpoint(fence, 4), (), resumable=True)
    path = f"/v1/jobs/{fence.job_id}"
    client.post(f"{path}/pause", headers=headers)
    give_back(service.db, fence, cause="pause", lost=False, max_losses=3)
    paused = client.get(path, headers=headers).json()
    assert (paused["status"], paused["queue"], paused["progress"]["eta_seconds"]) == ("paused", None, None)
    assert heard == []
    resumed = client.post(paused["links"]["resume"], headers=headers).json()
    assert (resumed["status"], resumed["queue"]["position"], heard) == ("queued", 1, ["cpu"])
    assert [moment["status"] for moment in resumed["timeline"]] == [
        *("queued", "running", "pausing", "paused", "queued"),
    ]
    (checkpoint,) = client.get(f"{path}/checkpoints", headers=headers).json()["data"]
    assert checkpoint["id"] == kept.id


def test_pausing_makes_no_room_in_the_queue(client: TestClient, service: Service) -> None:
    _, text = create_key(service.db, owner=OWNER, limits=Limits(queued_jobs=1))
    headers = {"Authorization": f"Bearer {text}"}
    body = {"model": {"name": "logistic"}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}, "epochs": 1}
    first = client.post("/v1/jobs", json=body, headers=headers).json()
    assert client.post(first["links"]["pause"], headers=headers).json()["status"] == "paused"
    assert client.post("/v1/jobs", json=body, headers=headers).status_code == 429
    client.post(first["links"]["cancel"], headers=headers)
    assert client.post("/v1/jobs", json=body, headers=headers).status_code == 201


def test_a_full_store_is_answered_with_figures(light: TestClient) -> None:
    """507: at the limit no job comes in; what is deleted and swept makes room; other owners' files do not count."""
    db = service_of(light).db
    foreign = running(db)
    record_checkpoint(db, foreign, new_checkpoint(foreign, 4), (), resumable=True)
    finish_job(db, foreign, TerminalState(Status.SUCCEEDED))
    _, text = create_key(db, owner="bob", limits=Limits(stored_bytes=2000))
    headers = {"Authorization": f"Bearer {text}"}
    body = {"model": {"name": "logistic"}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}, "epochs": 1}
    assert light.post("/v1/jobs", json=body, headers=headers).status_code == 201
    claim = taken(db)
    assert claim is not None
    fence = Fence(claim.job_id, claim.attempt)
    files = {name: {"name": name, "sha256": "ab" * 32, "bytes": 1000} for name in ("weights", "state")}
    for step in (4, 8):
        row = replace(new_checkpoint(fence, step, kind="snapshot"), bytes=1000, files=files)
        record_checkpoint(db, fence, row, (), resumable=False)
        full = light.post("/v1/jobs", json=body, headers=headers)
        told = {"limit": "stored_bytes", "allowed": 2000, "used": 500 * step}
        assert (full.status_code, full.json()["code"], full.json() | told) == (507, "storage_full", full.json())
        assert "retry-after" not in full.headers
    finish_job(db, fence, TerminalState(Status.SUCCEEDED))
    assert light.delete(f"/v1/jobs/{fence.job_id}", headers=headers).status_code == 204
    assert light.post("/v1/jobs", json=body, headers=headers).status_code == 201
