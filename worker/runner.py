"""The process in which the engine runs: one assignment in, events out. No database, no store, no secret.

python -m worker.runner FD PARENT      where fork is no option; the zygote's children call `run` themselves
"""

import dataclasses
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from core.engine.analysis.run_analysis import Arrays, Draw
from core.engine.environment import environment_differences
from core.engine.events import (
    CheckpointFailed,
    CheckpointWritten,
    Ended,
    Event,
    Log,
    Observer,
    PointsLogged,
    RolledBack,
    RunProgress,
    Started,
)
from core.engine.failure import known_failure
from core.engine.liveness import Piece, PieceTimer, ReportAlive, report_nothing
from core.engine.loop import train
from core.engine.preload import warm_up_torch as warm_engine
from core.machine_failure import is_machine_failure
from core.process import ORPHANED, die_with_parent
from core.recipe.assignment import AnyAssignment, Assignment
from core.recipe.data.materialise import dataset_path
from core.recipe.plan import SlotKind, resolve_plan
from core.recipe.spec import JobSpec
from core.recipe.stored import read_stored
from worker import exit_codes, kernel_oom, wire
from worker.kinds import WORKER_KINDS, WorkerKind, find_worker_kind, load_function

__all__ = [
    "Event",
    "StopMode",
    "environment_differences",
    "event_frame",
    "run",
    "train_local",
    "train_without_clock",
    "warm",
]

FLUSH_SECONDS: Final = 0.1
_KINDS: Final[dict[type, str]] = {
    Started: "started",
    RunProgress: "progress",
    PointsLogged: "points",
    CheckpointWritten: "checkpoint",
    CheckpointFailed: "checkpoint_failed",
    RolledBack: "rollback",
    Log: "log",
    Ended: "ended",
}
_URGENT: Final = frozenset({"started", "checkpoint", "ended"})
StopMode = Literal["cancel", "checkpoint"]


def event_frame(event: Event | Ended) -> tuple[str, dict[str, Any]]:
    """An event as the type and the fields of its frame."""
    return _KINDS[type(event)], {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}


class PipeObserver:
    """The engine's observer: its events become frames; orders from the supervisor become its stop request."""

    def __init__(self, sock: socket.socket, job: str) -> None:
        self._sock = sock
        self._job = job
        self._writer = wire.FrameWriter(sock)
        self._stop: StopMode | None = None
        self.report_alive = PieceTimer(self._send_alive)

    def emit(self, event: Event | Ended) -> None:
        kind, fields = event_frame(event)
        self._write_frame(kind, fields, urgent=kind in _URGENT)

    def _send_alive(self, piece: Piece, usual: float | None) -> None:
        self._write_frame("alive", {"piece": piece, "usual": usual}, urgent=True)

    def _write_frame(self, kind: str, fields: dict[str, Any], *, urgent: bool) -> None:
        try:
            self._writer.write(wire.pack_frame(kind, self._job, fields), urgent=urgent)
        except OSError as error:
            if is_machine_failure(error):  # the kernel had no memory for it
                os._exit(exit_codes.MACHINE_FAILED)
            os._exit(ORPHANED)  # the supervisor is gone: this attempt must report nothing more

    def stop_request(self) -> StopMode | None:
        return self._stop

    def cancel(self, _signum: int, _frame: object) -> None:
        """SIGTERM: end after this step. The checkpoints that are written stay."""
        self._stop = "cancel"

    def listen(self) -> None:
        threading.Thread(target=self._read_orders, name="control", daemon=True).start()

    def _read_orders(self) -> None:
        """Read orders until the pipe ends; then end this process at once, also in the middle of a step."""
        while True:
            if not select.select([self._sock], [], [], FLUSH_SECONDS)[0]:
                self._writer.flush_if_idle()
                continue
            try:
                frame = wire.receive_frame(self._sock)
            except OSError:
                frame = None
            if frame is None:
                os._exit(ORPHANED)
            if frame["type"] == "stop":
                self._stop = self._stop or "checkpoint"


def warm(kinds: Sequence[WorkerKind] = WORKER_KINDS) -> None:
    """Import the code of every kind of job, and run once what is slow at its first call."""
    for kind in kinds:
        if kind.own_process is None:
            load_function(kind.entry_point)
    warm_engine()


def run(sock: socket.socket, kinds: Sequence[WorkerKind] = WORKER_KINDS) -> int:
    """Take one assignment from the pipe and carry it out; the exit status."""
    frame = wire.receive_frame(sock)
    if frame is None:
        return ORPHANED
    kind = find_worker_kind(kinds, str(frame["assignment"].get("kind")))
    assignment = read_stored(kind.assignment, frame["assignment"])
    observer = PipeObserver(sock, assignment.job)
    signal.signal(signal.SIGTERM, observer.cancel)
    observer.listen()
    observer.emit(_run_to_end(kind, assignment, observer))
    return 0


def _run_to_end(kind: WorkerKind, assignment: AnyAssignment, observer: PipeObserver) -> Ended:
    """How the job ended. An unknown exception is a failure; its traceback goes to the worker's log."""
    try:
        further: dict[str, Any] = {"report_alive": observer.report_alive}
        if kind.picture_kind is not None:
            further["draw"] = _plot_renderer(observer, kind.picture_kind(assignment.spec), observer.report_alive)
        return _call_entry_point(kind, assignment, observer, further)
    except Exception as error:  # noqa: BLE001 - the boundary of the training code
        exit_codes.print_exception(error)
        if (known := known_failure(error)) is not None:
            return Ended("failed", None, {}, known.as_document(), {})
        what = traceback.format_exception_only(error)[-1].strip()
        document = {"code": "engine_error", "message": what[:2000]}
        return Ended("failed", None, {}, document, {})


def _call_entry_point(
    kind: WorkerKind, assignment: AnyAssignment, observer: Observer, further: Mapping[str, Any]
) -> Ended:
    ended: Ended = load_function(kind.entry_point)(assignment, observer, **further)
    return ended


def _plot_renderer(observer: Observer, kind: str, report_alive: ReportAlive = report_nothing) -> Draw | None:
    """The function that draws the results; None, with one warning, where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        observer.emit(
            Log("warning", "no pictures are drawn: matplotlib is not installed on this worker; the numbers are stored")
        )
        return None
    from worker.pictures import preload_renderer, render_pictures

    preload_renderer(kind)

    def render_plots(kind: str, numbers: Mapping[str, Any], arrays: Arrays) -> Mapping[str, bytes]:
        """Draw the pictures. A failure loses no result. Each picture is reported: a long silence counts as a stall."""

        def report_drawn(name: str) -> None:
            report_alive("picture")
            observer.emit(Log("info", f"picture {name} is drawn"))

        report_alive("picture")
        try:
            return render_pictures(kind, numbers, arrays, report_drawn)
        except Exception:  # noqa: BLE001 - a picture that fails must not lose hours of computing
            traceback.print_exc()
            observer.emit(Log("warning", "the pictures could not be drawn; numbers and arrays are stored"))
            return {}

    return render_plots


def train_local(  # noqa: PLR0913 - what, from where, whereto
    spec: JobSpec,
    observer: Observer,
    *,
    datasets: Path,
    scratch: Path,
    slot: SlotKind = "cpu",
    prepared: Path | None = None,
) -> Ended:
    """Train in this process, with no service around it; writes the dataset first when `datasets` lacks it.

    Checkpoints stay in `scratch`, which must be an empty folder. `prepared` is the folder of a job's own data.
    """
    resolved = spec.resolved()
    dataset = prepared or dataset_path(resolved.data, datasets)
    if not dataset.exists():
        subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "core.recipe.data.materialise", str(datasets), resolved.data.model_dump_json()],
            check=True,
        )
    assignment = Assignment(
        job="local",
        attempt=1,
        spec=resolved,
        plan=resolve_plan(resolved, slot),
        dataset=dataset,
        scratch=scratch,
    )
    return train(assignment, observer)


def train_without_clock(assignment: Assignment, observer: Observer) -> Ended:
    """Train in this process with a clock that is always 0: no checkpoint and no end of the run depends on time."""
    return train(assignment, observer, checkpoint_seconds=math.inf, clock=lambda: 0.0)


def main(kinds: Sequence[WorkerKind] = WORKER_KINDS) -> None:
    """An exec'd runner; its group and its standard streams were arranged by the launcher."""
    sock, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    die_with_parent(parent)
    kernel_oom.prefer_as_oom_victim()
    try:
        warm(kinds)
        code = run(sock, kinds)
    except BaseException as error:  # noqa: BLE001 - every error becomes an exit status
        code = exit_codes.print_exception(error)
    exit_codes.exit_now(code)


if __name__ == "__main__":
    main()
