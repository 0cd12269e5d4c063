"""What a reader gets, however often it comes back: every event once, every point once, and nothing that is void."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from core.db.session import Database
from core.errors import InvalidRequest
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.checkpoints.records import mark_corrupt, record_checkpoint
from core.jobs.events.cursor import LONGEST, START, Cursor
from core.jobs.events.feed import FEED_LIMITS, TYPES, FeedLimits, FeedPage, FeedQuery, read_feed, read_versions
from core.jobs.events.log import record_events
from core.jobs.events.record import list_events
from core.jobs.metrics.chunks import Chunk, MetricPoints, read_series, record_points, roll_back
from core.jobs.queue.submit import create_job
from core.lifecycle import Status
from tests.support.jobs import LEASE, OWNER, chunk, new_checkpoint, running, small_spec, taken
from worker.chunk_buffer import ChunkBuffer

EVERYTHING = frozenset(TYPES)


class Reader:
    """Takes looks from where it stands, carries its cursor as text, and believes what it is told."""

    def __init__(
        self,
        db: Database,
        job_id: str,
        types: frozenset[str] = EVERYTHING,
        *,
        limits: FeedLimits = FEED_LIMITS,
    ) -> None:
        self.db, self.job_id, self.types, self.limits = db, job_id, types, limits
        self.place = str(START)
        self.events: list[int] = []
        self.told: list[str] = []
        self.progress: list[int] = []
        self.series: dict[str, list[tuple[int, float]]] = {}

    def look(self, upto: int | None = None) -> FeedPage:
        """One look, of which the first `upto` items arrive."""
        found = read_feed(
            self.db, self.job_id, [FeedQuery(self.job_id, Cursor.parse(self.place), self.types)], self.limits
        )
        assert found is not None
        for item in found[0].items[:upto]:
            self.place = str(item.cursor)
            self.told.append(item.type)
            if item.id is not None:
                self.events.append(item.id)
            if item.type == "progress":
                self.progress.append(item.data["step"])
            for name, piece in item.data["series"].items() if item.type == "metrics" else ():
                mine = self.series.setdefault(name, [])
                assert len(mine) >= piece["offset"]
                del mine[piece["offset"] :]
                assert len(piece["steps"]) == len(piece["values"]) == len(piece["times"])
                mine += zip(piece["steps"], piece["values"], strict=True)
        return found[0]

    def catch_up(self) -> FeedPage:
        while (found := self.look()).more:
            pass
        return found


def known(db: Database, job_id: str) -> dict[str, list[tuple[int, float]]]:
    return {name: list(zip(one.steps, one.values, strict=True)) for name, one in read_series(db, job_id).items()}


class Worker:
    """A job's attempts, one after the other, with everything that can happen to them."""

    def __init__(self, db: Database, seed: int) -> None:
        self.db, self.random = db, random.Random(seed)
        self.fence = running(db, max_retries=5)
        self.step, self.book, self.said = 0, ChunkBuffer(0), 0
        self.places = [0]

    def compute(self) -> None:
        count = self.random.randint(1, 3)
        steps = list(range(self.step, self.step + count))
        self.step += count
        for name in self.random.sample(["train.loss", "lr", "val.loss"], self.random.randint(1, 3)):
            self.book.add_points(name, steps, [self.random.random() for _ in steps], [1.0 * step for step in steps])
        record_points(self.db, self.fence, self.book.pending_chunks())
        self.book.mark_written()

    def say(self) -> None:
        self.said += 1
        record_events(self.db, self.fence, "log", [{"level": "info", "message": f"line {self.said}"}])

    def report(self) -> None:
        record_heartbeat(self.db, self.fence, lease_seconds=LEASE, progress={"step": self.step})

    def save(self) -> None:
        if self.step > self.places[-1]:
            row = new_checkpoint(self.fence, self.step)
            record_checkpoint(self.db, self.fence, row, self.book.pending_chunks(), resumable=True)
            self.book.mark_written()
            self.book.begin_segment(self.step)
            self.places.append(self.step)

    def go_back(self) -> None:
        """To one of its marks, in the same attempt; the mark is written again."""
        self.step = self.random.choice(self.places)
        self.book.roll_back(self.step)
        roll_back(self.db, self.fence, self.step, "diverged")
        record_checkpoint(self.db, self.fence, new_checkpoint(self.fence, self.step), [], resumable=True)
        self.places = [place for place in self.places if place <= self.step]

    def die(self) -> None:
        """And come back at the last checkpoint, which may prove to be damaged."""
        give_back(self.db, self.fence, cause="lost", lost=False, max_losses=3)
        claimed = taken(self.db)
        assert claimed is not None
        self.fence, row = Fence(claimed.job_id, claimed.attempt), claimed.checkpoint
        if row is not None and self.random.random() < 0.5:
            row = mark_corrupt(self.db, self.fence, row.id)
        self.step = row.step if row else 0
        self.places = [place for place in self.places if place <= self.step]
        self.book = ChunkBuffer(self.step)


@pytest.mark.parametrize(
    ("database_url", "seed"),
    [
        *(("sqlite", seed) for seed in range(5)),
        ("postgresql", 0),
        *(pytest.param("postgresql", seed, marks=pytest.mark.slow) for seed in range(1, 5)),
    ],
    indirect=["database_url"],
)
def test_nothing_is_lost_or_doubled(db: Database, seed: int) -> None:
    """Readers who look at odd moments, lose half of an answer, and see points being taken back, end up alike."""
    limits = FeedLimits(events=3, points=4)
    worker = Worker(db, seed)
    job_id = worker.fence.job_id
    readers = [Reader(db, job_id, limits=limits) for _ in range(3)]
    for _ in range(40):
        deeds = [
            worker.compute,
            worker.compute,
            worker.say,
            worker.report,
            worker.save,
            worker.die,
            worker.go_back,
        ]
        worker.random.choice(deeds)()
        for reader in readers:
            if worker.random.random() < 0.4:
                reader.look(worker.random.choice([0, 1, 2, None]))
    worker.compute()
    finish_job(db, worker.fence, TerminalState(Status.SUCCEEDED, "completed", progress={"step": worker.step}), [])
    readers.append(Reader(db, job_id, limits=limits))
    ids = [event.id for event in list_events(db, OWNER, job_id, limit=1000)]
    for reader in readers:
        last = reader.catch_up()
        assert last.ended
        assert reader.events == ids
        assert {name: points for name, points in reader.series.items() if points} == known(db, job_id)
        assert reader.told[-1] == "status"
        assert reader.progress[-1] == worker.step
        assert all(one != other for one, other in zip(reader.progress, reader.progress[1:], strict=False))
        assert reader.look().items == ()
        assert reader.place == readers[0].place


def test_readers_who_look_together_end_together(db: Database) -> None:
    """Whatever is written meanwhile: this is what lets them share the next answer."""
    fence = running(db)
    record_points(db, fence, [chunk("lr", 0, 5)])
    early = read_feed(db, fence.job_id, [FeedQuery(fence.job_id, START, EVERYTHING)])
    assert early is not None
    record_points(db, fence, [chunk("lr", 0, 9)])
    both = read_feed(
        db, fence.job_id, [FeedQuery(fence.job_id, place, EVERYTHING) for place in (START, early[0].cursor)]
    )
    assert both is not None
    assert both[0].cursor == both[1].cursor
    (metrics,) = both[1].items
    assert (metrics.data["series"]["lr"]["offset"], metrics.data["series"]["lr"]["steps"]) == (5, [5, 6, 7, 8])


def test_a_snapshot_is_of_one_moment(db: Database) -> None:
    """A look that saw the end of a job without its last points would never show them."""
    fence = running(db)
    with db.read_snapshot() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM event").scalar_one()
        record_events(db, fence, "log", [{"level": "info", "message": "later"}])
        assert connection.exec_driver_sql("SELECT count(*) FROM event").scalar_one() == before
    with db.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM event").scalar_one() == before + 1


def test_only_what_was_asked_for(db: Database) -> None:
    fence = running(db)
    record_points(db, fence, [chunk("lr", 0, 5)])
    record_events(db, fence, "log", [{"level": "info", "message": "one"}])
    record_heartbeat(db, fence, lease_seconds=LEASE, progress={"step": 5})
    for types in ({"log"}, {"metrics"}, {"progress"}, {"status", "log"}):
        reader = Reader(db, fence.job_id, frozenset(types))
        reader.catch_up()
        assert set(reader.told) == types
    finish_job(db, fence, TerminalState(Status.SUCCEEDED), [])
    assert Reader(db, fence.job_id, frozenset({"warning"})).catch_up().ended


def test_a_long_history_comes_in_pages(db: Database) -> None:
    fence = running(db)
    for number in range(7):
        record_points(db, fence, [chunk("lr", 1000 * number, 1000, number=number)])
    record_points(db, fence, [chunk("val.loss", 0, 3)])
    reader, sizes = Reader(db, fence.job_id), []
    while True:
        before = sum(map(len, reader.series.values()))
        found = reader.look()
        sizes.append(sum(map(len, reader.series.values())) - before)
        if not found.more:
            break
    assert sum(sizes) == 7003
    assert max(sizes) <= FEED_LIMITS.points
    assert reader.series == known(db, fence.job_id)


def test_versions_of_the_living(db: Database) -> None:
    """Every change that a reader can see shows in the version: that is all the poller looks at."""
    job_id = create_job(db, small_spec(), owner=OWNER).job_id
    seen = [read_versions(db, {job_id, "job_gone"})]
    assert set(seen[0]) == {job_id}
    claimed = taken(db)
    assert claimed is not None
    fence = Fence(job_id, claimed.attempt)
    for change in changes(db, fence):
        change()
        seen.append(read_versions(db, {job_id}))
    numbers = [one[job_id] for one in seen]
    assert numbers == sorted(set(numbers))
    assert read_feed(db, "job_gone", []) is None


def changes(db: Database, fence: Fence) -> Iterator[Any]:
    yield lambda: record_points(db, fence, [chunk("lr", 0, 5)])
    yield lambda: record_events(db, fence, "warning", [{"code": "x", "message": "y"}])
    yield lambda: record_heartbeat(db, fence, lease_seconds=LEASE, progress={"step": 5})
    yield lambda: record_checkpoint(db, fence, new_checkpoint(fence, 5), [], resumable=True)
    yield lambda: finish_job(db, fence, TerminalState(Status.SUCCEEDED), [])


def test_not_a_number_travels(db: Database) -> None:
    fence = running(db)
    record_points(db, fence, [Chunk("x", 0, 0, MetricPoints("x", [1], [float("nan")], [1.0]))])
    reader = Reader(db, fence.job_id)
    reader.catch_up()
    ((step, value),) = reader.series["x"]
    assert step == 1
    assert value != value  # noqa: PLR0124 - NaN


CURSORS = [START, Cursor(17), Cursor(17, "00c0ffee", 2, (("a,b;c:ü", 5), ("lr", 10**14))), Cursor(0, "", 3)]


@pytest.mark.parametrize("cursor", CURSORS, ids=str)
def test_a_cursor_is_one_line(cursor: Cursor) -> None:
    text = str(cursor)
    assert text.isascii()
    assert text.isprintable()
    assert Cursor.parse(text) == cursor


NONSENSE = ["", "x", "-1", "1.5", "1;", "1;;;", "1;zz;0;", "1;;1;lr", "1;;1;lr:", "1;;1;lr:1,", "1;;1;,", "9" * 19, "²"]


@pytest.mark.parametrize("text", [*NONSENSE, "1\n", " 1", "1;;1;" + "a:1," * LONGEST + "b:1"])
def test_nonsense_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Cursor.parse(text)


def test_a_forged_cursor_does_no_harm(db: Database) -> None:
    """It names series that do not exist and more points than there are: the reader is told what is there."""
    fence = running(db)
    record_points(db, fence, [chunk("lr", 0, 3)])
    forged = Cursor.parse("0;;999999999;" + ",".join(f"%00{n}:{10**14}" for n in range(500)) + f",lr:{10**14}")
    found = read_feed(db, fence.job_id, [FeedQuery(fence.job_id, forged, EVERYTHING)])
    assert found is not None
    assert dict(found[0].cursor.counts) == {"lr": 3}
