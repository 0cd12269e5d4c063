"""Analyses: jobs of another kind, which look at checkpoints of jobs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from sqlalchemy import Connection, insert, select

from core.db.session import Database
from core.db.tables import analysis_input, checkpoint, job
from core.errors import FieldProblem, InvalidSpec
from core.ids import new_id
from core.jobs.checkpoints import CheckpointRow, find_checkpoint, good_resumable
from core.jobs.queries import JobView, list_views
from core.jobs.search import Search
from core.jobs.submit import Entry, Idempotency, Submitted, enter, needs, promised
from core.jobs.warmstart import Chosen, choose
from core.recipe.analyses import AnalysisSpec
from core.recipe.spec import JobSpec

AVERAGED = ("swa", "ema")


@dataclass(frozen=True, slots=True)
class Input:
    """What an analysis looks at: a checkpoint, or (without one) how a job trains."""

    job_id: str
    checkpoint_id: str | None
    step: int
    checkpoint_kind: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """The same with what is needed to do it. `row` is None for a recipe."""

    label: str
    job_id: str
    spec: JobSpec
    row: CheckpointRow | None


def submit_analysis(
    db: Database, spec: AnalysisSpec, entry: Entry, idempotency: Idempotency | None = None
) -> Submitted:
    """Store an analysis as queued. Which checkpoints it looks at is settled here; they stay until it has ended.

    Raises:
        IdempotencyMismatch: the key was used before with another body.
        InvalidSpec: there is no such job or checkpoint, it does not fit, or it would take too much.
        QuotaExceeded: as many jobs of this owner wait as the limits allow.
        StorageFull: the checkpoints of this owner take as much as the limits allow.
    """
    with db.write() as connection:
        analysis_id = new_id("an")
        if idempotency is not None:
            first = promised(connection, entry.owner, idempotency, analysis_id)
            if first != analysis_id:
                return Submitted(first, created=False, needs=needs(spec))
        chosen = _chosen(connection, entry.owner, spec)
        problems = tuple(spec.problems([each.spec for each, _ in chosen]))
        if problems:
            raise InvalidSpec(errors=problems)
        enter(connection, analysis_id, spec, entry)
        rows = [
            {
                "analysis_id": analysis_id,
                "position": position,
                "job_id": each.job_id,
                "checkpoint_id": each.id if is_there else None,
                "step": each.step,
                "checkpoint_kind": each.kind if is_there else None,
            }
            for position, (each, is_there) in enumerate(chosen)
        ]
        connection.execute(insert(analysis_input), rows)
    return Submitted(analysis_id, created=True, needs=needs(spec))


def inputs(connection: Connection, ids: Sequence[str]) -> dict[str, list[Input]]:
    """What each of these analyses looks at, in order."""
    row = analysis_input.c
    query = (
        select(row.analysis_id, *(row[column.name] for column in fields(Input)))
        .where(row.analysis_id.in_(ids))
        .order_by(row.analysis_id, row.position)
    )
    found: dict[str, list[Input]] = {analysis_id: [] for analysis_id in ids}
    for analysis_id, *rest in connection.execute(query):
        found[analysis_id].append(Input(*rest))
    return found


def looks(connection: Connection, analysis_id: str) -> tuple[Look, ...]:
    """What an analysis that was claimed has to look at. ValueError when one of them is gone."""
    return tuple(_look(connection, each) for each in inputs(connection, [analysis_id])[analysis_id])


def result_of(db: Database, owner: str, analysis_id: str) -> CheckpointRow | None:
    """Its data and pictures, once it has some."""
    row = checkpoint.c
    query = (
        select(row.id)
        .join(job, job.c.id == row.job_id)
        .where(row.job_id == analysis_id, job.c.owner == owner, row.kind == "result", row.status == "good")
        .order_by(row.id.desc())
        .limit(1)
    )
    with db.read() as connection:
        found = connection.execute(query).scalar_one_or_none()
        return None if found is None else find_checkpoint(connection, found)


def inputs_of(db: Database, ids: Sequence[str]) -> dict[str, list[Input]]:
    """As inputs(), on its own."""
    with db.read() as connection:
        return inputs(connection, ids)


def list_analyses(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    owner: str,
    search: Search,
    *,
    of_job: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[JobView], bool]:
    """At most `limit` analyses behind the id `after`, those of one job if asked; and whether more follow."""
    conditions = [job.c.kind == "analysis", *search.conditions()]
    if of_job is not None:
        row = analysis_input.c
        conditions.append(job.c.id.in_(select(row.analysis_id).where(row.job_id == of_job)))
    return list_views(db, owner, conditions, after=after, limit=limit, order=order)


def _look(connection: Connection, given: Input) -> Look:
    known = connection.execute(select(job.c.name, job.c.spec).where(job.c.id == given.job_id)).one_or_none()
    row = find_checkpoint(connection, given.checkpoint_id) if given.checkpoint_id else None
    if known is None or (given.checkpoint_id and (row is None or row.status != "good")):
        raise ValueError(f"what it looks at is gone: {given.checkpoint_id or given.job_id}")
    label = known.name or given.job_id
    if row:
        label += f" ({row.kind}, step {row.step})"
    return Look(label, given.job_id, JobSpec.model_validate_json(known.spec), row)


def _chosen(connection: Connection, owner: str, spec: AnalysisSpec) -> list[tuple[Chosen, bool]]:
    """Each with whether it is a checkpoint, and not a recipe alone."""
    if spec.takes == "recipe":
        return [(_recipe(connection, owner, str(spec.job)), False)]
    if spec.takes == "run" and spec.job:
        recipe = _recipe(connection, owner, spec.job)
        run = [(each, True) for each in _run(connection, recipe)]
        if len(run) < spec.fewest:
            message = f"{spec.kind} needs {spec.fewest} checkpoints or more of a run, and this job has kept {len(run)}"
            hint = 'train it with "checkpoints": {"every": …, "keep_last": …} that keep more'
            raise InvalidSpec(errors=(FieldProblem("/job", message, hint),))
        return run
    several = spec.checkpoints is not None
    return [
        (choose(connection, owner, start, f"/checkpoints/{number}" if several else ""), True)
        for number, start in enumerate(spec.wanted())
    ]


def _run(connection: Connection, recipe: Chosen) -> Iterator[Chosen]:
    """All that the run has kept of its way, then the averages that it ended with."""
    for row in good_resumable(connection, recipe.job_id):
        yield Chosen(row.id, recipe.job_id, row.step, row.kind, recipe.spec)
    known = checkpoint.c
    query = (
        select(known.id, known.step, known.kind)
        .where(known.job_id == recipe.job_id, known.status == "good", known.kind.in_(AVERAGED))
        .order_by(known.kind.desc(), known.step)
    )
    for row_id, step, kind in connection.execute(query):
        yield Chosen(row_id, recipe.job_id, step, kind, recipe.spec)


def _recipe(connection: Connection, owner: str, job_id: str) -> Chosen:
    query = select(job.c.spec).where(job.c.id == job_id, job.c.owner == owner, job.c.kind == "train")
    found = connection.execute(query.with_for_update(read=True, of=job)).scalar_one_or_none()
    if found is None:
        raise InvalidSpec(errors=(FieldProblem("/job", "there is no job of yours with this id"),))
    return Chosen("", job_id, 0, "", JobSpec.model_validate_json(found))
