"""Paths of points over their functions, as pictures over HTTP."""

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from core.jobs.attempt.fence import Fence
from core.jobs.queue.submit import create_job
from tests.api.conftest import service_of
from tests.api.test_jobs import taken
from tests.api.test_metrics import put
from tests.support.jobs import small_spec
from tests.support.pictures import SVG, Picture, points


def point(service: Service, function: str, places: list[tuple[float, ...]], **data: Any) -> Fence:
    """A job that moved a point through these places."""
    body = {
        "name": function,
        "model": {"name": "point", "start": list(places[0])},
        "data": {"name": "function", "function": function, **data},
        "batch_size": "full",
    }
    create_job(service.db, small_spec(**body), owner="local")
    fence = taken(service)
    for name, column in zip("xy", zip(*places, strict=True), strict=False):
        put(service, fence, f"point.{name}", list(column))
    return fence


def pictured(client: TestClient, path: str, **params: Any) -> Picture:
    answer = client.get(path, params={"kind": "path", **params})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml"), answer.text
    return Picture.of(answer.text)


def ways(picture: Picture) -> list[list[tuple[float, float]]]:
    """In the data's own numbers, to a hundredth."""
    read = picture.reader()
    found = [points(part) for one in picture.all("path", "way") for part in one.get("d", "").split("M")[1:]]
    return [[(round(x, 2) + 0, round(y, 2) + 0) for x, y in map(read, line)] for line in found]


PLACES = [(1.0, 0.5), (0.5, -0.5), (0.25, 0.75)]


def test_a_path_of_a_job(client: TestClient) -> None:
    service = service_of(client)
    fence = point(service, "saddle", PLACES)
    picture = pictured(client, f"/v1/jobs/{fence.job_id}/plot.svg")
    assert {"saddle", "saddle: f = (x² - y²)/2 + y⁴/4", "start", "end"} <= set(picture.texts())
    (way,) = ways(picture)
    assert way == [pytest.approx(place, abs=0.011) for place in PLACES]
    part = pictured(client, f"/v1/jobs/{fence.job_id}/plot.svg", **{"from": 1, "to": 1}, width=400, height=500)
    assert (part.root.get("width"), part.root.get("height")) == ("400", "500")
    assert [len(way) for way in ways(part)] == [1]


def test_a_path_along_a_curve(light: TestClient) -> None:
    fence = point(service_of(light), "square", [(1.5,), (-1.0,)])
    (way,) = ways(pictured(light, f"/v1/jobs/{fence.job_id}/plot.svg", theme="dark"))
    assert way == [pytest.approx((1.5, 2.25), abs=0.02), pytest.approx((-1.0, 1.0), abs=0.02)]


def test_several_paths_over_one_function(client: TestClient) -> None:
    service = service_of(client)
    one = point(service, "quadratic", PLACES, h=[1, 20])
    other = point(service, "quadratic", PLACES[:2], h=[1, 20], noise=[[1, 0], [-1, 0]])
    jobs = f"{one.job_id},{other.job_id}"
    picture = pictured(client, "/v1/metrics/plot.svg", jobs=jobs)
    assert sorted(map(len, ways(picture))) == [2, 3]
    assert {f"quadratic …{fence.job_id[-6:]}" for fence in (one, other)} <= set(picture.texts())
    assert "quadratic: f = ½ Σ h_i x_i², h = 1, 20" in picture.texts()


def test_a_job_that_waits_shows_its_function(light: TestClient) -> None:
    spec = small_spec(
        model={"name": "point", "start": [1.0]}, data={"name": "function", "function": "square"}, batch_size="full"
    )
    job_id = create_job(service_of(light).db, spec, owner="local").job_id
    picture = pictured(light, f"/v1/jobs/{job_id}/plot.svg")
    assert (len(picture.all("path", "ground")), ways(picture)) == (1, [])


def test_of_a_long_path_every_so_many_th_place_is_drawn(light: TestClient) -> None:
    service = service_of(light)
    fence = point(service, "saddle", [(step / 10_000, -step / 10_000) for step in range(10_001)])
    picture = pictured(light, f"/v1/jobs/{fence.job_id}/plot.svg")
    assert "saddle, 4000 places" in [one.text for one in picture.root.iter(f"{SVG}title")]
    (way,) = ways(picture)
    assert (way[0], way[-1]) == (pytest.approx((0, 0), abs=0.01), pytest.approx((1, -1), abs=0.01))


def test_a_path_that_flew_off_and_ground_that_is_flat(light: TestClient) -> None:
    service = service_of(light)
    gone = point(service, "beale", [(1.0, 1.0), (-3e38, 3e38), (math.inf, math.nan)])
    flat = point(service, "quadratic", [(1.0, 1.0), (2.0, 3.0)], h=[0, 0])
    assert [len(way) for way in ways(pictured(light, f"/v1/jobs/{gone.job_id}/plot.svg"))] == [2]
    assert pictured(light, f"/v1/jobs/{gone.job_id}/plot.svg", **{"from": 1}).all("path", "way") == []
    assert [len(way) for way in ways(pictured(light, f"/v1/jobs/{flat.job_id}/plot.svg"))] == [2]


def test_what_has_no_path_is_refused(shared: TestClient) -> None:
    service = service_of(shared)
    saddle, square = (
        point(service, name, places).job_id for name, places in (("saddle", PLACES), ("square", [(1.0,)]))
    )
    steep, flat = (point(service, "quadratic", [(1.0,)], h=[h]).job_id for h in (1, 2))
    deep = point(service, "quadratic", [(1.0, 1.0, 1.0)], h=[1, 2, 3]).job_id
    network = create_job(service.db, small_spec(), owner="local").job_id
    for path, pointer, message in (
        (f"jobs/{network}/plot.svg?kind=path", "/query/kind", "trains mlp, not a point"),
        (f"jobs/{deep}/plot.svg?kind=path", "/query/kind", "this function has 3"),
        (f"jobs/{saddle}/plot.svg?kind=walk", "/query/kind", "'curves' or 'path'"),
        (f"jobs/{saddle}/plot.svg?kind=path&series=lr", "/query/series", "does not apply"),
        (f"jobs/{saddle}/plot.svg?kind=path&x=step", "/query/x", "does not apply"),
        (f"jobs/{saddle}/plot.svg?kind=path&from=2&to=1", "/query/to", "less than from"),
        (f"jobs/{saddle}/plot.svg?kind=path&height=160", "/query/height", "too small for this picture"),
        (f"metrics/plot.svg?kind=path&jobs={saddle},{square}", "/query/jobs", "different functions"),
        (f"metrics/plot.svg?kind=path&jobs={steep},{flat}", "/query/jobs", "different functions"),
        (f"metrics/plot.svg?kind=path&jobs={steep},{network}", "/query/kind", "not a point"),
        (f"metrics/plot.svg?kind=path&jobs={steep}&mean=true", "/query/mean", "does not apply"),
        (f"metrics/plot.svg?jobs={saddle},{square}", "/query/series", "required"),
    ):
        answer = shared.get(f"/v1/{path}")
        assert answer.status_code == 422, path
        assert answer.json()["code"] == "invalid_request"
        problem = answer.json()["errors"][0]
        assert problem["pointer"] == pointer
        assert message in problem["message"]
