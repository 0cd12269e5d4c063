"""Projects over HTTP: a key sees its own and nothing of the others, on every route there is."""

import base64
import hashlib
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from core.db.session import Database
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.keys import create_key, list_keys
from core.jobs.projects import create_project, list_projects
from core.jobs.splits import record_split
from core.lifecycle import Status
from tests.api.conftest import service_of
from tests.api.test_analyses import concluded
from tests.api.test_guard import ANALYSIS, CHECKPOINT, DATASET, JOB, KEY, OPEN, app_of, calls
from tests.api.test_jobs import IRIS, taken
from tests.support.jobs import chunk, new_checkpoint
from tests.support.uploads import CSV, prepare

Headers = dict[str, str]
ALL = ("read", "write", "admin")
WEIGHTS = b"weights"


def headers_of(db: Database, owner: str, project: str, scopes: tuple[str, ...] = ALL) -> Headers:
    return {"Authorization": f"Bearer {create_key(db, owner=owner, project=project, scopes=scopes)[1]}"}


@pytest.fixture
def keys(service: Service) -> dict[str, Headers]:
    """`theirs` and `shared` are of one project, of two owners; `mine` is of the owner of `theirs`, elsewhere."""
    for name in ("vision", "speech"):
        create_project(service.db, name, "local")
    return {
        "theirs": headers_of(service.db, "alice", "vision"),
        "shared": headers_of(service.db, "bob", "vision"),
        "mine": headers_of(service.db, "alice", "speech"),
        "default": headers_of(service.db, "local", "default"),
    }


@pytest.fixture
def ids(client: TestClient, service: Service, keys: dict[str, Headers], tmp_path: Path) -> dict[str, str]:
    """What there is in the project `vision`, by the ids that the inventory of routes is filled with: one of each."""
    job_id = client.post("/v1/jobs", json=IRIS, headers=keys["theirs"]).json()["id"]
    fence = taken(service)
    row = replace(new_checkpoint(fence, 4), sha256=hashlib.sha256(WEIGHTS).hexdigest(), bytes=len(WEIGHTS))
    row = replace(row, files={"weights": row.files["weights"] | {"sha256": row.sha256, "bytes": row.bytes}})
    (tmp_path / "weights").write_bytes(WEIGHTS)
    service.store.put_file(tmp_path / "weights", f"{row.key}/weights.safetensors")
    record_checkpoint(service.db, fence, row, [chunk("train.loss", 1, 4)], resumable=True)
    finish_job(service.db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    body = {"kind": "average", "checkpoints": [{"checkpoint": row.id}, {"job": job_id}]}
    answer = client.post("/v1/analyses", json=body, headers=keys["theirs"])
    assert answer.status_code == 201, answer.text
    concluded(service, tmp_path)
    key = create_key(service.db, owner="alice", project="vision")[0]
    octets = {"Content-Type": "application/octet-stream"}
    data = client.post("/v1/datasets?name=penguins", content=CSV, headers=keys["theirs"] | octets).json()["id"]
    prepare(service.db, service.store, data)
    with service.db.write() as connection:
        record_split(connection, job_id, base64.b64encode(zlib.compress(bytes([0, 1, 2]))).decode())
    return {DATASET: data, JOB: job_id, CHECKPOINT: row.id, ANALYSIS: answer.json()["id"], KEY: key.id}


def filled(path: str, ids: dict[str, str]) -> str:
    for placeholder, real in ids.items():
        path = path.replace(placeholder, real)
    return path


def tried(client: TestClient, method: str, path: str, headers: Headers) -> Any:
    """The answer to a request that the route would accept."""
    if path.endswith("/content") and method in {"PUT", "PATCH"}:
        part = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        return client.request(method, path, headers=headers | part, content=b"x")
    if path.endswith("/links/complete"):
        key = f"uploads/{path.split('/')[3]}/{0:016d}-{0:016x}"
        return client.request(method, path, headers=headers, json={"parts": [{"offset": 0, "key": key}]})
    body = {"name": "x"} if method == "PATCH" else {} if method == "PUT" else None
    return client.request(method, path, headers=headers, json=body)


def asking_for_jobs(client: TestClient, ids: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Path and parameters of the routes without an id in their path that take one in their query."""
    found = []
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        params = [one for one in operations.get("get", {}).get("parameters", ()) if one["in"] == "query"]
        needed = {one["name"]: "train.loss" for one in params if one["name"] == "series"}
        named = [one["name"] for one in params if one["name"] in {"job", "jobs"} and "{" not in path]
        found += [(path, needed | {name: ids[JOB]}) for name in named]
    return found


@pytest.mark.parametrize("who", ["mine", "default"])
def test_what_is_of_another_project_is_not_there(
    client: TestClient, service: Service, keys: dict[str, Headers], ids: dict[str, str], who: str
) -> None:
    """On every route that takes an id: 404 as if there were none, and nothing has happened. No other shows an id.

    Administrators of `default` are the exception for keys.
    """
    own, walked = keys[who], 0
    reads = [path for method, path in calls(app_of(client)) if method == "GET"]
    before = {
        path: client.get(filled(path, ids), headers=keys["theirs"]).content for path in reads if "/v1/jobs" in path
    }
    for method, path in calls(app_of(client)):
        target = filled(path, ids)
        if path in OPEN or (who == "default" and KEY in path):
            continue
        if target != path:
            answer = tried(client, method, target, own)
            assert (answer.status_code, "not_found" in answer.text) == (404, True), (method, path)
            walked += 1
        elif method == "GET" and not (who == "default" and path.startswith("/v1/keys")):
            shown = client.get(path, headers=own).text
            assert not [one for one in ids.values() if one in shown], path
    assert walked >= 25
    asked = asking_for_jobs(client, ids)
    assert len(asked) >= 3
    for path, params in asked:
        answer = client.get(path, params=params, headers=own)
        assert answer.status_code == 404 or answer.json()["data"] == [], path
    assert {path: client.get(filled(path, ids), headers=keys["theirs"]).content for path in before} == before
    assert [key.status for key in list_keys(service.db)] == ["active"] * 5


def test_what_is_of_the_own_project_is_there(client: TestClient, keys: dict[str, Headers], ids: dict[str, str]) -> None:
    """Whoever made it: the walk above would find something."""
    for method, path in calls(app_of(client)):
        if method == "GET" and path not in OPEN:
            assert client.get(filled(path, ids), headers=keys["shared"]).status_code in {200, 204, 422}, path
    listed = {
        path: client.get(path, headers=keys["shared"]).text
        for path in ("/v1/jobs", "/v1/analyses", "/v1/keys", "/v1/datasets")
    }
    assert all(ids[one] in text for one, text in zip((JOB, ANALYSIS, KEY, DATASET), listed.values(), strict=True))
    for path, params in asking_for_jobs(client, ids):
        assert client.get(path, params=params, headers=keys["shared"]).status_code == 200, path
    for noun, placeholder in (("jobs", JOB), ("analyses", ANALYSIS), ("keys", KEY), ("datasets", DATASET)):
        assert client.get(f"/v1/{noun}/{ids[placeholder]}", headers=keys["shared"]).json()["project"] == "vision"


def test_no_new_job_begins_with_what_is_of_another_project(
    client: TestClient, keys: dict[str, Headers], ids: dict[str, str]
) -> None:
    """Named in a body: 422, as for what does not exist."""
    job, checkpoint, analysis = {"job": ids[JOB]}, {"checkpoint": ids[CHECKPOINT]}, ids[ANALYSIS]
    bodies: list[tuple[str, dict[str, Any]]] = [
        *(("/v1/jobs", IRIS | {"from": start}) for start in (job, checkpoint)),
        *(("/v1/analyses", {"kind": "average", "checkpoints": [start, start]}) for start in (job, checkpoint)),
        ("/v1/analyses", {"kind": "lr_range", **job}),
        ("/v1/analyses", {"kind": "assembly", "analyses": [analysis, analysis]}),
    ]
    for path, body in bodies:
        answer = client.post(path, json=body, headers=keys["mine"])
        assert answer.status_code == 422, (body, answer.text)
        assert answer.json()["errors"][0]["pointer"]
    own = client.post("/v1/jobs", json=IRIS, headers=keys["mine"]).json()["id"]
    answer = client.post(f"/v1/jobs/{own}/fork", json={"at": ids[CHECKPOINT]}, headers=keys["mine"])
    assert answer.status_code in {409, 422}
    assert [one["id"] for one in client.get("/v1/jobs", headers=keys["mine"]).json()["data"]] == [own]


def test_an_idempotency_key_is_known_to_its_project_only(client: TestClient, keys: dict[str, Headers]) -> None:
    once = {"Idempotency-Key": "once"}
    answers = {
        who: client.post("/v1/jobs", json=IRIS, headers=keys[who] | once) for who in ("theirs", "shared", "mine")
    }
    assert {who: answer.status_code for who, answer in answers.items()} == {"theirs": 201, "shared": 200, "mine": 201}
    made = {who: (answer.json()["id"], answer.json()["project"]) for who, answer in answers.items()}
    assert made["theirs"] == made["shared"]
    assert (made["theirs"][1], made["mine"][1]) == ("vision", "speech")


def test_projects_are_made_by_the_administrators_of_the_default_one(client: TestClient) -> None:
    """Who needs no key is one of them."""
    answer = client.post("/v1/projects", json={"name": "vision"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["object"], made["name"], made["created_by"]) == ("project", "vision", "local")
    listed = client.get("/v1/projects").json()
    assert [one["name"] for one in listed["data"]] == ["default", "vision"]
    assert listed["data"][1] == made
    again = client.post("/v1/projects", json={"name": "vision"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    for body, pointer in (({}, "/name"), ({"name": ""}, "/name"), ({"name": "a\u202eb"}, "/name"), ({"id": 1}, "/id")):
        refused = client.post("/v1/projects", json={"name": "x"} | body if "id" in body else body)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert [one.name for one in list_projects(service_of(client).db)] == ["default", "vision"]


def test_others_see_their_own_project_and_make_none(
    client: TestClient, service: Service, keys: dict[str, Headers]
) -> None:
    reader = headers_of(service.db, "local", "default", ("read", "write"))
    expected = {"mine": ["speech"], "shared": ["vision"], "default": ["default", "speech", "vision"]}
    for who, names in expected.items():
        assert [one["name"] for one in client.get("/v1/projects", headers=keys[who]).json()["data"]] == names
    assert [one["name"] for one in client.get("/v1/projects", headers=reader).json()["data"]] == ["default"]
    for headers in (keys["mine"], reader):
        answer = client.post("/v1/projects", json={"name": "mine"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert client.post("/v1/projects", json={"name": "new"}, headers=keys["default"]).status_code == 201


def test_keys_are_made_for_the_own_project_and_by_the_default_one_for_all(
    client: TestClient, keys: dict[str, Headers]
) -> None:
    def made(who: str, **body: Any) -> Any:
        return client.post("/v1/keys", json=body, headers=keys[who])

    assert [made("mine", **body).json()["project"] for body in ({}, {"project": "speech"})] == ["speech"] * 2
    for project in ("vision", "default", "no such project"):
        assert made("mine", project=project).status_code == 403
    assert made("default").json()["project"] == "default"
    theirs = made("default", project="vision").json()
    assert (theirs["project"], theirs["owner"]) == ("vision", "local")
    job = client.post("/v1/jobs", json=IRIS, headers={"Authorization": f"Bearer {theirs['key']}"}).json()
    assert [one["id"] for one in client.get("/v1/jobs", headers=keys["shared"]).json()["data"]] == [job["id"]]
    unknown = made("default", project="no such project")
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/project")


def test_keys_are_seen_and_ended_in_the_own_project_and_by_the_default_one_in_all(
    client: TestClient, service: Service, keys: dict[str, Headers]
) -> None:
    by_project = {
        who: [one["project"] for one in client.get("/v1/keys", headers=keys[who]).json()["data"]] for who in keys
    }
    assert by_project["mine"] == ["speech"]
    assert by_project["shared"] == by_project["theirs"] == ["vision"] * 2
    assert sorted(by_project["default"]) == ["default", "speech", "vision", "vision"]
    (mine,) = list_keys(service.db, project="speech")
    for method in ("GET", "DELETE"):
        assert client.request(method, f"/v1/keys/{mine.id}", headers=keys["shared"]).status_code == 404
    assert client.delete(f"/v1/keys/{mine.id}", headers=keys["default"]).status_code == 204
    assert client.get("/v1/jobs", headers=keys["mine"]).status_code == 401
