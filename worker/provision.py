"""Provides what an attempt needs on this machine's disk before it starts: a folder, its dataset, its checkpoint."""

# ruff: noqa: N818 - the names say what happened

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.jobs.checkpoints.records import CheckpointRow
from core.recipe.assignment import Resume
from core.recipe.data import DataSpec
from core.recipe.data.materialise import BUILT_IN, dataset_path, read_data
from core.store.base import Store, StoreMissing, StoreUnreadable
from worker import child_process, materialise_datasets
from worker.runner_user import INPUTS, LOG, OUTPUTS, PASSAGE, RunnerUser

log = logging.getLogger(__name__)

MATERIALISE_SECONDS: Final = 300.0
LISTEN_SECONDS: Final = 0.2
_LOCK_NAME: Final = "lock"


class BadDataset(Exception):
    """There is no such dataset: the job's `data` asks for something that cannot be made, or that is gone."""

    def __init__(self, message: str, remedy: str = "Change the fields of the job's data.") -> None:
        super().__init__(message)
        self.remedy = remedy


class BadUpload(Exception):
    """The uploaded bytes are not those that were announced; `problems` are entries of the dataset's errors."""

    def __init__(self, dataset_id: str, problems: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(dataset_id)
        self.dataset_id = dataset_id
        self.problems = problems


class DatasetUnavailable(Exception):
    """This worker could not write the dataset; the log contains the cause, and another worker may succeed."""


class ProvisionInterrupted(Exception):
    """The attempt is to end before its runner has started: a cancel, a pause, a stop, or a lost lease."""


class CannotResume(Exception):
    """The checkpoint or weights that a job starts from cannot be read; `remedy` says what the user can do."""

    def __init__(self, message: str, remedy: str = "Take another checkpoint.") -> None:
        super().__init__(message)
        self.remedy = remedy


class BadCheckpoint(Exception):
    """A checkpoint's files are missing or do not match their recorded digests."""


class MissingCheckpoint(BadCheckpoint):
    """A file of a checkpoint is not in the store."""


@dataclass(frozen=True)
class AttemptFolder:
    """The disk space of one attempt; removed with everything in it."""

    path: Path

    @property
    def out(self) -> Path:
        return self.path / "out"

    @property
    def resume(self) -> Path:
        return self.path / "resume"

    @property
    def stderr(self) -> Path:
        return self.path / "stderr.txt"

    @property
    def spill(self) -> Path:
        return self.path / "spill"


class Scratch:
    """This worker's part of the scratch folder. A lock on it shows other workers that this one is running.

    Runners with a `user` of their own may pass through it, and may write in `out` only.
    """

    def __init__(self, root: Path, worker: str, user: RunnerUser | None = None) -> None:
        self._root = root
        self.user = user
        self._own = root / worker
        self._lock: int | None = None

    def open(self) -> None:
        """Create and lock the folder of this worker, and remove the folders of workers that were killed."""
        aside = self._root / f".{self._own.name}"  # hidden until it is locked: another worker would remove it
        aside.mkdir(parents=True)
        if self.user:
            self.user.share_path(aside, PASSAGE)
        self._lock = _lock_folder(aside)
        aside.rename(self._own)
        for other in self._root.glob("[!.]*"):
            if other != self._own and (lock := _lock_folder(other)) is not None:
                shutil.rmtree(other, ignore_errors=True)
                os.close(lock)

    def close(self) -> None:
        shutil.rmtree(self._own, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    @contextlib.contextmanager
    def attempt_folder(self, job: str, attempt: int) -> Iterator[AttemptFolder]:
        folder = AttemptFolder(self._own / f"{job}-{attempt}")
        folder.out.mkdir(parents=True)
        if self.user:
            self.user.share_path(folder.path, INPUTS)
            self.user.share_path(folder.out, OUTPUTS)
            folder.stderr.touch()
            self.user.share_path(folder.stderr, LOG)
        try:
            yield folder
        finally:
            shutil.rmtree(folder.path, ignore_errors=True)


def _lock_folder(folder: Path) -> int | None:
    """A lock on the folder as a descriptor; None while its worker runs."""
    try:
        lock = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def fetch_checkpoint(store: Store, row: CheckpointRow, folder: Path) -> Resume:
    """The checkpoint's files in a fresh `folder`, each with the size and SHA-256 of its row.

    Raises:
        BadCheckpoint: a file is missing, unreadable or different; none of the files may be loaded.
        StoreTransient: the store is away.
        OSError: this machine's disk does not take it.
    """
    paths = _fetch_files(store, row, row.files, folder)
    manifest = json.loads(paths["manifest"].read_bytes())
    return Resume(weights=paths["weights"], state=paths["state"], manifest=manifest)


def fetch_weights(store: Store, row: CheckpointRow, folder: Path) -> Path:
    """The weights alone of a checkpoint of any kind, in a fresh `folder`; raises as fetch_checkpoint does."""
    return _fetch_files(store, row, ("weights",), folder)["weights"]


def _fetch_files(store: Store, row: CheckpointRow, roles: Iterable[str], folder: Path) -> dict[str, Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths: dict[str, Path] = {}
    for role in roles:
        file = row.files[role]
        paths[role] = folder / f"{role}{Path(file['name']).suffix}"
        try:
            store.fetch(f"{row.key}/{file['name']}", paths[role])
        except StoreMissing as error:
            raise MissingCheckpoint(f"checkpoint {row.id}: {file['name']} is missing") from error
        except StoreUnreadable as error:
            raise BadCheckpoint(f"checkpoint {row.id}: {file['name']} cannot be read") from error
        if (paths[role].stat().st_size, _file_sha256(paths[role])) != (file["bytes"], file["sha256"]):
            raise BadCheckpoint(f"checkpoint {row.id}: {file['name']} does not match its recorded digest")
    return paths


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dataset_file(data: DataSpec, folder: Path, interrupted: Callable[[], bool] = lambda: False) -> Path:
    """The dataset as a file, written first when it is missing; `interrupted` is polled meanwhile.

    Raises:
        BadDataset: it cannot exist; the message contains the cause.
        DatasetUnavailable: it could not be written here.
        ProvisionInterrupted: `interrupted` returned True.
    """
    path = dataset_path(data, folder)
    if not path.exists():
        process = _start_materialise(folder, [data.model_dump_json()])
        try:
            said, printed = _wait_for_output(process, interrupted)
        finally:
            process.kill()
            process.communicate()
        if process.returncode == materialise_datasets.IMPOSSIBLE:
            log.warning("the dataset %s cannot be made:\n%s", data.name, printed.decode(errors="replace"))
            raise BadDataset(f"the dataset {data.name} cannot be made: {said.decode(errors='replace')[:1000]}")
        if process.returncode != 0:
            text = printed.decode(errors="replace")[-4096:]
            log.error("writing the dataset %s ended with %d:\n%s", data.name, process.returncode, text)
            raise DatasetUnavailable(data.name)
    return path


def _wait_for_output(process: "subprocess.Popen[bytes]", interrupted: Callable[[], bool]) -> tuple[bytes, bytes]:
    """Its stdout and stderr when it has ended."""
    deadline = time.monotonic() + MATERIALISE_SECONDS
    while time.monotonic() < deadline:
        if interrupted():
            raise ProvisionInterrupted
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=LISTEN_SECONDS)
    log.error("a dataset was not written within %.0f s", MATERIALISE_SECONDS)
    raise DatasetUnavailable("time out")


def prefetch_datasets(folder: Path) -> "subprocess.Popen[bytes] | None":
    """Write the built-in datasets in the background, at low priority; None when all exist."""
    missing = [name for name in BUILT_IN if not dataset_path(read_data(name), folder).exists()]
    if not missing:
        return None
    process = _start_materialise(folder, missing)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, 19)
    return process


def stop_prefetch(process: "subprocess.Popen[bytes]") -> None:
    """End the process: the worker stops, and the next one writes what is missing."""
    process.terminate()
    process.communicate()


def _start_materialise(folder: Path, datasets: list[str]) -> "subprocess.Popen[bytes]":
    """A process of its own: the worker never imports NumPy or scikit-learn. Its own session keeps Ctrl-C from it."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "worker.materialise_datasets", str(os.getpid()), str(folder), *datasets],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_process.clean_environment(os.environ),
        start_new_session=True,
    )
