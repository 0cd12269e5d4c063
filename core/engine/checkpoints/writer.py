"""The writer of an attempt's folders: checkpoints, weights alone, results of analyses."""

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
"""Creates the folder, writes every file but the manifest, and returns the files by role."""
Describe = Callable[[Files], dict[str, Any]]
"""The entries of a manifest besides those of every manifest; called when the files are on disk."""


class Unwritten(OSError):
    """This machine failed to write a checkpoint or a result; its folder is removed."""


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """What a folder holds: kind, complete steps, whole epochs, and the metrics of its event."""

    kind: Kind
    step: int
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


class CheckpointWriter:
    """Writes the folders of one attempt. A folder is complete and durable before its event; a failed one is removed.

    If this machine fails, Unwritten is raised: at once, or after half a minute of tries if `insists` is set, because no
    later checkpoint replaces this one.
    """

    def __init__(  # noqa: PLR0913 - the folder, the entries of every manifest, and the receivers
        self,
        scratch: Path,
        job: str,
        environment: Mapping[str, Any],
        *,
        observer: Observer,
        progress: Callable[[], RunProgress],
        report_alive: ReportAlive,
    ) -> None:
        """`observer` receives an event for every folder, and `progress` as a heartbeat between two tries."""
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
        """Reset after a rollback: failures at later steps are reported again, and the end is not near any more."""
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
        """Write a folder with the files of `fill` and a manifest. Raises Unwritten."""
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
        self._count += 1  # folder names are unique: after a rollback the same steps come again
        folder = self._scratch / f"{self._count:06d}-{kind}-{step:09d}"
        try:
            return self._fill_and_seal(folder, header, fill, describe)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if not is_machine_failure(error):
                raise
            if (kind, step) not in self._failed:  # reported once, however often it is tried
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
