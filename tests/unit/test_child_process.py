"""What a process that runs training code may know, and how its last words are read."""

import os
import signal
import sys
from pathlib import Path

import pytest

from worker import child_process

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
    clean = child_process.clean_environment(environment)
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
    assert child_process.clean_environment({})["OPENBLAS_NUM_THREADS"] == "1"
    assert child_process.clean_environment({"OPENBLAS_NUM_THREADS": "4"})["OPENBLAS_NUM_THREADS"] == "4"


def test_a_gpus_knobs_pass() -> None:
    knobs = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_LAUNCH_BLOCKING": "1",
        "CUDNN_LOGLEVEL_DBG": "1",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    }
    assert knobs.items() <= child_process.clean_environment(knobs).items()


def test_what_changes_bits_behind_the_plans_back_does_not() -> None:
    wanted = {
        "NVIDIA_TF32_OVERRIDE": "1",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
        "PYTORCH_TUNABLEOP_ENABLED": "1",
        "PYTORCH_TUNABLEOP_TUNING": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":0:0",
    }
    assert child_process.clean_environment(wanted) == child_process.clean_environment({})
    assert child_process.clean_environment({"NVIDIA_TF32_OVERRIDE": "0"})["NVIDIA_TF32_OVERRIDE"] == "0"


def test_the_last_words(tmp_path: Path) -> None:
    path = tmp_path / "stderr.txt"
    assert child_process.read_tail(path) == ""
    path.write_bytes(b"x" * 5000 + b"\x00\xff the end\n")
    assert child_process.read_tail(path, limit=11).endswith("\ufffd\ufffd the end")


def test_somebody_who_is_gone_cannot_be_killed_and_that_is_fine() -> None:
    child_process.kill_group(2**22 + 1, 9)  # beyond the largest pid there can be


def test_somebody_whom_we_may_not_kill_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Runners of another user outlive a worker that has lost the right to end them, and nobody would know why."""

    def refuse(pid: int, signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(sys, "platform", "linux")
    child_process.kill_group(4711, signal.SIGKILL)
    assert "the process group 4711 runs on: we may not send it signal 9" in caplog.text
