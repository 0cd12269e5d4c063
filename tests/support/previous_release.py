"""The database and the store of the previous release, unpacked for a test; see tests/support/release_writer.py."""

import hashlib
import json
import platform
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

FOLDER: Final = Path(__file__).resolve().parents[1] / "service" / "previous_release"
ARCHIVE: Final = "home.tar.xz"
INDEX: Final = "index.json"


@dataclass(frozen=True)
class PreviousRelease:
    """What the previous release has left: its home, a key, and the ids of what it has written.

    `same_machine`: the release wrote it on a machine like this one, which therefore computes the same bits.
    """

    home: Path
    key: str
    written: dict[str, str]
    spec_of_paused: dict[str, Any]
    same_machine: bool

    @property
    def database(self) -> Path:
        return self.home / "basin.db"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.database}"


def processor() -> str:
    """Whose processor it is, as far as the kernel says so: math libraries choose their kernels by that."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), platform.machine())


def this_machine() -> dict[str, Any]:
    """The fields of an environment that belong to a machine and its libraries, and not to our code."""
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    return {"device": platform.machine(), "capability": torch.backends.cpu.get_cpu_capability(), "versions": versions}


def unpack_release(home: Path) -> PreviousRelease:
    """The home as the release has left it, but as if this machine had computed it: only our code can differ then."""
    with tarfile.open(FOLDER / ARCHIVE) as archive:
        archive.extractall(home, filter="data")
    index = json.loads((FOLDER / INDEX).read_text(encoding="utf-8"))
    here = this_machine()
    with closing(sqlite3.connect(home / "basin.db")) as database, database:
        paused = index["written"]["paused"]
        (recorded,) = database.execute("SELECT environment FROM job WHERE id = ?", (paused,)).fetchone()
        same = index["processor"] == processor() and on_this_machine(json.loads(recorded), here) == json.loads(recorded)
        _replace_machine(database, home / "store", here)
    return PreviousRelease(home, index["key"], index["written"], index["spec_of_paused"], same)


def on_this_machine(environment: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    """The environment with what it names of a machine replaced; no field comes or goes."""
    versions = {name: here["versions"].get(name, each) for name, each in environment["versions"].items()}
    return {**{name: here.get(name, each) for name, each in environment.items()}, "versions": versions}


def _replace_machine(database: sqlite3.Connection, store: Path, here: dict[str, Any]) -> None:
    """In jobs, in checkpoints' rows and in their manifest files, whose size and digest stand in the rows."""
    for job, environment, plan in database.execute("SELECT id, environment, plan FROM job").fetchall():
        if environment and plan:
            replaced = json.loads(plan)
            replaced["versions"] |= here["versions"]
            values = (json.dumps(on_this_machine(json.loads(environment), here)), json.dumps(replaced), job)
            database.execute("UPDATE job SET environment = ?, plan = ? WHERE id = ?", values)
    rows = database.execute("SELECT id, key, files, manifest FROM checkpoint").fetchall()
    for checkpoint, key, files, manifest in rows:
        document, listed = json.loads(manifest), json.loads(files)
        document["environment"] = on_this_machine(document["environment"], here)
        content = json.dumps(document).encode()
        (store / key / listed["manifest"]["name"]).write_bytes(content)
        longer = len(content) - listed["manifest"]["bytes"]
        listed["manifest"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        values = (json.dumps(listed), json.dumps(document), longer, checkpoint)
        database.execute("UPDATE checkpoint SET files = ?, manifest = ?, stored = stored + ? WHERE id = ?", values)
