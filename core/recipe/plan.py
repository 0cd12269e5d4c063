"""The execution plan: how a job is computed, fixed once at its first claim and kept by every later attempt.

It comes from static tables, never from a timing, because bit-exact resume needs the same one: 1 and 2 threads give
different bits.
"""

import platform
from importlib import metadata
from typing import Literal

from core.recipe.component import Spec
from core.recipe.spec import JobSpec

Device = Literal["cpu", "cuda"]
SlotKind = Literal["cpu", "gpu"]
PACKAGES = ("torch", "numpy", "safetensors")


class ExecutionPlan(Spec):
    """`versions` names the libraries whose release can change bits."""

    device: Device
    threads: int
    precision: Literal["fp32"]
    kernel: Literal["autograd"]
    compile: bool
    deterministic: bool
    versions: dict[str, str]
    dataset_sha256: str | None = None


def installed_versions() -> dict[str, str]:
    """Releases of what computes, and of Python; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def resolve_plan(spec: JobSpec, slot: SlotKind, dataset_sha256: str | None = None) -> ExecutionPlan:
    """One thread per job on a CPU: as many jobs as cores beat one job on all cores, and neighbours cost nothing."""
    return ExecutionPlan(
        device="cuda" if slot == "gpu" and spec.resources.device != "cpu" else "cpu",
        threads=1,
        precision="fp32",
        kernel="autograd",
        compile=False,
        deterministic=spec.deterministic,
        versions=installed_versions(),
        dataset_sha256=dataset_sha256,
    )
