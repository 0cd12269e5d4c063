"""The report of a probe of a device."""

from dataclasses import dataclass
from typing import Any, Final, Self

# Why a device cannot be used -> what an operator does about it.
REMEDIES: Final = {
    "torch_without_cuda": "install a torch that is built for CUDA; pip's own for Linux is",
    "driver_too_old": "install the driver that this torch's CUDA needs, see docs/gpu.md",
    "no_driver": "install NVIDIA's driver, or give the container its devices",
    "no_device": "see `nvidia-smi` and CUDA_VISIBLE_DEVICES; a container may have lost its devices: start it again",
    "unsupported_device": "this torch does not support the GPU's compute capability; install a build that does",
    "memory_in_use": "something else uses the GPU's memory, see `nvidia-smi`",
    "unkillable": "its process hangs in the kernel, see `dmesg`; the slot is offered again when the process is gone",
    "timeout": "the driver does not answer, see `dmesg` for Xid messages; a reset or a reboot may be needed",
    "failed": "see `nvidia-smi` and `dmesg` for Xid messages",
}


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """One probe of the device that CUDA_VISIBLE_DEVICES=`token` names. Bytes of memory; `capability` such as "9.0".

    `reason` is one of REMEDIES when it cannot be used, `detail` is CUDA's message.
    """

    token: str
    ok: bool
    reason: str | None = None
    detail: str | None = None
    name: str | None = None
    uuid: str | None = None
    memory_bytes: int | None = None
    free_bytes: int | None = None
    capability: str | None = None
    driver: str | None = None
    cuda: str | None = None

    @classmethod
    def from_answer(cls, token: str, answer: dict[str, Any]) -> Self:
        """From the JSON object of core.engine.device_probe."""
        told: dict[str, Any] = {name: answer.get(name) for name in cls.__slots__ if name != "token"}
        return cls(token, **told)

    @classmethod
    def from_failure(cls, token: str, reason: str, detail: str) -> Self:
        """A device that is not usable."""
        return cls(token, ok=False, reason=reason, detail=detail)

    @property
    def is_broken(self) -> bool:
        """Whether the device itself does not work; a device whose memory other processes use is not broken."""
        return not self.ok and self.reason != "memory_in_use"

    @property
    def identity(self) -> str:
        """What names the physical device, whether it works or not: its UUID, or its token where the driver gives none
        (Jetson).
        """
        digits = (self.uuid or self.token).removeprefix("GPU-").removeprefix("MIG-")
        return digits if digits.strip("0-") else self.token

    @property
    def remedy(self) -> str | None:
        """What an operator does about a device that cannot be used."""
        return None if self.ok else REMEDIES.get(self.reason or "", REMEDIES["failed"])

    def describe_finding(self) -> str:
        """What the device is, or why it cannot be used."""
        if self.ok:
            size = f", {self.memory_bytes / 1e9:.0f} GB" if self.memory_bytes else ""
            return f"{self.token}: {self.name}{size}, compute capability {self.capability}, driver {self.driver}"
        return f"{self.token} cannot be used ({self.reason}): {self.detail}"

    def describe_with_remedy(self) -> str:
        """For logs: the finding, and the remedy if it needs one."""
        return self.describe_finding() if self.ok else f"{self.describe_finding()}; {self.remedy}"
