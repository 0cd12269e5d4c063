"""The database of the model: a list of rows, and one transaction for each deed of a worker, an owner, a reconciler."""

from typing import NamedTuple

from core.lifecycle import Desired, Status, Verb
from tests.model.protocol import Chunks, Kept, Protocol, Row


class Claimed(NamedTuple):
    """What a claim hands out."""

    job: int
    attempt: int
    checkpoint: Kept | None
    failures: int


class Books:
    """Times are the database's clock, in seconds. A refused write answers False or None, and changes nothing."""

    def __init__(self, protocol: Protocol, ranks: list[float]) -> None:
        self.protocol = protocol
        self.rows = [Row(rank) for rank in ranks]
        self.ticked_at: float | None = None
        self.gaps = 0

    def _put(self, job: int, after: Row | None) -> bool:
        if after is None:
            return False
        self.rows[job] = after
        return True

    def claim(self, now: float) -> Claimed | None:
        waiting = [(row.rank, job) for job, row in enumerate(self.rows) if self.protocol.waits(row)]
        if not waiting:
            return None
        job = min(waiting)[1]
        self.rows[job] = row = self.protocol.claim(self.rows[job], now)
        return Claimed(job, row.attempt, row.checkpoint, row.failures)

    def beat(self, job: int, attempt: int, now: float) -> Desired | None:
        taken = self._put(job, self.protocol.beat(self.rows[job], attempt, now))
        return self.rows[job].desired if taken else None

    def record(self, job: int, attempt: int, chunks: Chunks) -> bool:
        return self._put(job, self.protocol.record(self.rows[job], attempt, chunks))

    def checkpoint(self, job: int, attempt: int, new: Kept, chunks: Chunks) -> bool:
        return self._put(job, self.protocol.checkpoint(self.rows[job], attempt, new, chunks))

    def corrupt(self, job: int, attempt: int, bad: Kept) -> bool:
        return self._put(job, self.protocol.corrupt(self.rows[job], attempt, bad))

    def finish(self, job: int, attempt: int, status: Status, chunks: Chunks) -> bool:
        return self._put(job, self.protocol.finish(self.rows[job], attempt, status, chunks))

    def give_back(self, job: int, attempt: int, *, lost: bool, failed: bool) -> bool:
        return self._put(job, self.protocol.give_back(self.rows[job], attempt, lost=lost, failed=failed))

    def ask(self, job: int, verb: Verb) -> bool:
        return self._put(job, self.protocol.ask(self.rows[job], verb))

    def leases(self, now: float) -> list[int]:
        """GAP and LOST: the jobs that were taken away."""
        before, self.ticked_at = self.ticked_at, now
        if before is None or self.protocol.is_gap(now - before):
            self.rows = [self.protocol.spare(row, now) for row in self.rows]
            self.gaps += 1
        lost = [job for job, row in enumerate(self.rows) if self.protocol.is_lost(row, now)]
        for job in lost:
            self.rows[job] = self.protocol.take_back(self.rows[job], lost=True)
        return lost

    def wants(self) -> None:
        self.rows = [self.protocol.settle(row) for row in self.rows]

    def send(self, now: float) -> int:
        """How many hints leave."""
        unsent = [job for job, row in enumerate(self.rows) if self.protocol.unsent(row, now)]
        for job in unsent:
            self.rows[job] = self.rows[job]._replace(published_at=now)
        return len(unsent)
