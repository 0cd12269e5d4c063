"""Probes that cannot even be started."""

import errno
import subprocess

import pytest

from worker.devices.probe import list_devices, probe_device


def test_a_machine_that_can_start_no_probe_has_no_device_to_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, as of any other probe that failed: whoever asked has a job to give back."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", refused)
    report = probe_device("GPU-a")
    assert (report.ok, report.reason) == (False, "failed")
    assert "Too many open files" in (report.detail or "")
    assert list_devices() == []
