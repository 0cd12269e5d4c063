"""The checkpoint that a job begins with, or that an analysis reads: it is chosen when the job is submitted."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, select

from core.db.tables import checkpoint, job
from core.errors import FieldProblem, InvalidSpec, UnreadableSpec
from core.jobs.kinds import TRAIN
from core.recipe.initial_weights import Start, same_shape
from core.recipe.spec import JobSpec


@dataclass(frozen=True, slots=True)
class StartCheckpoint:
    """A checkpoint, and the job that it is of."""

    id: str
    job_id: str
    step: int
    kind: str
    spec: JobSpec


def start_columns(connection: Connection, project: str, spec: JobSpec) -> dict[str, Any]:
    """The columns of `job` about its initial weights; none if they are those of its seed. The checkpoint is locked.

    Raises:
        InvalidSpec: there is no such checkpoint of this project, or it is of another architecture.
    """
    if spec.start is None:
        return {}
    chosen = choose_checkpoint(connection, project, spec.start, "/from")
    theirs = chosen.spec
    if not same_shape((spec.model, spec.data.facts()), (theirs.model, theirs.data.facts())):
        message = f"its weights are those of another model: {theirs.model.name} on {theirs.data.name}"
        raise InvalidSpec(errors=(FieldProblem("/from", message, "take its model, and data of the same shape"),))
    return {
        "initial_id": chosen.id,
        "parent_id": chosen.job_id,
        "parent_verb": "from",
        "parent_step": chosen.step,
    }


def choose_checkpoint(connection: Connection, project: str, start: Start, pointer: str) -> StartCheckpoint:
    """The named checkpoint, locked; `pointer` is the JSON pointer of `start` in the document.

    Raises:
        InvalidSpec: there is no such checkpoint of this project.
    """
    row = checkpoint.c
    query = (
        select(row.id, row.job_id, row.step, row.kind, job.c.spec)
        .join(job, job.c.id == row.job_id)
        .where(job.c.project == project, job.c.kind == TRAIN.name, row.status == "good")
        .where(
            row.id == start.checkpoint if start.checkpoint else and_(row.job_id == start.job, row.superseded.is_(None))
        )
        .order_by(row.step.desc(), row.id.desc())
        .with_for_update(read=True, of=checkpoint)
    )
    found = connection.execute(query).all()
    wanted = (
        found if start.checkpoint else [one for kind in start.checkpoint_kinds() for one in found if one.kind == kind]
    )
    if not wanted:
        field = "checkpoint" if start.checkpoint else "job"
        what = f"no checkpoint of kind {start.weights}" if start.weights and found else "no checkpoint"
        hint = "its checkpoints: " + ", ".join(sorted({one.kind for one in found})) if found else None
        raise InvalidSpec(errors=(FieldProblem(f"{pointer}/{field}", f"there is {what} of yours with this id", hint),))
    best = wanted[0]
    try:
        spec = TRAIN.read_spec(best.spec)
    except UnreadableSpec as error:
        raise InvalidSpec(errors=(FieldProblem(pointer, error.message),)) from error
    return StartCheckpoint(best.id, best.job_id, best.step, best.kind, spec)
