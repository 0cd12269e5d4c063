"""A schedule: so many moments among faults, then peace, until everything has ended; all drawn from one seed."""

from collections.abc import Callable
from typing import Final

from core.lifecycle import TERMINAL, Desired, Status, Verb
from tests.model.oracle import Violation
from tests.model.protocol import PAUSE
from tests.model.workers import Worker
from tests.model.world import World

MOMENTS: Final = 35
PACE: Final = (0.1, 0.4, 0.9, 1.1, 1.9)  # seconds from one moment to the next: a worker that is well beats in time
PEACE: Final = 1.7
INSTANT: Final = 0.001  # no two deeds are done at the same time
OUTAGES: Final = (3.0, 5.5, 7.5, 13.0, 30.0, 30.0, 700.0)
JUMPS: Final = (-3600.0, -40.0, 40.0, 3600.0)
STALLS: Final = (7.0, 13.0, 30.0, 100.0)
SECONDS_TO_END: Final = 900.0  # seconds of peace in which everything must have ended


def kill(world: World, worker: Worker) -> None:
    world.replace(worker)


def stop(world: World, worker: Worker) -> None:
    """SIGSTOP, between any two of its deeds: it may wake with its checks made and its writes to come."""
    worker.stopped = worker.excused = True


def wake(world: World, worker: Worker) -> None:
    if worker.stopped:
        worker.stopped, worker.hasty = False, world.chance.randrange(4)


def terminate(world: World, worker: Worker) -> None:
    worker.stopping = True


def cut(world: World, worker: Worker) -> None:
    """It alone does not reach the database, and cannot tell that from an outage."""
    worker.cut_until, worker.excused = world.time + world.chance.choice((4.0, 15.0, 40.0)), True


def double(world: World, worker: Worker) -> None:
    world.hints *= 2


def lose(world: World, worker: Worker) -> None:
    world.hints = max(0, world.hints - 1)


def flush(world: World, worker: Worker) -> None:
    world.hints = 0


def stray(world: World, worker: Worker) -> None:
    """A message of long ago comes again."""
    world.hints += 1


def outage(world: World, worker: Worker) -> None:
    if world.heard_from_all():
        world.outage(world.chance.choice(OUTAGES))


def jump(world: World, worker: Worker) -> None:
    """The database's clock is set. Reconcilers have looked since the last time: twice within a tick is no promise."""
    if world.jumped_at < world.reconciled_at and world.heard_from_all():
        world.database_clock += world.chance.choice(JUMPS)
        world.jumped_at = world.time


def silence(world: World, worker: Worker) -> None:
    """No reconciler is there for a while."""
    world.silent_until = world.time + world.chance.choice((3.0, 9.0, 25.0))


def change_mind(world: World, worker: Worker) -> None:
    job = world.chance.randrange(len(world.jobs))
    world.wish(job, Verb.CANCEL if world.chance.random() < 0.15 else world.chance.choice((Verb.PAUSE, Verb.RESUME)))


FAULTS: Final[tuple[tuple[Callable[[World, Worker], None], int], ...]] = (
    *((kill, 4), (stop, 8), (wake, 5), (terminate, 2), (cut, 2), (outage, 2), (jump, 1), (silence, 1)),
    *((double, 1), (lose, 2), (flush, 1), (stray, 2), (change_mind, 9)),
)
LOTS: Final = tuple(fault for fault, weight in FAULTS for _ in range(weight))


def moment(world: World, tick: float) -> None:
    """Everybody does one thing, in an order that begins anywhere; a reconciler with the chance `tick`."""
    chance, count = world.chance, len(world.workers) + 1
    first = chance.randrange(count)
    for turn in range(first, first + count):
        place = turn % count
        world.time += INSTANT
        if place:
            world.act(world.workers[place - 1])
        elif world.time >= world.silent_until and chance.random() < tick:
            world.reconcile()
            world.reconciled_at = world.time


def run(world: World) -> None:
    """The schedule of a world; raises Violation."""
    chance = world.chance
    for _ in range(MOMENTS):
        world.time += chance.choice(PACE)
        if chance.random() < 0.45:
            chance.choice(LOTS)(world, chance.choice(world.workers))
        moment(world, 0.7)
        if chance.random() < 0.2:
            world.care()
    calm(world)
    settle(world)
    finish(world)


def calm(world: World) -> None:
    world.accidents, world.silent_until = False, 0.0
    for worker in world.workers:
        worker.cut_until = 0.0
        wake(world, worker)


def settle(world: World) -> None:
    """Peace: a wish is met in the bound (a lease after a gap, the grace of a deaf runner), though no step ever ends."""
    times, began, world.slowness = world.times, world.time, 1.0
    soon = 2 * times.lease + times.beat + 6 * PEACE
    bounds = {
        Desired.CANCEL: soon + times.cancel_grace / 0.8,
        Desired.PAUSE: soon + times.pause_grace / 0.8,
    }
    while True:
        unmet = [
            row.desired
            for row in world.books.rows
            if row.desired is not Desired.RUN and row.status is not Status.PAUSED and row.status not in TERMINAL
        ]
        if not unmet:
            return
        for desired in unmet:
            if world.time - began > bounds[desired]:
                raise Violation(f"a wish to {desired} was not met in time")
        world.time += PEACE
        moment(world, 1.0)


def finish(world: World) -> None:
    """Owners let everything run that they have paused, and everything ends."""
    world.slowness = 0.0
    for job, row in enumerate(world.books.rows):
        if row.desired is PAUSE and row.status not in TERMINAL:
            world.wish(job, Verb.RESUME)
    until = world.time + SECONDS_TO_END
    while any(row.status not in TERMINAL for row in world.books.rows):
        if world.time > until:
            raise Violation("some jobs never end")
        world.time += PEACE
        moment(world, 1.0)


def stall(world: World) -> None:
    """The machine stands still again and again, for longer than a gap, and everybody does one thing in between.

    A worker dies. Its job is taken in the bound all the same, and nobody else's is.
    """
    chance, pause = world.chance, world.chance.choice(STALLS)
    world.accidents, world.slowness = False, 1.0

    def wait_and_act() -> None:
        world.time += chance.choice((PEACE, pause, pause, pause)) if chance.random() < 0.5 else pause
        moment(world, 1.0)

    while not (busy := [worker for worker in world.workers if worker.job >= 0]):
        wait_and_act()
    for _ in range(chance.randrange(4)):
        wait_and_act()
    lost = chance.choice(busy)
    world.replace(lost)
    until = world.time + 2 * (world.times.lease + pause)
    while world.oracle.rightful(lost.job, lost.turn):
        if world.time > until:
            raise Violation("a takeover took too long")
        wait_and_act()
