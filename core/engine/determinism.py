"""Reproducible bits: seeded random streams, and torch's switches for deterministic execution."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple, Self

import numpy as np
import torch

from core.engine.failure import device_failed, device_not_opened
from core.recipe.plan import ExecutionPlan

GENERATORS = "rng."  # how the names of random states begin
HOST_GENERATOR = f"{GENERATORS}cpu"  # the one that every machine has
PROBED = 64  # rows of the matrix product that open_device() checks


def stream_seed(seed: int, *purpose: str | int) -> int:
    """A 64-bit seed for one purpose (such as "order", epoch): equal on all machines, independent of other purposes."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def seeded_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A separate generator for one purpose, on the CPU, so that every device gets the same numbers."""
    return torch.Generator().manual_seed(stream_seed(seed, *purpose))


@contextmanager
def private_randomness(seed: int, *purpose: str | int) -> Iterator[None]:
    """Inside, torch's global CPU generator draws from this stream; afterwards its state is restored."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(stream_seed(seed, *purpose))
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


@contextmanager
def foreign_randomness() -> Iterator[None]:
    """Inside, the global generators of Python and NumPy are seeded by a draw from torch's, which checkpoints hold."""
    python, foreign = random.getstate(), np.random.get_state()  # noqa: NPY002 - this one is what packages draw from
    seed = int(torch.randint(2**32, (), generator=torch.default_generator))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(foreign)  # noqa: NPY002


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators that training steps draw from (dropout): the CPU's, and the device's own."""
    torch.default_generator.manual_seed(stream_seed(seed, "steps"))
    if device.type == "cuda":
        torch.cuda.manual_seed(stream_seed(seed, "steps"))


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The generators that training draws from, as byte tensors on the CPU."""
    states = {HOST_GENERATOR: torch.default_generator.get_state()}
    if device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_state(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    torch.default_generator.set_state(states[HOST_GENERATOR])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["rng.cuda"], device)


def open_device(plan: ExecutionPlan) -> torch.device:
    """The device of the plan. Only a plan for CUDA uses torch.cuda; the device then computes a checked product.

    Raises:
        EngineError: device_failed; or out_of_memory, if other processes hold the memory of the device.
    """
    if plan.device == "cpu":
        return torch.device("cpu")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        device = torch.device("cuda", torch.cuda.current_device())
        ones = torch.ones(PROBED, PROBED, device=device)
        total = float((ones @ ones).sum())
        torch.cuda.synchronize(device)
    except Exception as error:  # a torch without CUDA, a driver that is too old or not there: each has its own type
        raise device_not_opened(error) from error
    if total != PROBED**3:
        raise device_failed(RuntimeError(f"a product of ones on {device} adds up to {total:g}, not to {PROBED**3}"))
    return device


class Switches(NamedTuple):
    """torch's process-wide switches that results depend on, to the last bit."""

    threads: int
    deterministic: bool
    fill_uninitialized: bool
    cudnn_benchmark: bool
    cudnn_deterministic: bool
    cudnn_tf32: bool
    matmul_precision: str

    @classmethod
    def read_current(cls) -> Self:
        return cls(
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
        )

    def apply(self) -> None:
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = self.fill_uninitialized  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.allow_tf32 = self.cudnn_tf32
        torch.set_float32_matmul_precision(self.matmul_precision)


@contextmanager
def torch_switches(plan: ExecutionPlan) -> Iterator[None]:
    """Set torch's switches as the plan requires; they and the global generator are restored afterwards.

    The thread count is the same for the whole run: sums over another number of threads have other bits. fp32 is full
    fp32: TF32 is off.
    """
    before, randomness = Switches.read_current(), torch.default_generator.get_state()
    if plan.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        Switches(
            threads=plan.threads,
            deterministic=plan.deterministic,
            fill_uninitialized=False,
            cudnn_benchmark=False,
            cudnn_deterministic=plan.deterministic,
            cudnn_tf32=False,
            matmul_precision="highest",
        ).apply()
        yield
    finally:
        before.apply()
        torch.default_generator.set_state(randomness)
