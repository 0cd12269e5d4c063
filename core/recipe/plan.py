"""The execution plan: how a job is computed, fixed at its first claim and reused by every later attempt.

It follows from static tables, never from a timing, because bit-exact resume needs the same plan: 1 and 2 threads give
different bits. Only a job that is not deterministic gets a new plan, when another kind of device claims it.
"""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final, Literal, Protocol

from pydantic import ConfigDict

from core.recipe.component import Spec
from core.recipe.data import Dataset, DataSpec
from core.recipe.plugins import plugin_identities
from core.recipe.spec import JobSpec, Resources

Device = Literal["cpu", "cuda"]
SlotKind = Literal["cpu", "gpu"]
DataAccess = Literal["resident", "mapped"]
"""`resident`: the tensors of the dataset are on the device. `mapped`: they are files that each batch reads."""
MOST_AT_ONCE = 8192  # examples in one forward pass; more are accumulated
PACKAGES = ("torch", "numpy", "safetensors")
KINDS: Final[dict[Device, SlotKind]] = {"cpu": "cpu", "cuda": "gpu"}
RESIDENT_BYTES: Final = 2**30
LAUNCH_BOUND: Final = 1_000_000
"""Multiply-adds in one forward pass of a batch, below which launch overhead dominates the time on a GPU."""

CAME_LATER: Final[Mapping[str, Any]] = {
    "dataset_sha256": None,
    "micro_batch": None,
    "plugins": None,
    "data_access": None,
}
"""Fields of plans and environments that not every release has -> the value that a release without the field uses.

A change that adds a field to a plan or an environment, or removes one, adds its line here. Without that line every job
that another release paused resumes approximately.
"""


class Planned(Protocol):
    """The fields of a job or an analysis that a plan needs."""

    @property
    def resources(self) -> Resources: ...

    @property
    def deterministic(self) -> bool: ...


class ExecutionPlan(Spec):
    """How a job is computed. `versions` names the libraries whose release can change bits.

    The stored plan of another release is readable. A missing field takes its default, which is the value in
    `CAME_LATER`. An unknown field is ignored here and compared in the environments.
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
    """The most examples in one forward pass, set after a worker ran out of memory."""
    plugins: dict[str, str] | None = CAME_LATER["plugins"]
    """Distribution -> version and digest of the plug-ins that the job uses; None: it uses none."""

    data_access: DataAccess | None = CAME_LATER["data_access"]
    """How an uploaded dataset is read; both give the same bits. None: the job has none, and its data is resident."""

    def stored_json(self) -> str:
        """The plan as stored in the database, without later fields at their default.

        A worker of the release before may continue with it, and refuses fields that it does not have.
        """
        return self.model_dump_json(exclude_defaults=True)

    def environment(self) -> dict[str, Any]:
        """The fields that can change bits, without later fields at their default.

        Device, libraries and plug-ins are recorded separately, the dataset is verified on loading, its access changes
        no bit, and no engine compiles.
        """
        elsewhere = {"device", "versions", "plugins", "dataset_sha256", "compile", "data_access"}
        return self.model_dump(exclude=elsewhere, exclude_defaults=True)


def halve_micro_batch(spec: JobSpec, plan: ExecutionPlan) -> ExecutionPlan | None:
    """The plan with half as many examples in one forward pass. The batch stays; its gradient changes only by rounding.

    None where one example is left, or where batch norm would normalise over smaller batches.
    """
    now = plan.micro_batch or min(spec.shape().batch, MOST_AT_ONCE)
    if now == 1 or spec.model.normalises_batches:
        return None
    return plan.model_copy(update={"micro_batch": -(-now // 2)})


def plan_for_other_device(before: ExecutionPlan, here: ExecutionPlan) -> ExecutionPlan:
    """The plan of a job that continues on another kind of device: the plan `here`, with two fields of the job.

    These are the digest of its data, and its micro-batch.
    """
    return here.model_copy(update={"dataset_sha256": before.dataset_sha256, "micro_batch": before.micro_batch})


def gpu_choice_message(spec: Planned, plan: ExecutionPlan) -> str | None:
    """Why a job with `resources.device` auto runs on a GPU, and whether that may be slow; None if it does not."""
    if spec.resources.device != "auto" or plan.device == "cpu":
        return None
    chosen = "this runs on a GPU: resources.device is auto, and a GPU slot was free"
    if isinstance(spec, JobSpec) and spec.model.multiply_adds(spec.data.facts()) * spec.shape().batch < LAUNCH_BOUND:
        return f'{chosen}; launch overhead dominates steps as small as these, so "cpu" may be faster'
    return chosen


def choose_data_access(data: DataSpec) -> DataAccess | None:
    """`resident` for an uploaded dataset of at most RESIDENT_BYTES, else `mapped`; None for other data.

    The bytes are those of its examples: one for each value of an image, four for any other.
    """
    if not isinstance(data, Dataset) or data.resolved is None:
        return None
    facts = data.facts()
    size = facts.examples * facts.features * (1 if data.resolved.kind == "images" else 4)
    return "resident" if size <= RESIDENT_BYTES else "mapped"


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def resolve_plan(spec: Planned, slot: SlotKind, dataset_sha256: str | None = None) -> ExecutionPlan:
    """The plan for a slot. A CPU job has one thread: one job per core has more throughput than one job on all."""
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
        data_access=choose_data_access(spec.data) if isinstance(spec, JobSpec) else None,
    )
