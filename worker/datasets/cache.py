"""The prepared datasets on this machine: one folder for each version, shared by all slots and workers of the machine.

    <folder>/<version>/              manifest.json and one safetensors file for each tensor, read-only
    <folder>/.locks/<version>        a lock: shared by those who use the version, exclusive for who makes or removes it;
                                     its time of change is that of the last use
    <folder>/.making-<version>/      a version that is being made, under its exclusive lock

A version appears by a rename, whole. A process that is killed leaves no lock, and the next maker of the version, or the
next that needs room, removes what it has left.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest
from worker.datasets.layout import is_laid_out
from worker.runner_user import INPUTS, RunnerUser

log = logging.getLogger(__name__)

LOCKS: Final = ".locks"
MAKING: Final = ".making-"
WAIT_SECONDS: Final = 0.1
Make = Callable[[Path, Callable[[int], None]], None]
"""(an empty folder, make_room(bytes)) -> None: lays a version out in the folder."""


class PreparedCache:
    """The versions in one folder. All state is on the disk, so that any number of these objects may share it."""

    def __init__(self, folder: Path, quota: int, user: RunnerUser | None = None) -> None:
        """`quota` in bytes: unused versions are removed beyond it, the one used longest ago first. Runners
        with a `user` of their own may read the files.
        """
        self._folder = folder
        self._quota = quota
        self._user = user

    @contextmanager
    def held(self, version: str, make: Make, check: Callable[[], None]) -> Iterator[Path]:
        """The folder of a version, made first where it is missing; it stays as long as the context.

        `check` is called while another process makes it: what it raises ends the wait.

        Raises:
            OSError: this machine's disk does not take it.
            What `make` and `check` raise.
        """
        target = self._folder / version
        self._make_folder()
        while True:
            with self._locked(version, fcntl.LOCK_SH, check):
                if self._is_whole(target):
                    self._note_use(version)
                    yield target
                    return
            with self._locked(version, fcntl.LOCK_EX, check):
                if not self._is_whole(target):
                    self._make(version, make)

    def make_room(self, needed: int) -> None:
        """Remove unused versions until `needed` more bytes are within the quota."""
        self._remove_leftovers()
        sizes = {path.name: folder_bytes(path) for path in self._folder.glob("[!.]*")}
        total = sum(sizes.values()) + sum(folder_bytes(path) for path in self._folder.glob(f"{MAKING}*"))
        for version in sorted(sizes, key=self._last_use):
            if total + needed <= self._quota:
                return
            if self._evict(version):
                total -= sizes[version]
        if total + needed > self._quota:
            log.warning("the dataset cache needs %d bytes, and its quota is %d", total + needed, self._quota)

    def _make(self, version: str, make: Make) -> None:
        """Make a version under its exclusive lock."""
        aside, target = self._folder / f"{MAKING}{version}", self._folder / version
        for old in (aside, target):
            shutil.rmtree(old, ignore_errors=True)
        aside.mkdir()
        try:
            make(aside, self.make_room)
            if self._user:
                for file in aside.iterdir():
                    self._user.share_path(file, 0o440)
                self._user.share_path(aside, INPUTS)
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        log.info("the dataset %s is in the cache", version)

    def _evict(self, version: str) -> bool:
        """Remove a version, unless an attempt uses it."""
        with self._try_exclusive(version) as free:
            if free:
                shutil.rmtree(self._folder / version, ignore_errors=True)
                (self._folder / LOCKS / version).unlink(missing_ok=True)
                log.info("the dataset %s is removed from the cache", version)
            return free

    def _remove_leftovers(self) -> None:
        """Remove what killed processes have left: the lock of such a version is free."""
        for path in self._folder.glob(f"{MAKING}*"):
            with self._try_exclusive(path.name.removeprefix(MAKING)) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)

    def _make_folder(self) -> None:
        (self._folder / LOCKS).mkdir(parents=True, exist_ok=True)
        if self._user:
            self._user.share_path(self._folder, INPUTS)

    def _is_whole(self, target: Path) -> bool:
        try:
            manifest = read_manifest((target / MANIFEST_FILE).read_bytes())
        except (OSError, ValueError):
            return False
        return is_laid_out(target, manifest)

    def _note_use(self, version: str) -> None:
        with contextlib.suppress(OSError):  # only the order of eviction
            os.utime(self._folder / LOCKS / version)

    def _last_use(self, version: str) -> float:
        try:
            return (self._folder / LOCKS / version).stat().st_mtime
        except OSError:
            return 0.0

    @contextmanager
    def _locked(self, version: str, mode: int, check: Callable[[], None]) -> Iterator[None]:
        while True:
            lock = self._try_lock(version, mode)
            if lock is not None:
                try:
                    yield
                finally:
                    os.close(lock)
                return
            check()
            time.sleep(WAIT_SECONDS)

    @contextmanager
    def _try_exclusive(self, version: str) -> Iterator[bool]:
        lock = self._try_lock(version, fcntl.LOCK_EX)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def _try_lock(self, version: str, mode: int) -> int | None:
        """A descriptor that holds the lock; None while another process or thread holds it.

        An eviction removes the lock's file too, so a lock on a file that has lost its name does not count.
        """
        path = self._folder / LOCKS / version
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == path.stat().st_ino:
                return lock
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None


def read_manifest(content: bytes) -> DatasetManifest:
    """The manifest that is stored as these bytes. Raises ValueError where they are none."""
    return DatasetManifest.model_validate_json(content)


def folder_bytes(folder: Path) -> int:
    """The bytes of the files in a folder; 0 where it is gone."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total
