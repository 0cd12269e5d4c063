"""The assignment of an attempt: its dataset, weights and checkpoints on this machine's disk, verified."""

import logging
from functools import partial
from pathlib import Path
from typing import Final

from core.jobs.analyses import Found, Look
from core.jobs.checkpoints import CheckpointRow, mark_corrupt
from core.jobs.revival import missing_checkpoints, revive_checkpoint
from core.lifecycle import Desired
from core.recipe.assignment import AnalysisAssignment, Assignment, Reading, Resume, Source
from core.recipe.spec import JobSpec
from worker import provision
from worker.attempt import Attempt

log = logging.getLogger(__name__)

FETCH_SECONDS: Final = 10.0  # after that a checkpoint that the store does not give counts as damaged


def build_assignment(attempt: Attempt) -> Assignment | AnalysisAssignment:
    """Everything that the runner needs, on this machine's disk and verified."""
    taken, folder = attempt.claim, attempt.folder
    if not isinstance(taken.spec, JobSpec):
        return AnalysisAssignment(
            job=taken.job_id,
            attempt=taken.attempt,
            spec=taken.spec,
            plan=taken.plan,
            sources=tuple(_source(attempt, number, look) for number, look in enumerate(taken.looks)),
            readings=tuple(_reading(attempt, number, found) for number, found in enumerate(taken.findings)),
            scratch=folder.out,
            resume=_resume(attempt),
        )
    return Assignment(
        job=taken.job_id,
        attempt=taken.attempt,
        spec=taken.spec,
        plan=taken.plan,
        dataset=_dataset(attempt, taken.spec),
        scratch=folder.out,
        resume=_resume(attempt),
        initial=_initial(attempt),
    )


def _dataset(attempt: Attempt, spec: JobSpec) -> Path:
    return provision.dataset_file(spec.data, attempt.shop.settings.datasets, partial(is_interrupted, attempt))


def _source(attempt: Attempt, number: int, look: Look) -> Source:
    """What an analysis looks at, on this machine's disk."""
    if is_interrupted(attempt):
        raise provision.Interrupted
    weights, row = None, look.row
    if row is not None:
        folder = attempt.folder.path / f"look-{number}"
        weights = _weights(attempt, row, folder, "it looks at weights that cannot be read")
    return Source(
        label=look.label,
        job=look.job_id,
        checkpoint=row.id if row else None,
        step=row.step if row else 0,
        kind=row.kind if row else None,
        spec=look.spec,
        dataset=_dataset(attempt, look.spec),
        weights=weights,
    )


def _reading(attempt: Attempt, number: int, found: Found) -> Reading:
    """A result that an analysis reads, on this machine's disk."""
    folder, row = attempt.folder.path / f"read-{number}", found.row
    again = f"Ask for {found.label} again, and then for this."
    data = _weights(attempt, row, folder, f"it reads the result of {found.label}, which cannot be read", again)
    return Reading(label=found.label, spec=found.spec, numbers=found.numbers, data=data)


def _resume(attempt: Attempt) -> Resume | None:
    """The newest checkpoint whose files are what was recorded; a bad one is marked.

    One that was missing at an earlier attempt is tried again, any other bad one never.
    """
    shop, heart, row = attempt.shop, attempt.heart, attempt.claim.checkpoint
    if (back := _revived(attempt, row.step if row else 0)) is not None:
        return back
    while row is not None:
        try:
            return heart.reach(partial(_fetch, attempt, row), FETCH_SECONDS)
        except provision.BadCheckpoint as error:
            log.warning("job %s: %s", row.job_id, error)
            missing = isinstance(error, provision.MissingCheckpoint)
            row = heart.persist(partial(mark_corrupt, shop.db, attempt.fence, row.id, missing=missing))
    if attempt.claim.is_fork:
        raise provision.NoWayOn("the checkpoint that this fork goes on from is damaged, and there is no other")
    return None


def _revived(attempt: Attempt, after: int) -> Resume | None:
    """The newest checkpoint behind the place where the job stands that was missing and is back."""
    shop, heart, fence = attempt.shop, attempt.heart, attempt.fence
    for row in heart.persist(partial(missing_checkpoints, shop.db, fence.job_id, after)):
        try:
            resume = heart.reach(partial(_fetch, attempt, row), FETCH_SECONDS)
        except provision.BadCheckpoint as error:
            log.info("job %s: not back yet: %s", row.job_id, error)
        else:
            heart.persist(partial(revive_checkpoint, shop.db, fence, row.id))
            return resume
    return None


def _initial(attempt: Attempt) -> Path | None:
    """The weights that the job begins with, if they are not those of its seed and it has no checkpoint yet."""
    row = attempt.claim.initial
    return _weights(attempt, row, attempt.folder.resume, "the weights to begin with cannot be read") if row else None


def _weights(attempt: Attempt, row: CheckpointRow, folder: Path, otherwise: str, *remedy: str) -> Path:
    fetch = partial(provision.fetch_weights, attempt.shop.store, row, folder)
    try:
        return attempt.heart.reach(fetch, FETCH_SECONDS)
    except provision.BadCheckpoint as error:
        raise provision.NoWayOn(f"{otherwise}: {error}", *remedy) from error


def _fetch(attempt: Attempt, row: CheckpointRow) -> Resume:
    if is_interrupted(attempt):
        raise provision.Interrupted
    resume = provision.fetch_checkpoint(attempt.shop.store, row, attempt.folder.resume)
    own = row.job_id == attempt.claim.job_id
    return resume if own else resume.model_copy(update={"anew": attempt.claim.anew})


def is_interrupted(attempt: Attempt) -> bool:
    """Whether to provide for a runner no longer."""
    heart = attempt.heart
    unwanted = heart.desired is not Desired.RUN or attempt.shop.stopping.is_set()
    return unwanted or heart.fenced or heart.given_up
