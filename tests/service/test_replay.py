"""`basin verify`: what training wrote is trained again and found equal, what somebody changed is not."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from core.db.session import Database, open_database
from core.engine.events import Ended
from core.engine.loop import train
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.branch import create_fork, create_retry
from core.jobs.checkpoints.records import NewCheckpoint, record_checkpoint
from core.jobs.checkpoints.replay import find_segment, read_history
from core.jobs.events.log import record_events
from core.jobs.metrics.chunks import roll_back
from core.jobs.queue.claim import Claim
from core.jobs.queue.submit import SubmitContext, create_job
from core.lifecycle import Status
from core.recipe.assignment import Assignment
from core.recipe.plan import halve_micro_batch, resolve_plan
from core.settings import Limits
from core.store.keys import checkpoint_prefix
from core.store.local import LocalStore
from tests.support.jobs import OWNER, running, small_spec, taken
from tests.train.breaking import failing
from worker import runner
from worker.provision import fetch_checkpoint, fetch_weights
from worker.verify import verify

Job = Callable[..., str]
Verify = Callable[..., Result]
Attempt = Callable[..., tuple[Ended, dict[str, Any] | None]]
SPEC = {"data": {"name": "iris"}, "batch_size": 16, "epochs": 6, "checkpoints": {"every": "2ep", "keep_last": 9}}
CHANGED = {
    "spec": text("UPDATE job SET spec = replace(spec, :old, :new)"),
    "plan": text("UPDATE job SET plan = replace(plan, :old, :new)"),
    "manifest": text("UPDATE checkpoint SET manifest = replace(manifest, :old, :new)"),
}


@dataclass
class Recording:
    """An observer that does what the recorder does: objects, then rows."""

    db: Database
    store: LocalStore
    fence: Fence
    stop_at: int | None = None
    done: int = 0
    request: runner.StopMode = "checkpoint"
    resume: dict[str, Any] | None = None  # how faithful the engine finds it

    def emit(self, event: runner.Event) -> None:
        kind, fields = runner.event_frame(event)
        if kind == "started":
            self.resume = fields["environment"].get("resume")
        if kind == "rollback":
            self.done = fields["step"]
            roll_back(self.db, self.fence, fields["step"], fields["message"])
        if kind != "checkpoint":
            return
        key = checkpoint_prefix(self.fence.job_id, self.fence.attempt, fields["step"])
        for file in fields["files"].values():
            self.store.put_file(Path(fields["folder"]) / file["name"], f"{key}/{file['name']}")
        weights = fields["files"]["weights"]
        names = ("step", "epoch", "kind", "files", "metrics", "manifest")
        row = NewCheckpoint(
            **{name: fields[name] for name in names}, key=key, sha256=weights["sha256"], bytes=weights["bytes"]
        )
        record_checkpoint(self.db, self.fence, row, (), resumable=fields["resumable"])

    def stop_request(self) -> runner.StopMode | None:
        self.done += 1
        return self.request if self.done == self.stop_at else None


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    database = open_database(sqlite_url, pool_size=4)
    yield database
    database.close()


@pytest.fixture
def trained(db: Database, tmp_path: Path, datasets: Callable[[str], Path], one_thread: None) -> Job:
    """Train a job in this process, recorded as a worker would have; `how` are options of the engine."""

    def go(how: dict[str, Any] | None = None, stop_at: int | None = None, **changes: Any) -> str:
        fence = running(db, **(SPEC | changes))
        spec = small_spec(**(SPEC | changes))
        plan = resolve_plan(spec, "cpu")
        scratch = tmp_path / f"scratch-{fence.job_id}"
        scratch.mkdir()
        assignment = Assignment(
            job=fence.job_id, attempt=1, spec=spec, plan=plan, dataset=datasets("iris"), scratch=scratch
        )
        ended = train(assignment, Recording(db, LocalStore(tmp_path / "store"), fence, stop_at), **(how or {}))
        with db.write() as connection:
            stored = {"job": fence.job_id, "plan": plan.model_dump_json()}
            connection.execute(text("UPDATE job SET plan = :plan WHERE id = :job"), stored)
        if ended.outcome == "succeeded":
            finish_job(db, fence, TerminalState(Status.SUCCEEDED, ended.stop_reason, None, ended.results))
        return fence.job_id

    return go


@pytest.fixture
def attempt(db: Database, tmp_path: Path, datasets: Callable[[str], Path], one_thread: None) -> Attempt:
    """Train one attempt of a job that was claimed, as its supervisor would have; `stop_at` ends it in its middle."""
    store = LocalStore(tmp_path / "store")

    def go(claim: Claim | None, stop_at: int | None = None) -> tuple[Ended, dict[str, Any] | None]:
        assert claim is not None
        fence = Fence(claim.job_id, claim.attempt)
        aside = tmp_path / f"{claim.job_id}-{claim.attempt}"
        (aside / "out").mkdir(parents=True)
        resume = fetch_checkpoint(store, claim.checkpoint, aside / "resume") if claim.checkpoint else None
        if resume and claim.checkpoint and claim.checkpoint.job_id != claim.job_id:
            resume = resume.model_copy(update={"anew": claim.anew})
        assignment = Assignment(
            job=claim.job_id,
            attempt=claim.attempt,
            spec=claim.spec,
            plan=claim.plan,
            dataset=datasets("iris"),
            scratch=aside / "out",
            resume=resume,
            initial=fetch_weights(store, claim.initial, aside / "initial") if claim.initial else None,
        )
        begun = claim.checkpoint.step if claim.checkpoint else 0
        recording = Recording(db, store, fence, stop_at, begun, request="cancel")
        return train(assignment, recording), recording.resume

    return go


@pytest.fixture
def basin(sqlite_url: str, tmp_path: Path, datasets: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Verify:
    """The command, in this process."""
    (tmp_path / "datasets").symlink_to(datasets("iris").parent)
    monkeypatch.setenv("BASIN_HOME", str(tmp_path))
    monkeypatch.setenv("BASIN_DATABASE_URL", sqlite_url)
    app = typer.Typer()
    app.command()(verify)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def certified(said: Result) -> dict[str, Any]:
    assert said.exit_code in {0, 1}, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    assert found["verdict"] == ("differs" if said.exit_code else "exact")
    return found


def steps(found: dict[str, Any]) -> tuple[int, int]:
    return found["from"]["step"], found["to"]["step"]


def test_every_stretch_of_a_job_gives_the_same_bits(basin: Verify, trained: Job) -> None:
    job_id = trained(swa=True, schedule={"name": "cosine"}, model={"name": "mlp", "hidden": [8], "dropout": 0.2})
    whole = certified(basin(job_id, "--from", "0", "-o", "json"))
    assert [each["what"] for each in whole["compared"]] == ["digest", "weights", "state"]
    assert all(each["recorded"] == each["found"] for each in whole["compared"])
    first = whole["to"]["step"]
    found = [whole] + [certified(basin(job_id, "--from", str(step), "-o", "json")) for step in (first, 2 * first)]
    assert [steps(each) for each in found] == [(0, first), (first, 2 * first), (2 * first, 3 * first)]
    assert certified(basin(job_id, "-o", "json")) == found[1]
    said = basin(job_id)
    assert said.exit_code == 0
    assert said.stdout.startswith(f"trained from step {first} (ckpt_")
    assert said.stdout.endswith("exact: training again gives the same bits\n")
    behind = basin(job_id, "--from", str(3 * first))
    assert (behind.exit_code, f"After step {3 * first} there is no" in behind.stderr) == (2, True)
    missing = basin(job_id, "--from", "1")
    assert (missing.exit_code, f"there are 0 (the start), {first}, {2 * first}, {3 * first}." in missing.stderr) == (
        2,
        True,
    )


def test_checkpoints_of_a_clock_of_a_stop_and_of_an_early_end(basin: Verify, trained: Job) -> None:
    """None of them is a link of the chain of digests, and the links between them are made again."""
    each_step = trained({"checkpoint_seconds": 0.0}, checkpoints={"every": "5st", "keep_last": 3}, epochs=2)
    begin, end = steps(certified(basin(each_step, "-o", "json")))
    assert end == begin + 1
    stopped = trained(stop_at=17)
    assert steps(certified(basin(stopped, "--from", "0", "-o", "json")))[0] == 0
    early = trained(early_stopping={"patience": 1, "min_delta": 100.0}, checkpoints={"every": "100ep"})
    found = certified(basin(early, "-o", "json"))
    assert found["from"] == {"checkpoint": None, "step": 0}
    assert found["verdict"] == "exact"


def test_a_job_that_rolled_back_comes_to_its_checkpoint_with_lower_rates(
    basin: Verify, trained: Job, db: Database
) -> None:
    """At first it passes the place with the weights that it then gives up."""
    ruinous = {"name": "multistep", "milestones": ["3ep"], "gamma": 2.0**60}
    job_id = trained(schedule=ruinous, rollback={"factor": 2.0**-60}, checkpoints={"every": "1ep", "keep_last": 9})
    with db.read() as connection:
        query = text("SELECT step FROM checkpoint WHERE kind = 'last' AND status = 'good' ORDER BY step")
        marks = list(connection.execute(query).scalars())
        warned = connection.execute(text("SELECT count(*) FROM event WHERE type = 'warning'")).scalar_one()
    assert warned == 1
    assert len(marks) == 6
    for begin, end in zip([0, *marks], marks, strict=False):
        found = certified(basin(job_id, "--from", str(begin), "-o", "json"))
        assert (steps(found), found["verdict"]) == ((begin, end), "exact")


def test_a_child_is_trained_from_what_it_began_with(
    basin: Verify, trained: Job, attempt: Attempt, db: Database
) -> None:
    """A fork from its parent's checkpoint, without what begins anew; a warm start from another job's weights."""
    parent = trained(schedule={"name": "cosine"}, ema=True)
    first = steps(certified(basin(parent, "--from", "0", "-o", "json")))[1]
    entry = SubmitContext(OWNER, Limits(), 60.0)
    changes = {"schedule": {"name": "linear"}, "ema": {"decay": 0.9}}
    forked = create_fork(db, parent, entry, changes=changes, at=first).job_id
    warm = create_job(db, small_spec(**(SPEC | {"from": {"job": parent}})), owner=OWNER).job_id
    for job_id, begin in ((forked, first), (warm, 0)):
        claim = taken(db)
        assert claim is not None
        assert claim.job_id == job_id
        assert attempt(claim)[0].outcome == "succeeded"
        found = certified(basin(job_id, "--from", "0", "-o", "json"))
        assert (steps(found)[0], found["verdict"]) == (begin, "exact")
    with db.write() as connection:
        connection.execute(text("UPDATE checkpoint SET status = 'doomed' WHERE job_id = :job"), {"job": parent})
    said = basin(forked, "--from", "0")
    assert (said.exit_code, "The checkpoint that this job began with no longer exists" in said.stderr) == (2, True)


def out_of_memory(db: Database, claim: Claim | None) -> None:
    """The remedy, as the supervisor writes it down."""
    assert claim is not None
    fence, less = Fence(claim.job_id, claim.attempt), halve_micro_batch(claim.spec, claim.plan)
    assert less is not None
    record_events(db, fence, "warning", [{"code": "remedy", "message": "out of memory"}])
    give_back(db, fence, cause="out of memory", lost=False, max_losses=3, plan=less)


def doom(db: Database, job_id: str, step: int) -> None:
    with db.write() as connection:
        query = text("UPDATE checkpoint SET status = 'doomed' WHERE job_id = :job AND step = :step")
        assert connection.execute(query, {"job": job_id, "step": step}).rowcount == 1


def test_a_job_that_ran_out_of_memory_is_trained_by_the_plan_of_each_stretch(
    basin: Verify, attempt: Attempt, db: Database
) -> None:
    """Whole batches up to the first checkpoint, half of one at a time from there: other bits, and no difference."""
    job_id = create_job(db, small_spec(**SPEC), owner=OWNER).job_id
    first = taken(db)
    attempt(first, stop_at=20)
    out_of_memory(db, first)
    last = taken(db)
    assert last is not None
    assert (last.checkpoint and last.checkpoint.step, last.plan.micro_batch) == (14, 8)
    assert attempt(last)[1] == {"fidelity": "approximate", "reasons": ["micro_batch: None before, 8 now"]}
    for begin, end in ((0, 14), (14, 28), (28, 42)):
        found = certified(basin(job_id, "--from", str(begin), "-o", "json"))
        assert (steps(found), found["verdict"]) == ((begin, end), "exact")
    doom(db, job_id, 14)
    said = basin(job_id, "--from", "0")
    assert (said.exit_code, "continued from step 14 with fewer examples at once" in said.stderr) == (2, True)
    assert steps(certified(basin(job_id, "-o", "json"))) == (28, 42)
    with db.write() as connection:
        query = text("UPDATE checkpoint SET manifest = replace(manifest, :old, '') WHERE job_id = :job AND step = 42")
        assert connection.execute(query, {"job": job_id, "old": ',"micro_batch":8'}).rowcount
    assert certified(basin(job_id, "--from", "28", "-o", "json"))["verdict"] == "differs"  # so the plan does count


def test_a_job_that_changed_its_kind_of_device_is_compared_up_to_there_and_from_there(
    basin: Verify, attempt: Attempt, db: Database
) -> None:
    """Each stretch by the plan of its own; none that was computed by two of them."""
    job_id = create_job(db, small_spec(**SPEC, deterministic=False), owner=OWNER).job_id
    first = taken(db)
    assert first is not None
    attempt(first, stop_at=20)
    gpu = first.plan.model_copy(update={"device": "cuda"})
    give_back(db, Fence(job_id, 1), cause="its GPU failed", lost=False, max_losses=3, plan=gpu)
    with db.write() as connection:  # as if a GPU had written it
        connection.execute(CHANGED["manifest"], {"old": '"kind":"cpu"', "new": '"kind":"cuda"'})
    last = taken(db)
    assert last is not None
    assert (last.checkpoint and last.checkpoint.step, last.plan.device) == (14, "cpu")
    assert attempt(last)[0].outcome == "succeeded"
    past = read_history(db, job_id)
    assert [find_segment(past, start).plan.device for start in (0, 14, 28)] == ["cuda", "cpu", "cpu"]
    for begin, end in ((14, 28), (28, 42)):
        found = certified(basin(job_id, "--from", str(begin), "-o", "json"))
        assert (steps(found), found["verdict"]) == ((begin, end), "exact")
    doom(db, job_id, 14)
    assert "continued from step 14 on another kind of device" in basin(job_id, "--from", "0").stderr


def test_a_retry_goes_on_as_its_source_did(basin: Verify, attempt: Attempt, db: Database) -> None:
    """Exactly, with the plan that its source had in the end; where that came after the checkpoint, it says so."""
    for memory in (False, True):
        source = create_job(db, small_spec(**SPEC), owner=OWNER).job_id
        claim = taken(db)
        attempt(claim, stop_at=20)
        if memory:
            out_of_memory(db, claim)
            claim = taken(db)
        assert claim is not None
        finish_job(db, Fence(source, claim.attempt), TerminalState(Status.CANCELLED, "cancelled"))
        child = create_retry(db, source, SubmitContext(OWNER, Limits(), 60.0)).job_id
        claim = taken(db)
        assert claim is not None
        assert (claim.job_id, claim.plan.micro_batch) == (child, 8 if memory else None)
        _, resume = attempt(claim)
        reasons = ["micro_batch: None before, 8 now"] if memory else []
        assert resume == {"fidelity": "approximate" if memory else "exact", "reasons": reasons}
        finish_job(db, Fence(child, 1), TerminalState(Status.SUCCEEDED, "completed"))
        for begin, end in ((0, 28), (28, 42)):
            found = certified(basin(child, "--from", str(begin), "-o", "json"))
            assert (steps(found), found["verdict"]) == ((begin or 14, end), "exact")


def test_a_changed_past_is_told_and_so_is_what_could_explain_it(basin: Verify, trained: Job, db: Database) -> None:
    job_id = trained()
    with db.write() as connection:
        connection.execute(CHANGED["spec"], {"old": '"lr":0.1', "new": '"lr":0.2'})
    said = basin(job_id)
    assert said.exit_code == 1
    assert "differs: training again gives other bits\n  no known cause: the libraries" in said.stdout
    assert certified(basin(job_id, "-o", "json"))["reasons"] == []
    with db.write() as connection:
        assert connection.execute(CHANGED["manifest"], {"old": '"threads":1', "new": '"threads":2'}).rowcount
    assert certified(basin(job_id, "-o", "json"))["reasons"] == ["threads: 2 before, 1 now"]


def test_what_cannot_be_trained_is_no_difference(basin: Verify, trained: Job, db: Database, tmp_path: Path) -> None:
    job_id = trained()
    for path in (tmp_path / "store").rglob("state.safetensors"):
        path.write_bytes(b"?")
    said = basin(job_id)
    assert (said.exit_code, "state.safetensors does not match its recorded digest" in said.stderr) == (2, True)
    with db.write() as connection:
        connection.execute(CHANGED["plan"], {"old": '"compile":false', "new": '"compile":true'})
    said = basin(job_id, "--from", "0")
    assert (said.exit_code, "asks for compiled code" in said.stderr) == (2, True)
    unread = trained(checkpoints={"every": "5ep"})
    with db.write() as connection:
        connection.execute(text("UPDATE job SET spec = '{}' WHERE id = :job"), {"job": unread})
    for arguments, words in (
        ([unread], "This release cannot read the job"),
        (["job_x"], "There is no job with this id."),
        ([running(db).job_id], "has no checkpoint"),
        (["--from", "3"], "--from needs a job"),
        ([job_id, "--digests"], "--digests checks all jobs"),
    ):
        said = basin(*arguments)
        assert (said.exit_code, words in said.stderr) == (2, True), said.stderr


def test_a_job_of_a_gpu_is_no_difference_where_there_is_none(
    basin: Verify, trained: Job, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = trained()
    with db.write() as connection:
        connection.execute(CHANGED["manifest"], {"old": '"kind":"cpu"', "new": '"kind":"cuda"'})
    monkeypatch.setattr("torch.cuda.init", failing(lambda: None, RuntimeError("No CUDA GPUs are available")))
    said = basin(job_id)
    assert (said.exit_code, "cannot be trained here: No CUDA GPUs" in said.stderr) == (2, True)


def test_all_jobs_together(basin: Verify, trained: Job, tmp_path: Path) -> None:
    job_id = trained()
    said = basin("--digests")
    assert (said.exit_code, said.stderr) == (0, "")
    assert said.stdout.startswith("read 1 jobs, ")
    assert said.stdout.endswith(": everything fits\n")
    path = max((tmp_path / "store").rglob("weights.safetensors"))
    path.write_bytes(b"?")
    said = basin("-o", "json")
    assert said.exit_code == 1
    (finding,) = json.loads(said.stdout)["findings"]
    assert (finding["rule"], finding["job_id"]) == ("object", job_id)
    said = basin()
    assert said.exit_code == 1
    head, advice, last = said.stdout.splitlines()
    assert head.startswith(f"object      {job_id}  jobs/{job_id}/1-")
    assert advice.strip() == finding["do"]
    assert last.endswith(": 1 findings")
