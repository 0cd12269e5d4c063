"""Probing a device in a process of its own, which has a time limit and sees nothing but that device."""

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from worker import child_process
from worker.devices.report import DeviceReport

log = logging.getLogger(__name__)

PROBE_SECONDS: Final = 90.0  # torch's import and a first context on a machine that is busy
REAP_SECONDS: Final = 5.0
MOST_AT_ONCE: Final = 8

Probe = Callable[[str], DeviceReport]


def probe_device(token: str) -> DeviceReport:
    """Open the device, compute one product on it, and say what it is."""
    return DeviceReport.from_answer(token, run_probe([], token))


def probe_devices(tokens: Iterable[str], probe: Probe = probe_device) -> list[DeviceReport]:
    """Each device once, several at the same time; in the order of `tokens`."""
    with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="probe") as pool:
        return list(pool.map(probe, tokens))


def list_devices() -> list[str]:
    """The devices that torch lists, by UUID where the driver gives one; none where torch cannot list them."""
    return listed_devices(run_probe(["--list"], None))


def listed_devices(answer: dict[str, Any]) -> list[str]:
    """The same, from the answer of core.engine.device_probe."""
    if not answer["ok"]:
        log.info("torch lists no GPU: %s", answer["detail"])
        return []
    found = enumerate(answer["devices"])
    return [f"GPU-{each['uuid']}" if each["uuid"].strip("0-") else str(index) for index, each in found]


def run_probe(arguments: list[str], token: str | None, seconds: float = PROBE_SECONDS) -> dict[str, Any]:
    """The answer of core.engine.device_probe; a probe that ends without one gives an answer with `ok` false."""
    environment = child_process.clean_environment(os.environ) | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if token is not None:
        environment["CUDA_VISIBLE_DEVICES"] = token
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "core.engine.device_probe", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:  # no memory, no descriptors: the state of the device is unknown
        return {"ok": False, "reason": "failed", "detail": f"no probe could be started: {error}"}
    try:
        said, printed = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        # A process that waits for a driver may survive SIGKILL; it is not waited for any longer.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=REAP_SECONDS)
        return {"ok": False, "reason": "timeout", "detail": f"no answer in {seconds:.0f} s"}
    try:
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        last = (printed.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        return {"ok": False, "reason": "failed", "detail": f"the probe ended with {process.returncode}: {last[:400]}"}
    return answer
