"""A job that was accepted once stays as it is, whatever a later release refuses; only what is new is judged."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from api.dependencies import Service
from core.db.tables import job
from core.errors import FieldProblem
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.checkpoints.replay import read_history
from core.jobs.keys import create_key
from core.jobs.metrics.chunks import record_points
from core.lifecycle import Status
from core.recipe.checks import spec as checks
from core.recipe.spec import JobSpec
from tests.api.conftest import service_of
from tests.support.jobs import OWNER, chunk, new_checkpoint, running, submitted, taken

Tamper = Callable[[str], dict[str, Any]]
BOUND = {"log_every": 10**12}
COMPONENT = {"clip_grad": {"norm": 1.0, "value": 1.0}}


@pytest.fixture
def service(light: TestClient) -> Service:
    return service_of(light)


@pytest.fixture
def headers(service: Service) -> dict[str, str]:
    _, text = create_key(service.db, owner=OWNER)
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture(params=["bound", "component", "rule"])
def pointer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a release that is stricter than the one which accepted the jobs finds fault with each."""
    if request.param == "rule":
        problem = FieldProblem("/seed", "seeds are out of fashion", "leave it out")
        monkeypatch.setattr(checks, "problems", lambda *_: iter((problem,)))
    return {"bound": "/log_every", "component": "/clip_grad", "rule": "/seed"}[request.param]


@pytest.fixture
def aged(service: Service, pointer: str) -> Tamper:
    """Makes a stored job one that the door would refuse today; gives its spec as it is then stored."""

    def tamper(job_id: str) -> dict[str, Any]:
        fields = {"/log_every": BOUND, "/clip_grad": COMPONENT, "/seed": {}}[pointer]
        with service.db.write() as connection:
            row = connection.execute(select(job.c.spec).where(job.c.id == job_id)).scalar_one()
            spec: dict[str, Any] = json.loads(row) | fields
            connection.execute(update(job).where(job.c.id == job_id).values(spec=json.dumps(spec)))
        return spec

    return tamper


def failed(service: Service) -> str:
    fence = running(service.db)
    record_points(service.db, fence, [chunk("train.loss", 0, 8)])
    for step in (4, 8):
        record_checkpoint(service.db, fence, new_checkpoint(fence, step), (), resumable=True)
    finish_job(service.db, fence, TerminalState(Status.FAILED))
    return fence.job_id


READS = (
    "/v1/jobs/{id}", "/v1/jobs", "/v1/queue", "/v1/jobs/{id}/metrics", "/v1/jobs/{id}/metrics/names",
    "/v1/jobs/{id}/plot.svg", "/v1/metrics/plot.svg?jobs={id}&series=train.loss", "/v1/jobs/{id}/events",
    "/v1/metrics/compare?jobs={id}&series=train.loss&x=epoch", "/v1/jobs/{id}/checkpoints",
)  # fmt: skip


def test_reads(light: TestClient, service: Service, headers: dict[str, str], aged: Tamper) -> None:
    """As it is stored, to the letter."""
    job_id = failed(service)
    before = light.get(f"/v1/jobs/{job_id}", headers=headers).json()
    spec = aged(job_id)
    answers = {path: light.get(path.format(id=job_id), headers=headers) for path in READS}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(READS, 200)
    shown = answers["/v1/jobs/{id}"].json()
    assert {name: shown[name] for name in spec} == spec
    assert answers["/v1/jobs"].json()["data"] == [shown]
    assert {**shown, **{name: before[name] for name in spec}} == before


def test_verbs(light: TestClient, service: Service, headers: dict[str, str], aged: Tamper) -> None:
    job_id = submitted(service.db)
    aged(job_id)
    path = f"/v1/jobs/{job_id}"
    for verb, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        answer = light.post(f"{path}/{verb}", headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (202, status)
    assert light.patch(path, headers=headers, json={"name": "old"}).json()["name"] == "old"
    assert light.delete(path, headers=headers).status_code == 204


def test_claim_and_attempt(light: TestClient, service: Service, headers: dict[str, str], aged: Tamper) -> None:
    """A worker takes it, keeps as many checkpoints as it says, gives it back and takes it again."""
    spec = aged(submitted(service.db))
    found = taken(service.db)
    assert found is not None
    assert isinstance(found.spec, JobSpec)
    assert json.loads(found.spec.model_dump_json()) == spec
    fence = Fence(found.job_id, found.attempt)
    for step in (3, 6, 9):
        record_checkpoint(service.db, fence, new_checkpoint(fence, step), (), resumable=True)
    give_back(service.db, fence, cause="its worker was stopped", lost=False, max_losses=3)
    again = taken(service.db)
    assert again is not None
    assert (again.job_id, again.checkpoint and again.checkpoint.step) == (found.job_id, 9)
    past = read_history(service.db, found.job_id)
    assert ([row.step for row in past.checkpoints], past.spec) == ([6, 9], found.spec)


def test_what_is_new_is_judged(
    light: TestClient, service: Service, headers: dict[str, str], aged: Tamper, pointer: str
) -> None:
    """A retry and a fork are new jobs with the old one's fields: 422, and the pointer says which."""
    job_id = failed(service)
    aged(job_id)
    retry = light.post(f"/v1/jobs/{job_id}/retry", headers=headers)
    fork = light.post(f"/v1/jobs/{job_id}/fork", headers=headers, json={"changes": {"epochs": 9}})
    answers = [(one.status_code, [each["pointer"] for each in one.json()["errors"]]) for one in (retry, fork)]
    assert answers == [(422, [pointer]), (422, [f"/changes{pointer}"])]
    if pointer != "/seed":
        changes = {"/log_every": {"log_every": 1}, "/clip_grad": {"clip_grad": {"norm": 1.0}}}[pointer]
        mended = light.post(f"/v1/jobs/{job_id}/fork", headers=headers, json={"changes": changes})
        assert mended.status_code == 201


def test_what_looks_at_an_old_job_is_judged_alone(
    light: TestClient, service: Service, headers: dict[str, str], aged: Tamper, pointer: str
) -> None:
    """A warm start and an analysis are refused for their own fields only."""
    job_id = failed(service)
    aged(job_id)
    body = {"model": {"name": "mlp", "hidden": [8]}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}}
    warm = light.post("/v1/jobs", headers=headers, json=body | {"epochs": 1, "from": {"job": job_id}})
    assert warm.status_code == (422 if pointer == "/seed" else 201)
    recipe = {"kind": "lr_range", "job": job_id}
    weights = {"kind": "landscape", "job": job_id, "dimensions": 1, "steps": 5}
    asked = [light.post("/v1/analyses", headers=headers, json=each) for each in (recipe, weights)]
    assert [one.status_code for one in asked] == [201, 201]
    old = asked[1].json()["id"]
    with service.db.write() as connection:
        spec = json.loads(connection.execute(select(job.c.spec).where(job.c.id == old)).scalar_one())
        text = json.dumps(spec | {"steps": 10**6, "weights": "last", "norm": "layer", "directions": "eigen"})
        connection.execute(update(job).where(job.c.id == old).values(spec=text))
    assert light.get(f"/v1/analyses/{old}", headers=headers).json()["steps"] == 10**6
    assert light.get("/v1/analyses", headers=headers).status_code == 200
    found = [taken(service.db) for _ in range(2 if pointer == "/seed" else 3)]
    assert old in {one.job_id for one in found if one}


def test_a_job_of_another_release_is_shown_without_a_class(
    light: TestClient, service: Service, headers: dict[str, str]
) -> None:
    """Its optimizer is gone, for instance. It is read and cancelled; a new job from it says what is not known."""
    job_id, waits = failed(service), submitted(service.db)
    for each in (job_id, waits):
        with service.db.write() as connection:
            spec = json.loads(connection.execute(select(job.c.spec).where(job.c.id == each)).scalar_one())
            text = json.dumps(spec | {"optimizer": {"name": "gone", "lr": 0.1}})
            connection.execute(update(job).where(job.c.id == each).values(spec=text))
    shown = light.get(f"/v1/jobs/{job_id}", headers=headers).json()
    assert (shown["optimizer"], shown["warnings"]) == ({"name": "gone", "lr": 0.1}, [])
    assert light.get("/v1/jobs", headers=headers).status_code == 200
    assert light.post(f"/v1/jobs/{waits}/cancel", headers=headers).json()["status"] == "cancelled"
    body = {"model": {"name": "mlp", "hidden": [8]}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}}
    asked = {
        "/optimizer/name": light.post(f"/v1/jobs/{job_id}/retry", headers=headers),
        "/from": light.post("/v1/jobs", headers=headers, json=body | {"epochs": 1, "from": {"job": job_id}}),
        "/job": light.post("/v1/analyses", headers=headers, json={"kind": "lr_range", "job": job_id}),
    }
    assert [(one.status_code, one.json()["errors"][0]["pointer"]) for one in asked.values()] == [
        (422, pointer) for pointer in asked
    ]
    fork = light.post(f"/v1/jobs/{job_id}/fork", headers=headers, json={})
    compared = light.get(f"/v1/metrics/compare?jobs={job_id}&series=train.loss", headers=headers)
    assert (fork.status_code, fork.json()["errors"][0]["pointer"]) == (422, "/optimizer/name")
    assert (compared.status_code, compared.json()["errors"][0]["pointer"]) == (422, "/query/jobs")
