"""NVIDIA's management library (NVML): which devices there are and how much of their memory is free, without a context.

It needs no torch and no CUDA context, so that the worker may ask it at any time. Where there is no NVML (no driver,
Jetson), every answer is empty.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of a device's memory; `free` is what no process uses."""

    total: int
    free: int


class DeviceMonitor(Protocol):
    """Queries about the GPUs of a machine."""

    def list_uuids(self) -> list[str]:
        """GPUs in the order of the PCI bus; one that is divided into MIG instances is named by those."""

    def device_memory(self, uuid: str) -> DeviceMemory | None:
        """The memory of one device; None where it is unknown."""


class NvmlMonitor:
    """The DeviceMonitor of real devices. `library` is the module pynvml, imported at the first query."""

    def __init__(self, library: Any = None) -> None:
        self._library = library

    def list_uuids(self) -> list[str]:
        def query_uuids(nvml: Any) -> list[str]:
            found: list[str] = []
            for index in range(nvml.nvmlDeviceGetCount()):
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                found += _mig_instances(nvml, device) or [_as_text(nvml.nvmlDeviceGetUUID(device))]
            return found

        return self._query_nvml(query_uuids) or []

    def device_memory(self, uuid: str) -> DeviceMemory | None:
        def query_memory(nvml: Any) -> DeviceMemory:
            told = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(uuid.encode()))
            return DeviceMemory(int(told.total), int(told.free))

        return self._query_nvml(query_memory)

    def _query_nvml(self, question: Callable[[Any], T]) -> T | None:
        """The answer of the library between its start and its end; None where it is missing or fails."""
        nvml = self._library or _import_pynvml()
        if nvml is None:
            return None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return None  # no driver here
        try:
            return question(nvml)
        except nvml.NVMLError as error:
            log.warning("NVML: %s", error)
            return None
        finally:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlShutdown()


def _mig_instances(nvml: Any, device: Any) -> list[str]:
    """The MIG instances of a device; none where it is whole."""
    try:
        enabled, _ = nvml.nvmlDeviceGetMigMode(device)
    except nvml.NVMLError:
        return []  # a device without MIG
    if not enabled:
        return []
    found = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        with contextlib.suppress(nvml.NVMLError):  # an index without an instance
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
            found.append(_as_text(nvml.nvmlDeviceGetUUID(instance)))
    return found


def _import_pynvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def _as_text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
