"""The search for jobs as SQL conditions. Every value is bound as a parameter, and no user's text is a pattern."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select

from core.db.tables import job, job_label, job_state
from core.errors import InvalidRequest
from core.lifecycle import TERMINAL, Desired, Status, displayed_status


@dataclass(frozen=True, slots=True)
class JobSearch:
    """Jobs with one of these statuses, with all of these metadata pairs, with this text in name or id."""

    statuses: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None

    def where_clauses(self) -> list[ColumnElement[bool]]:
        """The conditions on the rows of `job` and `job_state`.

        Raises:
            InvalidRequest: there is no such status.
        """
        found = [_has_status(self.statuses)] if self.statuses else []
        for key, value in self.metadata.items():
            label = job_label.c
            pairs = select(label.job_id).where(label.key == key, label.value == value)
            found.append(job.c.id.in_(pairs))
        if self.text:
            words = self.text.lower()
            in_name = func.lower(job.c.name).contains(words, autoescape=True)
            found.append(or_(in_name, job.c.id.contains(words, autoescape=True)))
        return found


def _has_status(words: Sequence[str]) -> ColumnElement[bool]:
    """Displayed statuses as a condition: `pausing` and `cancelling` are desired states that are not reached yet."""
    fits = [pair for word in words for pair in _status_pairs(word)]
    if any(status in TERMINAL for status, _ in fits):
        return _is_one_of(job_state.c, fits)
    # An owner has few open jobs among all their jobs: they are found by index, not by a scan.
    seen = job_state.alias("open_state").c
    return job.c.id.in_(select(seen.job_id).where(_is_one_of(seen, fits)))


def _is_one_of(row: Any, pairs: Sequence[tuple[Status, Desired]]) -> ColumnElement[bool]:
    return or_(*(and_(row.status == stored.value, row.desired == desired.value) for stored, desired in pairs))


def _status_pairs(word: str) -> list[tuple[Status, Desired]]:
    fits = [(stored, desired) for stored in Status for desired in Desired if displayed_status(stored, desired) == word]
    if not fits:
        known = ", ".join(sorted({displayed_status(stored, desired) for stored in Status for desired in Desired}))
        raise InvalidRequest(f"{word!r} is no status; there are {known}.")
    return fits
