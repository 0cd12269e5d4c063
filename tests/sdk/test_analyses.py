"""Analyses by the client and at the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from basin.analyses import parse_origin
from basin.analysis_summary import analysis_headline, number_lines
from basin.client import Client
from basin.shapes import Analysis
from tests.sdk.conftest import JOB_ID, Said
from tests.sdk.stub import Answer, Stub

Basin = Callable[..., Said]
ID = "an_01jd0000000000000000000000"
ONE = f"/v1/analyses/{ID}"
SVG = "<svg/>"


def body(status: str, **fields: Any) -> dict[str, Any]:
    given = {"id": ID, "object": "analysis", "kind": "landscape", "status": status, "progress": {"fraction": 0.5}}
    subjects = [{"job": JOB_ID, "checkpoint": "ckpt_1", "step": 8, "kind": "swa"}]
    return {**given, "subjects": subjects, "created_at": "2026-11-23T13:00:00Z", **fields}


@pytest.fixture
def done(stub: Stub) -> dict[str, Any]:
    """An analysis that has ended by the time somebody looks."""
    ended = body(
        "succeeded",
        results={"partial": False, "centre": {"loss": 0.25}, "cosine": -0.01, "grid": list(range(100))},
        pictures={"contour.svg": f"{ONE}/pictures/contour.svg"},
    )
    stub.on("POST", "/v1/analyses", Answer(201, body("queued")))
    stub.on("GET", ONE, Answer(200, ended))
    stub.on("GET", f"{ONE}/content", Answer(200, {"arrays": 1}))
    stub.on("GET", f"{ONE}/pictures/contour.svg", Answer(200, SVG))
    return ended


def test_words_say_what_to_look_at() -> None:
    assert parse_origin(["job_1"]) == {"job": "job_1"}
    assert parse_origin(["job_1:swa"]) == {"job": "job_1", "weights": "swa"}
    assert parse_origin(["ckpt_1", "job_2:last"]) == {
        "checkpoints": [{"checkpoint": "ckpt_1"}, {"job": "job_2", "weights": "last"}]
    }


def test_numbers_are_named_and_long_lists_left_out() -> None:
    found = {
        "a": {"b": 0.123456, "c": None},
        "two": [1, 2],
        "rows": [{"x": True}, {"x": False}],
        "grid": list(range(9)),
    }
    assert list(number_lines(found)) == [
        ("a.b", "0.1235"),
        ("two", "1, 2"),
        ("rows[1].x", "True"),
        ("rows[2].x", "False"),
    ]


def test_a_kind_is_told_in_words_of_its_own() -> None:
    """What a service of another release says in another way is told value by value."""
    surface = {"train": {"lowest": 0.1, "at": [0.0, -0.5], "highest": 9.0}}
    known = {
        "surface": surface,
        "centre": {"train": {"loss": 0.2}},
        "directions": "random",
        "norm": "filter",
        "seed": 3,
    }
    told = analysis_headline(
        Analysis.read(body("succeeded", results={**known, "cosine": 0.01, "caveats": ["look twice"]}))
    )
    assert ("train loss, lowest", "0.1 at (0, -0.5)") in told
    assert told[-1] == ("read with care", "look twice")
    assert analysis_headline(Analysis.read(body("succeeded", results={"surface": surface})))[0] == (
        "surface.train.lowest",
        "0.1",
    )
    assert analysis_headline(Analysis.read(body("succeeded", kind="new", results={"a": 1}))) == [("a", "1")]


def test_it_waits_shows_and_saves(basin: Basin, stub: Stub, done: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    said = basin("analyze", f"{JOB_ID}:swa", "--kind", "landscape", "--set", "steps=51", "--to", str(folder))
    assert said.code == 0, said.err
    (asked,) = stub.requests("POST", "/v1/analyses")
    assert asked.body == {"kind": "landscape", "job": JOB_ID, "weights": "swa", "steps": 51}
    assert asked.headers["idempotency-key"]
    assert sorted(path.name for path in folder.iterdir()) == ["contour.svg", "result.npz"]
    assert json.loads((folder / "contour.svg").read_text()) == SVG
    for words in (f"{JOB_ID} swa 8", "centre.loss", "0.25", "-0.01", str(folder / "contour.svg")):
        assert words in said.out


def test_for_programs(basin: Basin, stub: Stub, done: dict[str, Any], tmp_path: Path) -> None:
    said = basin("analyze", JOB_ID, "-k", "landscape", "-o", "json", "--to", str(tmp_path / "out"))
    found = json.loads(said.out)
    assert {**found, "paths": None} == {**done, "paths": None}
    assert len(found["paths"]) == 2
    asked = basin("analyze", JOB_ID, "-k", "landscape", "--no-wait")
    assert (asked.code, asked.out.split()[:2]) == (0, [ID, "queued"])
    assert f"basin watch {ID}" in asked.out


def test_what_failed_says_why_and_is_an_error(basin: Basin, stub: Stub) -> None:
    error = {"code": "out_of_memory", "message": "too large", "remedy": "fewer examples"}
    stub.on("POST", "/v1/analyses", Answer(201, body("queued")))
    stub.on("GET", ONE, Answer(200, body("failed", error=error)))
    said = basin("analyze", JOB_ID, "-k", "landscape")
    assert said.code == 1
    assert "out_of_memory: too large" in said.out
    assert "fewer examples" in said.out


def test_who_waits_has_a_place_and_no_error(basin: Basin, stub: Stub) -> None:
    place = {"position": 3, "ahead": 2, "eta_seconds": 61.0}
    stub.on("GET", ONE, Answer(200, body("queued", queue=place, progress={"fraction": 0.0})))
    said = basin("show", ID)
    assert said.code == 0
    assert "2 ahead of it; starts in about 1 min" in said.out
    refused = basin("download", ID)
    assert (refused.code, "it is queued" in refused.err) == (1, True)


def test_it_can_be_fetched_afterwards(basin: Basin, stub: Stub, done: dict[str, Any], tmp_path: Path) -> None:
    said = basin("download", ID, "--to", str(tmp_path / "later"))
    assert (said.code, len(said.out.split())) == (0, 2)
    assert sorted(path.name for path in (tmp_path / "later").iterdir()) == ["contour.svg", "result.npz"]


def test_verbs_of_jobs_reach_analyses(basin: Basin, stub: Stub, done: dict[str, Any]) -> None:
    for verb in ("cancel", "pause", "resume"):
        stub.on("POST", f"{ONE}/{verb}", Answer(202, body("queued")))
        assert basin(verb, ID).code == 0
    stub.on("DELETE", ONE, Answer(204))
    assert basin("delete", ID).code == 0
    assert "landscape" in basin("show", ID).out
    assert f"basin download {ID}" in basin("watch", ID).out
    assert "train" not in basin("watch", ID).out  # it says what it has seen, and offers no weights
    stub.on("GET", "/v1/analyses", Answer(200, {"object": "list", "data": [done], "has_more": False, "last_id": ID}))
    said = basin("analyses", "--job", JOB_ID)
    assert ID in said.out
    assert stub.requests("GET", "/v1/analyses")[0].query == {"job": JOB_ID, "limit": "20"}
    with Client(stub.url) as client:
        assert client.analyses().data[0].results == done["results"]
