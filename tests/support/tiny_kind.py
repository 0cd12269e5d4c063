"""A third kind of job, `sum`: the service's record, the worker's record, and what its runner calls. It adds integers.

python -m tests.support.tiny_kind FD PARENT      a runner that knows it beside the kinds of the release
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from core.engine.events import Ended, Observer
from core.engine.liveness import ReportAlive
from core.jobs.kinds import JobKind, Retention
from core.jobs.kinds.base import slot_needed
from core.recipe.assignment import AnyAssignment
from core.recipe.component import Spec
from core.recipe.spec import Resources
from worker import runner
from worker.kinds import WORKER_KINDS, Provider, WorkerKind


class SumSpec(Spec):
    deterministic: ClassVar[bool] = True
    max_retries: ClassVar[int] = 0

    numbers: tuple[int, ...]
    name: str | None = None
    resources: Resources = Resources()
    priority: int = 0
    metadata: dict[str, str] = Field(default_factory=dict)


class SumAssignment(AnyAssignment):
    kind: Literal["sum"] = "sum"
    spec: SumSpec


def parse(body: bytes, _document: object) -> SumSpec:
    return SumSpec.model_validate_json(body)


def keep_all(_stored: Mapping[str, Any]) -> Retention:
    return Retention()


def build_sum_assignment(provider: Provider, spec: SumSpec) -> SumAssignment:
    claim = provider.claim
    return SumAssignment(job=claim.job_id, attempt=claim.attempt, spec=spec, plan=claim.plan, scratch=provider.scratch)


def add_up(assignment: SumAssignment, observer: Observer, *, report_alive: ReportAlive) -> Ended:
    numbers = assignment.spec.numbers
    progress = {"step": len(numbers), "steps": len(numbers), "fraction": 1.0}
    return Ended("succeeded", "completed", {"sum": sum(numbers)}, None, progress)


SUM: JobKind[SumSpec] = JobKind(
    name="sum",
    noun="sum",
    collection="sums",
    id_prefix="sum",
    parse_spec=parse,
    read_spec=SumSpec.model_validate_json,
    keep_checkpoints=keep_all,
    slot_needed=slot_needed,
)
SUM_ON_WORKER = WorkerKind(
    name="sum",
    assignment=SumAssignment,
    build_assignment=build_sum_assignment,
    entry_point="tests.support.tiny_kind:add_up",
)

if __name__ == "__main__":
    runner.main((*WORKER_KINDS, SUM_ON_WORKER))
