"""Events of one attempt -> fenced metric chunks, checkpoint uploads, log lines. A thread between pipe and database."""

# ruff: noqa: N818 - WeightsMissing says what happened

import logging
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from core.jobs.attempt.fence import Fenced
from core.jobs.attempt.heartbeat import report_start
from core.jobs.checkpoints.records import NewCheckpoint, record_checkpoint
from core.jobs.events.log import record_events
from core.jobs.metrics.chunks import Chunk, record_points, roll_back
from core.logs import with_log_context
from core.machine_failure import is_machine_failure
from core.recipe.assignment import Resume
from core.recipe.averaging.ensemble import MEMBER
from core.redact import redact_secrets
from core.store.base import Digest, Store, StoreTransient
from core.store.keys import checkpoint_prefix
from worker import wire
from worker.backlog import Backlog
from worker.chunk_buffer import ChunkBuffer
from worker.heartbeat import AttemptAbandoned, Heartbeat, JobCancelled

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 0.5
MOST_LINES: Final = 2000  # of an attempt's log
LONGEST_LINE: Final = 4096  # characters
CANCEL_SECONDS: Final = 10.0  # after a cancel, uploads are waited for this long
FULL_SECONDS: Final = 20.0  # a full store is tried again for this long
OVER_SECONDS: Final = 3.0  # after the end of the attempt, a store call that hangs is waited for this long
_JOIN_SECONDS: Final = 0.2


class WeightsMissing(OSError):
    """The weights that belong to the results could not be stored."""


class Recorder:
    """Stores the frames of the runner in their order; one open transaction at a time.

    A checkpoint is a barrier: its points are written with its row in one transaction, and what follows belongs to the
    next segment. While the database or the store is away, writes are retried, see `Heartbeat.retry_write`.
    """

    def __init__(  # noqa: PLR0913 - what an attempt has, and the limits
        self,
        heartbeat: Heartbeat,
        store: Store,
        backlog: Backlog,
        resumed: Resume | None,
        out: Path,
        *,
        most_lines: int = MOST_LINES,
        cancel_seconds: float = CANCEL_SECONDS,
        full_seconds: float = FULL_SECONDS,
    ) -> None:
        """`out` is the folder in which the runner leaves its checkpoints, each in one of its own."""
        self._heartbeat = heartbeat
        self._db = heartbeat.db
        self._fence = heartbeat.fence
        self._store = store
        self._backlog = backlog
        self._resumed = resumed
        self._out = out
        self._most_lines = most_lines
        self._cancel_seconds = cancel_seconds
        self._full_seconds = full_seconds
        self._chunks = ChunkBuffer(resumed.manifest["step"] if resumed else 0)
        self._logs: list[dict[str, Any]] = []
        self._line_count = 0  # lines, kept or not
        self._flushed_at = time.monotonic()
        self._thread = threading.Thread(
            target=with_log_context(self._record_loop), name=f"recorder-{heartbeat.fence.job_id}", daemon=True
        )
        self._away = False  # the store, at the last upload
        self._full_since: float | None = None
        self.failure: str | None = None
        self.machine_failed = False  # this machine, not the job, is the cause of `failure`
        self.has_checkpoint = resumed is not None  # from which an attempt can continue
        self.missing: set[str] = set()  # checkpoints that count and could not be stored, see _missing_key

    def start(self) -> None:
        self._thread.start()

    def close(self) -> tuple[Chunk, ...]:
        """Write every frame that is left; the last open chunks, for the transaction that ends the job.

        A store call that hangs cannot be interrupted: its thread is left running, and the fence refuses its writes.
        """
        self._backlog.close()
        over_at: float | None = None
        while self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
            now, heartbeat = time.monotonic(), self._heartbeat
            if over_at is None and (heartbeat.fenced or heartbeat.given_up):
                over_at = now + OVER_SECONDS
            deadline = heartbeat.cancelled_at + self._cancel_seconds if heartbeat.cancelled_at is not None else over_at
            if deadline is not None and now > deadline and self._thread.is_alive():
                log.error("job %s: a write hangs and is abandoned", self._fence.job_id)
                self._backlog.discard_all()
                return ()
        return self._chunks.pending_chunks()

    def _record_loop(self) -> None:
        try:
            while not self._backlog.ended:
                payload = self._backlog.get(FLUSH_SECONDS)
                if payload is not None:
                    self._record_frame(wire.unpack_payload(payload))
                if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
                    self._flush_points()
            self._write_logs()
        except (Fenced, AttemptAbandoned):
            self._backlog.discard_all()
        except Exception as error:
            log.exception("job %s: recording failed", self._fence.job_id)
            self.failure = redact_secrets(f"{type(error).__name__}: {error}")
            self.machine_failed = is_machine_failure(error)
            self._backlog.discard_all()

    def _record_frame(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "started":
                self._record_start(frame["environment"], frame.get("split"))
            case "points":
                for series, (steps, values, times) in frame["series"].items():
                    self._chunks.add_points(series, steps, values, times)
            case "checkpoint":
                self._record_checkpoint(frame)
            case "checkpoint_failed":
                self._record_unwritten(frame)
            case "rollback":
                self._roll_back(int(frame["step"]), str(frame["message"]))
            case "log":
                self._record_log(frame["level"], str(frame["message"]))

    def _record_log(self, level: str, message: str) -> None:
        """Keep a line, cut to LONGEST_LINE; after `most_lines` one last line says that the log ends."""
        self._line_count += 1
        if self._line_count <= self._most_lines:
            cut = message if len(message) <= LONGEST_LINE else message[:LONGEST_LINE] + " …"
            self._logs.append({"level": level, "message": cut})
        elif self._line_count == self._most_lines + 1:
            message = f"the log of this attempt ends here, after {self._most_lines} lines"
            self._logs.append({"level": "warning", "message": message})

    def _record_start(self, environment: dict[str, Any], split: str | None) -> None:
        """Record the environment and the split of this attempt; the engine adds the fidelity of its resume."""
        resume = environment.pop("resume", None)
        if resume is not None and self._resumed is not None:
            resume["digest"] = self._resumed.manifest.get("digest")
        self._heartbeat.retry_write(
            lambda: report_start(self._db, self._fence, environment=environment, resume=resume, split=split),
        )

    def _flush_points(self) -> None:
        if chunks := self._chunks.pending_chunks():
            self._heartbeat.retry_write(lambda: record_points(self._db, self._fence, chunks))
            self._chunks.mark_written()
        self._write_logs()
        self._flushed_at = time.monotonic()

    def _write_logs(self) -> None:
        if self._logs:
            self._heartbeat.retry_write(lambda: record_events(self._db, self._fence, "log", self._logs))
            self._logs.clear()

    def _roll_back(self, step: int, message: str) -> None:
        """Remove the points after `step`, at which a segment begins: each rollback point begins one, stored or not."""
        self._chunks.roll_back(step)
        self._heartbeat.retry_write(lambda: roll_back(self._db, self._fence, step, message))

    def _record_checkpoint(self, frame: dict[str, Any]) -> None:
        """Upload, then write one fenced row. A failed upload is a warning; the older checkpoint stays in force."""
        folder = _folder_in(self._out, frame)
        row = self._checkpoint_row(frame)
        try:
            self._check_results(row)
            self._upload_files(row, folder)
        except (OSError, StoreTransient, JobCancelled) as error:
            log.exception("job %s: the checkpoint at step %s was not stored", self._fence.job_id, row.step)
            message = redact_secrets(f"the checkpoint at step {row.step} could not be stored: {error}")
            self._record_warning("checkpoint_failed", message, row.step, row.kind)
            if not isinstance(error, WeightsMissing):
                self.machine_failed = is_machine_failure(error)
            self.missing.add(_missing_key(row))
            if frame["resumable"]:
                self._begin_segment(row.step)
        else:
            chunks, resumable = self._chunks.pending_chunks(), bool(frame["resumable"])
            self._heartbeat.retry_write(
                lambda: record_checkpoint(self._db, self._fence, row, chunks, resumable=resumable),
            )
            self._chunks.mark_written()
            if resumable:
                self._chunks.begin_segment(row.step)
                self.has_checkpoint = True
            self.missing.discard(_missing_key(row))
            if resumable:  # an attempt that continues from here writes again every member that still counts
                self.missing = {each for each in self.missing if not each.startswith(MEMBER)}
        shutil.rmtree(folder, ignore_errors=True)
        self._backlog.release_files()

    def _record_unwritten(self, frame: dict[str, Any]) -> None:
        """The runner's disk did not take a checkpoint. None is missing: it is written again if it counts."""
        step, kind = int(frame["step"]), str(frame["kind"])
        self._record_warning(
            "checkpoint_failed", f"the checkpoint at step {step} could not be written: {frame['message']}", step, kind
        )
        if frame["resumable"]:
            self._begin_segment(step)

    def _record_warning(self, code: str, message: str, step: int, kind: str) -> None:
        body = {"code": code, "message": message, "step": step, "kind": kind}
        self._heartbeat.retry_write(lambda: record_events(self._db, self._fence, "warning", [body]))

    def _begin_segment(self, step: int) -> None:
        """Begin a segment at a checkpoint that was not stored: a rollback may still return to its step."""
        chunks = self._chunks.pending_chunks()
        self._heartbeat.retry_write(lambda: record_points(self._db, self._fence, chunks))
        self._chunks.mark_written()
        self._chunks.begin_segment(step)

    def _checkpoint_row(self, frame: dict[str, Any]) -> NewCheckpoint:
        job, attempt, step = self._fence.job_id, self._fence.attempt, int(frame["step"])
        weights = frame["files"]["weights"]
        return NewCheckpoint(
            step=step,
            epoch=frame["epoch"],
            kind=frame["kind"],
            key=checkpoint_prefix(job, attempt, step),
            sha256=weights["sha256"],
            bytes=weights["bytes"],
            files=frame["files"],
            metrics=frame["metrics"],
            manifest=frame["manifest"],
        )

    def _check_results(self, row: NewCheckpoint) -> None:
        """Raise WeightsMissing: resuming from a checkpoint with results writes no other weights again."""
        lacking = sorted(self.missing - {_missing_key(row)})
        if lacking and row.manifest.get("results") is not None:
            raise WeightsMissing(f"its {' and '.join(lacking)} weights could not be stored")

    def _upload_files(self, row: NewCheckpoint, folder: Path) -> None:
        patience = self._heartbeat.settings.outage_seconds
        for file in row.files.values():
            put = partial(self._upload_once, row, folder / file["name"])
            if self._heartbeat.retry_store_call(put, patience).sha256 != file["sha256"]:
                raise OSError(f"{file['name']} changed on this machine's disk after it was written")
        self._away = False

    def _upload_once(self, row: NewCheckpoint, path: Path) -> Digest:
        """Upload once. The first temporary failure is an event; until the store is back, all later frames wait."""
        try:
            digest = self._store.put_file(path, f"{row.key}/{path.name}")
        except StoreTransient as error:
            if not self._away:
                self._away = True
                message = redact_secrets(
                    f"the store is away; the checkpoint at step {row.step} is tried again: {error}"
                )
                self._record_warning("store_away", message, row.step, row.kind)
            raise
        except OSError as error:
            now = time.monotonic()
            self._full_since = now if self._full_since is None else self._full_since
            if not is_machine_failure(error) or now - self._full_since >= self._full_seconds:
                raise
            raise StoreTransient(f"the store does not take it: {error.strerror}") from error
        self._full_since = None
        return digest


def _missing_key(row: NewCheckpoint) -> str:
    """The key in `missing`: of most kinds only the newest checkpoint counts, of an ensemble's members each."""
    return f"{row.kind} {row.step}" if row.kind == MEMBER else row.kind


def _folder_in(out: Path, frame: dict[str, Any]) -> Path:
    """The folder of a checkpoint: its files are uploaded, and then it is removed.

    A compromised runner must not name another folder: the worker has more rights than the runner. Only a direct child
    of `out` is accepted: the runner cannot move `out` itself, and rmtree follows no links.

    Raises:
        BadFrame: the folder is not in that of this attempt, or its files are not in it.
    """
    folder, names = Path(frame["folder"]), [str(file["name"]) for file in frame["files"].values()]
    if folder.parent != out or folder.name == ".." or folder.is_symlink():
        raise wire.BadFrame("a checkpoint is not in the folder of its attempt")
    if any(Path(name).name != name for name in names):
        raise wire.BadFrame("a file of a checkpoint is not in its folder")
    return folder
