"""Removes what is doomed, as CARE does, and dies by SIGKILL at a given moment. Run as a process by test_removal."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.db.session import open_database
from core.jobs.garbage_collection import GarbageCollector
from core.settings import Settings
from core.store.local import LocalStore

MOMENTS = ("before anything", "between two objects", "before the rows", "before the jobs", "after all")


def dying(deed: Callable[..., Any], *, after: int) -> Callable[..., Any]:
    """The deed, whose call number `after` (from 0) kills this process before it does anything."""
    calls = 0

    def call(*arguments: Any) -> Any:
        nonlocal calls
        if calls == after:
            die()
        calls += 1
        return deed(*arguments)

    return call


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, home: Path, moment: str) -> None:
    db, store = open_database(url, pool_size=2), LocalStore(home / "store")
    tampered: Any = (db, store)
    match moment:
        case "before anything":
            die()
        case "between two objects":
            tampered[1].delete = dying(store.delete, after=1)
        case "before the rows":
            tampered[0].write = dying(db.write, after=0)
        case "before the jobs":
            tampered[0].write = dying(db.write, after=1)
    care = GarbageCollector(db, store, Settings(home=home))
    care.delete_pending_checkpoints()
    care.delete_removed_jobs()
    die()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
