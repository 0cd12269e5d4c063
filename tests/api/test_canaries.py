"""Secrets in the settings and in requests show up in no output, no log file and no error body."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from pydantic import BaseModel, SecretStr

from core import redact as redaction
from core.redact import redact_secrets, register_secrets
from tests.support.broker import Broker
from tests.support.service import Part, Service, until

Serve = Callable[[str, Broker | None], Service]
CANARY = "canary7Xq"
DATABASE = f"postgresql://basin:{CANARY}%2FDbPass@127.0.0.1:1/basin?connect_timeout=1&sslpassword={CANARY}Ssl"
BROKER = f"redis://:{CANARY}BrokerPass@127.0.0.1:1/0"
KEY = f"bsn_01m84c0rnffgxad9jfym4h0ta6_{CANARY}{'k' * 40}"
SIGNED = f"https://s3.example/b/k?X-Amz-Credential={CANARY}C&X-Amz-Date=1&X-Amz-Signature={CANARY}S"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DATABASE, "postgresql://basin:***@127.0.0.1:1/basin?connect_timeout=1&sslpassword=***"),
        (f"Error 111 connecting to {BROKER}.", "Error 111 connecting to redis://:***@127.0.0.1:1/0."),
        (f"GET /v1/jobs/{KEY}?x=1", "GET /v1/jobs/bsn_01m84c0rnffgxad9jfym4h0ta6_***?x=1"),
        (SIGNED, "https://s3.example/b/k?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***"),
        (f"Authorization: Bearer {CANARY}Token", "Authorization: Bearer ***"),
        (f"(b'authorization', b'Basic {CANARY}Token=')", "(b'authorization', b'Basic ***')"),
        (f'{{"password": "{CANARY}", "n": 1}}', '{"password": "***", "n": 1}'),
        (f"host=db password={CANARY} user=basin", "host=db password=*** user=basin"),
        (rf'{{"event": "{{\"secret_access_key\": \"{CANARY}\"}}"}}', r'{"event": "{\"secret_access_key\": \"***\"}"}'),
    ],
)
def test_secrets_by_their_shape(text: str, expected: str) -> None:
    assert redact_secrets(text) == expected
    assert redact_secrets(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/jobs/job_01m84c0rnffgxad9jfym4h0ta6/metrics?series=train.loss&max_points=3 200",
        "listening on http://127.0.0.1:8000",
        'password authentication failed for user "basin"',
        "a bearer key is needed",
        "sqlite:////srv/.basin/basin.db",
        "2026-11-23T14:12:43Z file://host:99/path mail me@example.org",
    ],
)
def test_the_rest_stays_readable(text: str) -> None:
    assert redact_secrets(text) == text


@pytest.mark.parametrize("piece", ["a", "a+", "://a", "a:@", "password", "secret ", "bearer ", "token: ", "?sig="])
def test_long_nonsense_costs_no_more_than_its_length(piece: str) -> None:
    """A quarter of a megabyte is milliseconds; a pattern that is quadratic would meet the limit of the whole run."""
    assert len(redact_secrets(piece * (250_000 // len(piece)))) > 0


def test_secrets_of_the_settings_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without any sign around them, and as they were before they were written into a URL."""
    monkeypatch.setattr(redaction, "_known", set())

    class Some(BaseModel):
        url: SecretStr | None = SecretStr(DATABASE)
        token: SecretStr = SecretStr(f"{CANARY}-whole")
        short: SecretStr = SecretStr("basin")
        plain: str = "not a secret"

    register_secrets(Some())
    said = f"{CANARY}%2FDbPass {CANARY}/DbPass {CANARY}Ssl {CANARY}-whole basin, not a secret"
    assert redact_secrets(said) == "*** *** *** *** basin, not a secret"


def test_no_canary_in_any_output(serve: Serve, home: Path) -> None:
    """A real api and a real worker, at their most talkative, with a database and a broker that refuse."""
    service = serve(DATABASE, None)
    service.environment |= {"BASIN_BROKER_URL": BROKER, "BASIN_LOG_LEVEL": "DEBUG", "BASIN_LOG_FORMAT": "json"}
    api = service.start_api()
    service.environment["BASIN_LOG_FORMAT"] = "text"
    worker = service.start("worker", [])
    until("the worker misses the database", lambda: "the database is away" in worker.said)
    answers = provoked(service.http)
    until("the reconciler misses it", lambda: "the reconciler will try again" in api.said)
    asked = {line["logger"] for line in json_lines(api) if line.get("request_id") == "mine-7"}
    assert {"basin.access", "basin.api"} <= asked, "also what is said on the way"
    service.stop()
    assert {answer.status_code for answer in answers} >= {404, 503}
    written = "".join(path.read_bytes().decode(errors="replace") for path in home.rglob("*") if path.is_file())
    for said in (api.said, worker.said, written, *(answer.text for answer in answers)):
        assert CANARY not in said, re.findall(f".{{0,200}}{CANARY}.{{0,40}}", said)[:3]


def provoked(http: httpx2.Client) -> list[httpx2.Response]:
    """Mistakes, with secrets where none belong."""
    http.headers["Authorization"] = f"Bearer {KEY}"
    spec = {"model": {"name": KEY}, "data": {"name": "iris"}, "optimizer": {"name": "sgd"}, KEY: 1}
    return [
        http.get(f"/v1/jobs/{KEY}"),
        http.get(f"/{KEY}?password={CANARY}"),
        http.get("/v1/jobs", headers={"X-Request-ID": "mine-7"}),
        http.get("/v1/jobs", params={"status": SIGNED}),
        http.get("/readyz"),
        http.get("/metrics"),
        http.post("/v1/jobs", json=spec, headers={"Idempotency-Key": KEY}),
        http.post("/v1/jobs", json={"data": SIGNED}),
    ]


def json_lines(part: Part) -> list[dict[str, object]]:
    """One object a line, and nothing else."""
    whole = part.said[: part.said.rindex("\n")]
    found = [json.loads(line) for line in whole.splitlines()]
    assert all({"event", "level", "logger", "timestamp"} <= set(line) for line in found)
    return found


def test_the_lines_of_a_worker_name_job_and_attempt(serve: Serve, sqlite_url: str) -> None:
    """From its claim to its end, also from the threads that beat and record."""
    service = serve(sqlite_url, None)
    service.environment |= {"BASIN_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}
    worker = service.start_worker()
    service.start_api()
    spec = {
        "model": {"name": "logistic"},
        "data": {"name": "iris"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "epochs": 1,
    }
    job_id = service.submit(spec)
    assert service.ended(job_id)["status"] == "succeeded"
    worker.stop()
    told = [line for line in json_lines(worker) if job_id in str(line["event"])]
    assert [line["event"] for line in told] == [
        *(f"job {job_id} attempt 1 begins in slot 0", f"job {job_id} attempt 1: succeeded"),
    ]
    assert all((line["job_id"], line["attempt"]) == (job_id, 1) for line in told)
