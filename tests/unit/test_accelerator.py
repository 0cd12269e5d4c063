"""CUDA's errors, in the words of torch 2.13, CUDA 13 and their libraries, told apart without a GPU."""

import pytest
import torch

from core.engine.cuda_errors import MemoryFacts, is_device_error, is_memory_error, memory_facts, requested_bytes

GIB = 1 << 30

STICKY = [
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: unspecified launch failure",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: misaligned address",
    "CUDA error: an illegal instruction was encountered",
    "CUDA error: the launch timed out and was terminated",
    "CUDA error: unknown error",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "CUDA error: no CUDA-capable device is detected",
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, …)`",
    "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "cuDNN error: CUDNN_STATUS_MAPPING_ERROR",
    "No CUDA GPUs are available",
    "The NVIDIA driver on your system is too old (found version 11040).",
]
MEMORY = [
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.2 GiB is free.",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
]
OWN = [
    "CUDA error: device-side assert triggered",
    "CUDA error: invalid configuration argument",
    "CUDA error: invalid argument",
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`",
    "mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)",
    "expected scalar type Float but found Double",
]


@pytest.mark.parametrize("text", STICKY)
def test_a_broken_device_is_not_the_jobs_fault(text: str) -> None:
    assert is_device_error(RuntimeError(text))
    assert is_device_error(torch.AcceleratorError(text))
    assert not is_memory_error(RuntimeError(text))


@pytest.mark.parametrize("text", MEMORY)
def test_every_library_has_its_words_for_no_memory(text: str) -> None:
    assert is_memory_error(RuntimeError(text))
    assert not is_device_error(RuntimeError(text))
    assert not is_device_error(torch.AcceleratorError(text))


@pytest.mark.parametrize("text", OWN)
def test_the_callers_own_mistakes_are_neither(text: str) -> None:
    assert not is_device_error(RuntimeError(text))
    assert not is_memory_error(RuntimeError(text))


def test_torchs_own_type_needs_no_words() -> None:
    assert is_memory_error(torch.OutOfMemoryError("whatever it says"))


def test_a_handle_that_cannot_be_made_is_memory_only_where_memory_is_scarce() -> None:
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")
    assert is_memory_error(error, MemoryFacts(80 * GIB, 100 << 20, 70 * GIB, 70 * GIB))
    assert not is_memory_error(error, MemoryFacts(80 * GIB, 40 * GIB, GIB, GIB))
    assert is_device_error(error)


@pytest.mark.parametrize(
    ("facts", "foreign"),
    [
        (MemoryFacts(80 * GIB, GIB, 20 * GIB, 20 * GIB, 2 * GIB), True),  # 59 GiB are somebody else's
        (MemoryFacts(80 * GIB, GIB, 78 * GIB, 78 * GIB, 2 * GIB), False),  # all of it is ours
        (MemoryFacts(80 * GIB, GIB, 70 * GIB, 70 * GIB, 12 * GIB), False),  # 9 GiB are not, but it would not fit anyway
        (MemoryFacts(80 * GIB, 50 * GIB, 29 * GIB, 29 * GIB, 52 * GIB), False),  # our own context is no foreigner
        (MemoryFacts(80 * GIB, 0, 60 * GIB, 60 * GIB), True),
    ],
)
def test_whose_memory_it_was(facts: MemoryFacts, foreign: bool) -> None:
    assert facts.is_foreign() is foreign


@pytest.mark.parametrize(
    ("text", "size"),
    [("Tried to allocate 2.50 GiB.", int(2.5 * GIB)), ("tried to allocate 20.00 MiB", 20 << 20), ("nothing", 0)],
)
def test_what_was_asked_for(text: str, size: int) -> None:
    assert requested_bytes(text) == size


def test_a_cpu_has_no_such_facts() -> None:
    assert memory_facts(torch.device("cpu"), RuntimeError("out of memory")) is None
