"""Series over HTTP: cut, thinned, and honest about NaN."""

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from core.jobs.attempt.fence import Fence
from core.jobs.metrics.chunks import Chunk, MetricPoints, record_points
from core.jobs.queue.submit import create_job
from tests.api.conftest import service_of
from tests.api.test_jobs import taken
from tests.support.jobs import small_spec


@pytest.fixture
def fence(service: Service) -> Fence:
    """A running job of ours."""
    create_job(service.db, small_spec(), owner="local")
    return taken(service)


def put(service: Service, fence: Fence, name: str, values: list[float]) -> None:
    """Steps 0, 1, …, measured at 2026-01-01T00:00:00Z and each millisecond after it."""
    for number, first in enumerate(range(0, len(values), 1000)):
        part = values[first : first + 1000]
        steps = list(range(first, first + len(part)))
        times = [1767225600 + step / 1000 for step in steps]
        record_points(service.db, fence, [Chunk(name, 0, number, MetricPoints(name, steps, part, times))])


def read(client: TestClient, fence: Fence, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/jobs/{fence.job_id}/metrics", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.json()["job"] == fence.job_id
    series: dict[str, Any] = answer.json()["series"]
    return series


def test_series_come_with_steps_values_and_times(client: TestClient, service: Service, fence: Fence) -> None:
    put(service, fence, "train.loss", [0.5, 0.25, 0.1])
    put(service, fence, "lr", [0.1, math.nan, -math.inf])
    assert read(client, fence) == {
        "lr": {
            "steps": [0, 1, 2],
            "values": [0.1, "NaN", "-Infinity"],
            "times": ["2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.001Z", "2026-01-01T00:00:00.002Z"],
        },
        "train.loss": {
            "steps": [0, 1, 2],
            "values": [0.5, 0.25, 0.1],
            "times": ["2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.001Z", "2026-01-01T00:00:00.002Z"],
        },
    }
    names = client.get(f"/v1/jobs/{fence.job_id}/metrics/names").json()
    assert names == {"job": fence.job_id, "names": ["lr", "train.loss"]}


def test_names_pick_series_and_one_without_points_is_empty(client: TestClient, service: Service, fence: Fence) -> None:
    put(service, fence, "train.loss", [1.0])
    put(service, fence, "lr", [1.0])
    found = read(client, fence, series="val.loss,train.loss,train.loss")
    assert list(found) == ["val.loss", "train.loss"]
    assert found["val.loss"] == {"steps": [], "values": [], "times": []}


def test_from_and_to_cut(client: TestClient, service: Service, fence: Fence) -> None:
    put(service, fence, "lr", [float(t) for t in range(2500)])
    assert read(client, fence, **{"from": 998, "to": 1001})["lr"]["steps"] == [998, 999, 1000, 1001]
    assert read(client, fence, **{"from": 2499})["lr"]["values"] == [2499.0]
    assert read(client, fence, to=0)["lr"]["steps"] == [0]
    assert read(client, fence, **{"from": 5000}) == {}


def test_thinning_keeps_extremes_and_ends(client: TestClient, service: Service, fence: Fence) -> None:
    values = [math.sin(t / 50) for t in range(3000)]
    values[1234], values[2345], values[777] = 99.0, -99.0, math.nan
    put(service, fence, "train.loss", values)
    assert len(read(client, fence)["train.loss"]["steps"]) <= 500
    thinned = read(client, fence, max_points=20)["train.loss"]
    assert len(thinned["steps"]) == len(thinned["values"]) == len(thinned["times"]) <= 20
    assert {99.0, -99.0, "NaN"} <= set(thinned["values"])
    assert (thinned["steps"][0], thinned["steps"][-1]) == (0, 2999)
    assert thinned["steps"] == sorted(thinned["steps"])
    assert read(client, fence, max_points=3000)["train.loss"]["steps"] == list(range(3000))


WRONG = [
    *(
        "max_points=1",
        "max_points=1000000000",
        "max_points=a",
        "from=-1",
        "from=x",
        "from=1.5",
        "to=9223372036854775808",
    ),
    *("series=", "series=a,,b", "series=%00", "series=" + "a" * 201, "series=" + "a," * 64 + "a"),
    *("sereis=lr", "to=1&from=2", "to=9223372036854775808"),
]


@pytest.mark.parametrize("query", WRONG)
def test_wrong_parameters_are_refused(shared: TestClient, query: str) -> None:
    job_id = create_job(service_of(shared).db, small_spec(), owner="local").job_id
    answer = shared.get(f"/v1/jobs/{job_id}/metrics?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == f"/query/{query.partition('=')[0]}"
