"""The process that reads one uploaded file: one assignment in, progress and the end out.

python -I -m worker.prepare SOCKET INPUT PARENT FOLDER required|best     see worker/prepare/launch.py

The order matters: import everything, isolate this process, and only then touch the input. The frame of the assignment
needs `assignment.job` and `assignment.spec`, a PrepareSpec. The last frame is `ended`, as a runner's:

    succeeded   results {version, format, kind, examples}; the folder holds the shards and manifest.json
    failed      error {code: bad_file, message, errors: [{file, row, column, code, detail}]}: the file is refused
                error {code: too_large | machine_failed | engine_error, message}
    stopped     as ordered by a `stop` frame

Both results and error name the kinds of isolation that were in force, as confine_process returns them.
"""

import json
import os
import select
import sys
from pathlib import Path
from typing import Any, Final

from core.process import ORPHANED, die_with_parent
from core.recipe.prepare import PrepareSpec
from worker import exit_codes, kernel_oom, wire
from worker.prepare.confine import NotConfined, ProcessLimits, confine_process
from worker.prepare.formats import check_options, load_reader
from worker.prepare.launch import NICENESS
from worker.prepare.preload import preload_parsers
from worker.prepare.report import Report, progress_fields
from worker.prepare.sniff import guess_format
from worker.prepare.source import InputFile
from worker.prepare.verdict import failure_document
from worker.prepare.writer import DatasetWriter

NOTHING: Final = progress_fields(0, None, 0.0)


class StopOrdered(Exception):  # noqa: N818 - it says what happened
    """The supervisor wants this process to end."""


class FrameSocket:
    """The socket by read and write alone: the system calls of sockets are refused. Has what worker/wire.py needs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self.job = ""

    def recv(self, count: int) -> bytes:
        return os.read(self._fd, count)

    def send_frame(self, kind: str, fields: dict[str, Any]) -> None:
        """Write one frame. This process ends when its supervisor is gone."""
        view = memoryview(wire.pack_frame(kind, self.job, fields))
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os._exit(ORPHANED)

    def send_or_stop(self, kind: str, fields: dict[str, Any]) -> None:
        """Write one frame, and look for an order.

        Raises:
            StopOrdered: there is one.
        """
        self.send_frame(kind, fields)
        if self._poll.poll(0):
            if wire.receive_frame(self) is None:
                os._exit(ORPHANED)
            raise StopOrdered


def run(sock: FrameSocket, source_fd: int, folder: Path, walls: tuple[str, ...]) -> int:
    """Take one assignment and carry it out; the exit status."""
    frame = wire.receive_frame(sock)
    if frame is None:
        return ORPHANED
    sock.job = str(frame["assignment"]["job"])
    try:
        results = _prepare(sock, frame["assignment"], source_fd, folder)
        ended = _ended("succeeded", results | {"walls": list(walls)}, None)
    except StopOrdered:
        ended = _ended("stopped", {}, None)
    except Exception as error:  # noqa: BLE001 - the boundary of the parsers
        document = failure_document(error)
        if document["code"] == "engine_error":
            exit_codes.print_exception(error)
        ended = _ended("failed", {}, document | {"walls": list(walls)})
    sock.send_frame("ended", ended)
    return 0


def _prepare(sock: FrameSocket, assignment: dict[str, Any], source_fd: int, folder: Path) -> dict[str, Any]:
    """Read the input in its format and write the dataset; the facts for its row."""
    spec = PrepareSpec.model_validate_json(json.dumps(assignment["spec"]))
    source = InputFile(source_fd, spec.filename)
    report = Report(sock.send_or_stop)
    sock.send_frame("started", {"step": 0, "parameters": 0, "environment": {}})
    name = guess_format(source, spec, report) if spec.format == "auto" else spec.format
    check_options(name, spec, report)
    out = DatasetWriter(folder, source, spec, report)
    load_reader(name)(source, spec, out, report)
    report.check()
    if out.manifest is None:
        raise RuntimeError(f"the reader of {name} has finished no dataset")
    manifest = out.manifest
    facts = {"format": manifest.format, "kind": manifest.kind, "examples": manifest.examples}
    return {"version": manifest.version(), **facts}


def _ended(outcome: str, results: dict[str, Any], error: dict[str, Any] | None) -> dict[str, Any]:
    reason = "completed" if outcome == "succeeded" else None
    return {"outcome": outcome, "stop_reason": reason, "results": results, "error": error, "progress": NOTHING}


def main() -> None:
    socket_fd, source_fd, parent = (int(each) for each in sys.argv[1:4])
    folder, required = Path(sys.argv[4]), sys.argv[5] == "required"
    die_with_parent(parent)
    try:
        os.nice(NICENESS)
        kernel_oom.prefer_as_oom_victim()
        preload_parsers()
        sock = FrameSocket(socket_fd)
        limits = ProcessLimits.for_input(os.fstat(source_fd).st_size)
        code = run(sock, source_fd, folder, confine_process(folder, limits, required=required))
    except NotConfined as error:
        sock.job = str((wire.receive_frame(sock) or {}).get("job", ""))
        sock.send_frame("ended", _ended("failed", {}, {"code": "machine_failed", "message": str(error)}))
        code = 0
    except BaseException as error:  # noqa: BLE001 - every error becomes an exit status
        code = exit_codes.print_exception(error)
    exit_codes.exit_now(code)


if __name__ == "__main__":
    main()
