"""The commands: what they send, print and return."""

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.conftest import JOB_ID, Said, job
from tests.sdk.stub import Answer, Stub

Basin = Callable[..., Said]
RESULTS = {"base": {"test": {"accuracy": 0.9722, "loss": 0.1}}, "swa": {"test": {"accuracy": 0.98611, "loss": 0.0705}}}
ONE = f"/v1/jobs/{JOB_ID}"
PAGE = {"object": "list", "data": [job("running", progress={"fraction": 0.421})], "has_more": False, "last_id": JOB_ID}


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    (tmp_path / "job.yaml").write_text("optimizer: {name: sgd, lr: 1e-1}\nepochs: 3\n")
    return str(tmp_path / "job.yaml")


def test_help_loads_no_heavy_library(tmp_path: Path) -> None:
    """People type --help more often than anything else; torch alone would make them wait two seconds."""
    code = "import sys, basin.cli as c; c.build_app()(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "fastapi", "sqlalchemy", "celery", "pydantic", "httpx2", "rich", "yaml"}
    assert heavy & set(done.stdout.split()) == set()
    for verb in ("submit", "watch", "download", "demo", "up", "api", "worker", "migrate", "run"):
        assert f"\n  {verb} " in done.stdout


def test_submit_sends_the_file_with_changes(basin: Basin, stub: Stub, job_file: str) -> None:
    advice = {"code": "late", "pointer": "/swa", "message": "It starts late."}
    stub.on("POST", "/v1/jobs", Answer(201, job("queued", warnings=[advice])))
    said = basin("submit", job_file, "--set", "optimizer.lr=5e-4", "--set", "swa=true")
    assert stub.asked[0].body == {"optimizer": {"name": "sgd", "lr": 0.0005}, "epochs": 3, "swa": True}
    assert said.code == 0
    assert said.out.splitlines()[0].split() == [JOB_ID, "queued"]
    assert f"basin watch {JOB_ID}" in said.out
    assert said.err == "warning: /swa: It starts late.\n"


def test_json_on_stdout_is_the_answer_itself(basin: Basin, stub: Stub, job_file: str) -> None:
    stub.on("POST", "/v1/jobs", Answer(201, job("queued", name="ü\x9b", created_at="2026-11-23T13:00:00.5Z")))
    stub.on("GET", "/v1/jobs", Answer(200, PAGE))
    assert json.loads(basin("submit", job_file, "-o", "json").out) == job(
        "queued", name="ü\x9b", created_at="2026-11-23T13:00:00.5Z"
    )
    assert json.loads(basin("list", "--output", "json").out) == PAGE


def test_list_and_its_alias(basin: Basin, stub: Stub) -> None:
    stub.on("GET", "/v1/jobs", Answer(200, PAGE))
    said = basin("list", "--status", "running", "-n", "5")
    assert stub.asked[0].query == {"status": "running", "limit": "5"}
    assert [line.split() for line in said.out.splitlines()] == [
        ["job", "status", "done", "age", "name"],
        [JOB_ID, "running", "42%", "-", "digits"],
    ]
    assert basin("ps").out == said.out
    stub.on("GET", "/v1/jobs", Answer(200, {"object": "list", "data": [], "has_more": False, "last_id": None}))
    assert "No jobs yet" in basin("list").out


def test_a_dry_run_stores_nothing(basin: Basin, stub: Stub, job_file: str) -> None:
    answer = {"object": "dry_run", "spec": {"optimizer": {"name": "sgd", "lr": 0.1}}, "total_steps": 39, "warnings": []}
    stub.on("POST", "/v1/jobs", Answer(200, answer))
    said = basin("submit", job_file, "--dry-run")
    assert stub.asked[0].query == {"dry_run": "true"}
    assert "sgd lr=0.1" in said.out
    assert "39" in said.out


def test_show_is_one_page(basin: Basin, stub: Stub) -> None:
    shown = job("succeeded", stop_reason="completed", results=RESULTS, optimizer={"name": "sgd", "lr": 0.1}, epochs=30)
    stub.on("GET", ONE, Answer(200, shown))
    listed = [{"id": "ckpt_1", "kind": "swa", "step": 7, "bytes": 99}]
    stub.on("GET", f"{ONE}/checkpoints", Answer(200, {"data": listed}))
    said = basin("show", JOB_ID)
    assert "succeeded (completed)" in said.out
    assert "sgd lr=0.1" in said.out
    assert ["swa", "0.9861", "0.0705"] in [line.split() for line in said.out.splitlines()]
    assert ["swa", "7", "0.1", "kB", "ckpt_1"] in [line.split() for line in said.out.splitlines()]
    waiting = job("queued", queue={"position": 3, "ahead": 2, "eta_seconds": 150.0})
    stub.on("GET", ONE, Answer(200, waiting))
    assert "2 ahead of it; starts in about 2 min" in basin("show", JOB_ID).out


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_following_ends_with_the_jobs_own_fate(basin: Basin, stub: Stub, job_file: str, status: str, code: int) -> None:
    error = {"code": "diverged", "message": "The loss is NaN.", "remedy": "A smaller lr."}
    fate: dict[str, dict[str, Any]] = {"succeeded": {"results": RESULTS}, "failed": {"error": error}, "cancelled": {}}
    queued = job("queued", queue={"position": 3, "ahead": 2})
    progress = {"epoch": 1, "epochs": 3, "loss": 0.5, "lr": 0.1, "metrics": {"val.accuracy": 0.9}}
    ended = job(status, **fate[status])
    stub.on("POST", "/v1/jobs", Answer(201, job("queued")))
    stub.on("GET", ONE, *(Answer(200, body) for body in (queued, job("running", progress=progress), ended)))
    said = basin("submit", job_file, "--follow")
    lines = said.out.splitlines()
    assert said.code == code
    assert lines[1] == f"{JOB_ID}  queued (2 ahead)"
    assert lines[2] == f"{JOB_ID}  running  epoch 1/3  loss 0.5000  accuracy 0.9  lr 0.1000"
    assert lines[3] == f"{JOB_ID}  {status}"
    assert ("diverged: The loss is NaN." in said.out) == (status == "failed")
    assert ("0.9861" in said.out) == (status == "succeeded")
    as_json = basin("watch", JOB_ID, "-o", "json")
    assert json.loads(as_json.out) == ended
    assert as_json.code == code


def test_ctrl_c_leaves_the_job_running_and_says_so(stub: Stub) -> None:
    stub.on("GET", ONE, Answer(200, job("running")))
    watching = subprocess.Popen(
        [sys.executable, "-m", "basin", "watch", JOB_ID, "--url", stub.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(stub.asked) < 3:
        time.sleep(0.02)
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert f"{JOB_ID} continues." in err
    assert f"basin watch {JOB_ID} --url {stub.url}" in err
    assert f"basin cancel {JOB_ID}" in err
    assert {asked.method for asked in stub.asked} == {"GET"}


@pytest.mark.parametrize(("verb", "status"), [("cancel", "cancelling"), ("pause", "pausing"), ("resume", "queued")])
def test_verbs_take_many_and_report_each(basin: Basin, stub: Stub, verb: str, status: str) -> None:
    conflict = {"title": "Conflict", "code": "conflict", "detail": "It has ended."}
    stub.on("POST", f"{ONE}/{verb}", Answer(202, job(status)))
    stub.on("POST", f"/v1/jobs/job_2/{verb}", Answer(409, conflict))
    said = basin(verb, "job_2", JOB_ID)
    assert said.code == 1
    assert said.out == f"{JOB_ID}  {status}\n"
    assert said.err.splitlines() == ["job_2:", "error: It has ended. (409 conflict)"]


def test_download_takes_the_averaged_weights_first(basin: Basin, stub: Stub, tmp_path: Path) -> None:
    content = b"weights"
    sha = hashlib.sha256(content).hexdigest()
    kinds = [("last", 1000, "1"), ("swa", 1200, "2"), ("last", 1200, "3")]
    listed = [{"id": f"ckpt_{one}", "kind": kind, "step": step, "sha256": sha} for kind, step, one in kinds]
    stub.on("GET", f"{ONE}/checkpoints", Answer(200, {"data": listed}))
    for one in "23":
        stub.on("GET", f"/v1/checkpoints/ckpt_{one}/content", Answer(200, content))
    assert basin("download", JOB_ID, "--to", f"{tmp_path}/new/").code == 0
    assert (tmp_path / "new" / f"{JOB_ID}-swa-1200.safetensors").read_bytes() == content
    said = basin("download", JOB_ID, "--kind", "last", "--to", str(tmp_path / "last.safetensors"), "-o", "json")
    assert json.loads(said.out)["id"] == "ckpt_3"
    assert (tmp_path / "last.safetensors").read_bytes() == content
    missing = basin("download", JOB_ID, "--kind", "ema")
    assert missing.code == 1
    assert "has no ema weights; there are: last, swa" in missing.err


def test_a_refusal_names_field_and_way_out(basin: Basin, stub: Stub, job_file: str) -> None:
    errors = [{"pointer": "/optimizer/nam", "message": "unknown field", "hint": 'did you mean "name"?'}]
    stub.on("POST", "/v1/jobs", Answer(422, {"detail": "No.", "code": "invalid_spec", "errors": errors}))
    said = basin("submit", job_file)
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines() == [
        "error: No. (422 invalid_spec)",
        "  /optimizer/nam: unknown field",
        '      did you mean "name"?',
    ]


def test_nobody_there_says_how_to_start_the_service(basin: Basin) -> None:
    said = basin("list", "--url", "http://127.0.0.1:9")
    assert said.code == 1
    assert "no answer from http://127.0.0.1:9" in said.err
    assert "basin up" in said.err


def test_what_others_named_their_jobs_cannot_steer_a_terminal(basin: Basin, stub: Stub) -> None:
    """A name with an escape sequence could hide lines, or rewrite the command that somebody is told to copy."""
    nasty = "\x1b[2J\x9b31mred\x07\u202enwo\r\n[bold]name[/bold] :smile:"
    data = [job("running", name=nasty)]
    stub.on("GET", "/v1/jobs", Answer(200, PAGE | {"data": data}))
    said = basin("list")
    assert all(one.isprintable() or one == "\n" for one in said.out)
    assert "[bold]name[/bold] :smile:" in said.out
    assert said.out.count("\n") == 2


@pytest.mark.parametrize("no_color", [False, True])
def test_colour_is_for_terminals_that_want_it(stub: Stub, no_color: bool) -> None:
    stub.on("GET", ONE, Answer(200, job("running")), Answer(200, job("succeeded", results=RESULTS)))
    environment = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "basin", "watch", JOB_ID, "--url", stub.url],
        env=environment | {"TERM": "xterm-256color", "COLUMNS": "100"} | ({"NO_COLOR": "1"} if no_color else {}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as watching:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # Linux: the other side of a pty is closed
                break
    os.close(ours)
    assert watching.returncode == 0
    assert b"0.9861" in seen
    assert (b"\x1b[35m" in seen or b"\x1b[38;5;" in seen) != no_color
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")  # the cursor is back
