"""What the API promises about a job's life, as a table and a few lines: it knows no database and no code of ours.

A status here is the one that users read. `apply` says how a request must be answered, and what is so afterwards.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_LOSSES: Final = 3
KEEP_LAST: Final = 2
VERBS: Final = ("cancel", "pause", "resume")
TERMINAL: Final = frozenset({"succeeded", "failed", "cancelled"})
HELD: Final = frozenset({"running", "pausing", "cancelling"})
AFTER: Final[dict[str, tuple[str | None, ...]]] = {  # what each verb leads to, written down by hand; None: 409
    "queued": ("cancelled", "paused", "queued"),
    "running": ("cancelling", "pausing", "running"),
    "pausing": ("cancelling", "pausing", "running"),
    "paused": ("cancelled", "paused", "queued"),
    "cancelling": ("cancelling", None, None),
    "succeeded": (None, None, None),
    "failed": (None, None, None),
    "cancelled": ("cancelled", None, None),
}
LET_GO: Final = {"running": "queued", "pausing": "paused", "cancelling": "cancelled"}


class Op(NamedTuple):
    """A request or a deed of a worker: `kind` says which, the rest is for some of them."""

    kind: str
    name: str | None = None  # of patch
    priority: int | None = None  # of patch
    stale: bool = False  # of patch: the If-Match is
    again: bool = False  # of retry
    longer: bool = False  # of fork: it changes the number of epochs
    status: str = ""  # of finish


class Answer(NamedTuple):
    """The status code (of a worker's deed: 200, or 409 when fenced), and the `current_status` that a 409 tells."""

    code: int
    told: str | None = None


@dataclass(eq=False)
class Mark:
    """A checkpoint; `good` until it is on its way out."""

    of: int
    step: int
    good: bool = True


@dataclass
class Known:
    """A job. `stands` is where its next attempt goes on, which may be another job's checkpoint."""

    status: str = "queued"
    attempt: int = 0
    losses: int = 0
    name: str | None = None
    priority: int = 0
    gone: bool = False
    stands: Mark | None = None
    marks: list[Mark] = field(default_factory=list)
    parent: int | None = None
    verb: str = ""
    differs: bool = False  # from its parent in a way that its checkpoint does not tell


@dataclass
class Reference:
    """All jobs, by number; those that were deleted too."""

    jobs: list[Known] = field(default_factory=list)

    def apply(self, number: int, op: Op) -> Answer:
        """How this must be answered; a job that it makes is the last one afterwards."""
        job = self.jobs[number]
        if op.kind in {"finish", "lose", "give back"}:
            return self._worker(job, op)
        if job.gone:
            return Answer(404)
        if op.kind in VERBS:
            return self._tell(job, VERBS.index(op.kind))
        deeds = {"patch": self._patch, "delete": self._delete, "retry": self._retry, "fork": self._fork}
        return deeds[op.kind](number, op)

    def _tell(self, job: Known, verb: int) -> Answer:
        after = AFTER[job.status][verb]
        if after is None:
            return Answer(409, job.status)
        job.status = after
        return Answer(202)

    def _patch(self, number: int, op: Op) -> Answer:
        job = self.jobs[number]
        if op.stale:
            return Answer(412)
        if op.priority not in {None, job.priority} and job.status in TERMINAL:
            return Answer(409, job.status)
        job.priority = job.priority if op.priority is None else op.priority
        job.name = job.name if op.name is None else op.name
        return Answer(200)

    def _delete(self, number: int, op: Op) -> Answer:
        job = self.jobs[number]
        if job.status not in TERMINAL or any(self._lent(mark) for mark in job.marks):
            return Answer(409, job.status)
        job.gone = True
        for mark in job.marks:
            mark.good = False
        return Answer(204)

    def _retry(self, number: int, op: Op) -> Answer:
        job = self.jobs[number]
        tried = any(one.parent == number and one.verb == "retry" and not one.gone for one in self.jobs)
        stranded = (job.stands is None or not job.stands.good) and (job.verb == "fork" or job.differs)
        if job.status not in {"failed", "cancelled"} or (tried and not op.again) or stranded:
            return Answer(409, job.status)
        stands = job.stands if job.stands and job.stands.good else None
        differs = job.differs and stands is not None and stands.of != number
        self.jobs.append(
            Known(name=job.name, priority=job.priority, stands=stands, parent=number, verb="retry", differs=differs)
        )
        return Answer(201)

    def _fork(self, number: int, op: Op) -> Answer:
        job = self.jobs[number]
        good = [mark for mark in job.marks if mark.good]
        if not good:
            return Answer(409, job.status)
        self.jobs.append(
            Known(name=job.name, priority=job.priority, stands=good[-1], parent=number, verb="fork", differs=op.longer)
        )
        return Answer(201)

    def _lent(self, mark: Mark) -> bool:
        """Whether another job that has not ended stands at it."""
        return any(
            job.stands is mark and number != mark.of and job.status not in TERMINAL
            for number, job in enumerate(self.jobs)
        )

    def _worker(self, job: Known, op: Op) -> Answer:
        if job.status not in HELD:
            return Answer(200) if op.kind == "finish" and job.status == op.status else Answer(409)
        if op.kind == "finish":
            job.status = op.status
            return Answer(200)
        job.losses += op.kind == "lose"
        spent = op.kind == "lose" and job.status == "running" and job.losses >= MAX_LOSSES
        job.status = "failed" if spent else LET_GO[job.status]
        return Answer(200)

    def claimed(self, number: int) -> None:
        job = self.jobs[number]
        job.status, job.attempt = "running", job.attempt + 1

    def checkpointed(self, number: int, step: int) -> None:
        """The newest two stay, and what another one stands at."""
        job = self.jobs[number]
        job.stands, job.losses = Mark(number, step), 0
        job.marks.append(job.stands)
        for old in [mark for mark in job.marks if mark.good][:-KEEP_LAST]:
            old.good = self._lent(old)
