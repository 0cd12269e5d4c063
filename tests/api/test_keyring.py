"""What the api remembers of keys: for how long, and how many requests a key may make."""

import hmac
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api import key_cache
from api.key_cache import FRESH_SECONDS, MOST_KEPT, Keyring
from core.db.session import Database, open_database
from core.errors import QuotaExceeded, Unauthenticated
from core.jobs import keys
from core.jobs.keys import create_key, get_key, revoke_key
from core.settings import Limits, Settings
from tests.api.conftest import service_of
from tests.api.test_jobs import IRIS


class Clock:
    """Stands in for the monotonic clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(key_cache, "time", made)
    return made


@pytest.fixture
def database(sqlite_url: str) -> Any:
    opened = open_database(sqlite_url)
    yield opened
    opened.close()


def test_a_revoked_key_opens_nothing_after_five_seconds(database: Database, clock: Clock) -> None:
    """And until then the database is not asked: a thousand polls a second are one question every three."""
    ring = Keyring(database, Settings())
    key, text = create_key(database, owner="alice")
    assert ring.recall_key(text) is None
    assert ring.look_up(text).id == key.id
    revoke_key(database, "alice", key.id)
    assert FRESH_SECONDS < 5
    assert ring.recall_key(text) is not None
    clock.now += 5
    assert ring.recall_key(text) is None
    with pytest.raises(Unauthenticated):
        ring.look_up(text)


def test_a_key_ends_in_time_though_it_is_remembered(database: Database, clock: Clock) -> None:
    ring = Keyring(database, Settings())
    _, text = create_key(database, owner="alice", lasts=2.0)
    ring.look_up(text)
    clock.now += 1.0
    assert ring.recall_key(text) is not None
    clock.now += 1.5
    assert ring.recall_key(text) is None


def test_a_remembered_key_is_still_compared(database: Database, clock: Clock) -> None:
    ring = Keyring(database, Settings())
    _, text = create_key(database, owner="alice")
    ring.look_up(text)
    forged = text[:-1] + ("0" if text[-1] != "0" else "1")
    assert ring.recall_key(forged) is None
    with pytest.raises(Unauthenticated):
        ring.look_up(forged)


def test_every_guess_costs_the_same(database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question to the database and one comparison of equal length, whatever is wrong: time tells nothing."""
    ring = Keyring(database, Settings())
    revoked, gone = create_key(database, owner="alice")
    revoke_key(database, "alice", revoked.id)
    _, ended = create_key(database, owner="alice", lasts=1.0)
    time.sleep(1.1)
    _, good = create_key(database, owner="alice")
    wrong = good[:-52] + gone[-52:]
    unknown = f"bsn_{'0' * 26}_{good[-52:]}"
    work: list[object] = []
    compare, find = hmac.compare_digest, keys.find_key
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (work.append((len(a), len(b))), compare(a, b))[1])
    monkeypatch.setattr(key_cache, "find_key", lambda db, key_id: (work.append("question"), find(db, key_id))[1])
    for text in (gone, ended, wrong, unknown):
        work.clear()
        assert ring.recall_key(text) is None
        with pytest.raises(Unauthenticated):
            ring.look_up(text)
        assert work == ["question", (64, 64)]


def test_guessing_does_not_fill_the_memory(database: Database, clock: Clock) -> None:
    ring = Keyring(database, Settings())
    secret = "0" * 52
    for number in range(MOST_KEPT + 50):
        with pytest.raises(Unauthenticated):
            ring.look_up(f"bsn_{number:026d}_{secret}")
    assert len(ring._reads) == MOST_KEPT


def test_that_there_was_a_key_is_never_forgotten(database: Database, clock: Clock) -> None:
    ring = Keyring(database, Settings())
    assert not ring.any_made()
    assert ring.recall_any_made() is False
    key, _ = create_key(database, owner="alice")
    clock.now += 5
    assert ring.recall_any_made() is None
    assert ring.any_made()
    revoke_key(database, None, key.id)
    clock.now += 5
    assert ring.recall_any_made() is True
    assert Keyring(database, Settings()).any_made()


def test_any_minute_holds_as_many_requests_as_allowed(database: Database, clock: Clock) -> None:
    """Five at 0 s, 12 s, …, 48 s; the sixth fits when the first is a minute old, not when the minute is full."""
    ring = Keyring(database, Settings())
    limits = Limits(requests_per_minute=5)
    for _ in range(5):
        ring.count_request("key_a", limits)
        clock.now += 12
    clock.now -= 2  # 58 s after the first
    with pytest.raises(QuotaExceeded) as refused:
        ring.count_request("key_a", limits)
    told = {"limit": "requests_per_minute", "allowed": 5, "used": 5, "retry_after_seconds": 2}
    assert refused.value.extra == told
    ring.count_request("key_b", limits)
    clock.now += 2
    ring.count_request("key_a", limits)
    with pytest.raises(QuotaExceeded) as refused:
        ring.count_request("key_a", limits)
    assert refused.value.extra["retry_after_seconds"] == 12


def test_defaults_hold_where_a_key_says_nothing(database: Database) -> None:
    ring = Keyring(database, Settings(key_limits=Limits(queued_jobs=9, running_jobs=2)))
    key, text = create_key(database, owner="alice", limits=Limits(running_jobs=5))
    assert ring.look_up(text).limits == Limits(queued_jobs=9, running_jobs=5)
    assert get_key(database, "alice", key.id).limits == Limits(running_jobs=5)


def test_limits_are_answered_with_figures(light: TestClient) -> None:
    """429, when to come back, and what was used up; what was accepted stays."""
    db = service_of(light).db
    limits = Limits(queued_jobs=2, requests_per_minute=4)
    _, text = create_key(db, owner="alice", limits=limits)
    headers = {"Authorization": f"Bearer {text}"}
    kept = [light.post("/v1/jobs", json=IRIS, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in kept] == [201, 201]
    full = light.post("/v1/jobs", json=IRIS, headers=headers)
    assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (429, "quota_exceeded", "2")
    assert (full.json()["limit"], full.json()["allowed"]) == ("queued_jobs", 2)
    listed = light.get("/v1/jobs", headers=headers)
    assert [job["id"] for job in listed.json()["data"]] == [answer.json()["id"] for answer in kept][::-1]
    busy = light.get("/v1/jobs", headers=headers)
    assert (busy.status_code, busy.json()["limit"]) == (429, "requests_per_minute")
    assert 1 <= int(busy.headers["retry-after"]) == busy.json()["retry_after_seconds"] <= 60
    _, other = create_key(db, owner="alice", scopes=("read",))
    assert light.get("/v1/jobs", headers={"Authorization": f"Bearer {other}"}).status_code == 200


def test_nobody_hands_out_more_than_they_have(light: TestClient) -> None:
    db = service_of(light).db
    limits = Limits(queued_jobs=2, running_jobs=1)
    _, text = create_key(db, owner="alice", scopes=("admin",), limits=limits)
    headers = {"Authorization": f"Bearer {text}"}
    answer = light.post("/v1/keys", json={"limits": {"queued_jobs": 3}}, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/limits/queued_jobs")
    made = light.post("/v1/keys", json={"limits": {"queued_jobs": 1, "requests_per_minute": 9}}, headers=headers)
    assert made.json()["limits"] == {
        "queued_jobs": 1,
        "running_jobs": 1,
        "stored_bytes": None,
        "datasets": None,
        "dataset_bytes": None,
        "requests_per_minute": 9,
    }
