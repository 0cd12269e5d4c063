"""The protocol under random schedules of everything that can go wrong, and controls that show the oracle can fail."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model.world import Violation, World
from tests.support.jobs import set_state

SCHEDULES = 50
CONTROL_SCHEDULES = 200

Run = Callable[[int, str], str]


def fault(world: World) -> None:
    """At most one of: kill, stop, wake, hints doubled, lost, flushed, an outage, a clock that is set, another wish."""
    dice, worker = world.chance.random(), world.chance.choice(world.workers)
    if dice < 0.04:
        world.workers[world.workers.index(worker)] = world.worker()
    elif dice < 0.09:
        worker.stopped = True
    elif dice < 0.14:
        worker.stopped = False
    elif dice < 0.17 and world.hints.heard:
        world.hints.heard.append(world.chance.choice(world.hints.heard))
    elif dice < 0.20 and world.hints.heard:
        world.hints.heard.pop()
    elif dice < 0.21:
        world.hints.heard.clear()
    elif dice < 0.22:
        world.time += 30.0  # the database was away: nobody did anything
    elif dice < 0.225:
        world.database_clock += world.chance.choice([-3600.0, 3600.0])
    elif dice < 0.245:
        world.wish()


def run_schedule(world: World) -> str:
    """150 actions among faults, then peace until everything has ended; the outcome in a word."""
    for _ in range(150):
        world.time += world.chance.choice([0.1, 0.5, 1.0, 1.0, 2.0, 13.0 if world.chance.random() < 0.05 else 1.0])
        fault(world)
        if world.chance.random() < 0.3:
            world.reconcile()
        world.act(world.chance.choice(world.workers))
        world.check()
    for worker in world.workers:
        worker.stopped = False
    for job in world.turns:
        set_state(world.db, job, desired="cancel" if job in world.ended else "run")
    for number in range(1500):
        world.time += 0.5
        if number % 4 == 0:
            world.reconcile()
        world.act(world.chance.choice(world.workers))
        if number % 10 == 0:
            world.check()
            if len(world.ended) == len(world.turns):
                return "ended"
    raise Violation("some jobs never end")


@pytest.fixture
def run(sqlite_template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Run:
    """(seed, control) -> the outcome, or what the oracle found."""
    caplog.set_level(logging.ERROR)

    def one(seed: int, control: str) -> str:
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        url = f"sqlite:///{shutil.copy(sqlite_template, folder / 'model.db')}"
        world = World(seed, folder, url, control)
        try:
            return run_schedule(world)
        except Violation as found:
            return str(found)
        finally:
            world.db.close()
            shutil.rmtree(folder)

    return one


def test_random_schedules_break_no_promise(run: Run) -> None:
    outcomes = Counter(run(seed, "") for seed in range(SCHEDULES))
    assert outcomes == {"ended": SCHEDULES}


@pytest.mark.parametrize(
    ("control", "violation"),
    [
        ("no fence", "of a superseded attempt was accepted"),
        ("checkpoints are not fenced", "checkpoint of a superseded attempt was accepted"),
        ("the attempt does not grow", "of a superseded attempt was accepted"),
        ("no reconciler", "some jobs never end"),
    ],
)
def test_without_a_part_of_the_protocol_the_oracle_finds_it(run: Run, control: str, violation: str) -> None:
    for seed in range(CONTROL_SCHEDULES):
        if violation in run(seed, control):
            return
    pytest.fail(f"{CONTROL_SCHEDULES} schedules with {control!r} and nothing was found")
