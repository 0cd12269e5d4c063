"""The model says what the product does: both are taken through the same schedules, and compared after each deed.

The schedules also run under the model's oracle, so what it promises is shown here for core/jobs on a real database.
"""

import logging
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from core.lifecycle import TERMINAL, Verb
from core.settings import Settings
from tests.model import weakened
from tests.model.lockstep import Divergence, Lockstep
from tests.model.protocol import Chunks, Kept, Protocol, Times
from tests.model.schedule import run, stall
from tests.model.world import World

BEGAN: Final = 1_800_000_000.0
SCHEDULES: Final = 12  # in each of six parts
UNRULY: Final = 6
DEEDS: Final = 120

Open = Callable[[int, type[Protocol]], AbstractContextManager[Lockstep]]


@pytest.fixture
def opened(sqlite_template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Open:
    """(seed, protocol of the model) -> both books, with one to three jobs."""
    caplog.set_level(logging.CRITICAL)

    @contextmanager
    def one(seed: int, protocol: type[Protocol]) -> Iterator[Lockstep]:
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        url = f"sqlite:///{shutil.copy(sqlite_template, folder / 'model.db')}"
        chance = random.Random(-seed - 1)
        priorities = [chance.randint(-1, 1) for _ in range(chance.choice((1, 2, 2, 3)))]
        books = Lockstep(protocol(Times.of(Settings(home=folder))), priorities, folder, url, BEGAN)
        try:
            yield books
        finally:
            books.db.close()
            shutil.rmtree(folder)

    return one


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 6))])
def test_the_model_does_what_the_product_does(opened: Open, part: int) -> None:
    for seed in range(part * SCHEDULES, (part + 1) * SCHEDULES):
        with opened(seed, Protocol) as books:
            run(World(seed, books, books.protocol.times, BEGAN))
            assert all(row.status in TERMINAL for row in books.rows)


def test_they_agree_on_a_machine_that_stalls(opened: Open) -> None:
    for seed in range(SCHEDULES):
        with opened(seed, Protocol) as books:
            world = World(seed, books, books.protocol.times, BEGAN)
            stall(world)
            assert world.oracle.taken == 1


class Unruly:
    """Deeds without sense or order: any write of an attempt that is, was or never will be, at any time."""

    def __init__(self, books: Lockstep, seed: int) -> None:
        self.books, self.chance = books, random.Random(seed)
        self.now, self.made = BEGAN + 10.0, 0
        self.deeds = (
            *(self.write, self.write, self.write, self.checkpoint, self.checkpoint, self.mark),
            *(self.claim, self.claim, self.claim, self.tick, self.lapse, self.end, self.ask),
        )

    def run(self) -> None:
        for _ in range(DEEDS):
            self.now += self.chance.choice((0.3, 0.3, 0.3, 1.7, 1.7, 7.0, 40.0, -40.0))
            self.chance.choice(self.deeds)()

    def _who(self) -> tuple[int, int]:
        job = self.chance.randrange(len(self.books.rows))
        return job, self.books.rows[job].attempt + self.chance.choice((0, 0, 0, -1, 1))

    def _chunks(self) -> Chunks:
        after, first = self.chance.randint(0, 6), self.chance.randint(0, 9)
        return {(after, number): ((first + number, self.chance.randint(0, 99)),) for number in range(2)}

    def write(self) -> None:
        job, attempt = self._who()
        if self.chance.random() < 0.5:
            self.books.beat(job, attempt, self.now)
        else:
            self.books.record(job, attempt, self._chunks())

    def checkpoint(self) -> None:
        job, attempt = self._who()
        self.made += 1
        old = self.books.rows[job].kept
        again = bool(old) and self.chance.random() < 0.2
        new = self.chance.choice(old) if again else Kept(self.made, self.chance.randint(1, 6), 0)
        self.books.checkpoint(job, attempt, new, self._chunks())

    def mark(self) -> None:
        job, attempt = self._who()
        if kept := self.books.rows[job].kept:
            self.books.corrupt(job, attempt, self.chance.choice(kept))

    def claim(self) -> None:
        self.books.claim(self.now)

    def tick(self) -> None:
        self.books.leases(self.now)
        self.books.wants()
        self.books.send(self.now)

    def lapse(self) -> None:
        """Reconcilers look often enough, and nobody beats."""
        for _ in range(4):
            self.now += 5.0
            self.tick()

    def end(self) -> None:
        """Now and then for good, and then once more: the answer was lost."""
        job, attempt = self._who()
        if self.chance.random() < 0.2:
            status, chunks = self.chance.choice(sorted(TERMINAL)), self._chunks()
            for _ in range(2):
                self.books.finish(job, attempt, status, chunks)
        else:
            lost, failed = self.chance.choice(((True, False), (False, True), (False, False)))
            self.books.give_back(job, attempt, lost=lost, failed=failed)

    def ask(self) -> None:
        """Seldom to cancel what goes on: it would be over."""
        job, _ = self._who()
        over = self.books.rows[job].status in TERMINAL
        verbs = tuple(Verb) if over else (Verb.CANCEL, *[Verb.PAUSE, Verb.RESUME] * 6)
        self.books.ask(job, self.chance.choice(verbs))


def unruly(opened: Open, protocol: type[Protocol], seeds: int) -> None:
    for seed in range(seeds):
        with opened(seed, protocol) as books:
            Unruly(books, seed).run()


@pytest.mark.parametrize("seeds", [UNRULY, pytest.param(6 * UNRULY, marks=pytest.mark.slow)])
def test_they_agree_on_deeds_that_make_no_sense(opened: Open, seeds: int) -> None:
    unruly(opened, Protocol, seeds)


DIFFERENT: Final = (
    *(weakened.StatusIsNoFence, weakened.AttemptIsNoFence, weakened.UnfencedBeat, weakened.UnfencedPoints),
    *(weakened.UnfencedCheckpoint, weakened.UnfencedMark, weakened.UnfencedFinish, weakened.UnfencedGiveBack),
    *(weakened.TheAttemptStays, weakened.TheTailStays, weakened.TheTailOfADamagedCheckpointStays),
    *(weakened.TheCheckpointInUseGoes, weakened.ARepeatedFinishIsRefused, weakened.ChunksAreAppended, weakened.NoGap),
    *(weakened.AClockSetBackIsNoGap, weakened.LeasesNeverEnd, weakened.NoBudget, weakened.ACheckpointForgivesNothing),
    *(weakened.AStopCountsAsALoss, weakened.LossesForgetTheWish, weakened.NoWishIsMet, weakened.HintsAreSentOnce),
    *(weakened.EveryGapExtends, weakened.OneGapAMinute),
)


@pytest.mark.parametrize("protocol", DIFFERENT, ids=lambda one: one.__name__)
def test_a_model_of_something_else_is_found_out(opened: Open, protocol: type[Protocol]) -> None:
    """The comparison sees each rule: a model without it does not agree with the product."""
    with pytest.raises(Divergence):
        unruly(opened, protocol, UNRULY)
