"""A landscape in parts, by the client and at the command line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from basin import sharded_landscape
from basin.client import Client
from basin.errors import Problem
from basin.shapes import Analysis
from tests.sdk.conftest import JOB_ID, Said
from tests.sdk.stub import Answer, Asked, Stub

Basin = Callable[..., Said]
IDS = [f"an_{number:026d}" for number in range(1, 5)]
WHOLE = f"an_{9:026d}"


def body(analysis_id: str, status: str, **fields: Any) -> dict[str, Any]:
    subjects = [{"job": JOB_ID, "checkpoint": "ckpt_1", "step": 8, "kind": "last"}]
    given = {"id": analysis_id, "object": "analysis", "kind": "landscape", "status": status, "subjects": subjects}
    return {**given, "progress": {"fraction": 0.5}, **fields}


@pytest.fixture
def four(stub: Stub) -> Stub:
    """A service that takes parts and wholes; the parts succeed one after the other."""
    waiting: Iterator[str] = iter(IDS)

    def take(asked: Asked) -> Answer:
        if asked.body["kind"] == "assembly":
            return Answer(201, body(WHOLE, "queued", kind="assembly"))
        return Answer(201, body(next(waiting), "queued", part=asked.body["part"]))

    stub.on("POST", "/v1/analyses", take)
    for number, one in enumerate(IDS):
        running = [Answer(200, body(one, "running")) for _ in range(number)]
        stub.on("GET", f"/v1/analyses/{one}", *running, Answer(200, body(one, "succeeded", results={"partial": False})))
    stub.on("GET", f"/v1/analyses/{WHOLE}", Answer(200, body(WHOLE, "succeeded", kind="assembly", results={"a": 0.25})))
    stub.on("GET", f"/v1/analyses/{WHOLE}/content", Answer(200, {"arrays": 1}))
    return stub


def test_all_parts_look_at_what_the_first_one_looks_at(four: Stub) -> None:
    with Client(four.url) as client:
        parts = client.share({"kind": "landscape", "job": JOB_ID, "weights": "last", "steps": 51}, 4)
    assert [one.id for one in parts] == IDS
    asked = [one.body for one in four.requests("POST", "/v1/analyses")]
    assert asked[0] == {
        "kind": "landscape",
        "job": JOB_ID,
        "weights": "last",
        "steps": 51,
        "part": {"number": 1, "of": 4},
    }
    for number in (2, 3, 4):
        named = {"checkpoint": "ckpt_1", "part": {"number": number, "of": 4}}
        assert asked[number - 1] == {"kind": "landscape", "steps": 51, **named}


def test_where_one_is_refused_the_others_are_taken_back(four: Stub) -> None:
    refusal = Answer(429, {"title": "Too many", "status": 429, "code": "quota_exceeded", "detail": "Enough wait."})
    four.on("POST", "/v1/analyses", Answer(201, body(IDS[0], "queued")), Answer(201, body(IDS[1], "queued")), refusal)
    four.on("POST", f"/v1/analyses/{IDS[1]}/cancel", Answer(202, body(IDS[1], "cancelled")))
    with Client(four.url) as client, pytest.raises(Problem, match="Enough wait"):
        client.share({"kind": "landscape", "job": JOB_ID}, 4)
    for one in IDS[:2]:  # the first cannot be cancelled: that keeps nobody from the second
        assert len(four.requests("POST", f"/v1/analyses/{one}/cancel")) == 1


def test_it_waits_for_all_and_shows_the_whole(basin: Basin, four: Stub, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    said = basin("analyze", JOB_ID, "-k", "landscape", "--share", "4", "--set", "priority=3", "--to", str(folder))
    assert said.code == 0, said.err
    joined = four.requests("POST", "/v1/analyses")[-1].body
    assert joined == {"kind": "assembly", "analyses": IDS, "priority": 3}
    for words in (
        f"{IDS[1]}  part 2 of 4",
        "1 of 4 parts done, 3 running",
        "100%  4 of 4 parts done, 0 running",
        WHOLE,
    ):
        assert words in said.out
    assert [path.name for path in folder.iterdir()] == ["result.npz"]


def test_for_programs_there_is_one_document(basin: Basin, four: Stub, tmp_path: Path) -> None:
    said = basin("analyze", JOB_ID, "-k", "landscape", "--share", "4", "-o", "json", "--to", str(tmp_path / "out"))
    assert json.loads(said.out)["id"] == WHOLE
    assert "4 of 4 parts done" in said.err


def test_without_waiting_it_says_how_to_go_on(basin: Basin, four: Stub) -> None:
    said = basin("analyze", JOB_ID, "-k", "landscape", "--share", "4", "--no-wait")
    assert (said.code, len(four.requests("POST", "/v1/analyses"))) == (0, 4)
    assert f"basin analyze {' '.join(IDS)} --kind assembly" in said.out


def test_the_command_that_it_names_puts_them_together(basin: Basin, four: Stub, tmp_path: Path) -> None:
    said = basin("analyze", *IDS, "--kind", "assembly", "--to", str(tmp_path / "out"))
    assert said.code == 0, said.err
    assert four.requests("POST", "/v1/analyses")[0].body == {"kind": "assembly", "analyses": IDS}


def test_a_part_that_failed_is_named_with_the_way_out(basin: Basin, four: Stub) -> None:
    error = {"code": "worker_lost", "message": "three workers died", "remedy": None}
    failed = body(IDS[2], "failed", error=error, part={"number": 3, "of": 4})
    four.on("GET", f"/v1/analyses/{IDS[2]}", Answer(200, failed))
    said = basin("analyze", JOB_ID, "-k", "landscape", "--share", "4")
    assert said.code == 1
    assert len(four.requests("POST", "/v1/analyses")) == 4
    for words in (f"{IDS[2]} failed: three workers died", "analyze ckpt_1 --kind landscape --set part.number=3"):
        assert words in said.err


def test_ctrl_c_says_what_goes_on(basin: Basin, four: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> list[Analysis]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sharded_landscape, "wait_for_parts", interrupted)
    said = basin("analyze", JOB_ID, "-k", "landscape", "--share", "4")
    assert said.code == 130
    assert f"{IDS[3]} continue." in said.err
    assert f"basin cancel {' '.join(IDS)}" in said.err.replace(f" --url {four.url}", "")


def test_a_short_silence_of_the_service_is_nothing(four: Stub) -> None:
    gone = Answer(cut=-1)
    ended = Answer(200, body(IDS[0], "succeeded"))
    four.on("GET", f"/v1/analyses/{IDS[0]}", *[gone] * 4, ended)
    with Client(four.url) as client:
        found = sharded_landscape.wait_for_parts(client, [Analysis.read(body(IDS[0], "running"))], stderr=True)
    assert [one.status for one in found] == ["succeeded"]
