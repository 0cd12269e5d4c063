"""Keys: who has none gets nothing, who has one gets what it is for and sees only what is theirs."""

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.app import create_app
from api.auth import CHANGES_NOTHING
from core.db.session import Database, database_now
from core.db.tables import api_key
from core.jobs.keys import create_key, list_keys, revoke_key
from tests.api.conftest import service_of, settings_for, started
from tests.api.test_guard import KEY, OPEN, app_of, calls
from tests.api.test_jobs import IRIS

TEXT = re.compile(r"bsn_[0-7][0-9a-hjkmnp-tv-z]{25}_[0-9a-hjkmnp-tv-z]{52}")


def key_for(db: Database, owner: str = "alice", scopes: tuple[str, ...] = ("read", "write"), **more: Any) -> str:
    return create_key(db, owner=owner, scopes=scopes, **more)[1]


def bearing(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def token(header: dict[str, Any], signed_with: bytes = b"") -> str:
    """A JWT that says it is alice, the administrator."""
    body = f"{part(header)}.{part({'sub': 'alice', 'owner': 'alice', 'scopes': ['admin']})}"
    seal = hmac.digest(signed_with, body.encode(), hashlib.sha256) if signed_with else b""
    return f"{body}.{base64.urlsafe_b64encode(seal).rstrip(b'=').decode()}"


@pytest.fixture(scope="module")
def keyed(shared: TestClient) -> tuple[TestClient, dict[str, str]]:
    """A service that has keys, and headers by name: those that open something, and those that must not."""
    db = service_of(shared).db
    good = key_for(db)
    bare, _, secret = good.rpartition("_")
    ended, expired = create_key(db, owner="alice", lasts=60.0)
    with db.write() as connection:
        connection.execute(update(api_key).where(api_key.c.id == ended.id).values(expires_at=database_now() - 1.0))
    revoked, gone = create_key(db, owner="alice", scopes=("read", "write", "admin"))
    revoke_key(db, "alice", revoked.id)
    bad = {
        "none": "",
        "unknown": f"Bearer bsn_01hzzzzzzzzzzzzzzzzzzzzzzz_{secret}",
        "wrong secret": f"Bearer {bare}_{secret[::-1]}",
        "cut short": f"Bearer {good[:-1]}",
        "longer": f"Bearer {good}0",
        "only the prefix": f"Bearer {bare}",
        "expired": f"Bearer {expired}",
        "revoked": f"Bearer {gone}",
        "basic": "Basic " + base64.b64encode(good.encode()).decode(),
        "no scheme": good,
        "two": f"Bearer {good}, Bearer {good}",
        "no algorithm": f"Bearer {token({'alg': 'none'})}",
        "signed with what is public": f"Bearer {token({'alg': 'HS256'}, bare.encode())}",
        "a path as key id": f"Bearer {token({'alg': 'HS256', 'kid': '../../../dev/null'}, b' ')}",
        "SQL as key id": "Bearer bsn_' OR '1'='1_" + secret,
        "bytes": "Bearer bsn_\x00\x7f",
    }
    return shared, {"good": f"Bearer {good}", **bad}


BAD = (
    *("none", "unknown", "wrong secret", "cut short", "longer", "only the prefix", "expired", "revoked", "basic"),
    *("no scheme", "two", "no algorithm", "signed with what is public", "a path as key id", "SQL as key id", "bytes"),
)


@pytest.mark.parametrize("name", BAD)
def test_no_route_opens_without_a_good_key(keyed: tuple[TestClient, dict[str, str]], name: str) -> None:
    """The same answer for all of them, on every route there is."""
    client, headers = keyed
    given = {"Authorization": headers[name]} if headers[name] else {}
    walked = [call for call in calls(app_of(client)) if call[1] not in OPEN]
    assert len(walked) >= 19
    for method, path in walked:
        answer = client.request(method, path, headers=given)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            body = answer.json()
            assert (body.pop("request_id"), body) == (answer.headers["x-request-id"], REFUSAL), (method, path)


REFUSAL = {
    "type": "urn:basin:problem:unauthenticated",
    "title": "Unauthorized",
    "status": 401,
    "detail": "A valid API key is needed.",
    "code": "unauthenticated",
    "errors": [],
}


def test_a_good_key_opens_and_so_does_health_without(keyed: tuple[TestClient, dict[str, str]]) -> None:
    client, headers = keyed
    for scheme in ("Bearer", "bearer", "BEARER"):
        given = {"Authorization": headers["good"].replace("Bearer", scheme)}
        assert client.get("/v1/jobs", headers=given).status_code == 200
    assert {client.get(path).status_code for path in OPEN} == {200}
    twice = [("Authorization", headers["good"]), ("Authorization", headers["good"])]
    assert client.get("/v1/jobs", headers=twice).status_code == 401


def test_with_a_key_any_name_and_origin_are_served(keyed: tuple[TestClient, dict[str, str]]) -> None:
    """Behind a proxy the service has another name; a tricked browser has no key."""
    client, headers = keyed
    for foreign in ({"Host": "basin.example"}, {"Origin": "https://elsewhere.example"}):
        assert client.get("/v1/jobs", headers=foreign | {"Authorization": headers["good"]}).status_code == 200
        assert client.get("/v1/jobs", headers=foreign).status_code == 401
        assert client.get("/healthz", headers=foreign).status_code == 200


def test_a_made_up_key_does_not_switch_off_the_rules_for_browsers(light: TestClient) -> None:
    """A page that points its name at 127.0.0.1 may send any header it likes."""
    answer = light.get("/v1/jobs", headers={"Host": "evil.example", **bearing("bsn_x_y")})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


WRITES = ("POST", "PUT", "PATCH", "DELETE")


def test_a_key_does_what_its_scopes_say(light: TestClient) -> None:
    """A read-only key changes nothing, on every route there is."""
    db = service_of(light).db
    can = {scope: key_for(db, scopes=(scope,)) for scope in ("read", "write", "admin")}
    for method, path in calls(app_of(light)):
        if path in OPEN:
            continue
        administered = path.startswith("/v1/keys") or (method, path) == ("POST", "/v1/projects")
        needed = "admin" if administered else "write" if method in WRITES else "read"
        needed = "read" if path in CHANGES_NOTHING else needed
        for scope, text in can.items():
            answer = light.request(method, path, headers=bearing(text))
            told = (answer.status_code, answer.json().get("code")) if answer.status_code == 403 else None
            assert told == (None if scope == needed else (403, "forbidden")), (method, path, scope)
    assert db_is_untouched(light)


def db_is_untouched(client: TestClient) -> bool:
    db = service_of(client).db
    return len(list_keys(db)) == 3 and client.get("/v1/jobs", headers=bearing(key_for(db))).json()["data"] == []


def test_a_key_is_made_shown_once_and_revoked(client: TestClient) -> None:
    """The first one by whoever is at the machine; from then on the service asks for it."""
    answer = client.post("/v1/keys", json={"name": "first", "scopes": ["read", "write", "admin"]})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    text = made.pop("key")
    assert TEXT.fullmatch(text)
    assert text.startswith(f"{made['prefix']}_")
    assert (made["owner"], made["status"], made["expires_at"], made["last_used_at"]) == ("local", "active", None, None)
    assert client.get("/v1/keys").status_code == 401
    mine = bearing(text)
    assert client.get(answer.headers["location"], headers=mine).json() | {"last_used_at": None} == made
    body = {"scopes": ["read"], "expires_at": "2999-01-01T00:00:00Z", "limits": {"queued_jobs": 7}}
    second = client.post("/v1/keys", json=body, headers=mine).json()
    assert (second["scopes"], second["expires_at"]) == (["read"], "2999-01-01T00:00:00.000Z")
    assert second["limits"] == {
        "queued_jobs": 7,
        "running_jobs": None,
        "stored_bytes": None,
        "datasets": None,
        "dataset_bytes": None,
        "requests_per_minute": None,
    }
    listed = client.get("/v1/keys", headers=mine)
    assert [key["id"] for key in listed.json()["data"]] == [made["id"], second["id"]]
    assert listed.json()["data"][0]["last_used_at"] is not None
    assert text.rpartition("_")[2] not in listed.text
    assert client.get("/v1/jobs", headers=bearing(second["key"])).status_code == 200
    for _ in range(2):
        assert client.delete(f"/v1/keys/{second['id']}", headers=mine).status_code == 204
    assert client.get("/v1/jobs", headers=bearing(second["key"])).status_code == 401
    assert client.get(f"/v1/keys/{second['id']}", headers=mine).json()["status"] == "revoked"


def test_what_the_database_keeps_is_no_key(db: Database) -> None:
    text = key_for(db)
    secret = text.rpartition("_")[2]
    (key,) = list_keys(db)
    assert key.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in repr(key)
    # 52 signs of 5 bits, of which each half of 26 keeps 128 bits: the first sign of a half has 3.
    assert re.fullmatch(r"[0-7][0-9a-z]{25}[0-7][0-9a-z]{25}", secret)


REFUSED: dict[str, tuple[Any, str]] = {
    "another owner": ({"owner": "root"}, "/owner"),
    "a status": ({"status": "active", "id": KEY}, "/status"),
    "no scope": ({"scopes": []}, "/scopes"),
    "an unknown scope": ({"scopes": ["root"]}, "/scopes/0"),
    "a limit in words": ({"limits": {"queued_jobs": "7"}}, "/limits/queued_jobs"),
    "an unknown limit": ({"limits": {"gpus": 7}}, "/limits/gpus"),
    "no limit at all": ({"limits": {"running_jobs": 0}}, "/limits/running_jobs"),
    "an end without a zone": ({"expires_at": "2999-01-01T00:00:00"}, "/expires_at"),
    "an end that was": ({"expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
    "an end beyond the calendar": ({"expires_at": 1e300}, "/expires_at"),
    "a hidden character": ({"name": "a\u202eb"}, "/name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_fields_that_cannot_be_accepted_change_nothing(shared: TestClient, name: str) -> None:
    """For keys and for jobs: what only the service may set is an unknown field."""
    body, pointer = REFUSED[name]
    service = service_of(shared)
    mine = bearing(key_for(service.db, scopes=("read", "write", "admin")))
    before = len(list_keys(service.db))
    answer = shared.post("/v1/keys", json=body, headers=mine)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert len(list_keys(service.db)) == before
    for field in ("state", "status", "owner", "owner_id", "attempt"):
        answer = shared.post("/v1/jobs", json=IRIS | {field: "succeeded"}, headers=mine)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{field}")


def test_beyond_loopback_there_is_no_way_without_a_key(tmp_path: Path, sqlite_url: str) -> None:
    """Even when the database holds no key yet, and whatever the request calls itself."""
    app = create_app(settings_for(tmp_path, sqlite_url).model_copy(update={"host": "0.0.0.0"}))  # noqa: S104
    for client in started(app):
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/healthz", headers={"Host": "10.1.2.3"}).status_code == 200
        text = key_for(service_of(client).db)
        assert client.get("/v1/jobs", headers={"Host": "10.1.2.3", **bearing(text)}).status_code == 200
