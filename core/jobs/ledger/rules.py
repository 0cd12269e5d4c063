"""What must hold of one job between two transactions. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from core.jobs.changes import NOBODY
from core.jobs.kinds import KINDS, find_kind
from core.lifecycle import TERMINAL, Desired, Status
from core.recipe.stopping import StopReason

_GOALS: Final = frozenset(get_args(StopReason)) - {"cancelled", "non_finite"}


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job and its state as the database has them. `status` is None where there is no state row."""

    id: str
    kind: str
    project: str
    planned: bool
    started_at: float | None
    finished_at: float | None
    stop_reason: str | None
    error: Any
    status: str | None
    desired: str | None
    attempt: int | None
    lease_until: float | None
    worker: str | None
    checkpoint_id: str | None
    state_project: str | None
    parent_id: str | None
    pointed: tuple[str, str, bool] | None  # of checkpoint_id, whose ever it is: its job, its status, resumable


@dataclass(frozen=True, slots=True)
class CheckpointLine:
    """A checkpoint's row, without the columns that only a resume reads."""

    id: str
    job_id: str
    attempt: int
    step: int
    kind: str
    resumable: int
    key: str
    sha256: str
    bytes: int
    files: dict[str, Any]
    status: str
    stored: int | None


@dataclass(frozen=True, slots=True)
class InputLine:
    """An input of an analysis. `whose` is the project of the input's job, None where that is deleted; `status` is that
    of the checkpoint.
    """

    analysis_id: str
    position: int
    job_id: str
    checkpoint_id: str | None
    whose: str | None
    status: str | None


def state_problems(line: JobLine) -> Iterator[str]:
    """The state row exists, its words are known, and exactly the columns that its status needs are set."""
    if line.status is None:
        yield "it has no state row"
        return
    if line.status not in set(Status) or line.desired not in set(Desired):
        yield f"status {line.status!r} or desired state {line.desired!r} is no word of the protocol"
        return
    if line.state_project not in {None, line.project}:
        yield f"its state belongs to {line.state_project!r}, the job to {line.project!r}"
    held = {"lease": line.lease_until, "worker": line.worker}
    if line.status != Status.RUNNING:
        yield from (f"it is {line.status} and has a {what}" for what, value in held.items() if value is not None)
        return
    needed = {**held, "plan": line.planned or None, "start": line.started_at, "attempt": line.attempt or None}
    yield from (f"it is running without a {what}" for what, value in needed.items() if value is None)


def ending_problems(line: JobLine) -> Iterator[str]:
    """Ended jobs have the time and the reason of their end; other jobs have neither."""
    facts = {"finished_at": line.finished_at, "stop_reason": line.stop_reason, "error": line.error}
    if line.status not in TERMINAL:
        yield from (f"it is {line.status} and has {what}" for what, value in facts.items() if value is not None)
        return
    if line.finished_at is None:
        yield f"it is {line.status} and has no finished_at"
    match line.status:
        case Status.FAILED:
            fits = line.stop_reason in {None, "non_finite"}
            if not isinstance(line.error, dict) or not line.error.get("code"):
                yield "it failed without an error"
        case Status.CANCELLED:
            fits = line.stop_reason == "cancelled"
        case _:
            fits = line.stop_reason in _GOALS
    if not fits:
        yield f"it is {line.status} with stop_reason {line.stop_reason!r}"
    if line.status != Status.FAILED and line.error is not None:
        yield f"it is {line.status} and has an error"


def checkpoint_problems(line: JobLine, rows: Sequence[CheckpointLine]) -> Iterator[tuple[str, str]]:
    """(id, problem): a job resumes from its newest good checkpoint, or its parent's; rows agree with their files.

    Deleted jobs are not checked. A job that has not read its checkpoint itself may still point at one that another job
    found corrupt. A child that has ended outlives the checkpoint that it began with.
    """
    if line.project == NOBODY or line.status is None:
        return
    good = [row for row in rows if row.status == "good"]
    usable = [row for row in good if row.resumable]
    own = [row for row in rows if row.id == line.checkpoint_id]
    stray = line.checkpoint_id if not own and not _is_parents(line) else None
    if stray is not None:
        yield stray, "the job would resume from it, and it is neither this job's nor its parent's"
    yield from (
        (row.id, f"the job would resume from it, and it is {row.status if row.resumable else 'not resumable'}")
        for row in own
        if not row.resumable or row.status == "doomed"
    )
    last = max((row.step for row in own), default=-1)
    yield from (
        (row.id, f"it is good and resumable at step {row.step}, and the job would not resume from it")
        for row in usable
        if row.step > last and stray is None
    )
    for row in good:
        weights = row.files.get("weights") or {}
        if (weights.get("sha256"), weights.get("bytes")) != (row.sha256, row.bytes):
            yield row.id, "its row and its list of files disagree about the weights"
        if row.stored not in {None, sum(int(file["bytes"]) for file in row.files.values())}:
            yield row.id, f"its files do not add up to {row.stored} bytes"


def input_problems(line: JobLine, inputs: Sequence[InputLine]) -> Iterator[tuple[str, str]]:
    """(id, problem): a job has inputs exactly if its kind has, and its inputs exist until it has ended.

    A corrupt checkpoint still exists; the analysis that reads it fails with that reason.
    """
    if line.project == NOBODY or line.status is None:
        return
    kind = find_kind(KINDS, line.kind)
    if (kind is not None and kind.reads is not None) != bool(inputs):
        yield "", f"it is of the kind {line.kind}, and has {'inputs' if inputs else 'no inputs'}"
    if [each.position for each in inputs] != list(range(len(inputs))):
        yield "", "one of its inputs is missing from their list"
    for each in inputs if line.status not in TERMINAL else ():
        if each.whose in {None, NOBODY}:
            yield each.job_id, "the job needs it as an input, and it is gone"
        elif each.whose != line.project:
            yield each.job_id, f"the job needs it as an input, and it is of {each.whose}"
        elif each.checkpoint_id and each.status in {None, "doomed"}:
            yield each.checkpoint_id, f"the job needs it as an input, and it is {each.status or 'gone'}"


def _is_parents(line: JobLine) -> bool:
    if line.pointed is None:
        return line.parent_id is not None and line.status in TERMINAL
    whose, status, resumable = line.pointed
    return whose == line.parent_id and resumable and (status != "doomed" or line.status in TERMINAL)
