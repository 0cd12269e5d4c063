"""How many writes of a superseded attempt are accepted, and the cost of a refusal.

python -m bench.zombies [--writes 1000000]

The product's own writes, in turn: points, checkpoint, log line, heartbeat, give-back, end. Attempt 1 of a job lost its
lease, attempt 2 runs and trains; everything is written as attempt 1, on SQLite. Afterwards the job has to be unchanged;
and the same log line and heartbeat of attempt 2 have to be accepted.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice

from core.db.migrate import upgrade_schema
from core.db.session import Database, open_database
from core.jobs.attempt.fence import Fence, Fenced
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.events.log import record_events
from core.jobs.metrics.chunks import read_series, record_points
from core.lifecycle import Status
from tests.support.jobs import chunk, new_checkpoint, running, state_of, taken

Write = Callable[[], object]


def writes(db: Database, zombie: Fence) -> dict[str, Write]:
    """Name -> a write that would change the job. A refused heartbeat returns None; the others raise."""
    return {
        "points": lambda: record_points(db, zombie, [chunk("train.loss", 0, 100)]),
        "checkpoint": lambda: record_checkpoint(db, zombie, new_checkpoint(zombie, 4), (), resumable=True),
        "log": lambda: record_events(db, zombie, "log", [{"level": "info", "message": "I live"}]),
        "beat": lambda: record_heartbeat(db, zombie, lease_seconds=12.0, progress={"step": 99}),
        "give back": lambda: give_back(db, zombie, cause="stop", lost=True, max_losses=3),
        "end": lambda: finish_job(db, zombie, TerminalState(Status.SUCCEEDED, "completed")),
    }


def accepted(name: str, write: Write) -> bool:
    """Whether the write was accepted."""
    try:
        answer = write()
    except Fenced:
        return False
    return name != "beat" or answer is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=int, default=60_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/basin.db"
        upgrade_schema(url)
        db = open_database(url)
        zombie = running(db)
        give_back(db, zombie, cause="worker lost", lost=True, max_losses=3)
        claim = taken(db)
        rightful = Fence(zombie.job_id, claim.attempt if claim else 0)
        record_points(db, rightful, [chunk("train.loss", 0, 8)])
        before = state_of(db, zombie.job_id)
        began, got_in = time.perf_counter(), 0
        for name, write in islice(cycle(writes(db, zombie).items()), options.writes):
            got_in += accepted(name, write)
        seconds = time.perf_counter() - began
        same = state_of(db, zombie.job_id) == before and len(read_series(db, zombie.job_id)["train.loss"].steps) == 8
        controls = writes(db, rightful)
        works = all(accepted(name, controls[name]) for name in ("log", "beat"))
        db.close()
    each = 1e6 * seconds / options.writes
    print(f"{got_in} of {options.writes:,} writes accepted, {each:.0f} us each")
    print(f"the job is {'as it was' if same else 'CHANGED'}; its rightful attempt {'can' if works else 'CANNOT'} write")
    sys.exit(int(got_in > 0 or not same or not works))


if __name__ == "__main__":
    main()
