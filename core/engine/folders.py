"""The folders that a run leaves in its scratch: whole and told of, or removed and told of."""

# ruff: noqa: N818 - Unwritten says what happened

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.engine.events import CheckpointFailed, CheckpointWritten, Kind, Observer, Progress
from core.machine import is_machine_failure

TRIES: Final = 60
PAUSE_SECONDS: Final = 0.5


class Unwritten(OSError):
    """A checkpoint or a result that this machine did not take; nothing of it is left."""


class Folders:
    """One attempt's. Where this machine fails, Unwritten is raised: at once, or after half a minute of tries when
    `insists` is set, because what is written then would be missed.
    """

    def __init__(self, scratch: Path, observer: Observer, progress: Callable[[], Progress]) -> None:
        """`observer` hears of every folder, and of `progress` as a sign of life between two tries."""
        self._scratch = scratch
        self._observer = observer
        self._progress = progress
        self._count = 0
        self._failed: set[tuple[Kind, int]] = set()
        self.insists = False

    def put(self, kind: Kind, step: int, fill: Callable[[Path], CheckpointWritten]) -> None:
        """`fill` makes the folder that it is given, puts everything into it, and says what is there."""
        tries = TRIES if self.insists else 1
        while True:
            tries -= 1
            try:
                written = self._filled(kind, step, fill)
                break
            except Unwritten:
                if tries == 0 or self._observer.stop_request() == "cancel":
                    raise
            self._observer.emit(self._progress())
            time.sleep(PAUSE_SECONDS)
        self._observer.emit(written)

    def go_back(self) -> None:
        """The run went back: what failed at a later step may fail there again, and an end may be none any more."""
        self._failed.clear()
        self.insists = False

    def _filled(self, kind: Kind, step: int, fill: Callable[[Path], CheckpointWritten]) -> CheckpointWritten:
        self._count += 1  # a folder that was never used: after a rollback the same steps come again
        folder = self._scratch / f"{self._count:06d}-{kind}-{step:09d}"
        try:
            return fill(folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if not is_machine_failure(error):
                raise
            if (kind, step) not in self._failed:  # said once, however often it is tried
                self._failed.add((kind, step))
                self._observer.emit(CheckpointFailed(kind, step, str(error.strerror), kind == "last"))
            raise Unwritten(error.errno, error.strerror) from error
