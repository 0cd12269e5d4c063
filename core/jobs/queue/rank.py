"""Queue positions: how many queued jobs are served before a job by the slots that could take it."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, case, func, or_, select

from core.db.tables import job_state
from core.jobs.health.workers import kinds_seen
from core.lifecycle import LIGHT, Status

_KINDS: Final = ("cpu", "gpu")
PLACES: Final[Mapping[str, str]] = {"cpu": "cpu slot", "gpu": "gpu slot", "any": "slot", LIGHT: "light lane"}
"""What a job needs -> the words for a place in which it runs."""


def count_ahead(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Job id -> how many queued jobs are served before it. The kinds of slots are those of the workers that report."""
    if not ids:
        return {}
    given = {"ids": list(ids), "rivals": competing_needs(kinds_seen(connection))}
    return {job_id: int(ahead) for job_id, ahead in connection.execute(_select_ahead(), given)}


def no_slot(needs: str, kinds: Collection[str]) -> str | None:
    """The warning where no worker has a suitable slot, but workers with slots of other kinds report; else None."""
    if needs == "any" or needs in kinds or not kinds:
        return None
    return f"No worker that reports now has a {PLACES[needs]}; the job waits until one comes."


def competing_needs(kinds: Collection[str]) -> tuple[str, ...]:
    """The needs that compete with a job that any slot can run: those that slots of these kinds serve. No kind: all."""
    return ("any", *(kind for kind in _KINDS if kind in kinds or not kinds))


def ahead_in_queue(kinds: Collection[str]) -> ColumnElement[int]:
    """`count_ahead` as a window function over all queued rows of job_state, in one pass."""
    row = job_state.c

    def count_before(rivals: Sequence[str]) -> ColumnElement[Any]:
        itself_and_before = case((row.needs.in_(rivals), 1), else_=0)
        return func.sum(itself_and_before).over(order_by=(row.rank, row.job_id)) - 1

    return case(
        (row.needs == "cpu", count_before(("any", "cpu"))),
        (row.needs == "gpu", count_before(("any", "gpu"))),
        (row.needs == LIGHT, count_before((LIGHT,))),
        else_=count_before(competing_needs(kinds)),
    )


@cache
def _select_ahead() -> Select[Any]:
    """Built once: building it costs more than executing it. The index of the queue holds all columns that it reads."""
    mine, rival = job_state.c, job_state.alias("rival").c
    before = or_(rival.rank < mine.rank, rival.job_id < mine.job_id)
    competes = or_(
        and_(rival.needs == "any", mine.needs != LIGHT),
        rival.needs == mine.needs,
        and_(mine.needs == "any", rival.needs.in_(bindparam("rivals", expanding=True))),
    )
    ahead = (
        select(func.count())
        .where(rival.status == Status.QUEUED.value, rival.rank <= mine.rank, before, competes)
        .correlate(job_state)
        .scalar_subquery()
    )
    return select(mine.job_id, ahead).where(mine.job_id.in_(bindparam("ids", expanding=True)))
