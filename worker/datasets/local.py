"""Prepares a file of this machine without a service: the same confined process, no database and no store."""

# ruff: noqa: N818 - the names say what happened

import contextlib
import logging
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from core.recipe.data.manifest import DatasetManifest
from core.recipe.prepare import PrepareSpec
from worker import child_process, wire
from worker.datasets.fetch import lay_out_folder
from worker.datasets.folder_tar import UnusableFolder, write_folder_tar
from worker.datasets.layout import BadShard
from worker.datasets.publish import read_output
from worker.datasets.report import read_problems
from worker.datasets.unlinked import open_unlinked
from worker.launcher import ProcessExit, RunnerProcess
from worker.outcome import KillReason, Observed
from worker.prepare.launch import Confinement, PrepareLauncher
from worker.prepare.verdict import Verdict, judge, refusal_document

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.2
EXIT_SECONDS: Final = 5.0
READ_BYTES: Final = 1 << 18
NO_MEMORY: Final = "; the machine may have had no memory left"
OnProgress = Callable[[Mapping[str, Any]], None]
"""Receives the fields of each progress frame: step, steps, fraction."""


def ignore_progress(_fields: Mapping[str, Any]) -> None:
    """Reports nothing."""


class FileRefused(Exception):
    """The file cannot be prepared; `problems` say why: {file, row, column, code, detail}."""

    def __init__(self, problems: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("; ".join(str(each["detail"]) for each in problems[:3]))
        self.problems = problems


class PrepareFailed(Exception):
    """This machine could not prepare the file; the message says why."""


def prepare_local(  # noqa: PLR0913 - what, whereto, and the limits
    path: Path,
    spec: PrepareSpec,
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    *,
    most_seconds: float = 3600.0,
    confinement: Confinement = "best",
) -> DatasetManifest:
    """Prepare a file or a folder, and lay the result out in an empty `folder`, as the cache of a worker has it.

    Raises:
        FileRefused: the file is bad, or too large for the limits.
        PrepareFailed: this machine failed.
        OSError: the file cannot be read, or the disk does not take the result.
    """
    with tempfile.TemporaryDirectory(prefix="basin-prepare-", dir=folder.parent) as aside:
        out, stderr = Path(aside) / "out", Path(aside) / "stderr.txt"
        out.mkdir()
        source = _open_source(path, Path(aside))
        try:
            process = PrepareLauncher(confinement).launch(stderr, source, out)
        finally:
            os.close(source)
        try:
            seen = _follow_process(process, spec, on_progress, most_seconds)
        except BaseException:  # such as Ctrl-C: its result is not wanted any more
            process.kill()
            raise
        finally:
            exit_ = _reap_process(process)
        seen = replace(seen, exit=exit_, stderr=child_process.read_tail(stderr))
        _raise_unless_ready(seen)
        try:
            manifest = read_output(out)
            lay_out_folder(out, manifest, folder)
        except BadShard as error:
            log.exception("the parser did not write what it said")
            raise FileRefused([refusal_document(Verdict.CRASH)]) from error
        return manifest


def _open_source(path: Path, aside: Path) -> int:
    """A descriptor that can only read the file, or the tar of the folder."""
    if not path.is_dir():
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    writer, reader = open_unlinked(aside)
    try:
        with os.fdopen(writer, "wb") as file:
            write_folder_tar(path, file)
    except UnusableFolder as error:
        os.close(reader)
        raise FileRefused([unusable_folder(error)]) from error
    except BaseException:
        os.close(reader)
        raise
    return reader


def unusable_folder(error: UnusableFolder) -> dict[str, Any]:
    """The problem of a folder that cannot be read as one file."""
    return {"code": "unreadable", "detail": str(error), "file": None, "row": None, "column": None}


def _raise_unless_ready(seen: Observed) -> None:
    verdict = judge(seen.exit, seen.ended, timed_out=seen.cut is KillReason.OVERTIME)
    if verdict is Verdict.READY:
        return
    broken = verdict is Verdict.CRASH and not seen.started  # it has not touched the file
    if broken or verdict in {Verdict.RETRY, Verdict.STOPPED}:
        told = ((seen.ended or {}).get("error") or {}).get("message")
        killed = seen.exit is not None and seen.exit.signal == signal.SIGKILL
        why = told or f"{seen.exit} {seen.stderr}".strip()
        raise PrepareFailed(f"the file could not be prepared: {why}{NO_MEMORY if killed else ''}")
    log.debug("the parser printed: %s", seen.stderr)
    raise FileRefused(read_problems(seen.ended) if verdict is Verdict.REFUSED else [refusal_document(verdict)])


def _follow_process(
    process: RunnerProcess, spec: PrepareSpec, on_progress: OnProgress, most_seconds: float
) -> Observed:
    """Send the assignment, and receive frames until the last one, the end of the process, or the end of its time."""
    assignment = {"job": "local", "spec": spec.model_dump(mode="json")}
    with contextlib.suppress(OSError):  # a process that is gone already shows in its exit
        process.sock.sendall(wire.pack_frame("assignment", "local", {"assignment": assignment}))
    seen, splitter, deadline = Observed(), wire.FrameSplitter(), time.monotonic() + most_seconds
    while time.monotonic() < deadline:
        if not select.select([process.sock], [], [], TICK_SECONDS)[0]:
            continue
        try:
            data = process.sock.recv(READ_BYTES)
        except OSError:
            data = b""
        for frame in map(wire.unpack_payload, splitter.feed_bytes(data)):
            match frame["type"]:
                case "started":
                    seen = replace(seen, started=True)
                case "progress":
                    on_progress(frame)
                case "ended":
                    return replace(seen, ended=frame)
        if not data:
            return seen
    process.kill()
    return replace(seen, cut=KillReason.OVERTIME)


def _reap_process(process: RunnerProcess) -> ProcessExit | None:
    """How the process ended; killed, where it does not end by itself."""
    process.sock.close()
    exit_ = process.wait(EXIT_SECONDS)
    if exit_ is None:
        process.kill()
        exit_ = process.wait(EXIT_SECONDS)
    return exit_
