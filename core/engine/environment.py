"""A description of what an attempt computes on: libraries, device and switches, as far as bits depend on them."""

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

INFORMATIVE: Final = frozenset({"python", "safetensors", "driver"})
"""Versions on which no bit depends: kernels are compiled into torch and its libraries, the driver launches them."""


def describe_environment(
    device: torch.device, plan: ExecutionPlan, optimizer: OptimizerSpec, roles: dict[str, list[str]]
) -> dict[str, Any]:
    """Libraries, device and switches; attempts with equal descriptions compute equal bits.

    `roles` is {rule of the optimizer: [names of its weights]}; empty if one rule steps all weights.
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
    """The description without an optimizer: for analyses."""
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
    """The reasons why a resume may compute other bits than an uninterrupted run; empty if it is exact.

    A field that is absent on one side has its value in `came_later`.
    """
    flat_before, flat_now = ({**came_later, **each, **each.get("versions", {})} for each in (before, now))
    return [
        f"{key}: {flat_before.get(key)} before, {flat_now.get(key)} now"
        for key in sorted((flat_before.keys() | flat_now.keys()) - {"versions"} - INFORMATIVE)
        if flat_before.get(key) != flat_now.get(key)
    ]
