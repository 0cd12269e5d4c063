"""Who listens is let in again and again: an open stream and a long wait end with the key that opened them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.exc import OperationalError

from api.key_cache import FRESH_SECONDS
from api.live_poller import StreamPace
from core.jobs.keys import create_key, revoke_key
from core.jobs.queue.submit import create_job
from tests.api.test_events import EVENT_STREAM, House, serving
from tests.support.jobs import small_spec
from tests.support.service import until


@pytest.fixture
def house(tmp_path: Path, sqlite_url: str) -> Iterator[House]:
    """One that looks at keys a hundred times as often as others do; memory of keys is dropped by `forget`."""
    with serving(tmp_path, sqlite_url, most=20) as one:
        one.service.live.pace = StreamPace(check_seconds=0.05)
        yield one


class Listener(threading.Thread):
    """Reads a stream to its end."""

    def __init__(self, url: str, key: str = "") -> None:
        super().__init__()
        self.url, self.headers = url, EVENT_STREAM | ({"Authorization": f"Bearer {key}"} if key else {})
        self.lines: list[str] = []
        self.start()
        until("it hears something", lambda: "event: status" in self.lines)

    def run(self) -> None:
        with httpx2.stream("GET", self.url, headers=self.headers, timeout=20, trust_env=False) as answer:
            for line in answer.iter_lines():
                self.lines.append(line)

    def ended(self) -> bool:
        self.join(10.0)
        return not self.is_alive()


def waiting_job(house: House, owner: str = "alice") -> str:
    return f"{house.url}/v1/jobs/{create_job(house.service.db, small_spec(), owner=owner).job_id}"


def test_a_stream_ends_with_its_key_and_no_other_does(house: House) -> None:
    db = house.service.db
    (first, mine), (_, other) = create_key(db, owner="alice"), create_key(db, owner="alice")
    url = waiting_job(house)
    revoked, kept = Listener(f"{url}/events", mine), Listener(f"{url}/events", other)
    assert FRESH_SECONDS + 5.0 <= 10.0, "what the docs promise"
    revoke_key(db, "alice", first.id)
    house.service.keyring.forget_key(first.id)
    assert revoked.ended()
    assert kept.is_alive()
    again = httpx2.get(f"{url}/events", headers=revoked.headers, trust_env=False)
    assert again.status_code == 401
    house.service.live.close()
    assert kept.ended()


def test_a_stream_without_a_key_ends_when_keys_begin(house: House) -> None:
    listener = Listener(f"{waiting_job(house, 'local')}/events")
    key, _ = create_key(house.service.db, owner="alice")
    house.service.keyring.forget_key(key.id)
    assert listener.ended()


def test_a_stream_lives_through_a_database_that_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can say whether its key still opens: whoever was let in stays."""
    looks = threading.Semaphore(0)

    def away(_key_id: str) -> None:
        looks.release()
        raise OperationalError("SELECT 1", {}, ConnectionRefusedError("db:5432"))

    _, mine = create_key(house.service.db, owner="alice")
    listener = Listener(f"{waiting_job(house)}/events", mine)
    keyring = house.service.keyring
    monkeypatch.setattr(keyring, "_read_key", away)
    monkeypatch.setattr(keyring, "recall_key", lambda _text: None)
    for _ in range(3):
        assert looks.acquire(timeout=10.0)
    assert listener.is_alive()
    house.service.live.close()
    assert listener.ended()


def test_a_wait_that_outlives_its_key_is_answered_with_a_refusal(house: House) -> None:
    db = house.service.db
    key, text = create_key(db, owner="alice")
    url, answers = waiting_job(house), []
    headers = {"Authorization": f"Bearer {text}", "Prefer": "wait=1"}
    thread = threading.Thread(target=lambda: answers.append(httpx2.get(url, headers=headers, trust_env=False)))
    thread.start()
    until("it waits", lambda: house.service.live.open_count)
    revoke_key(db, "alice", key.id)
    house.service.keyring.forget_key(key.id)
    thread.join()
    assert [answer.status_code for answer in answers] == [401]
