"""The ledger check itself: all pages, one after the other."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import select, tuple_

from core.db.session import Database
from core.db.tables import idempotency, job
from core.ids import is_id
from core.jobs.changes import NOBODY
from core.jobs.datasets.rows import ID_PREFIX
from core.jobs.kinds import KINDS
from core.jobs.ledger.datasets import dataset_findings
from core.jobs.ledger.finding import Finding
from core.jobs.ledger.objects import ObjectListing, object_problems
from core.jobs.ledger.page import LedgerPage, read_page
from core.jobs.ledger.rules import JobLine, checkpoint_problems, ending_problems, input_problems, state_problems
from core.jobs.ledger.timeline import timeline_problems
from core.jobs.projects import project_of_owner
from core.store.base import Store

PAGE_ROWS: Final = 500  # that are read in one transaction
PREFIXES: Final = (*(kind.id_prefix for kind in KINDS), ID_PREFIX)
"""Of the ids that an idempotency key may promise: jobs of every kind, and datasets."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The check, and how much it has read so far: `counts` by what was counted.

    Without a store no objects are checked; with `digests` all of their bytes are read.
    """

    db: Database
    store: Store | None
    digests: bool = False
    page_rows: int = PAGE_ROWS
    counts: Counter[str] = field(default_factory=Counter)

    def iter_findings(self) -> Iterator[Finding]:
        """Every inconsistency, job by job."""
        listing = ObjectListing(self.store) if self.store else None
        after: str | None = ""
        while after is not None:
            with self.db.read_snapshot() as connection:
                page = read_page(connection, after, self.page_rows)
            yield from _page_findings(page)
            self._count_rows(page)
            for line in page.jobs:
                yield from self._check_objects(page, line, listing)
            after = page.last
        yield from self._check_datasets()
        yield from self._check_idempotency()

    def _count_rows(self, page: LedgerPage) -> None:
        self.counts["jobs"] += len(page.jobs)
        self.counts["events"] += sum(count for count, _ in page.events.values())
        self.counts["metric chunks"] += sum(each.chunks for each in page.chunks.values())
        self.counts["metric points"] += sum(each.points for each in page.chunks.values())
        self.counts["checkpoints"] += sum(len(rows) for rows in page.checkpoints.values())

    def _check_objects(self, page: LedgerPage, line: JobLine, listing: ObjectListing | None) -> Iterator[Finding]:
        good = [row for row in page.checkpoints.get(line.id, ()) if row.status == "good"]
        if self.store is None or listing is None or not good:
            return
        listed = listing.sizes_of(line.id)
        for row in good:
            self.counts["objects"] += len(row.files)
            for key, problem in object_problems(self.db, self.store, row, listed, digests=self.digests):
                yield Finding("object", line.id, key, f"of checkpoint {row.id}: {problem}")

    def _check_datasets(self) -> Iterator[Finding]:
        """The objects of datasets; `counts` has how many datasets and objects there were."""
        if self.store is None:
            return
        for each in dataset_findings(self.db, self.store, self.page_rows, digests=self.digests):
            if isinstance(each, Finding):
                yield each
            else:
                self.counts["datasets"] += 1
                self.counts["objects"] += each

    def _check_idempotency(self) -> Iterator[Finding]:
        """Idempotency keys name a job of their project. A key outlives a job that was deleted."""
        row, place = idempotency.c, tuple_(idempotency.c.owner, idempotency.c.key)
        query = (
            select(row.owner, row.key, row.job_id, job.c.project.label("whose"))
            .join_from(idempotency, job, job.c.id == row.job_id, isouter=True)
            .order_by(row.owner, row.key)
            .limit(self.page_rows)
        )
        last: tuple[str, str] | None = None
        while True:
            with self.db.read() as connection:
                found = connection.execute(query if last is None else query.where(place > last)).all()
            for owner, key, job_id, whose in found:
                project = project_of_owner(owner)
                self.counts["idempotency keys"] += 1
                if not any(is_id(job_id, prefix) for prefix in PREFIXES):
                    yield Finding("promise", "", key, f"{project}'s key promises {job_id!r}, which is no job")
                elif whose not in {None, NOBODY, project}:
                    yield Finding("promise", job_id, key, f"{project}'s key promises a job of {whose}")
            if len(found) < self.page_rows:
                return
            last = (found[-1].owner, found[-1].key)


def _page_findings(page: LedgerPage) -> Iterator[Finding]:
    for line in page.jobs:
        yield from _job_findings(page, line)
    for chunk in page.broken:
        about = f"{chunk.series}, chunk {chunk.number} after step {chunk.after_step}"
        yield Finding("metrics", chunk.job_id, about, chunk.problem)
    for table, job_id in page.strays:
        yield Finding("orphan", job_id, table, f"there are {table} rows of this job, and no job")


def _job_findings(page: LedgerPage, line: JobLine) -> Iterator[Finding]:
    yield from (Finding("state", line.id, "", problem) for problem in state_problems(line))
    if line.status is None:
        return
    yield from (Finding("ending", line.id, "", problem) for problem in ending_problems(line))
    steps, rows = page.timelines.get(line.id, []), page.checkpoints.get(line.id, [])
    yield from (Finding("timeline", line.id, "", each) for each in timeline_problems(steps, line.status, line.attempt))
    yield from (Finding("checkpoint", line.id, about, each) for about, each in checkpoint_problems(line, rows))
    looked = input_problems(line, page.inputs.get(line.id, []))
    yield from (Finding("input", line.id, about, each) for about, each in looked)
    told, chunks = page.events.get(line.id), page.chunks.get(line.id)
    attempts = [(row.id, row.attempt) for row in rows]
    attempts += [("events", told[1])] if told else []
    attempts += [("metrics", chunks.attempt)] if chunks else []
    for about, attempt in attempts:
        if attempt > (line.attempt or 0):
            yield Finding("attempt", line.id, about, f"of attempt {attempt}, and the job is at {line.attempt}")
