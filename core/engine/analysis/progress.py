"""The progress of an analysis: it reports tiles, writes finished ones to checkpoints, and receives stop requests."""

# ruff: noqa: N818 - AnalysisStopped is no error

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from torch import Tensor

from core.engine.checkpoints.files import STATE, WEIGHTS, chain_digest, read_resume
from core.engine.checkpoints.writer import CheckpointHeader, CheckpointWriter, Unwritten
from core.engine.events import Log, Observer, RunProgress, StopRequest
from core.engine.liveness import ReportAlive
from core.recipe.assignment import AnalysisAssignment

KEEP_SECONDS: Final = 20.0

Tensors = dict[str, Tensor]


class AnalysisStopped(Exception):
    """Raised on a request to stop; the finished tiles are in `AnalysisProgress.tensors`."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


class AnalysisProgress:
    """The progress of one attempt. `found` are the tensors of an earlier attempt's checkpoint, `done` its tiles."""

    def __init__(
        self,
        assignment: AnalysisAssignment,
        observer: Observer,
        environment: Mapping[str, Any],
        report_alive: ReportAlive,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """Finished tiles are written to a checkpoint every `keep_seconds`, and on request."""
        self._observer = observer
        self._keep_seconds = keep_seconds
        self._keep_by = time.monotonic() + keep_seconds
        self.writer = CheckpointWriter(
            assignment.scratch,
            assignment.job,
            environment,
            observer=observer,
            progress=self.progress,
            report_alive=report_alive,
        )
        resume = assignment.resume
        self.found: Tensors = read_resume(resume, report_alive)[0] if resume else {}
        self.done: int = int(resume.manifest["step"]) if resume else 0
        self._digest: str = resume.manifest["digest"] if resume else ""
        self.total: int | None = None
        self.tensors: Tensors = dict(self.found)

    def keep(self, done: int, total: int, tensors: Mapping[str, Tensor]) -> None:
        """`done` of `total` tiles are in `tensors`, which later calls may change in place: call it after every tile.

        Raises:
            AnalysisStopped: there is a request to stop. If it is "checkpoint", a checkpoint is written before.
        """
        self.done, self.total, self.tensors = done, total, dict(tensors)
        self._observer.emit(self.progress())
        request = self._observer.stop_request()
        if request == "checkpoint":
            self.writer.insists = True
            self._write_tiles()
        elif request is None and done < total and time.monotonic() >= self._keep_by:
            with suppress(Unwritten):  # the next checkpoint has these tiles too
                self._write_tiles()
            self._keep_by = time.monotonic() + self._keep_seconds
        if request:
            raise AnalysisStopped(request)

    def progress(self) -> RunProgress:
        """The number of finished tiles and their share, as an event."""
        share = self.done / self.total if self.total else float(self.total == 0)
        return RunProgress(self.done, self.total, 0, None, share, None, None)

    def warn(self, message: str) -> None:
        """Emit a warning for the reader of the result."""
        self._observer.emit(Log("warning", message))

    def _write_tiles(self) -> None:
        chain = self._digest
        written = self.writer.write_tensors(
            CheckpointHeader("last", self.done),
            {WEIGHTS: self.tensors, STATE: {}},
            lambda files: {"digest": chain_digest(chain, files), "metrics": {}},
        )
        self._digest = written.manifest["digest"]
