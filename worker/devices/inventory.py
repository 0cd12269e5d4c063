"""The state of torch and of the GPUs of this machine, for `basin doctor`, which runs this in a separate process.

    python -m worker.devices.inventory LOCKS FREE_SHARE

The last line of its output is one JSON object, see `build_inventory`. The list and the probe are those of a worker.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

from worker.devices.candidates import candidate_devices
from worker.devices.devices import Devices, has_driver
from worker.devices.locks import DeviceLocks
from worker.devices.monitor import DeviceMonitor, NvmlMonitor
from worker.devices.probe import listed_devices, probe_devices, run_probe
from worker.devices.report import DeviceReport

ASK_SECONDS: Final = 25.0  # for the list, and again for the probes: less than the doctor waits


def main() -> None:
    locks, share = sys.argv[1:]
    print(json.dumps(build_inventory(Path(locks), float(share))))  # noqa: T201 - this is its answer


def build_inventory(locks: Path, free_share: float, monitor: DeviceMonitor | None = None) -> dict[str, Any]:
    """{"torch": the list of core.engine.device_probe, "devices": [{"ok", "found", "remedy"}]}; see `_report_entry`."""
    monitor = monitor or NvmlMonitor()
    torch = run_probe(["--list"], None, ASK_SECONDS)
    seen_by_torch = partial(listed_devices, torch) if has_driver() else list
    tokens = candidate_devices(os.environ, monitor, seen_by_torch) if torch.get("cuda") else []
    devices = Devices(_probe_token, monitor, free_share)
    served = [token for token in tokens if DeviceLocks(locks).is_held(DeviceReport(token, ok=True).identity)]
    reports = probe_devices([token for token in tokens if token not in served], devices.check_device)
    return {"torch": torch, "devices": [*map(_served_entry, served), *map(_report_entry, reports)]}


def _probe_token(token: str) -> DeviceReport:
    return DeviceReport.from_answer(token, run_probe([], token, ASK_SECONDS))


def _served_entry(token: str) -> dict[str, Any]:
    """A device that a worker has and probes: another CUDA context would take memory from its job."""
    return {"ok": True, "found": f"{token}, which a worker on this host serves", "remedy": None}


def _report_entry(report: DeviceReport) -> dict[str, Any]:
    """For users: what the device is, or its fault and the remedy."""
    return {"ok": report.ok, "found": report.describe_finding(), "remedy": report.remedy}


if __name__ == "__main__":
    main()
