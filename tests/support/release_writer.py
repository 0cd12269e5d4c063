"""Writes the database and the store that tests/service/test_previous_release.py opens with today's code.

    git worktree add ../previous COMMIT && (cd ../previous && make setup)
    .venv/bin/python -m tests.support.release_writer ../previous

The service of that checkout writes everything. What is recorded beside it is in index.json. Write it again when a
release is made: "the previous release" is then that one.
"""

import argparse
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.support.checkout import Checkout, Json, ReleaseApi, running_release
from tests.support.previous_release import ARCHIVE, FOLDER, INDEX, processor

MOST_BYTES: Final = 300_000
DIGITS: Final[Json] = {"name": "digits", "validation": 0.1, "test": 0.8}  # 179 train: 8 steps an epoch
SHORT: Final[Json] = {
    "model": {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.2},
    "data": DIGITS,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "batch_size": 24,
    "schedule": {"name": "cosine", "warmup": "1ep"},
    "swa": {"start": "0.5run", "anneal": "0.1run"},
    "epochs": 10,
    "log_every": 8,
    "metadata": {"team": "red"},
}
LONG: Final[Json] = {
    **SHORT,
    "swa": {"start": "0.1run", "anneal": "0.8run", "every": "30ep"},
    "evaluate": {"every": "75ep"},
    "checkpoints": {"every": "3000st"},
    "epochs": 1500,
    "log_every": 300,
}
"""12000 steps; a stop after 4000 is inside the annealing, and SWA has averaged some weights."""
STOP_AT: Final = 4000


def write_jobs(api: ReleaseApi) -> dict[str, str]:
    """The id of every job and analysis that a worker has had, by what it is for."""
    succeeded = api.submit({**SHORT, "name": "succeeded"})
    paused, cancelled = (api.submit({**LONG, "name": name}) for name in ("paused", "cancelled"))
    failed = api.submit({**SHORT, "name": "failed", "optimizer": {"name": "sgd", "lr": 1e8}})
    api.wait_for_end(succeeded)
    for job_id, verb, status in ((paused, "pause", "paused"), (cancelled, "cancel", "cancelled")):
        api.wait_for_step(job_id, STOP_AT)
        api.post(f"/v1/jobs/{job_id}/{verb}")
        stopped = api.wait_for_status(job_id, status)["progress"]
        if stopped["step"] % 3000 == 0 or stopped["fraction"] > 0.8:
            raise RuntimeError(f"{status} at step {stopped['step']}, which is not between two checkpoints: try again")
    api.wait_for_status(failed, "failed")
    (swa,) = (each for each in api.get(f"/v1/jobs/{succeeded}/checkpoints")["data"] if each["kind"] == "swa")
    api.post(f"/v1/checkpoints/{swa['id']}/pin")
    forked = str(api.post(f"/v1/jobs/{succeeded}/fork", {"changes": {"epochs": 12, "name": "forked"}})["id"])
    api.wait_for_end(forked)
    analysis = api.submit({"kind": "sharpness", "job": succeeded, "measures": ["gradient_norm"]}, "analyses")
    api.wait_for_end(analysis, "analyses")
    return {
        "succeeded": succeeded,
        "failed": failed,
        "cancelled": cancelled,
        "paused": paused,
        "forked": forked,
        "analysis": analysis,
        "pinned": swa["id"],
    }


def write_home(checkout: Checkout, home: Path) -> Json:
    """Have the release fill this home; what the index says of it."""
    with running_release(checkout, home) as api:
        written = write_jobs(api)
    with running_release(checkout, home, "--no-worker") as api:
        written["queued"] = api.submit({**SHORT, "name": "queued"})
    key = checkout.output(home, "key", "create", "--name", "fixture", "--scope", "read", "--scope", "write").strip()
    commit = subprocess.check_output(["git", "-C", checkout.tree, "rev-parse", "HEAD"], text=True).strip()
    return {
        "commit": commit,
        "key": key,
        "written": written,
        "spec_of_paused": LONG,
        "processor": processor(),
    }


def pack(home: Path, target: Path) -> None:
    """The database in one file without free pages, and the store; nothing in it names the machine or the user."""
    with closing(sqlite3.connect(home / "basin.db")) as database:
        with database:
            database.execute("UPDATE event SET data = replace(data, ?, 'host-')", (f"{socket.gethostname()}-",))
        database.execute("VACUUM INTO ?", (str(home / "packed.db"),))
    with tarfile.open(target, "w:xz", preset=9) as archive:
        archive.add(home / "packed.db", "basin.db", filter=anonymous)
        archive.add(home / "store", "store", filter=anonymous)


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry of the archive without its owner and its time."""
    return entry.replace(uid=0, gid=0, uname="", gname="", mtime=0, deep=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", type=Path, help="by default CHECKOUT/.venv/bin/python")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="basin-release-") as folder:
        home = Path(folder) / "home"
        index = write_home(Checkout.at(options.checkout, options.python), home)
        packed = Path(folder) / ARCHIVE
        pack(home, packed)
        size = packed.stat().st_size
        if size > MOST_BYTES:
            sys.exit(f"{size} bytes are more than the {MOST_BYTES} that the repository takes")
        FOLDER.mkdir(exist_ok=True)
        shutil.copyfile(packed, FOLDER / ARCHIVE)
    (FOLDER / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{FOLDER / ARCHIVE}: {size} bytes\n")


if __name__ == "__main__":
    main()
