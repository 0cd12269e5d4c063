"""Curves as tables, comparisons and pictures, over HTTP."""

import base64
import csv
import hashlib
import io
import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.csv_response import CsvResponse
from api.dependencies import Service
from api.routes.schedules import EXAMPLE
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.queue.submit import create_job
from core.jobs.verbs import request_cancel
from core.lifecycle import Status
from tests.api.conftest import service_of
from tests.api.test_jobs import taken
from tests.api.test_metrics import put
from tests.support.jobs import small_spec
from tests.support.pictures import SVG, Picture

NOBODY = "job_01hzzzzzzzzzzzzzzzzzzzzzzz"
UNREADABLE = "<b>&\"'"


@pytest.fixture
def here(light: TestClient) -> Service:
    return service_of(light)


def started(service: Service, owner: str = "local", **changes: Any) -> Fence:
    create_job(service.db, small_spec(**changes), owner=owner)
    return taken(service)


def pictured(client: TestClient, path: str, **params: Any) -> Picture:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/svg+xml"
    return Picture.of(answer.text)


def test_csv_is_long_or_wide(light: TestClient, here: Service) -> None:
    fence = started(here)
    put(here, fence, "lr", [0.1, -0.5])
    put(here, fence, "val.loss", [math.nan, -math.inf, 3.0])
    path = f"/v1/jobs/{fence.job_id}/metrics"
    answer = light.get(path, params={"format": "csv", "series": "val.loss,lr"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{fence.job_id}.csv"'
    assert answer.text.splitlines() == [
        "step,series,value,time",
        "0,val.loss,NaN,2026-01-01T00:00:00.000Z",
        "1,val.loss,-Infinity,2026-01-01T00:00:00.001Z",
        "2,val.loss,3.0,2026-01-01T00:00:00.002Z",
        "0,lr,0.1,2026-01-01T00:00:00.000Z",
        "1,lr,-0.5,2026-01-01T00:00:00.001Z",
    ]
    wide = light.get(path, params={"format": "csv", "shape": "wide", "series": "lr,val.loss,nothing"}).text
    assert wide.splitlines() == ["step,lr,val.loss,nothing", "0,0.1,NaN,", "1,-0.5,-Infinity,", "2,,3.0,"]
    assert light.get(path, params={"format": "json"}).json() == light.get(path).json()
    assert light.get(path, params={"format": "csv", "from": 9}).text == "step,series,value,time\r\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start: str) -> None:
    rows = list(
        csv.reader(io.StringIO(bytes(CsvResponse([[f'{start}cmd|"x"', -1.5]], "a.csv").body).decode(), newline=""))
    )
    assert rows == [[f'\'{start}cmd|"x"', "-1.5"]]


def test_a_name_asked_for_is_no_formula_either(light: TestClient, here: Service) -> None:
    params = {"format": "csv", "shape": "wide", "series": "=HYPERLINK(1)"}
    answer = light.get(f"/v1/jobs/{started(here).job_id}/metrics", params=params)
    assert answer.text == "step,'=HYPERLINK(1)\r\n"


def test_jobs_are_compared(client: TestClient, service: Service) -> None:
    one, two = started(service, name="one"), started(service)
    put(service, one, "val.loss", [1.0, 2.0])
    put(service, two, "val.loss", [3.0, math.inf, 5.0])
    jobs = f"{two.job_id},{one.job_id}"
    answer = client.get("/v1/metrics/compare", params={"jobs": jobs, "series": "val.loss,lr", "x": "epoch"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["x"] == "epoch"
    assert body["jobs"] == [{"id": two.job_id, "name": None}, {"id": one.job_id, "name": "one"}]
    found = body["series"]["val.loss"]
    assert found["x"] == [0.0, 0.25, 0.5]
    assert found["values"] == {two.job_id: [3.0, "Infinity", 5.0], one.job_id: [1.0, 2.0, None]}
    assert found["count"] == [2, 2, 1]
    assert found["mean"] == [2.0, "NaN", None]
    assert (found["low"][0], found["high"][0]) == (pytest.approx(2 - 12.706205), pytest.approx(2 + 12.706205))
    assert found["interpolated"] is False
    assert body["series"]["lr"]["x"] == []


def test_series_that_there_are_not(client: TestClient, service: Service) -> None:
    """A slip is told at once; what a job may still have to say is waited for until it ends."""
    fence, waiting = started(service), create_job(service.db, small_spec(), owner="local").job_id
    path = f"/v1/jobs/{fence.job_id}/plot.svg"
    assert "val.los" in pictured(client, path, series="val.los").texts(), "it has no points at all yet"
    put(service, fence, "train.loss", [2.0, 1.0])
    put(service, fence, "val.accuracy", [0.1, 0.99])
    for allowed in ("val.loss", "test.accuracy", "train.loss,swa.val.loss"):
        pictured(client, path, series=allowed)
    slips = {"val.acuracy": 'did you mean "val.accuracy"?', "train.lsos": 'did you mean "train.loss"?', "qqq": None}
    for slip, hint in slips.items():
        both = {"jobs": f"{fence.job_id},{waiting}", "series": f"train.loss,{slip}"}
        for answer in (client.get(path, params={"series": slip}), client.get("/v1/metrics/plot.svg", params=both)):
            assert answer.status_code == 422, slip
            message = f'there is no series "{slip}"; there are: train.loss, val.accuracy'
            assert answer.json()["errors"] == [{"pointer": "/query/series", "message": message, "hint": hint}]
    finish_job(service.db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    assert client.get(path, params={"series": "val.loss"}).status_code == 422
    assert client.get(path, params={"series": "val.accuracy"}).status_code == 200
    request_cancel(service.db, "default", waiting)
    nothing = client.get(f"/v1/jobs/{waiting}/plot.svg", params={"series": "val.loss"})
    assert "there are: none" in nothing.json()["errors"][0]["message"]


def test_a_picture_of_a_job(client: TestClient, service: Service) -> None:
    fence = started(service, name=UNREADABLE)
    put(service, fence, "train.loss", [2.0, 1.0, math.nan, 0.5, 0.25])
    put(service, fence, "val.accuracy", [0.1, 0.99])
    picture = pictured(client, f"/v1/jobs/{fence.job_id}/plot.svg")
    assert {UNREADABLE, "loss", "accuracy", "train.loss", "val.accuracy", "optimizer step"} <= set(picture.texts())
    assert [len(line) for line in picture.lines("train.loss")] == [2, 2]
    assert len(picture.all("path", "gap")) == 1
    alone = pictured(
        client, f"/v1/jobs/{fence.job_id}/plot.svg", series="train.loss", x="epoch", y="log", **{"from": 1}
    )
    read = alone.reader(log=True)
    (last,) = alone.lines("train.loss")
    assert [read(pixel) for pixel in last] == [
        (pytest.approx(0.75, abs=0.01), pytest.approx(0.5, rel=0.01)),
        (pytest.approx(1.0, abs=0.01), pytest.approx(0.25, rel=0.01)),
    ]
    assert alone.root.find(f"{SVG}title") is not None
    shares = pictured(client, f"/v1/jobs/{fence.job_id}/plot.svg", series="val.accuracy")
    (((_, low), (_, high)),) = shares.lines("val.accuracy")
    assert low - high == pytest.approx(260 * 0.89, abs=0.02)  # the axis, 260 pixels, goes from 0 to 1 and no further


def test_a_spike_among_many_points_stays_visible(light: TestClient, here: Service) -> None:
    fence = started(here)
    values = [1.0] * 20_000
    values[7777], values[12_345] = 99.0, -99.0
    put(here, fence, "train.loss", values)
    answer = light.get(f"/v1/jobs/{fence.job_id}/plot.svg", params={"width": 400})
    picture = Picture.of(answer.text)
    ((line),) = picture.lines("train.loss")
    assert len(line) <= 800
    read = picture.reader()
    levels = [read(pixel)[1] for pixel in line]
    assert (max(levels), min(levels)) == (pytest.approx(99, abs=1), pytest.approx(-99, abs=1))
    high = read(line[levels.index(max(levels))])[0]
    assert high == pytest.approx(7777, abs=60)


def test_several_jobs_in_one_picture(client: TestClient, service: Service) -> None:
    fences = [started(service, name=name) for name in ("one", "two")]
    for place, fence in enumerate(fences):
        put(service, fence, "val.loss", [1.0 + place, 0.5 + place])
    params = {"jobs": ",".join(fence.job_id for fence in fences), "series": "val.loss"}
    picture = pictured(client, "/v1/metrics/plot.svg", **params)
    read = picture.reader()
    assert [round(read(pixel)[1], 1) for pixel in picture.lines("two")[0]] == [2.0, 1.5]
    assert {"val.loss", "one", "two"} <= set(picture.texts())
    both = pictured(client, "/v1/metrics/plot.svg", **params, mean="true")
    assert [round(both.reader()(pixel)[1], 1) for pixel in both.lines("mean of 2 jobs, 95 % interval")[0]] == [1.5, 1.0]
    assert len(both.all("path", "band")) == 1
    assert "one" not in both.texts()


def test_a_schedule_as_a_picture(light: TestClient) -> None:
    answer = light.post("/v1/schedules/preview", params={"format": "svg"}, json=EXAMPLE)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    picture = Picture.of(answer.text)
    assert {"warm-up", "SWA starts", "cosine", "weights collected"} <= set(picture.texts())
    read = picture.reader()
    # 1257 examples in batches of 32 are 40 steps an epoch; SWA starts after 23 of 30 epochs and collects after each.
    collected = [read(dot)[0] for dot in picture.dots("weights collected", "collected")]
    assert collected == [pytest.approx(step, abs=1) for step in range(920, 1201, 40)]
    (shade,) = picture.all("rect", "shade")
    assert read((float(shade.get("x", "")) + float(shade.get("width", "")), 0))[0] == pytest.approx(40, abs=1)
    (line,) = picture.lines("cosine")
    assert max(read(pixel)[1] for pixel in line) == pytest.approx(0.1, abs=1e-3)
    epochs = light.post("/v1/schedules/preview", params={"format": "svg", "x": "epoch"}, json=EXAMPLE)
    assert [label for label, _ in Picture.of(epochs.text).ticks("x")] == [0, 5, 10, 15, 20, 25, 30]
    assert light.post("/v1/schedules/preview", params={"format": "json"}, json=EXAMPLE).json()["total_steps"] == 1200


def test_restarts_momentum_and_an_early_end_as_a_picture(light: TestClient) -> None:
    """Ten steps an epoch: cycles of 10 and 20 steps; the rate is below 0.001 near the end of the second."""
    run = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "epochs": 7, "batch_size": 10, "examples": 100}
    schedule = {"name": "cosine_restarts", "T_0": "1ep", "T_mult": 2}

    def drawn(**fields: Any) -> Picture:
        answer = light.post("/v1/schedules/preview", params={"format": "svg"}, json=run | fields)
        assert answer.status_code == 200, answer.text
        return Picture.of(answer.text)

    restarts = drawn(schedule=schedule)
    assert "restart" in restarts.texts()
    assert len(restarts.all("path", "rule")) == 2  # at 10 and at 30; at 70 the run is over
    ended = drawn(schedule=schedule, stop_lr=0.001)
    assert len(ended.all("path", "rule")) == 2  # a restart, and the end in the second cycle
    assert "below stop_lr" in ended.texts()
    cycled = {"name": "cyclic", "step_size_up": 5, "cycle_momentum": {"base": 0.8, "max": 0.9}}
    assert "momentum" in drawn(schedule=cycled).texts()
    plateau = {"name": "plateau", "patience": 1}
    assert "reduced after a plateau" in drawn(schedule=plateau, metrics=[1.0, 1.0]).texts()


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_a_picture_may_do_nothing_but_wear_its_own_style(light: TestClient, here: Service, theme: str) -> None:
    answer = light.get(f"/v1/jobs/{started(here).job_id}/plot.svg", params={"theme": theme})
    (sheet,) = Picture.of(answer.text).root.iter(f"{SVG}style")
    digest = base64.b64encode(hashlib.sha256((sheet.text or "").encode()).digest()).decode()
    assert answer.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; sandbox"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert light.get(f"/v1/jobs/{NOBODY}/plot.svg").headers["content-type"] == "application/problem+json"


PLOT, MANY, COMPARE = "/v1/jobs/JOB/plot.svg?", "/v1/metrics/plot.svg?series=a&", "/v1/metrics/compare?series=a&"
BAD = [
    *(
        f"{PLOT}{query}"
        for query in ("width=1", "width=9999", "width=x", "height=1", "height=9999", "y=cube", "x=mile")
    ),
    *(f"{PLOT}{query}" for query in ("theme=pink", "series=", "series=%00", "from=2&to=1", "from=-1", "color=red")),
    f"{PLOT}height=160&series=a.a,b.b,c.c",
    f"{PLOT}series={','.join(f'm{number}' for number in range(9))}",
    *(f"{MANY}{query}" for query in ("", "jobs=", "jobs=,", "jobs=%00", "jobs=JOB&y=cube", "jobs=JOB&mean=perhaps")),
    *(f"{MANY}{query}" for query in ("jobs=" + ",".join(f"j{number}" for number in range(21)), "jobs=" + "a" * 2001)),
    *(f"{COMPARE}{query}" for query in ("", "jobs=", "jobs=JOB&x=mile", "jobs=JOB&max_points=99", "jobs=JOB&y=log")),
    "/v1/metrics/compare?jobs=JOB",
    "/v1/metrics/compare?jobs=JOB&series=a,b,c,d,e,f,g,h,i",
    *("/v1/jobs/JOB/metrics?format=parquet", "/v1/jobs/JOB/metrics?shape=round"),
]


@pytest.mark.parametrize("url", BAD)
def test_bad_parameters_are_refused_by_name(shared: TestClient, url: str) -> None:
    job_id = create_job(service_of(shared).db, small_spec(), owner="local").job_id
    answer = shared.get(url.replace("JOB", job_id))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"].startswith("/query/")


@pytest.mark.parametrize(
    "query", ["format=png", "format=svg&width=1", "format=svg&height=1", "x=seconds", "colour=red"]
)
def test_bad_parameters_of_a_preview(shared: TestClient, query: str) -> None:
    answer = shared.post(f"/v1/schedules/preview?{query}", json=EXAMPLE)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_what_belongs_to_others_is_not_there(client: TestClient, service: Service) -> None:
    own = create_job(service.db, small_spec(), owner="local").job_id
    foreign = create_job(service.db, small_spec(), owner="bob").job_id
    for other in (foreign, NOBODY, "job_1", "<svg>", own.upper()):
        for path in ("compare", "plot.svg"):
            answer = client.get(f"/v1/metrics/{path}", params={"series": "val.loss", "jobs": f"{own},{other}"})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert client.get(f"/v1/jobs/{foreign}/plot.svg").status_code == 404
    assert client.get(f"/v1/jobs/{foreign}/metrics", params={"format": "csv"}).status_code == 404


def test_every_form_is_documented(shared: TestClient) -> None:
    paths = shared.get("/openapi.json").json()["paths"]

    def forms(path: str, method: str = "get") -> set[str]:
        return set(paths[path][method]["responses"]["200"]["content"])

    assert forms("/v1/jobs/{job_id}/metrics") == {"application/json", "text/csv"}
    assert forms("/v1/metrics/compare") == {"application/json"}
    assert forms("/v1/jobs/{job_id}/plot.svg") == forms("/v1/metrics/plot.svg") == {"image/svg+xml"}
    assert forms("/v1/schedules/preview", "post") == {"application/json", "image/svg+xml"}
