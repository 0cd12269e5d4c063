"""What an attempt computes on, as far as it can change bits."""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

import numpy as np
import safetensors
import torch

from core.engine.device_probe import driver_version
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.plan import CAME_LATER, ExecutionPlan
from core.recipe.plugins import installed_plugins

TOLD: Final = frozenset({"python", "safetensors", "driver"})
"""What is told and changes no bit: kernels come compiled with torch and its libraries, a driver launches them."""


def describe_environment(
    device: torch.device, plan: ExecutionPlan, optimizer: OptimizerSpec, roles: dict[str, list[str]]
) -> dict[str, Any]:
    """Libraries, device and switches; equal descriptions compute equal bits.

    `roles` say which weights go by which rule of the optimizer, where not all go by one.
    """
    found = describe_device(device, plan)
    versions = {**package_versions(optimizer.import_string()), **found["versions"]}
    return {**found, "versions": versions, **({"optimizer": roles} if roles else {})}


def package_versions(import_string: str) -> dict[str, str]:
    """The release of what an import string names, by its package; by its distributions where they are called otherwise.

    Code that no distribution brings has no release.
    """
    package = import_string.partition(":")[0].partition(".")[0]
    try:
        return {package: metadata.version(package)}
    except metadata.PackageNotFoundError:  # to search all distributions takes a while, so it comes second
        return {name: metadata.version(name) for name in metadata.packages_distributions().get(package, ())}


def describe_device(device: torch.device, plan: ExecutionPlan) -> dict[str, Any]:
    """The same where no optimizer takes part."""
    on_gpu = device.type == "cuda"
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
    }
    versions |= {each.name: each.identity for each in installed_plugins().joined if each.name in (plan.plugins or {})}
    if on_gpu:
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kind": device.type,
        **plan.environment(),
        "versions": versions,
        **({"driver": driver_version()} if on_gpu else {}),
    }


def environment_differences(
    before: dict[str, Any], now: dict[str, Any], came_later: Mapping[str, Any] = CAME_LATER
) -> list[str]:
    """Why a resume cannot promise the bits of an undisturbed run; empty when it can.

    A field that one side lacks has the value of `came_later`.
    """
    flat_before, flat_now = ({**came_later, **each, **each.get("versions", {})} for each in (before, now))
    return [
        f"{key}: {flat_before.get(key)} before, {flat_now.get(key)} now"
        for key in sorted((flat_before.keys() | flat_now.keys()) - {"versions"} - TOLD)
        if flat_before.get(key) != flat_now.get(key)
    ]
