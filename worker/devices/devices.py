"""The GPUs of this worker: found once, locked for it, checked before and after each attempt."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from core.settings import Settings
from worker.devices.candidates import candidate_devices
from worker.devices.locks import DeviceLocks
from worker.devices.monitor import DeviceMemory, DeviceMonitor, NvmlMonitor
from worker.devices.probe import Probe, list_devices, probe_device, probe_devices
from worker.devices.report import DeviceReport

log = logging.getLogger(__name__)

NODES: Final = ("nvidia[0-9]*", "nvhost-gpu", "nvgpu", "dxg")  # of the driver: PCI cards, Jetson, WSL2
SETTLE_SECONDS: Final = 10.0  # in which the driver takes back the memory of a process that has ended
LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Devices:
    """The checks of a worker on its GPUs. `probe` takes seconds and a process; `monitor` answers at once."""

    probe: Probe = probe_device
    monitor: DeviceMonitor = field(default_factory=NvmlMonitor)
    free_share: float = 0.5
    settle_seconds: float = SETTLE_SECONDS

    def check_device(self, token: str) -> DeviceReport:
        """Whether the device works, and has room for a job."""
        report = self.probe(token)
        memory = self.monitor.device_memory(token)
        return report if not report.ok or memory is None else self._with_room(report, memory)

    def await_room(self, token: str, stopping: threading.Event) -> DeviceReport | None:
        """The report of a device without room after `settle_seconds`; None when there is room, or it is unknown.

        A process that has just ended gives its memory back a moment later.
        """
        deadline = time.monotonic() + self.settle_seconds
        while (memory := self.monitor.device_memory(token)) is not None:
            report = self._with_room(DeviceReport(token, ok=True), memory)
            if report.ok:
                return None
            if time.monotonic() >= deadline or stopping.wait(LOOK_SECONDS):
                return report
        return None

    def _with_room(self, report: DeviceReport, memory: DeviceMemory) -> DeviceReport:
        if memory.free >= self.free_share * memory.total:
            return report
        used, total = (memory.total - memory.free) / 1e9, memory.total / 1e9
        return replace(
            report, ok=False, reason="memory_in_use", detail=f"{used:.1f} of {total:.1f} GB are in use by others"
        )


@contextmanager
def opened_devices(
    settings: Settings,
    *,
    wanted: bool,
    devices: Devices | None = None,
    environ: Mapping[str, str] = os.environ,
    ask_torch: Callable[[], list[str]] | None = None,
) -> Iterator[list[DeviceReport]]:
    """Every GPU that this worker may have, probed, and locked until the end of the block; none unless `wanted`.

    A device that another worker of this host has is left out.
    """
    if not wanted:
        yield []
        return
    devices = devices or Devices(free_share=settings.gpu_free_share)
    tokens = candidate_devices(environ, devices.monitor, ask_torch or (list_devices if has_driver() else list))
    locks = DeviceLocks(settings.device_locks)
    try:
        reports = [each for each in probe_devices(tokens, devices.check_device) if _is_ours(each, locks)]
        for report in reports:
            log.log(logging.INFO if report.ok else logging.ERROR, "GPU %s", report.describe_with_remedy())
        yield reports
    finally:
        locks.close()


def _is_ours(report: DeviceReport, locks: DeviceLocks) -> bool:
    try:
        ours = locks.try_lock(report.identity)
    except OSError as error:
        log.warning("GPU %s is not locked, another worker may take it too: %s", report.token, error)
        return True
    if not ours:
        log.warning("GPU %s is left to another worker on this host, which has it", report.token)
    return ours


def has_driver(folder: Path = Path("/dev")) -> bool:
    """Whether a driver for NVIDIA's devices has made its nodes."""
    return any(next(folder.glob(pattern), None) is not None for pattern in NODES)
