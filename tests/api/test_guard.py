"""Who may ask: every route is denied unless it is declared open, and a browser that was tricked gets nothing."""

import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from api.auth import authenticate_request, is_loopback, require_key
from core.errors import Misconfigured, Unauthenticated
from core.jobs.keys import create_key
from tests.api.conftest import service_of

OPEN = {"/healthz", "/readyz", "/docs", "/docs/start.js", "/docs/favicon.png", "/openapi.json"}
JOB = "job_01hzzzzzzzzzzzzzzzzzzzzzzz"
CHECKPOINT = "ckpt_01hzzzzzzzzzzzzzzzzzzzzzzz"
ANALYSIS = "an_01hzzzzzzzzzzzzzzzzzzzzzzz"
DATASET = "ds_01hzzzzzzzzzzzzzzzzzzzzzzz"
KEY = "key_01hzzzzzzzzzzzzzzzzzzzzzzz"


def app_of(client: TestClient) -> FastAPI:
    app: Any = client.app
    assert isinstance(app, FastAPI)
    return app


def calls(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of every route there is, with ids filled in."""
    found = []
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        path = route.path.replace("{job_id}", JOB).replace("{checkpoint_id}", CHECKPOINT)
        path = (
            path.replace("{analysis_id}", ANALYSIS)
            .replace("{dataset_id}", DATASET)
            .replace("{picture}", "bars.svg")
            .replace("{key_id}", KEY)
            .replace("{kind}", "optimizers")
            .replace("{name}", "favicon.png")
        )
        assert "{" not in path, f"say what {route.path} is called with"
        found += [(method, path) for method in route.methods or ()]
    return found


def test_every_route_asks_who_is_there(light: TestClient) -> None:
    async def nobody() -> None:
        raise Unauthenticated

    app_of(light).dependency_overrides[authenticate_request] = nobody
    walked = calls(app_of(light))
    assert len(walked) >= 19
    answers = {(method, path): light.request(method, path).status_code for method, path in walked}
    assert {path for (_, path), status in answers.items() if status != 401} == OPEN
    refused = light.get("/v1/jobs")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["code"] == "unauthenticated"


def test_a_browser_finds_the_page_that_takes_a_key(light: TestClient) -> None:
    """Once there is a key: the page and what it loads are open, what it asks for is not, and it knows how to ask."""
    _, text = create_key(service_of(light).db, owner="local")
    page = light.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(loaded) == 4
    assert {light.get(path).status_code for path in loaded} == {200}
    described = light.get("/openapi.json").json()
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {"key": []} in described["security"]
    assert {light.get(path).status_code for path in ("/v1/jobs", "/", "/metrics")} == {401}
    assert light.get("/v1/jobs", headers={"Authorization": f"Bearer {text}"}).status_code == 200


FOREIGN = [
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "a@127.0.0.1", ""),
    *("10.0.0.1", "0.0.0.0", "[::2]"),  # noqa: S104 - a name that browsers take for this machine
]


@pytest.mark.parametrize("host", FOREIGN)
def test_every_route_refuses_foreign_hosts(shared: TestClient, host: str) -> None:
    for method, path in calls(app_of(shared)):
        answer = shared.request(method, path, headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.8.8.8"])
def test_loopback_names_are_served(shared: TestClient, host: str) -> None:
    assert shared.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_two_host_headers_are_refused(shared: TestClient) -> None:
    answer = shared.get("/v1/jobs", headers=[("Host", "127.0.0.1:8000"), ("Host", "evil.example")])
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:3000",
        "http://localhost:8000",
        "file://",
        "http://127.0.0.1:8000.evil.example",
    ],
)
def test_pages_of_other_origins_are_refused(shared: TestClient, origin: str) -> None:
    """A page elsewhere on this machine is another origin too: it may show what strangers wrote."""
    assert shared.get("/v1/jobs", headers={"Origin": origin}).status_code == 403
    assert shared.post(f"/v1/jobs/{JOB}/cancel", headers={"Origin": origin}).status_code == 403


def test_our_own_pages_are_served(shared: TestClient) -> None:
    assert shared.get("/v1/jobs", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200


def test_forwarded_headers_change_nothing(shared: TestClient) -> None:
    spoofed = {"X-Forwarded-Host": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-HTTP-Method-Override": "DELETE"}
    assert shared.get("/v1/jobs", headers={"Host": "evil.example", **spoofed}).status_code == 403
    assert shared.get("/v1/jobs", headers=spoofed).status_code == 200


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""]
)
def test_bodies_that_forms_can_send_are_refused(shared: TestClient, kind: str) -> None:
    for path in ("/v1/jobs", "/v1/schedules/preview", f"/v1/jobs/{JOB}/cancel"):
        answer = shared.post(path, content=b'{"a": 1}', headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported"), path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])  # noqa: S104 - that is the point
def test_an_address_that_others_reach_needs_a_key(host: str) -> None:
    with pytest.raises(Misconfigured, match="not a loopback address"):
        require_key(host, active=False)
    require_key(host, active=True)
    require_key("127.0.0.1", active=False)


def test_what_counts_as_loopback() -> None:
    assert [host for host in ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost") if not is_loopback(host)] == []
    assert [host for host in ("::ffff:127.0.0.1", "127.0.0.1 ", "2130706433", "0x7f000001") if is_loopback(host)] == []
