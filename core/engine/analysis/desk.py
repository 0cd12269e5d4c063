"""Where an analysis puts what it has so far: progress goes out, tiles are kept, and orders to stop come in."""

# ruff: noqa: N818 - Interrupted says what happened

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from core.engine.checkpoint import STATE, WEIGHTS, chained, read_resume, seal, write_tensor_files
from core.engine.events import CheckpointWritten, Log, Observer, Progress, StopRequest
from core.engine.folders import Folders, Unwritten
from core.engine.liveness import ReportAlive
from core.recipe.assignment import AnalysisAssignment

KEEP_SECONDS: Final = 20.0
FORMAT: Final = 1  # of manifest.json

Tensors = dict[str, Tensor]


class Interrupted(Exception):
    """Somebody wants it to end; what there is so far is on the desk."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


class Desk:
    """One attempt at one analysis. `found` are the tensors that an earlier attempt has kept, `done` its tiles."""

    def __init__(
        self,
        assignment: AnalysisAssignment,
        observer: Observer,
        environment: dict[str, Any],
        report_alive: ReportAlive,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """Tiles are written down every `keep_seconds`, and when somebody asks."""
        self._assignment = assignment
        self._observer = observer
        self._environment = environment
        self._keep_seconds = keep_seconds
        self._report_alive = report_alive
        self._keep_by = time.monotonic() + keep_seconds
        self.folders = Folders(assignment.scratch, observer, self.progress)
        resume = assignment.resume
        self.found: Tensors = read_resume(resume, report_alive)[0] if resume else {}
        self.done: int = int(resume.manifest["step"]) if resume else 0
        self._digest: str = resume.manifest["digest"] if resume else ""
        self.total: int | None = None
        self.tensors: Tensors = dict(self.found)

    def keep(self, done: int, total: int, tensors: Mapping[str, Tensor]) -> None:
        """`done` of `total` tiles are in `tensors`, which later calls may change in place: call it after every tile.

        Raises:
            Interrupted: somebody asks for an end; a checkpoint was written if it is to go on later.
        """
        self.done, self.total, self.tensors = done, total, dict(tensors)
        self._observer.emit(self.progress())
        request = self._observer.stop_request()
        if request == "checkpoint":
            self.folders.insists = True
            self.folders.put("last", done, self._write)
        elif request is None and done < total and time.monotonic() >= self._keep_by:
            with suppress(Unwritten):  # the next one has these tiles, too
                self.folders.put("last", done, self._write)
            self._keep_by = time.monotonic() + self._keep_seconds
        if request:
            raise Interrupted(request)

    def progress(self) -> Progress:
        """Where it stands."""
        share = self.done / self.total if self.total else float(self.total == 0)
        return Progress(self.done, self.total, 0, None, share, None, None)

    def warn(self, message: str) -> None:
        """Something that whoever reads the result should know."""
        self._observer.emit(Log("warning", message))

    def _write(self, folder: Path) -> CheckpointWritten:
        files = write_tensor_files(folder, {WEIGHTS: self.tensors, STATE: {}}, self._report_alive)
        digest = chained(self._digest, files)
        manifest = {
            "format": FORMAT,
            "kind": "last",
            "job": self._assignment.job,
            "step": self.done,
            "epoch": 0,
            "environment": self._environment,
            "files": files,
            "digest": digest,
            "metrics": {},
        }
        sealed = seal(folder, files, manifest)
        self._digest = digest
        return CheckpointWritten("last", self.done, 0, str(folder), sealed, {}, manifest, resumable=True)
