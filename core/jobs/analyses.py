"""Analyses: jobs that read checkpoints of training jobs, or results of other analyses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from sqlalchemy import Connection, insert, select

from core.db.session import Database
from core.db.tables import analysis_input, checkpoint, job
from core.errors import FieldProblem, InvalidSpec, UnreadableSpec
from core.ids import new_id
from core.jobs.attempt.state import lock_state
from core.jobs.checkpoints.records import CheckpointRow, find_checkpoint, list_resumable
from core.jobs.datasets.use import datasets_used, record_use
from core.jobs.kinds import ANALYSIS, TRAIN
from core.jobs.queries import JobView, list_views
from core.jobs.queue.submit import (
    Idempotency,
    SubmitContext,
    SubmitResult,
    claim_idempotency_key,
    insert_job,
    require_plugins,
)
from core.jobs.search import JobSearch
from core.jobs.warm_start import StartCheckpoint, choose_checkpoint
from core.lifecycle import TERMINAL, Status
from core.recipe.analyses import AnalysisSpec, AnyAnalysis, ResultsSpec
from core.recipe.analyses.base import Takes
from core.recipe.plugins import plugins_used
from core.recipe.spec import JobSpec

AVERAGED = ("swa", "ema")


@dataclass(frozen=True, slots=True)
class InputRef:
    """One input of an analysis: a checkpoint of a job, or the job's recipe where `checkpoint_id` is None.

    The result of an analysis is a checkpoint of kind `result`; `job_id` then holds the id of that analysis.
    """

    job_id: str
    checkpoint_id: str | None
    step: int
    checkpoint_kind: str | None


@dataclass(frozen=True, slots=True)
class AnalysisInput:
    """An input as the worker needs it: label, spec of the job, checkpoint row. `row` is None for a recipe."""

    label: str
    job_id: str
    spec: JobSpec
    row: CheckpointRow | None


@dataclass(frozen=True, slots=True)
class ResultInput:
    """The result of an analysis as an input of another one: its spec, its numbers, and the row of its arrays."""

    label: str
    spec: AnyAnalysis
    numbers: dict[str, Any]
    row: CheckpointRow


@dataclass(frozen=True, slots=True)
class NewInput:
    """A chosen input of a new analysis, with the spec of the job that it is of. `id` is None for a recipe."""

    id: str | None
    job_id: str
    step: int
    kind: str | None
    spec: JobSpec | AnyAnalysis


def create_analysis(
    db: Database, spec: AnyAnalysis, entry: SubmitContext, idempotency: Idempotency | None = None
) -> SubmitResult:
    """Store an analysis as queued. Its inputs are chosen here, and are kept until it has ended.

    Raises:
        IdempotencyMismatch: the key was used before with another body.
        InvalidSpec: there is no such job, checkpoint or result, it does not fit, or it would take too much.
        DataGone: the dataset of a job was deleted.
        QuotaExceeded: as many jobs of this project wait as the limits allow.
        StorageFull: the checkpoints of this project take as much as the limits allow.
    """
    with db.write() as connection:
        analysis_id = new_id(ANALYSIS.id_prefix)
        if (first := claim_idempotency_key(connection, entry.project, idempotency, analysis_id)) != analysis_id:
            return SubmitResult(first, created=False, needs=ANALYSIS.slot_needed(spec))
        chosen = _CHOOSE[spec.takes](connection, entry.project, spec)
        problems = tuple(spec.problems([each.spec for each in chosen]))
        if spec.takes == "results":
            problems = problems or tuple(_other_weights(connection, chosen))
        if problems:
            raise InvalidSpec(errors=problems)
        insert_job(connection, ANALYSIS, analysis_id, spec, entry)
        rows = [
            {
                "analysis_id": analysis_id,
                "position": position,
                "job_id": each.job_id,
                "checkpoint_id": each.id,
                "step": each.step,
                "checkpoint_kind": each.kind,
            }
            for position, each in enumerate(chosen)
        ]
        connection.execute(insert(analysis_input), rows)
        data = {used for each in chosen for used in datasets_used(each.spec)}
        record_use(connection, entry.project, analysis_id, sorted(data))
        plugins = {plugin.name: plugin for each in chosen for plugin in plugins_used(each.spec)}
        require_plugins(connection, analysis_id, tuple(plugins.values()), entry.lost_after)
    return SubmitResult(analysis_id, created=True, needs=ANALYSIS.slot_needed(spec))


def select_inputs(connection: Connection, ids: Sequence[str]) -> dict[str, list[InputRef]]:
    """Analysis id -> its inputs, in order."""
    row = analysis_input.c
    query = (
        select(row.analysis_id, *(row[column.name] for column in fields(InputRef)))
        .where(row.analysis_id.in_(ids))
        .order_by(row.analysis_id, row.position)
    )
    found: dict[str, list[InputRef]] = {analysis_id: [] for analysis_id in ids}
    for analysis_id, *rest in connection.execute(query):
        found[analysis_id].append(InputRef(*rest))
    return found


def load_inputs(connection: Connection, analysis_id: str) -> tuple[AnalysisInput, ...]:
    """The inputs of a claimed analysis. ValueError when one of them no longer exists."""
    return tuple(_load_input(connection, each) for each in select_inputs(connection, [analysis_id])[analysis_id])


def load_results(connection: Connection, analysis_id: str) -> tuple[ResultInput, ...]:
    """The results that a claimed analysis reads. ValueError when one of them no longer exists."""
    return tuple(_load_result(connection, each) for each in select_inputs(connection, [analysis_id])[analysis_id])


def result_of(db: Database, project: str, analysis_id: str) -> CheckpointRow | None:
    """The checkpoint row of an analysis' data and pictures; None before it has written them."""
    with db.read() as connection:
        return _find_result(connection, project, analysis_id)


def _find_result(connection: Connection, project: str, analysis_id: str) -> CheckpointRow | None:
    row = checkpoint.c
    query = (
        select(row.id)
        .join(job, job.c.id == row.job_id)
        .where(row.job_id == analysis_id, job.c.project == project, row.kind == "result", row.status == "good")
        .order_by(row.id.desc())
        .limit(1)
    )
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else find_checkpoint(connection, found)


def inputs_of(db: Database, ids: Sequence[str]) -> dict[str, list[InputRef]]:
    """As `select_inputs`, in a transaction of its own."""
    with db.read() as connection:
        return select_inputs(connection, ids)


def list_analysis_views(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    project: str,
    search: JobSearch,
    *,
    of_job: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[JobView], bool]:
    """At most `limit` analyses after id `after`, and whether more follow. `of_job`: only those that read this job."""
    conditions = [job.c.kind == ANALYSIS.name, *search.where_clauses()]
    if of_job is not None:
        row = analysis_input.c
        conditions.append(job.c.id.in_(select(row.analysis_id).where(row.job_id == of_job)))
    return list_views(db, project, conditions, after=after, limit=limit, order=order)


def _load_input(connection: Connection, given: InputRef) -> AnalysisInput:
    known = connection.execute(select(job.c.name, job.c.spec).where(job.c.id == given.job_id)).one_or_none()
    row = find_checkpoint(connection, given.checkpoint_id) if given.checkpoint_id else None
    if known is None or (given.checkpoint_id and (row is None or row.status != "good")):
        raise ValueError(f"an input of the analysis no longer exists: {given.checkpoint_id or given.job_id}")
    label = known.name or given.job_id
    if row:
        label += f" ({row.kind}, step {row.step})"
    return AnalysisInput(label, given.job_id, TRAIN.read_spec(known.spec), row)


def _load_result(connection: Connection, given: InputRef) -> ResultInput:
    row = find_checkpoint(connection, given.checkpoint_id) if given.checkpoint_id else None
    known = connection.execute(select(job.c.spec, job.c.results).where(job.c.id == given.job_id)).one_or_none()
    if known is None or row is None or row.status != "good":
        raise ValueError(f"a result that the analysis reads no longer exists: {given.job_id}")
    return ResultInput(given.job_id, ANALYSIS.read_spec(known.spec), dict(known.results or {}), row)


def _choose_recipe(connection: Connection, project: str, spec: AnalysisSpec) -> list[NewInput]:
    recipe = _find_recipe(connection, project, str(spec.job))
    return [NewInput(None, recipe.job_id, recipe.step, None, recipe.spec)]


def _choose_run(connection: Connection, project: str, spec: AnalysisSpec) -> list[NewInput]:
    if not spec.job:
        return _choose_weights(connection, project, spec)
    recipe = _find_recipe(connection, project, spec.job)
    run = [_as_new_input(each) for each in _expand_run(connection, recipe)]
    if len(run) < spec.fewest:
        message = f"{spec.kind} needs {spec.fewest} checkpoints or more of a run, and this job has kept {len(run)}"
        hint = 'train it with "checkpoints": {"every": …, "keep_last": …} that keep more'
        raise InvalidSpec(errors=(FieldProblem("/job", message, hint),))
    return run


def _choose_weights(connection: Connection, project: str, spec: AnalysisSpec) -> list[NewInput]:
    several = spec.checkpoints is not None
    return [
        _as_new_input(choose_checkpoint(connection, project, start, f"/checkpoints/{number}" if several else ""))
        for number, start in enumerate(spec.requested_starts())
    ]


def _as_new_input(chosen: StartCheckpoint) -> NewInput:
    return NewInput(chosen.id, chosen.job_id, chosen.step, chosen.kind, chosen.spec)


def _choose_results(connection: Connection, project: str, spec: ResultsSpec) -> list[NewInput]:
    """The results of analyses that have succeeded. Their state rows are locked, as a deletion locks them."""
    found = [_check_usable(connection, project, each, f"/analyses/{place}") for place, each in enumerate(spec.analyses)]
    if problems := tuple(each for each in found if isinstance(each, FieldProblem)):
        raise InvalidSpec(errors=problems)
    return [each for each in found if isinstance(each, NewInput)]


def _check_usable(connection: Connection, project: str, analysis_id: str, pointer: str) -> NewInput | FieldProblem:
    state = lock_state(connection, analysis_id, exclusive=False)
    query = select(job.c.spec).where(job.c.id == analysis_id, job.c.project == project, job.c.kind == ANALYSIS.name)
    spec = connection.execute(query).scalar_one_or_none()
    if state is None or spec is None:
        return FieldProblem(pointer, "there is no analysis of yours with this id", "GET /v1/analyses lists them")
    if state.status is not Status.SUCCEEDED:
        hint = "submit it again" if state.status in TERMINAL else "wait until it has succeeded"
        return FieldProblem(pointer, f"it has not succeeded: it is {state.status}", hint)
    row = _find_result(connection, project, analysis_id)
    if row is None:
        return FieldProblem(pointer, "its result no longer exists", "submit it again")
    try:
        found = ANALYSIS.read_spec(spec)
    except UnreadableSpec as error:
        return FieldProblem(pointer, error.message)
    return NewInput(row.id, analysis_id, row.step, row.kind, found)


def _other_weights(connection: Connection, chosen: Sequence[NewInput]) -> Iterator[FieldProblem]:
    """A problem for each result of an analysis that read other weights than the first one did."""
    looked = select_inputs(connection, [each.job_id for each in chosen])
    seen = [[(one.job_id, one.checkpoint_id) for one in looked[each.job_id]] for each in chosen]
    for place, each in enumerate(seen):
        if each != seen[0]:
            message = "it read other checkpoints than the first analysis"
            yield FieldProblem(f"/analyses/{place}", message, 'name them: "checkpoint": "ckpt_…"')


def _expand_run(connection: Connection, recipe: StartCheckpoint) -> Iterator[StartCheckpoint]:
    """The checkpoints that the run has kept, by step, then its averaged weights."""
    for row in list_resumable(connection, recipe.job_id):
        yield StartCheckpoint(row.id, recipe.job_id, row.step, row.kind, recipe.spec)
    known = checkpoint.c
    query = (
        select(known.id, known.step, known.kind)
        .where(known.job_id == recipe.job_id, known.status == "good", known.kind.in_(AVERAGED))
        .where(known.superseded.is_(None))
        .order_by(known.kind.desc(), known.step)
    )
    for row_id, step, kind in connection.execute(query):
        yield StartCheckpoint(row_id, recipe.job_id, step, kind, recipe.spec)


def _find_recipe(connection: Connection, project: str, job_id: str) -> StartCheckpoint:
    query = select(job.c.spec).where(job.c.id == job_id, job.c.project == project, job.c.kind == TRAIN.name)
    found = connection.execute(query.with_for_update(read=True, of=job)).scalar_one_or_none()
    if found is None:
        raise InvalidSpec(errors=(FieldProblem("/job", "there is no job of yours with this id"),))
    try:
        spec = TRAIN.read_spec(found)
    except UnreadableSpec as error:
        raise InvalidSpec(errors=(FieldProblem("/job", error.message),)) from error
    return StartCheckpoint("", job_id, 0, "", spec)


_CHOOSE: Final[Mapping[Takes, Callable[[Connection, str, Any], list[NewInput]]]] = {
    "weights": _choose_weights,
    "run": _choose_run,
    "recipe": _choose_recipe,
    "results": _choose_results,
}
"""What an analysis takes -> the function that finds and locks its inputs."""
