"""Everything around the database: workers that die, sleep, wake and lose touch, owners, a lossy broker, clocks.

The same world runs on the model's books by the ten thousand, and on the product's functions in lockstep with them.
What becomes of a job when an attempt ends is decided by the product's own table, worker/outcome.py.
"""

import random
import signal
from collections.abc import Callable
from typing import Any, ClassVar, Final

from core.lifecycle import TERMINAL, Status, Verb
from tests.model.books import Books
from tests.model.oracle import STEPS, Oracle, Violation, trained
from tests.model.protocol import Kept, Times
from tests.model.workers import Job, Worker
from worker import watch
from worker.launcher import ProcessExit
from worker.outcome import Decision, Finish, GiveBack, KillReason, Observed, StopOrder, decide_outcome

KILLED: Final = ProcessExit(signal=signal.SIGKILL)


class World:
    """Time, workers, hints, objects. A subclass is a control: one habit of workers or reconcilers is broken."""

    checkpoints_before_leaving: ClassVar[bool] = True
    polls: ClassVar[bool] = True

    def __init__(self, seed: int, books: Books, times: Times, database_clock: float = 0.0) -> None:
        self.chance = random.Random(seed)
        self.books, self.times, self.oracle = books, times, Oracle(books)
        self.time = 0.0
        self.database_clock = database_clock  # ahead of `time` by this much, until somebody sets it
        self.hints = 0
        self.made = 0  # checkpoints, for their ids
        self.store: set[int] = set()
        self.doomed: list[int] = []
        self.jobs = [Job(self.chance) for _ in books.rows]
        self.workers = [Worker(self.chance) for _ in range(self.chance.choice((2, 2, 3)))]
        self.accidents = True
        self.slowness = 0.5  # the chance that a runner's step or a download is not done yet
        self.silent_until = self.reconciled_at = 0.0
        self.jumped_at = self.gapped_at = -1.0
        self.grace = {
            StopOrder.PAUSE: times.pause_grace,
            StopOrder.STOP: times.stop_grace,
            StopOrder.CANCEL: times.cancel_grace,
        }

    def now(self, worker: Worker | None = None) -> float:
        """The database's clock, whoever asks."""
        return self.time + self.database_clock

    def replace(self, worker: Worker) -> None:
        """It is dead, and another one is started in its place."""
        self.workers[self.workers.index(worker)] = Worker(self.chance)

    # what one worker does next: one transaction, or one thing without any

    def act(self, worker: Worker) -> None:
        if worker.stopped:
            return
        if worker.job < 0:
            self._look_for_work(worker)
        elif self.time < worker.cut_until:
            self._compute(worker)
        elif (self.time - worker.beaten_at) * worker.rate > self.times.beat and not worker.hasty:
            self._beat(worker)
        else:
            worker.hasty = max(0, worker.hasty - 1)
            self._go_on(worker)

    def _go_on(self, worker: Worker) -> None:
        if worker.seen is not None:
            self._conclude(worker, worker.seen)
        elif worker.fetching and worker.wish() is not StopOrder.NOTHING:
            worker.seen = Observed(asked=worker.wish())
        elif worker.fetching:
            self._fetch(worker)
        elif worker.asked is not StopOrder.NOTHING or worker.wish() is not StopOrder.NOTHING:
            self._obey(worker)
        else:
            self._train(worker)

    def _look_for_work(self, worker: Worker) -> None:
        if worker.stopping:
            self.replace(worker)
        elif self.time < worker.cut_until:
            return
        elif self.hints:
            self.hints -= 1
            self._claim(worker)
        elif self.polls and (self.time - worker.polled_at) * worker.rate >= self.times.poll:
            self._claim(worker)

    def _claim(self, worker: Worker) -> None:
        worker.polled_at = self.time
        claimed = self.books.claim(self.now(worker))
        if claimed is None:
            return
        self.oracle.claimed(claimed.job, claimed.attempt, claimed.checkpoint)
        self.oracle.look(claimed.job)
        worker.begin(claimed, self.oracle.turns[claimed.job], self.time)
        worker.deaf = self.chance.random() < 0.08

    def _beat(self, worker: Worker) -> None:
        rightful = self.oracle.rightful(worker.job, worker.turn)
        desired = self.books.beat(worker.job, worker.attempt, self.now(worker))
        self.oracle.judge("beat", accepted=desired is not None, rightful=rightful)
        if desired is None:
            worker.job = -1
            return
        self.oracle.look(worker.job)
        worker.beaten_at, worker.desired, worker.excused = self.time, desired, False

    def _fetch(self, worker: Worker) -> None:
        """The object is there and whole, or its checkpoint is marked and the one before it is tried."""
        kept = worker.fetch
        if self.chance.random() < self.slowness:
            return
        if kept is None or (kept.id in self.store and self.chance.random() < 0.85):
            worker.step = worker.after_step = kept.step if kept else 0
            worker.weights = kept.weights if kept else 0
            worker.fetching = False
            return
        if kept.id not in self.store and self.oracle.rightful(worker.job, worker.turn):
            raise Violation("the checkpoint that a claim handed out is gone")
        if self._write(worker, "mark", self.books.corrupt, kept):
            worker.fetch = self.books.rows[worker.job].checkpoint
            self.oracle.marked += 1

    def _compute(self, worker: Worker) -> None:
        """A step of the runner, which needs nobody."""
        if worker.seen is None and not worker.fetching and worker.step < STEPS:
            worker.weights = trained(worker.weights, worker.step)
            worker.fresh.append((worker.step, worker.weights))
            worker.step += 1

    def _train(self, worker: Worker) -> None:
        if self.chance.random() < self.slowness:
            return
        self._compute(worker)
        job = self.jobs[worker.job]
        if worker.step >= job.kills_at:
            self.replace(worker)
        elif worker.step >= job.errs_at:
            worker.seen = Observed(
                ended={"outcome": "failed", "error": {"code": "engine_error"}, "stop_reason": None},
                retries_left=worker.failures < job.max_retries,
            )
        elif worker.step >= STEPS:
            worker.seen = Observed(ended={"outcome": "succeeded", "stop_reason": None}, asked=worker.asked)
        else:
            self._record(worker)

    def _record(self, worker: Worker) -> None:
        dice = self.chance.random()
        if dice < 0.3:
            self._write(worker, "points", self.books.record, worker.chunks(), again=True)
        elif dice < 0.7:
            self._checkpoint(worker)
        elif self.accidents and dice > 0.97:
            worker.seen = Observed(exit=KILLED, cut=KillReason.STALLED if dice > 0.99 else KillReason.NO)

    def _checkpoint(self, worker: Worker) -> bool:
        """The object first, then its row, with the points before it."""
        if worker.step == worker.after_step:
            return True
        self.made += 1
        new = Kept(self.made, worker.step, worker.weights)
        self.store.add(new.id)
        before = self.books.rows[worker.job].kept
        if not self._write(worker, "checkpoint", self.books.checkpoint, new, worker.chunks(), again=True):
            return False
        kept = self.books.rows[worker.job].kept
        self.doomed += [one.id for one in (*before, new) if one not in kept]
        worker.after_step, worker.fresh = worker.step, []
        return True

    def _obey(self, worker: Worker) -> None:
        """What its owner or its operator wants; a deaf runner trains on until it is killed."""
        wish = worker.wish()
        if watch._STRENGTH[wish] > watch._STRENGTH[worker.asked]:
            worker.asked, worker.asked_at = wish, self.time
        asked = worker.asked
        if asked is StopOrder.NOTHING:
            self._train(worker)
        elif worker.deaf:
            if (self.time - worker.asked_at) * worker.rate > self.grace[asked]:
                worker.seen = Observed(asked=asked, exit=KILLED)
            else:
                self._train(worker)
        elif asked is StopOrder.CANCEL:
            worker.seen = Observed(asked=asked, ended={"outcome": "cancelled", "stop_reason": "cancelled"})
        elif not self.checkpoints_before_leaving or self._checkpoint(worker):
            worker.seen = Observed(asked=asked, ended={"outcome": "stopped", "stop_reason": None})

    def _conclude(self, worker: Worker, seen: Observed) -> None:
        """Exactly one transition, the one that the table says."""
        job, decision = worker.job, decide_outcome(seen)
        if not self._decided(worker, decision):
            return
        row, nature = self.books.rows[job], self.jobs[job]
        if row.status is Status.FAILED:
            budget, errs = nature.max_retries, nature.errs_at <= STEPS
            self.oracle.failed(job, budget=budget, most_losses=self.times.max_losses, errs=errs)
        stopped = seen.ended is not None and seen.ended["outcome"] == "stopped"
        if stopped and (row.checkpoint.step if row.checkpoint else 0) != worker.step:
            raise Violation("a pause or a stop cost steps")
        worker.job = -1

    def _decided(self, worker: Worker, decision: Decision) -> bool:
        match decision:
            case Finish():
                deed = self.books.finish
                return self._write(worker, "finish", deed, decision.status, worker.chunks(), again=True)
            case GiveBack():
                return self._give_back(worker, decision)
            case _:
                raise AssertionError(decision)

    def _give_back(self, worker: Worker, decision: GiveBack) -> bool:
        rightful, job = self.oracle.rightful(worker.job, worker.turn), worker.job
        accepted = self.books.give_back(job, worker.attempt, lost=decision.lost, failed=decision.failed)
        self.oracle.judge("give-back", accepted=accepted, rightful=rightful)
        if not accepted:
            worker.job = -1
            return False
        self.oracle.losses[job] += decision.lost
        self.oracle.failures[job] += decision.failed
        self.oracle.look(job)
        return True

    def _write(self, worker: Worker, what: str, deed: Callable[..., bool], *given: Any, again: bool = False) -> bool:
        """Under the worker's fence; now and then twice, as after a commit whose answer was lost."""
        job = worker.job
        rightful = self.oracle.rightful(job, worker.turn)
        before = self.books.rows[job]
        accepted = deed(job, worker.attempt, *given)
        if accepted and not rightful and self.books.rows[job] is before:
            accepted = False  # it ended like this already: the answer is yes, and nothing was written
        self.oracle.judge(what, accepted=accepted, rightful=rightful)
        if not accepted:
            worker.job = -1
            return False
        if what == "checkpoint":
            self.oracle.losses[job] = 0
        self.oracle.look(job)
        if again and self.chance.random() < 0.2:
            before = self.books.rows[job]  # as the first time left it
            if not deed(job, worker.attempt, *given) or self.books.rows[job] != before:
                raise Violation("a repeated write was no repetition")
            self.oracle.look(job)
        return True

    # owners, reconcilers

    def wish(self, job: int, verb: Verb) -> None:
        ended = self.books.rows[job].status in TERMINAL
        if self.books.ask(job, verb) and not ended:
            self.oracle.asked(job, verb)
        self.oracle.look(job)

    def reconcile(self) -> None:
        now, before = self.now(), self.books.gaps
        taken = self.books.leases(now)
        if self.books.gaps != before:
            self.gapped_at = self.time
        for job in taken:
            self.oracle.lost(job)
            for worker in self.workers:
                if worker.job == job and self.oracle.turns[job] == worker.turn and not worker.excused:
                    raise Violation("a job was taken from a worker that is fine")
            if self.books.rows[job].status is Status.FAILED and self.oracle.losses[job] < self.times.max_losses:
                raise Violation("a job failed before its budget was used up")
        self.books.wants()
        self.hints += self.books.send(now)
        self.oracle.look_at_all()

    def heard_from_all(self) -> bool:
        """Whether each worker that is fine has beaten since the last gap: a second one sooner is no promise."""
        fine = (worker for worker in self.workers if worker.job >= 0 and not worker.excused)
        return all(worker.beaten_at > self.gapped_at for worker in fine)

    def care(self) -> None:
        """The objects of doomed checkpoints go."""
        self.store.difference_update(self.doomed)
        self.doomed = []

    def outage(self, seconds: float) -> None:
        """The database is away for everybody; runners go on, and a supervisor loses patience in the end."""
        for worker in self.workers:
            if worker.job >= 0 and not worker.stopped:
                for _ in range(self.chance.randrange(3)):
                    self._compute(worker)
        self.time += seconds
        for worker in self.workers:
            if worker.job >= 0 and (self.time - worker.beaten_at) * worker.rate > self.times.outage:
                worker.job = -1
