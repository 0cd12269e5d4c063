"""Small jobs and the usual first steps, for tests of the domain."""

import json
from typing import Any

from sqlalchemy import select, update

from core.db.session import Database, database_now
from core.db.tables import job_state, service_state
from core.ids import new_id
from core.jobs.attempt.fence import Fence
from core.jobs.checkpoints.records import NewCheckpoint
from core.jobs.kinds import KINDS, JobKind
from core.jobs.metrics.chunks import Chunk, MetricPoints
from core.jobs.queue.claim import Claim, claim_job
from core.jobs.queue.submit import create_job
from core.queue import Hints
from core.recipe.plan import ExecutionPlan, Planned
from core.recipe.spec import JobSpec
from core.store.keys import checkpoint_prefix

OWNER = "alice"
LEASE = 12.0


class HeardHints(Hints):
    """Keeps hints instead of sending them."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def send(self, needs: str) -> None:
        self.heard.append(needs)


def small_spec(**changes: Any) -> JobSpec:
    """A resolved spec that says little; `changes` are fields of the body."""
    body = {
        "model": {"name": "mlp", "hidden": [8]},
        "data": {"name": "iris"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "epochs": 3,
    }
    return JobSpec.model_validate_json(json.dumps(body | changes)).resolved()


def plan_of(spec: Planned, device: str = "cpu") -> ExecutionPlan:
    return ExecutionPlan.model_validate(
        {
            "device": device,
            "threads": 1,
            "precision": "fp32",
            "kernel": "autograd",
            "compile": False,
            "deterministic": spec.deterministic,
            "versions": {"torch": "2.13.0"},
        },
    )


def submitted(db: Database, **changes: Any) -> str:
    """The id of a fresh queued job."""
    return create_job(db, small_spec(**changes), owner=OWNER).job_id


def taken(
    db: Database,
    lease: float = LEASE,
    needs: tuple[str, ...] = ("cpu", "any"),
    kinds: tuple[JobKind[Any], ...] = KINDS,
) -> Claim | None:
    """Claim for a CPU slot; a negative lease has run out already."""
    return claim_job(db, worker="host:cpu0", needs=needs, plan_for=plan_of, lease_seconds=lease, kinds=kinds)


def running(db: Database, lease: float = LEASE, **changes: Any) -> Fence:
    """Submit a job and claim it."""
    job_id = submitted(db, **changes)
    found = taken(db, lease)
    assert found is not None
    assert found.job_id == job_id
    return Fence(job_id, found.attempt)


def chunk(series: str, first: int, count: int, after_step: int = 0, number: int = 0) -> Chunk:
    """Steps first, first+1, …; the value of step t is t/2, its time 1000+t."""
    steps = list(range(first, first + count))
    points = MetricPoints(series, steps, [step / 2 for step in steps], [1000.0 + step for step in steps])
    return Chunk(series, after_step, number, points)


def new_checkpoint(fence: Fence, step: int, kind: str = "last") -> NewCheckpoint:
    return NewCheckpoint(
        step=step,
        epoch=step // 4,
        kind=kind,
        key=checkpoint_prefix(fence.job_id, fence.attempt, step),
        sha256="ab" * 32,
        bytes=1234,
        files={"weights": {"name": "weights.safetensors", "sha256": "ab" * 32, "bytes": 1234}},
        metrics={"val.loss": 0.5},
        manifest={"step": step},
        id=new_id("ckpt"),
    )


def state_of(db: Database, job_id: str) -> dict[str, Any]:
    """The state row as a dictionary."""
    with db.read() as connection:
        return dict(connection.execute(select(job_state).where(job_state.c.job_id == job_id)).mappings().one())


def set_state(db: Database, job_id: str, **columns: Any) -> None:
    with db.write() as connection:
        connection.execute(update(job_state).where(job_state.c.job_id == job_id).values(**columns))


def run_out(db: Database, job_id: str) -> None:
    """The lease ended a second ago."""
    set_state(db, job_id, lease_until=database_now() - 1.0)


def last_tick(db: Database, seconds_ago: float, name: str = "tick") -> None:
    """Pretend that the reconcilers' last round was then."""
    with db.write() as connection:
        connection.execute(
            update(service_state).where(service_state.c.name == name).values(at=database_now() - seconds_ago),
        )
