"""Names of series in requests: an unknown name is an error, unless a running job may still write that series."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import select

from core.db.session import Database
from core.db.tables import job_state
from core.errors import FieldProblem, InvalidRequest
from core.jobs.metrics.chunks import series_names
from core.jobs.metrics.comparison import ComparedJob
from core.lifecycle import TERMINAL
from core.suggest import did_you_mean

MOST_NAMED: Final = 12


def check_series(db: Database, subjects: Sequence[ComparedJob], names: Sequence[str]) -> None:
    """Require that each name is a series of one of these jobs, or can become one of a job that has not ended.

    Raises:
        InvalidRequest: a name is unknown; the message has the known names and the most similar one.
    """
    there = sorted({name for subject in subjects for name in series_names(db, subject.id)})
    missing = [name for name in dict.fromkeys(names) if name not in there]
    if not missing:
        return
    query = select(job_state.c.job_id).where(
        job_state.c.job_id.in_([subject.id for subject in subjects]), job_state.c.status.not_in(list(TERMINAL))
    )
    with db.read() as connection:
        open_ids = set(connection.execute(query).scalars())
    if open_ids and not there:
        return  # before the first points the names are not known
    coming = {measure for subject in subjects if subject.id in open_ids for measure in _late_measures(subject)}
    wrong = [name for name in missing if name.rpartition(".")[2] not in coming]
    if wrong:
        raise InvalidRequest(errors=tuple(_unknown_series(name, there) for name in wrong))


def _late_measures(subject: ComparedJob) -> set[str]:
    """The last parts of the names of series that begin late: of an evaluation, an average, the test at the end."""
    return {"loss", *(each.name for each in subject.spec.metrics or ())}


def _unknown_series(name: str, there: Sequence[str]) -> FieldProblem:
    more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
    known = ", ".join(there[:MOST_NAMED]) + more if there else "none"
    message = f'there is no series "{name}"; there are: {known}'
    return FieldProblem("/query/series", message, did_you_mean(name, there))
