"""The one writer of an attempt's folders: checkpoints, weights alone, results of analyses."""

# ruff: noqa: N818 - Unwritten says what happened

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from core.engine.checkpoints.files import Files, write_manifest, write_tensor_files
from core.engine.events import CheckpointFailed, CheckpointWritten, Kind, Observer, RunProgress
from core.engine.liveness import ReportAlive
from core.machine_failure import is_machine_failure

FORMAT: Final = 1  # of manifest.json
TRIES: Final = 60
PAUSE_SECONDS: Final = 0.5

Fill = Callable[[Path], Files]
"""Makes the folder that it is given, writes every file but the manifest, and returns them by role."""
Describe = Callable[[Files], dict[str, Any]]
"""What the manifest says besides what every manifest says; called once the files are on the disk."""


class Unwritten(OSError):
    """A checkpoint or a result that this machine did not take; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """What a folder holds: its kind, after how many steps and whole epochs, and the metrics that its event carries."""

    kind: Kind
    step: int
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


class CheckpointWriter:
    """One attempt's. A folder is whole and durable before the observer hears of it; a failed one is removed.

    Where this machine fails, Unwritten is raised: at once, or after half a minute of tries when `insists` is set,
    because what is written then would be missed.
    """

    def __init__(  # noqa: PLR0913 - where to, what every manifest says, and who hears of it
        self,
        scratch: Path,
        job: str,
        environment: Mapping[str, Any],
        *,
        observer: Observer,
        progress: Callable[[], RunProgress],
        report_alive: ReportAlive,
    ) -> None:
        """`observer` hears of every folder, and of `progress` as a sign of life between two tries."""
        self._scratch = scratch
        self._job = job
        self._environment = environment
        self._observer = observer
        self._progress = progress
        self._report_alive = report_alive
        self._count = 0
        self._failed: set[tuple[Kind, int]] = set()
        self.insists = False

    def go_back(self) -> None:
        """The run went back: what failed at a later step may fail there again, and an end may be none any more."""
        self._failed.clear()
        self.insists = False

    def write_tensors(
        self, header: CheckpointHeader, tensors: Mapping[str, dict[str, Tensor]], describe: Describe
    ) -> CheckpointWritten:
        """Write a folder of tensor files, by role (weights, state)."""
        return self.write_folder(
            header, lambda folder: write_tensor_files(folder, tensors, self._report_alive), describe
        )

    def write_folder(self, header: CheckpointHeader, fill: Fill, describe: Describe) -> CheckpointWritten:
        """Write a folder of whatever `fill` puts into it, and its manifest."""
        tries = TRIES if self.insists else 1
        while True:
            tries -= 1
            try:
                written = self._try_write(header, fill, describe)
                break
            except Unwritten:
                if tries == 0 or self._observer.stop_request() == "cancel":
                    raise
            self._observer.emit(self._progress())
            time.sleep(PAUSE_SECONDS)
        self._observer.emit(written)
        return written

    def _try_write(self, header: CheckpointHeader, fill: Fill, describe: Describe) -> CheckpointWritten:
        kind, step = header.kind, header.step
        self._count += 1  # a folder that was never used: after a rollback the same steps come again
        folder = self._scratch / f"{self._count:06d}-{kind}-{step:09d}"
        try:
            return self._fill_and_seal(folder, header, fill, describe)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if not is_machine_failure(error):
                raise
            if (kind, step) not in self._failed:  # said once, however often it is tried
                self._failed.add((kind, step))
                self._observer.emit(CheckpointFailed(kind, step, str(error.strerror), kind == "last"))
            raise Unwritten(error.errno, error.strerror) from error

    def _fill_and_seal(
        self, folder: Path, header: CheckpointHeader, fill: Fill, describe: Describe
    ) -> CheckpointWritten:
        kind, step, epoch = header.kind, header.step, header.epoch
        files = fill(folder)
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "job": self._job,
            "step": step,
            "epoch": epoch,
            "environment": self._environment,
            "files": files,
            **describe(files),
        }
        sealed = write_manifest(folder, files, manifest)
        metrics = dict(header.metrics)
        return CheckpointWritten(kind, step, epoch, str(folder), sealed, metrics, manifest, resumable=kind == "last")
