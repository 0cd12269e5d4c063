"""The meaning of CUDA's errors: the device is broken, its memory ran out, or the job itself is at fault.

After a *sticky* error (cudaErrorIllegalAddress and its kind, see the CUDA runtime's list of cudaError_t) every call of
the process fails. Only a probe shows whether the next process can use the device. So such an error ends the attempt,
not the job. The names are those of CUDA 13's driver_types.h, of cuBLAS, cuDNN 9, cuSOLVER, cuSPARSE and cuFFT.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

# cudaErrorMemoryAllocation in the messages of each library.
MEMORY_SIGNS: Final = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",
    "cudnn_status_internal_error_host_allocation_failed",
    "cusolver_status_alloc_failed",
    "cusparse_status_alloc_failed",
    "cusparse_status_insufficient_resources",
    "cufft_alloc_failed",
)
# cublasCreate fails like this when there is no memory for its workspace; otherwise the device is broken.
CREATION_SIGNS: Final = (
    "cublas_status_not_initialized",
    "cudnn_status_not_initialized",
    "cusolver_status_not_initialized",
)
# Errors of the caller: the device stays usable, or its context ends because an assertion in a kernel failed.
CALLER_SIGNS: Final = (
    "device-side assert",
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "too many resources requested",
    "operation not permitted when stream is capturing",
    "cublas_status_invalid_value",
    "cublas_status_not_supported",
    "cudnn_status_bad_param",
    "cudnn_status_not_supported",
)
DEVICE_SIGNS: Final = (
    "cuda error:",
    "cublas_status_",
    "cublas error",
    "cudnn_status_",
    "cudnn error",
    "cusolver error",
    "cusparse error",
    "cufft error",
    "no cuda gpus are available",
    "found no nvidia driver",
    "driver on your system is too old",
    "not compiled with cuda",
)
UNITS: Final = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_REQUEST: Final = re.compile(r"[Tt]ried to allocate ([0-9.]+) (bytes|KiB|MiB|GiB|TiB)")
SCARCE_BYTES: Final = 256 << 20  # the need of a context and its workspaces
FOREIGN_SHARE: Final = 0.05  # of a device's memory; less belongs to contexts and displays


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """Bytes of a device's memory at a failure.

    `reserved` are held by torch's allocator, `peak` is their maximum, `requested` is the allocation that failed (0: the
    message does not name it).
    """

    total: int
    free: int
    reserved: int
    peak: int
    requested: int = 0

    @property
    def foreign_bytes(self) -> int:
        """In use outside torch's allocator: by other processes and by this process's own context."""
        return max(0, self.total - self.free - self.reserved)

    def is_foreign(self) -> bool:
        """Whether other processes are the cause: they hold a good part, and without them the request would fit."""
        fits = self.reserved + self.requested + SCARCE_BYTES <= self.total
        return fits and self.foreign_bytes > FOREIGN_SHARE * self.total + SCARCE_BYTES

    def as_document(self) -> dict[str, Any]:
        """For the job's error."""
        return {**asdict(self), "foreign": self.foreign_bytes}


def memory_facts(device: torch.device, error: BaseException) -> MemoryFacts | None:
    """The facts of a CUDA device on which `error` was raised; None on a CPU, or if the device does not report them."""
    if device.type != "cuda":
        return None
    try:
        free, total = torch.cuda.mem_get_info(device)
        reserved, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    except (RuntimeError, AssertionError):  # no context: it could not be made, or torch is built without CUDA
        return None
    return MemoryFacts(total, free, reserved, peak, requested_bytes(str(error)))


def requested_bytes(message: str) -> int:
    """The bytes in "Tried to allocate 2.50 GiB", the message of torch's allocator; 0 in any other message."""
    found = _REQUEST.search(message)
    return int(float(found[1]) * UNITS[found[2]]) if found else 0


def is_memory_error(error: BaseException, facts: MemoryFacts | None = None) -> bool:
    """Whether the device's memory ran out."""
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in MEMORY_SIGNS):
        return True
    scarce = facts is not None and facts.free < SCARCE_BYTES
    return scarce and is_creation_error(error)


def is_creation_error(error: BaseException) -> bool:
    """Whether a library's handle could not be created; where memory is scarce, that is the cause."""
    text = str(error).lower()
    return any(sign in text for sign in CREATION_SIGNS)


def is_device_error(error: BaseException) -> bool:
    """Whether the device failed, and not the job."""
    text = str(error).lower()
    if any(sign in text for sign in (*MEMORY_SIGNS, *CALLER_SIGNS)):
        return False
    return isinstance(error, torch.AcceleratorError) or any(sign in text for sign in DEVICE_SIGNS)
