"""60,000 random schedules of everything that can go wrong break no promise, 45,000 of them in the slow lane; with any
rule of the protocol broken, the oracle finds out. What runs here is the model; test_lockstep.py shows that the product
does the same.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Callable

import pytest

from core.lifecycle import IllegalTransition
from core.settings import Settings
from tests.model.books import Books
from tests.model.oracle import Violation
from tests.model.protocol import Protocol, Times
from tests.model.schedule import run, stall
from tests.model.weakened import CONTROLS, Control, EveryGapExtends
from tests.model.world import World

PARTS = 12
FAST = 3  # of them are in the fast lane
SCHEDULES = int(os.environ.get("MODEL_SCHEDULES", "60000")) // PARTS  # in each part
STALLED = 2000
CONTROL_SCHEDULES = 10_000  # at most: the first violation ends the search


@pytest.fixture(scope="module")
def times(tmp_path_factory: pytest.TempPathFactory) -> Times:
    """The service's own, as they come."""
    return Times.of(Settings(home=tmp_path_factory.mktemp("model")))


def world_of(seed: int, protocol: Protocol, kind: type[World] = World) -> World:
    """One to three jobs of different priority; everything that happens to them is drawn from the seed."""
    chance = random.Random(-seed - 1)
    ranks = [number - 60.0 * chance.randint(-1, 1) for number in range(chance.choice((1, 2, 2, 3)))]
    return kind(seed, Books(protocol, ranks), protocol.times)


def found_in(world: World, schedule: Callable[[World], None] = run) -> str:
    """What the oracle says to its schedule; nothing when all is well."""
    try:
        schedule(world)
    except (Violation, IllegalTransition) as found:
        return str(found)
    return ""


@pytest.mark.parametrize(
    "part", [*range(FAST), *(pytest.param(part, marks=pytest.mark.slow) for part in range(FAST, PARTS))]
)
def test_random_schedules_break_no_promise(times: Times, part: int) -> None:
    protocol = Protocol(times)
    seeds = range(part * SCHEDULES, (part + 1) * SCHEDULES)
    found = {seed: said for seed in seeds if (said := found_in(world_of(seed, protocol)))}
    assert found == {}


def test_the_schedules_hold_what_they_promise(times: Times) -> None:
    """Faults that never come would prove nothing: jobs are taken away, zombies write, ends of each kind come."""
    seen: Counter[str] = Counter()
    for seed in range(2000):
        world = world_of(seed, Protocol(times))
        run(world)
        oracle = world.oracle
        seen.update(taken=oracle.taken, refused=oracle.refused, marked=oracle.marked, failures=sum(oracle.failures))
        seen.update(row.status.value for row in world.books.rows)
        seen.update(jumped=world.jumped_at > 0, deep=max(row.attempt for row in world.books.rows) > 4)
    rare = ("taken", "refused", "marked", "failures", "succeeded", "failed", "cancelled", "jumped", "deep")
    assert {what: seen[what] for what in rare if seen[what] < 100} == {}


@pytest.mark.parametrize("control", CONTROLS, ids=lambda one: f"{one.protocol.__name__}-{one.world.__name__}")
def test_without_a_part_of_the_protocol_the_oracle_finds_it(times: Times, control: Control) -> None:
    protocol, wanted = control.protocol(times), re.compile(control.violation)
    worlds = (world_of(seed, protocol, control.world) for seed in range(CONTROL_SCHEDULES))
    assert any(wanted.search(found_in(world)) for world in worlds)


def test_a_machine_that_stalls_again_and_again_keeps_no_job_of_a_dead_worker(times: Times) -> None:
    """Each stall is a gap; with leases that every gap extends, the job is not taken in the bound, or never."""
    worlds = {seed: world_of(seed, Protocol(times)) for seed in range(STALLED)}
    assert {seed: said for seed, world in worlds.items() if (said := found_in(world, stall))} == {}
    assert all(world.oracle.taken == 1 for world in worlds.values())
    loose = [found_in(world_of(seed, EveryGapExtends(times)), stall) for seed in range(STALLED)]
    assert loose.count("a takeover took too long") > STALLED // 2
