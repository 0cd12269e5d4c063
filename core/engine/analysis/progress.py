"""How far an analysis is: progress goes out, finished tiles are kept, and requests to stop come in."""

# ruff: noqa: N818 - Interrupted says what happened

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
    """A request to stop; the tiles that are finished are in `AnalysisProgress.tensors`."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


class AnalysisProgress:
    """Of one attempt at one analysis. `found` are the tensors that an earlier attempt has kept, `done` its tiles."""

    def __init__(
        self,
        assignment: AnalysisAssignment,
        observer: Observer,
        environment: Mapping[str, Any],
        report_alive: ReportAlive,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """Tiles are written down every `keep_seconds`, and when somebody asks."""
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
            Interrupted: somebody asks for an end; a checkpoint was written if it is to go on later.
        """
        self.done, self.total, self.tensors = done, total, dict(tensors)
        self._observer.emit(self.progress())
        request = self._observer.stop_request()
        if request == "checkpoint":
            self.writer.insists = True
            self._write_tiles()
        elif request is None and done < total and time.monotonic() >= self._keep_by:
            with suppress(Unwritten):  # the next one has these tiles, too
                self._write_tiles()
            self._keep_by = time.monotonic() + self._keep_seconds
        if request:
            raise AnalysisStopped(request)

    def progress(self) -> RunProgress:
        """Where it stands."""
        share = self.done / self.total if self.total else float(self.total == 0)
        return RunProgress(self.done, self.total, 0, None, share, None, None)

    def warn(self, message: str) -> None:
        """Something that whoever reads the result should know."""
        self._observer.emit(Log("warning", message))

    def _write_tiles(self) -> None:
        chain = self._digest
        written = self.writer.write_tensors(
            CheckpointHeader("last", self.done),
            {WEIGHTS: self.tensors, STATE: {}},
            lambda files: {"digest": chain_digest(chain, files), "metrics": {}},
        )
        self._digest = written.manifest["digest"]
