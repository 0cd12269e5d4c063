"""What a process that runs training code may know, and how its last words are read."""

import os
import signal
import sys
from pathlib import Path

import pytest

from worker import lifeline

CANARY = "s3cr3t"


def test_no_credential_passes() -> None:
    """An allow-list: a name that nobody has thought of does not pass."""
    environment = {
        "PATH": "/bin",
        "HOME": "/root",
        "PYTHONPATH": "/src",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "0",
        "BASIN_DATABASE_URL": f"postgresql://user:{CANARY}@host/db",
        "BASIN_BROKER_URL": f"redis://:{CANARY}@host",
        "AWS_ACCESS_KEY_ID": CANARY,
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "AWS_SESSION_TOKEN": CANARY,
        "DATABASE_URL": CANARY,
        "SOME_NEW_TOKEN": CANARY,
    }
    clean = lifeline.clean_environment(environment)
    assert CANARY not in "".join(clean.values())
    assert not [name for name in clean if name.startswith("BASIN_")]
    assert {
        name: clean[name] for name in ("PATH", "HOME", "PYTHONPATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    } == {
        "PATH": "/bin",
        "HOME": "/root",
        "PYTHONPATH": "/src",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "0",
    }


def test_the_operators_settings_win() -> None:
    assert lifeline.clean_environment({})["OPENBLAS_NUM_THREADS"] == "1"
    assert lifeline.clean_environment({"OPENBLAS_NUM_THREADS": "4"})["OPENBLAS_NUM_THREADS"] == "4"


def test_the_last_words(tmp_path: Path) -> None:
    path = tmp_path / "stderr.txt"
    assert lifeline.tail(path) == ""
    path.write_bytes(b"x" * 5000 + b"\x00\xff the end\n")
    assert lifeline.tail(path, limit=11).endswith("\ufffd\ufffd the end")


def test_somebody_who_is_gone_cannot_be_killed_and_that_is_fine() -> None:
    lifeline.kill_group(2**22 + 1, 9)  # beyond the largest pid there can be


def test_somebody_whom_we_may_not_kill_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Runners of another user outlive a worker that has lost the right to end them, and nobody would know why."""

    def refuse(pid: int, signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(sys, "platform", "linux")
    lifeline.kill_group(4711, signal.SIGKILL)
    assert "the process group 4711 runs on: we may not send it signal 9" in caplog.text
