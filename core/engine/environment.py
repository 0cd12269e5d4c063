"""What an attempt computes on, as far as it can change bits."""

import platform
from importlib import metadata
from typing import Any, Final

import numpy as np
import safetensors
import torch

from core.engine.device_probe import driver_version
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.plan import ExecutionPlan

TOLD: Final = frozenset({"python", "safetensors", "driver"})
"""What is told and changes no bit: kernels come compiled with torch and its libraries, a driver launches them."""


def describe(
    device: torch.device, plan: ExecutionPlan, optimizer: OptimizerSpec, roles: dict[str, list[str]]
) -> dict[str, Any]:
    """Libraries, device and switches; equal descriptions compute equal bits.

    `roles` say which weights go by which rule of the optimizer, where not all go by one.
    """
    package = optimizer.target().partition(":")[0].partition(".")[0]
    found = about(device, plan)
    versions = {package: metadata.version(package), **found["versions"]}
    return {**found, "versions": versions, **({"optimizer": roles} if roles else {})}


def about(device: torch.device, plan: ExecutionPlan) -> dict[str, Any]:
    """The same where no optimizer takes part."""
    on_gpu = device.type == "cuda"
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
    }
    if on_gpu:
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kind": device.type,
        "threads": plan.threads,
        "precision": plan.precision,
        "kernel": plan.kernel,
        "deterministic": plan.deterministic,
        "versions": versions,
        **({"driver": driver_version()} if on_gpu else {}),
        **({"micro_batch": plan.micro_batch} if plan.micro_batch else {}),
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Why a resume cannot promise the bits of an undisturbed run; empty when it can."""
    flat_before, flat_now = ({**each, **each.get("versions", {})} for each in (before, now))
    return [
        f"{key}: {flat_before.get(key)} before, {flat_now.get(key)} now"
        for key in sorted((flat_before.keys() | flat_now.keys()) - {"versions"} - TOLD)
        if flat_before.get(key) != flat_now.get(key)
    ]
