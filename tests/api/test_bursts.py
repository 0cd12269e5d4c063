"""A key that asks for far more than it may: it is told to wait, others are served, and what was accepted is kept."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2

from core.jobs.keys import create_key
from core.settings import Limits
from tests.api.test_jobs import IRIS
from tests.support.broker import Broker
from tests.support.service import Service

ALLOWED = 12
BURST = 300


def test_a_burst_is_cut_off_at_the_limit_and_harms_nobody(
    serve: Callable[[str, Broker | None], Service], sqlite_url: str
) -> None:
    """A real process, and 25 times as many submits as the greedy key may make, from sixteen connections at once."""
    service = serve(sqlite_url, None)
    service.start_api()
    with service.database() as db:
        greedy = create_key(db, owner="alice", limits=Limits(requests_per_minute=ALLOWED))[1]
        calm = create_key(db, owner="alice", limits=Limits(requests_per_minute=1000))[1]
        other = create_key(db, owner="bob")[1]

    def post(key: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return service.http.post("/v1/jobs", json=IRIS, headers=headers)

    keys = [greedy] * BURST
    keys[5::10] = [other] * len(keys[5::10])
    with ThreadPoolExecutor(16) as pool:
        answers = list(zip(keys, pool.map(post, keys), strict=True))
    told = Counter((key == greedy, answer.status_code) for key, answer in answers)
    assert told == {(True, 201): ALLOWED, (True, 429): BURST * 9 // 10 - ALLOWED, (False, 201): BURST // 10}
    for _, answer in answers:
        if answer.status_code == 429:
            problem = answer.json()
            assert (problem["code"], problem["limit"], problem["allowed"]) == (
                *("quota_exceeded", "requests_per_minute", ALLOWED),
            )
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
    for key, owners in ((calm, {greedy}), (other, {other})):
        listed = service.http.get("/v1/jobs?limit=100", headers={"Authorization": f"Bearer {key}"}).json()["data"]
        accepted = {answer.json()["id"] for by, answer in answers if by in owners and answer.status_code == 201}
        assert {job["id"] for job in listed} == accepted
        assert {job["status"] for job in listed} == {"queued"}
