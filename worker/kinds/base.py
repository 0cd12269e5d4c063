"""What a worker needs for one kind of job. The runner imports it too, so it imports nothing of the service."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from core.recipe.assignment import AnyAssignment, Resume
from core.recipe.data import DataSpec
from core.recipe.plan import ExecutionPlan

if TYPE_CHECKING:
    from core.jobs.checkpoints.records import CheckpointRow
    from core.jobs.queue.claim import Claim


class Provider(Protocol):
    """Puts the inputs of one attempt on this machine's disk, verified. Methods may raise ProvisionInterrupted."""

    @property
    def claim(self) -> "Claim": ...

    @property
    def scratch(self) -> Path:
        """An empty folder for what the runner writes."""

    def dataset_file(self, data: DataSpec) -> Path:
        """The dataset, written first where it is missing."""

    def source_file(self, dataset_id: str) -> int:
        """The bytes of an upload as a descriptor, opened for reading only; it is closed with the attempt."""

    def weights_file(self, row: "CheckpointRow", folder: str, otherwise: str, *remedy: str) -> Path:
        """The weights of a checkpoint of any kind, in a fresh `folder` of the attempt.

        Where they cannot be read the job fails, with the message `otherwise` and the `remedy`.
        """

    def resume_point(self) -> Resume | None:
        """The newest good checkpoint to continue from; None: the job begins at its start."""


def no_smaller_plan(_spec: object, _plan: ExecutionPlan) -> None:
    """For a kind that has no plan with less memory."""


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """A process that is no runner: no torch, no GPU, no checkpoint. It ends at SIGTERM, and loses nothing by it."""

    launch: str
    """`module:function` of the supervisor: (attempt, assignment) -> RunnerProcess."""
    conclude: str
    """`module:function` of the supervisor: (attempt, observed) -> Decision, instead of `decide_outcome`."""
    most_seconds: Callable[[Any], float]
    """(settings) -> the seconds after which it is killed, whatever it reports."""


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """How a worker provides the inputs of jobs of one kind, and what its runners call.

    A new kind is a file beside this one and a line in `__init__`; its record in the domain is in `core/jobs/kinds`.
    """

    name: str
    """As in `core/jobs/kinds`."""
    assignment: type[AnyAssignment]
    """The type that the runner receives."""
    build_assignment: Callable[[Provider, Any], AnyAssignment]
    """(provider, spec) -> the assignment of the provider's attempt. In the supervisor."""
    entry_point: str = ""
    """`module:function`, called in the runner with the assignment, the observer and `report_alive`; gives `Ended`."""
    own_process: OwnProcess | None = None
    """For a kind whose jobs do not run in a runner, and which has no entry point."""
    picture_kind: Callable[[Any], str] | None = None
    """(spec) -> the module of `worker/pictures` that draws its results, where the entry point takes `draw` as well."""
    smaller_plan: Callable[[Any, ExecutionPlan], ExecutionPlan | None] = no_smaller_plan
    """(spec, plan) -> the plan that needs less memory and gives the same numbers; None: there is none."""


def load_function(path: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def find_worker_kind(kinds: Sequence[WorkerKind], name: str) -> WorkerKind:
    """The record of this name.

    Raises:
        ValueError: this worker has no such kind.
    """
    for kind in kinds:
        if kind.name == name:
            return kind
    raise ValueError(f"this worker has no kind of job {name!r}")
