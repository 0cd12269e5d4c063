"""Pictures by the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from basin.client import Client
from basin.errors import BadAnswer
from tests.sdk.conftest import JOB_ID, Said
from tests.sdk.stub import Answer, Stub

Basin = Callable[..., Said]
PICTURE = "<svg>ü</svg>"
SVG = Answer(200, PICTURE.encode(), {"Content-Type": "image/svg+xml"})


def test_a_picture_goes_into_a_file(basin: Basin, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stub.on("GET", f"/v1/jobs/{JOB_ID}/plot.svg", SVG)
    assert basin("plot", JOB_ID) == Said(0, f"{JOB_ID}.svg\n", "")
    assert Path(f"{JOB_ID}.svg").read_text(encoding="utf-8") == PICTURE
    assert stub.asked[0].query == {}
    assert "image/svg+xml" in stub.asked[0].headers["accept"]
    said = basin("plot", JOB_ID, "--series", "train.loss,val.loss", "--x", "epoch", "--y", "log", "-o", "new/a.svg")
    assert said.out == "new/a.svg\n"
    assert Path("new/a.svg").read_text(encoding="utf-8") == PICTURE
    assert stub.asked[1].query == {"series": "train.loss,val.loss", "x": "epoch", "y": "log"}


def test_several_jobs_come_in_one_picture(basin: Basin, stub: Stub) -> None:
    stub.on("GET", "/v1/metrics/plot.svg", SVG)
    assert basin("plot", "job_1", "job_2", "--series", "val.loss", "-o", "-").out == f"{PICTURE}\n"
    assert stub.asked[0].query == {"jobs": "job_1,job_2", "series": "val.loss"}


def test_a_path_asks_for_no_curves(basin: Basin, stub: Stub, tmp_path: Path) -> None:
    stub.on("GET", f"/v1/jobs/{JOB_ID}/plot.svg", SVG)
    assert basin("plot", JOB_ID, "--kind", "path", "-o", str(tmp_path / "a.svg")).code == 0
    assert stub.asked[0].query == {"kind": "path"}


def test_a_refusal_writes_nothing(basin: Basin, stub: Stub, tmp_path: Path) -> None:
    errors = [{"pointer": "/query/y", "message": "no such axis", "hint": None}]
    refusal = Answer(422, {"detail": "No.", "code": "invalid_request", "errors": errors})
    stub.on("GET", f"/v1/jobs/{JOB_ID}/plot.svg", refusal)
    said = basin("plot", JOB_ID, "--y", "cube", "-o", str(tmp_path / "a.svg"))
    assert (said.code, "no such axis" in said.err) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_something_else_is_no_picture(client: Client, stub: Stub) -> None:
    stub.on("GET", f"/v1/jobs/{JOB_ID}/plot.svg", Answer(200, {"hello": "world"}))
    with pytest.raises(BadAnswer):
        client.plot(JOB_ID)
