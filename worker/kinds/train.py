"""The kind `train`: provides a dataset and the initial weights, and calls the engine's training loop."""

from typing import Final

from core.recipe.assignment import Assignment
from core.recipe.plan import halve_micro_batch
from core.recipe.spec import JobSpec
from worker.kinds.base import Provider, WorkerKind


def build_train_assignment(provider: Provider, spec: JobSpec) -> Assignment:
    """The dataset, the checkpoint to resume from, and the initial weights where they are not drawn from the seed."""
    claim = provider.claim
    dataset, resume = provider.dataset_file(spec.data), provider.resume_point()
    initial = None
    if claim.initial is not None:
        initial = provider.weights_file(claim.initial, "resume", "the initial weights cannot be read")
    return Assignment(
        job=claim.job_id,
        attempt=claim.attempt,
        spec=spec,
        plan=claim.plan,
        dataset=dataset,
        scratch=provider.scratch,
        resume=resume,
        initial=initial,
    )


TRAIN: Final = WorkerKind(
    name="train",
    assignment=Assignment,
    build_assignment=build_train_assignment,
    entry_point="core.engine.loop:train",
    smaller_plan=halve_micro_batch,
)
