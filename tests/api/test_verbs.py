"""Every verb in every state, twice, in any order and all at once."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
from fastapi.testclient import TestClient

from api.deps import Service
from core.db.session import Database
from core.jobs.checkpoints import record_checkpoint
from core.jobs.fence import Fence
from core.jobs.finish import Ending, finish, give_back
from core.jobs.keys import create_key
from core.jobs.queries import get_job
from core.jobs.verbs import cancel, pause
from core.lifecycle import Status
from core.settings import Limits
from tests.api.conftest import service_of
from tests.api.reference import AFTER, VERBS
from tests.support.jobs import OWNER, new_checkpoint, running, submitted, taken


def job_that_is(status: str, db: Database) -> str:
    """A job of OWNER, brought there by what brings jobs there."""
    if status in {"queued", "paused", "cancelled"}:
        job_id = submitted(db)
        verbs: dict[str, Callable[[Database, str, str], None]] = {"paused": pause, "cancelled": cancel}
        if status in verbs:
            verbs[status](db, OWNER, job_id)
        return job_id
    fence = running(db)
    if status == "pausing":
        pause(db, OWNER, fence.job_id)
    if status == "cancelling":
        cancel(db, OWNER, fence.job_id)
    if status in {"succeeded", "failed"}:
        finish(db, fence, Ending(Status(status)))
    return fence.job_id


@pytest.fixture
def headers(service: Service) -> dict[str, str]:
    """OWNER's key."""
    _, text = create_key(service.db, owner=OWNER)
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize("status", AFTER)
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_in_each_state_twice(
    client: TestClient, service: Service, headers: dict[str, str], status: str, verb: str
) -> None:
    job_id = job_that_is(status, service.db)
    expected = AFTER[status][VERBS.index(verb)]
    seen = []
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job_id}/{verb}", headers=headers)
        told = answer.json()["status"] if expected else answer.json()["current_status"]
        assert (answer.status_code, told) == ((202, expected) if expected else (409, status))
        seen.append(get_job(service.db, OWNER, job_id))
    assert seen[0] == seen[1], "the second time changes nothing, and says nothing in the timeline"
    assert seen[0].status == (expected or status)


@pytest.mark.parametrize("status", ["queued", "running", "pausing", "paused", "cancelling"])
def test_all_verbs_at_once_in_any_order(
    client: TestClient, service: Service, headers: dict[str, str], status: str
) -> None:
    """Nothing but 202 and 409; a cancel among them has the last word; each step of the timeline is one of the table."""
    dice = random.Random(status)
    for cancels in (False, True):
        job_id = job_that_is(status, service.db)
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
        view = get_job(service.db, OWNER, job_id)
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
    finish(db, foreign, Ending(Status.SUCCEEDED))
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
    finish(db, fence, Ending(Status.SUCCEEDED))
    assert light.delete(f"/v1/jobs/{fence.job_id}", headers=headers).status_code == 204
    assert light.post("/v1/jobs", json=body, headers=headers).status_code == 201
