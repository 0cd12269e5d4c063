"""The execution plan: how a job is computed, fixed once at its first claim and kept by every later attempt.

It comes from static tables, never from a timing, because bit-exact resume needs the same one: 1 and 2 threads give
different bits. Only a job that is not deterministic gets another one, when another kind of device claims it.
"""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final, Literal, Protocol

from pydantic import ConfigDict

from core.recipe.component import Spec
from core.recipe.plugins import plugin_identities
from core.recipe.spec import JobSpec, Resources

Device = Literal["cpu", "cuda"]
SlotKind = Literal["cpu", "gpu"]
MOST_AT_ONCE = 8192  # examples in one forward pass; more are accumulated
PACKAGES = ("torch", "numpy", "safetensors")
KINDS: Final[dict[Device, SlotKind]] = {"cpu": "cpu", "cuda": "gpu"}
LAUNCH_BOUND: Final = 1_000_000
"""Multiply-adds in one forward pass of a batch, below which a GPU mostly waits for the next of some twenty launches."""

CAME_LATER: Final[Mapping[str, Any]] = {"dataset_sha256": None, "micro_batch": None, "plugins": None}
"""Fields of plans and environments that not every release has -> the value that a release without the field uses.

Whoever adds a field to a plan or an environment, or removes one, adds its line here. Without that line every job that
another release paused resumes approximately.
"""


class Planned(Protocol):
    """What a plan is made for: a job, or an analysis."""

    @property
    def resources(self) -> Resources: ...

    @property
    def deterministic(self) -> bool: ...


class ExecutionPlan(Spec):
    """`versions` names the libraries whose release can change bits.

    The stored plan of another release is readable. A field that it lacks takes its default, which is the value in
    `CAME_LATER`. A field that only it has is ignored here and compared in the environments.
    """

    model_config = ConfigDict(extra="ignore")

    device: Device
    threads: int
    precision: Literal["fp32"]
    kernel: Literal["autograd"]
    compile: bool
    deterministic: bool
    versions: dict[str, str]
    dataset_sha256: str | None = CAME_LATER["dataset_sha256"]
    micro_batch: int | None = CAME_LATER["micro_batch"]
    """Examples in one forward pass at most, once a worker's memory has been too small for more."""
    plugins: dict[str, str] | None = CAME_LATER["plugins"]
    """Distribution -> version and digest of the plug-ins that it uses; None: it uses none."""

    def stored_json(self) -> str:
        """The plan as the database holds it, without later fields at their default.

        A worker of the release before may have to go on with it, and refuses fields that it does not know.
        """
        return self.model_dump_json(exclude_defaults=True)

    def environment(self) -> dict[str, Any]:
        """The fields that can change bits, without later fields at their default.

        Device, libraries and plug-ins describe themselves, the dataset is checked when it is loaded, and no engine
        compiles.
        """
        elsewhere = {"device", "versions", "plugins", "dataset_sha256", "compile"}
        return self.model_dump(exclude=elsewhere, exclude_defaults=True)


def halve_micro_batch(spec: JobSpec, plan: ExecutionPlan) -> ExecutionPlan | None:
    """The plan with half as many examples in one forward pass: the batch is the same, its gradient to rounding too.

    None where there is nothing to halve, or where batch norm would see other batches.
    """
    now = plan.micro_batch or min(spec.shape().batch, MOST_AT_ONCE)
    if now == 1 or spec.model.normalises_batches:
        return None
    return plan.model_copy(update={"micro_batch": -(-now // 2)})


def plan_for_other_device(before: ExecutionPlan, here: ExecutionPlan) -> ExecutionPlan:
    """The plan of a job that goes on on another kind of device: that of `here`, with what is the job's own.

    That is the digest of its data, and how many examples at once its memory once allowed.
    """
    return here.model_copy(update={"dataset_sha256": before.dataset_sha256, "micro_batch": before.micro_batch})


def gpu_choice_message(spec: Planned, plan: ExecutionPlan) -> str | None:
    """Why a job whose `resources.device` is auto runs on a GPU, and whether that may be slow; None: it does not."""
    if spec.resources.device != "auto" or plan.device == "cpu":
        return None
    chosen = "this runs on a GPU: resources.device is auto, and a GPU slot was free"
    if isinstance(spec, JobSpec) and spec.model.multiply_adds(spec.data.facts()) * spec.shape().batch < LAUNCH_BOUND:
        return f'{chosen}; steps as small as these mostly wait for the GPU to begin, so "cpu" may be faster'
    return chosen


def installed_versions() -> dict[str, str]:
    """Releases of what computes, and of Python; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def resolve_plan(spec: Planned, slot: SlotKind, dataset_sha256: str | None = None) -> ExecutionPlan:
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
        plugins=plugin_identities(spec) or None,
    )
