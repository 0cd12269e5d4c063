"""The kind `prepare`: provides the uploaded bytes, and starts a confined process that reads them."""

from typing import TYPE_CHECKING, Final

from core.recipe.prepare import PrepareSpec
from worker.datasets.assignment import PrepareAssignment
from worker.kinds.base import OwnProcess, Provider, WorkerKind

if TYPE_CHECKING:
    from core.settings import Settings


def build_prepare_assignment(provider: Provider, spec: PrepareSpec) -> PrepareAssignment:
    """The bytes of the upload. There is nothing to resume: an attempt begins at the start."""
    claim = provider.claim
    return PrepareAssignment(
        job=claim.job_id,
        attempt=claim.attempt,
        spec=spec,
        plan=claim.plan,
        scratch=provider.scratch,
        source=provider.source_file(spec.dataset),
    )


def most_seconds(settings: "Settings") -> float:
    return settings.prepare_seconds


PREPARE: Final = WorkerKind(
    name="prepare",
    assignment=PrepareAssignment,
    build_assignment=build_prepare_assignment,
    own_process=OwnProcess(
        launch="worker.datasets.attempt:launch_prepare",
        conclude="worker.datasets.attempt:conclude_prepare",
        most_seconds=most_seconds,
    ),
)
