"""The prepare process as a supervisor sees it: its frames, its end, and what follows from the end."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from tests.support.prepare import ROOT, frames_until, launch, prepare_confined, prepare_here
from worker import wire
from worker.exit_codes import CRASHED, MACHINE_FAILED
from worker.launcher import ProcessExit
from worker.prepare.launch import parser_environment
from worker.prepare.report import FileProblem, Refused
from worker.prepare.verdict import Verdict, failure_document, judge


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    path = tmp_path / "flowers.npz"
    np.savez(path, X=np.arange(400.0).reshape(100, 4), y=np.arange(100) % 3)
    return path


def test_a_file_becomes_a_dataset(flowers: Path, tmp_path: Path) -> None:
    made = prepare_confined(flowers, tmp_path)
    assert [frame["type"] for frame in made.frames if frame["type"] != "progress"] == ["started", "ended"]
    assert made.ended is not None
    assert made.ended["outcome"] == "succeeded"
    manifest = made.manifest()
    results = made.ended["results"]
    assert results["version"] == manifest.version() == sha256((made.folder / "manifest.json").read_bytes()).hexdigest()
    assert results["walls"][-1] == "rlimits"
    assert (manifest.kind, manifest.format, manifest.examples) == ("arrays", "npz", 100)
    assert (manifest.source_bytes, manifest.source_sha256) == (
        flowers.stat().st_size,
        sha256(flowers.read_bytes()).hexdigest(),
    )
    for shard in manifest.shards:
        content = (made.folder / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(content), sha256(content).hexdigest())
    assert sorted(path.name for path in made.folder.iterdir()) == ["manifest.json", "rows-00000.safetensors"]
    assert (made.exit, made.stderr) == (ProcessExit(code=0), "")
    assert judge(made.exit, made.ended, timed_out=False) is Verdict.READY


def test_the_version_does_not_depend_on_where_it_ran(flowers: Path, tmp_path: Path) -> None:
    inside = prepare_confined(flowers, tmp_path).manifest()
    assert prepare_here(flowers, tmp_path / "here").version() == inside.version()


def test_a_bad_file_is_refused_with_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{}, None], dtype=object), allow_pickle=True)
    made = prepare_confined(path, tmp_path)
    assert made.ended is not None
    error = made.ended["error"]
    assert (made.ended["outcome"], error["code"]) == ("failed", "bad_file")
    assert error["errors"][0]["code"] == "array_type"
    assert error["errors"][0].keys() == {"file", "row", "column", "code", "detail"}
    assert error["walls"]
    assert judge(made.exit, made.ended, timed_out=False) is Verdict.REFUSED


def test_what_does_not_fit_into_memory_is_too_large(tmp_path: Path) -> None:
    """One row of 2.8 GB, of which the disk holds nothing: the file is honest, and the limits do not allow it."""
    path = tmp_path / "wide.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1, 700_000_000)})
        file.truncate(file.tell() + 4 * 700_000_000)
    made = prepare_confined(path, tmp_path)
    assert made.ended is not None
    assert made.ended["error"]["code"] == "too_large"
    assert judge(made.exit, made.ended, timed_out=False) is Verdict.TOO_LARGE


def test_an_option_of_another_format_is_refused(flowers: Path, tmp_path: Path) -> None:
    made = prepare_confined(flowers, tmp_path, options={"delimiter": ";"})
    assert made.ended is not None
    assert made.ended["error"]["errors"][0]["detail"] == "delimiter is no option of the format npz"


def test_an_order_to_stop_ends_it(tmp_path: Path) -> None:
    """The order is seen at the next progress, at most 0.2 s later."""
    path = tmp_path / "big.npy"
    np.save(path, np.zeros((3_000_000, 30), np.uint8))
    runner, _ = launch(path, tmp_path)
    assert [frame["type"] for frame in frames_until(runner, "progress")] == ["started", "progress"]
    runner.sock.sendall(wire.pack_frame("stop", "", {"mode": "checkpoint"}))
    ended = list(frames_until(runner, "ended"))[-1]
    assert ended["outcome"] == "stopped"
    assert judge(runner.wait(30), ended, timed_out=False) is Verdict.STOPPED
    runner.sock.close()


def test_it_ends_when_its_supervisor_closes_the_socket(flowers: Path, tmp_path: Path) -> None:
    """Also where the kernel does not kill it with its parent (macOS)."""
    runner, _ = launch(flowers, tmp_path)
    runner.sock.close()
    assert runner.wait(30) is not None


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    """A worker that is killed leaves no parser behind: the kernel ends it, walls or not."""
    code = f"""
import os, sys, time
from pathlib import Path
from worker.prepare.launch import PrepareLauncher
folder = Path({str(tmp_path)!r})
(folder / "out").mkdir(); (folder / "in").write_bytes(b"x")
runner = PrepareLauncher().launch(folder / "stderr", os.open(folder / "in", os.O_RDONLY), folder / "out")
os.set_inheritable(runner.sock.fileno(), True)
print(runner.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        _wait_for_walls(child)
        parent.kill()
    deadline = time.monotonic() + 30
    while _is_running(child):
        assert time.monotonic() < deadline, "the parser outlived its parent"
        time.sleep(0.05)


def _wait_for_walls(pid: int) -> None:
    """Until the process has its filter: then it waits for an assignment."""
    deadline = time.monotonic() + 60
    while "Seccomp:\t2" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


WITHOUT_LANDLOCK = """
import errno, struct, sys
from pathlib import Path
from core.process import filter_system_calls, forbid_new_privileges
from tests.support.prepare import prepare_confined
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | errno.ENOSYS), (0x06, 0, 0, 0x7FFF0000)]
forbid_new_privileges()
filter_system_calls(b"".join(struct.pack("=HBBI", *step) for step in steps))
print(prepare_confined(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]).ended)
"""


@pytest.mark.parametrize(
    ("confinement", "outcome", "said"),
    [
        ("best", "succeeded", "'walls': ['seccomp', 'rlimits']"),
        (
            "required",
            "failed",
            "'machine_failed', 'message': 'this machine cannot confine the parser: it has no landlock'",
        ),
    ],
)
def test_a_kernel_without_landlock(flowers: Path, tmp_path: Path, confinement: str, outcome: str, said: str) -> None:
    """As before Linux 5.13: a filter answers for this kernel that there is no such call."""
    arguments = [sys.executable, "-c", WITHOUT_LANDLOCK, str(flowers), str(tmp_path), confinement]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"'outcome': '{outcome}'" in done.stdout
    assert said in done.stdout


def test_nothing_of_our_environment_is_passed(tmp_path: Path) -> None:
    secrets = {
        "BASIN_DATABASE_URL": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "PYTHONPATH": "/x",
        "HOME": "/x",
        "PATH": "/bin",
    }
    made = parser_environment(secrets, tmp_path)
    assert made["PATH"] == "/bin"
    assert not {"BASIN_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "HOME"} & made.keys()
    assert made["TMPDIR"] == str(tmp_path)


class ArrowInvalid(ValueError):  # noqa: N818 - the name of the library's
    """As pyarrow's, which this process does not import."""


REFUSED = Refused((FileProblem("ragged", "row 3 has 4 fields"),))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (REFUSED, "bad_file"),
        (ArrowInvalid("CSV parse error"), "bad_file"),
        (MemoryError(), "too_large"),
        (OSError(errno.ENOMEM, "no memory"), "too_large"),
        (OSError(errno.EFBIG, "too big"), "too_large"),
        (RuntimeError("can't start new thread"), "too_large"),
        (Exception("Unknown error: Failed to launch worker thread: Resource temporarily unavailable"), "too_large"),
        (OSError(errno.ENOSPC, "no space"), "machine_failed"),
        (OSError(errno.EIO, "broken"), "machine_failed"),
        (PermissionError(errno.EACCES, "our own preloading is too short"), "engine_error"),
        (KeyError("a bug of ours"), "engine_error"),
    ],
)
def test_what_an_exception_means(error: Exception, code: str) -> None:
    document = failure_document(error)
    assert document["code"] == code
    assert ("errors" in document) == (code in {"bad_file", "too_large"})


@pytest.mark.parametrize(
    ("exit_", "timed_out", "verdict"),
    [
        (ProcessExit(signal=signal.SIGKILL), True, Verdict.TOO_LARGE),
        (ProcessExit(signal=signal.SIGABRT), False, Verdict.TOO_LARGE),
        (ProcessExit(signal=signal.SIGXCPU), False, Verdict.TOO_LARGE),
        (ProcessExit(signal=signal.SIGKILL), False, Verdict.RETRY),
        (None, False, Verdict.RETRY),
        (ProcessExit(code=MACHINE_FAILED), False, Verdict.RETRY),
        (ProcessExit(signal=signal.SIGSEGV), False, Verdict.CRASH),
        (ProcessExit(signal=signal.SIGBUS), False, Verdict.CRASH),
        (ProcessExit(signal=signal.SIGSYS), False, Verdict.CRASH),
        (ProcessExit(code=CRASHED), False, Verdict.CRASH),
    ],
)
def test_what_an_end_without_a_report_means(exit_: ProcessExit | None, timed_out: bool, verdict: Verdict) -> None:
    assert judge(exit_, None, timed_out=timed_out) is verdict


def test_messages_of_parsers_are_cut_and_escaped() -> None:
    document = failure_document(ArrowInvalid("\x1b[31m\u202e" + "x" * 10_000))
    detail = document["errors"][0]["detail"]
    assert len(detail) == 300
    assert detail.startswith("\\x1b[31m\\u202exxx")


def test_its_priority_is_below_that_of_trainers(flowers: Path, tmp_path: Path) -> None:
    runner, _ = launch(flowers, tmp_path)
    assert next(frames_until(runner, "started"))["type"] == "started"
    assert runner.pid is not None
    with contextlib.suppress(ProcessLookupError):  # it has ended, on a slow machine
        assert os.getpriority(os.PRIO_PROCESS, runner.pid) == 15
    runner.kill()
    runner.wait(30)
    runner.sock.close()
