"""Analyses: jobs of another kind, which look at checkpoints of jobs, or at what analyses have found."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from sqlalchemy import Connection, insert, select

from core.db.session import Database
from core.db.tables import analysis_input, checkpoint, job
from core.errors import FieldProblem, InvalidSpec, UnreadableSpec
from core.ids import new_id
from core.jobs.attempt.state import lock_state
from core.jobs.checkpoints.records import CheckpointRow, find_checkpoint, good_resumable
from core.jobs.kinds import ANALYSIS, TRAIN
from core.jobs.queries import JobView, list_views
from core.jobs.queue.submit import Entry, Idempotency, Submitted, enter, need_plugins, promised
from core.jobs.search import Search
from core.jobs.warm_start import Chosen, choose
from core.lifecycle import TERMINAL, Status
from core.recipe.analyses import AnalysisSpec, AnyAnalysis, ResultsSpec
from core.recipe.analyses.base import Takes
from core.recipe.plugins import plugins_used
from core.recipe.spec import JobSpec

AVERAGED = ("swa", "ema")


@dataclass(frozen=True, slots=True)
class Input:
    """What an analysis looks at: a checkpoint of a job, or (without one) how it trains; or the result of an analysis,
    whose id is in `job_id`, and which is a checkpoint of kind `result`.
    """

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


@dataclass(frozen=True, slots=True)
class Found:
    """The result of an analysis that another one reads: what was asked, its numbers, and the row of its arrays."""

    label: str
    spec: AnyAnalysis
    numbers: dict[str, Any]
    row: CheckpointRow


@dataclass(frozen=True, slots=True)
class Picked:
    """What a new analysis will look at, and what it was asked to be. No `id` is a recipe."""

    id: str | None
    job_id: str
    step: int
    kind: str | None
    spec: JobSpec | AnyAnalysis


def submit_analysis(db: Database, spec: AnyAnalysis, entry: Entry, idempotency: Idempotency | None = None) -> Submitted:
    """Store an analysis as queued. What it looks at is settled here, and stays until it has ended.

    Raises:
        IdempotencyMismatch: the key was used before with another body.
        InvalidSpec: there is no such job, checkpoint or result, it does not fit, or it would take too much.
        QuotaExceeded: as many jobs of this project wait as the limits allow.
        StorageFull: the checkpoints of this project take as much as the limits allow.
    """
    with db.write() as connection:
        analysis_id = new_id(ANALYSIS.id_prefix)
        if (first := promised(connection, entry.project, idempotency, analysis_id)) != analysis_id:
            return Submitted(first, created=False, needs=ANALYSIS.slot_needed(spec))
        chosen = _CHOOSE[spec.takes](connection, entry.project, spec)
        problems = tuple(spec.problems([each.spec for each in chosen]))
        if spec.takes == "results":
            problems = problems or tuple(_elsewhere(connection, chosen))
        if problems:
            raise InvalidSpec(errors=problems)
        enter(connection, ANALYSIS, analysis_id, spec, entry)
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
        plugins = {plugin.name: plugin for each in chosen for plugin in plugins_used(each.spec)}
        need_plugins(connection, analysis_id, tuple(plugins.values()), entry.lost_after)
    return Submitted(analysis_id, created=True, needs=ANALYSIS.slot_needed(spec))


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


def findings(connection: Connection, analysis_id: str) -> tuple[Found, ...]:
    """The results that an analysis which was claimed has to read. ValueError when one of them is gone."""
    return tuple(_found(connection, each) for each in inputs(connection, [analysis_id])[analysis_id])


def result_of(db: Database, project: str, analysis_id: str) -> CheckpointRow | None:
    """Its data and pictures, once it has some."""
    with db.read() as connection:
        return _result(connection, project, analysis_id)


def _result(connection: Connection, project: str, analysis_id: str) -> CheckpointRow | None:
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


def inputs_of(db: Database, ids: Sequence[str]) -> dict[str, list[Input]]:
    """As inputs(), on its own."""
    with db.read() as connection:
        return inputs(connection, ids)


def list_analyses(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    project: str,
    search: Search,
    *,
    of_job: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[JobView], bool]:
    """At most `limit` analyses behind the id `after`, those of one job if asked; and whether more follow."""
    conditions = [job.c.kind == ANALYSIS.name, *search.conditions()]
    if of_job is not None:
        row = analysis_input.c
        conditions.append(job.c.id.in_(select(row.analysis_id).where(row.job_id == of_job)))
    return list_views(db, project, conditions, after=after, limit=limit, order=order)


def _look(connection: Connection, given: Input) -> Look:
    known = connection.execute(select(job.c.name, job.c.spec).where(job.c.id == given.job_id)).one_or_none()
    row = find_checkpoint(connection, given.checkpoint_id) if given.checkpoint_id else None
    if known is None or (given.checkpoint_id and (row is None or row.status != "good")):
        raise ValueError(f"what it looks at is gone: {given.checkpoint_id or given.job_id}")
    label = known.name or given.job_id
    if row:
        label += f" ({row.kind}, step {row.step})"
    return Look(label, given.job_id, TRAIN.read_spec(known.spec), row)


def _found(connection: Connection, given: Input) -> Found:
    row = find_checkpoint(connection, given.checkpoint_id) if given.checkpoint_id else None
    known = connection.execute(select(job.c.spec, job.c.results).where(job.c.id == given.job_id)).one_or_none()
    if known is None or row is None or row.status != "good":
        raise ValueError(f"the result that it reads is gone: {given.job_id}")
    return Found(given.job_id, ANALYSIS.read_spec(known.spec), dict(known.results or {}), row)


def _choose_recipe(connection: Connection, project: str, spec: AnalysisSpec) -> list[Picked]:
    recipe = _recipe(connection, project, str(spec.job))
    return [Picked(None, recipe.job_id, recipe.step, None, recipe.spec)]


def _choose_run(connection: Connection, project: str, spec: AnalysisSpec) -> list[Picked]:
    if not spec.job:
        return _choose_weights(connection, project, spec)
    recipe = _recipe(connection, project, spec.job)
    run = [_picked(each) for each in _run(connection, recipe)]
    if len(run) < spec.fewest:
        message = f"{spec.kind} needs {spec.fewest} checkpoints or more of a run, and this job has kept {len(run)}"
        hint = 'train it with "checkpoints": {"every": …, "keep_last": …} that keep more'
        raise InvalidSpec(errors=(FieldProblem("/job", message, hint),))
    return run


def _choose_weights(connection: Connection, project: str, spec: AnalysisSpec) -> list[Picked]:
    several = spec.checkpoints is not None
    return [
        _picked(choose(connection, project, start, f"/checkpoints/{number}" if several else ""))
        for number, start in enumerate(spec.wanted())
    ]


def _picked(chosen: Chosen) -> Picked:
    return Picked(chosen.id, chosen.job_id, chosen.step, chosen.kind, chosen.spec)


def _choose_results(connection: Connection, project: str, spec: ResultsSpec) -> list[Picked]:
    """The results of analyses that have succeeded. Their state rows are locked, as by somebody who deletes them."""
    found = [_usable(connection, project, each, f"/analyses/{place}") for place, each in enumerate(spec.analyses)]
    if problems := tuple(each for each in found if isinstance(each, FieldProblem)):
        raise InvalidSpec(errors=problems)
    return [each for each in found if isinstance(each, Picked)]


def _usable(connection: Connection, project: str, analysis_id: str, pointer: str) -> Picked | FieldProblem:
    state = lock_state(connection, analysis_id, exclusive=False)
    query = select(job.c.spec).where(job.c.id == analysis_id, job.c.project == project, job.c.kind == ANALYSIS.name)
    spec = connection.execute(query).scalar_one_or_none()
    if state is None or spec is None:
        return FieldProblem(pointer, "there is no analysis of yours with this id", "GET /v1/analyses lists them")
    if state.status is not Status.SUCCEEDED:
        hint = "ask for this one again" if state.status in TERMINAL else "wait until it has succeeded"
        return FieldProblem(pointer, f"it has not succeeded: it is {state.status}", hint)
    row = _result(connection, project, analysis_id)
    if row is None:
        return FieldProblem(pointer, "its result is gone", "ask for this one again")
    try:
        found = ANALYSIS.read_spec(spec)
    except UnreadableSpec as error:
        return FieldProblem(pointer, error.message)
    return Picked(row.id, analysis_id, row.step, row.kind, found)


def _elsewhere(connection: Connection, chosen: Sequence[Picked]) -> Iterator[FieldProblem]:
    """Results of analyses which looked at other weights than the first."""
    looked = inputs(connection, [each.job_id for each in chosen])
    seen = [[(one.job_id, one.checkpoint_id) for one in looked[each.job_id]] for each in chosen]
    for place, each in enumerate(seen):
        if each != seen[0]:
            message = "it looked at other checkpoints than the first"
            yield FieldProblem(f"/analyses/{place}", message, 'name them: "checkpoint": "ckpt_…"')


def _run(connection: Connection, recipe: Chosen) -> Iterator[Chosen]:
    """All that the run has kept of its way, then the averages that it ended with."""
    for row in good_resumable(connection, recipe.job_id):
        yield Chosen(row.id, recipe.job_id, row.step, row.kind, recipe.spec)
    known = checkpoint.c
    query = (
        select(known.id, known.step, known.kind)
        .where(known.job_id == recipe.job_id, known.status == "good", known.kind.in_(AVERAGED))
        .where(known.superseded.is_(None))
        .order_by(known.kind.desc(), known.step)
    )
    for row_id, step, kind in connection.execute(query):
        yield Chosen(row_id, recipe.job_id, step, kind, recipe.spec)


def _recipe(connection: Connection, project: str, job_id: str) -> Chosen:
    query = select(job.c.spec).where(job.c.id == job_id, job.c.project == project, job.c.kind == TRAIN.name)
    found = connection.execute(query.with_for_update(read=True, of=job)).scalar_one_or_none()
    if found is None:
        raise InvalidSpec(errors=(FieldProblem("/job", "there is no job of yours with this id"),))
    try:
        spec = TRAIN.read_spec(found)
    except UnreadableSpec as error:
        raise InvalidSpec(errors=(FieldProblem("/job", error.message),)) from error
    return Chosen("", job_id, 0, "", spec)


_CHOOSE: Final[Mapping[Takes, Callable[[Connection, str, Any], list[Picked]]]] = {
    "weights": _choose_weights,
    "run": _choose_run,
    "recipe": _choose_recipe,
    "results": _choose_results,
}
"""What an analysis takes -> who finds and locks what is meant."""
