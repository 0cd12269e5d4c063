"""The assignment of an attempt: its dataset, weights and checkpoints on this machine's disk, verified."""

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from core.jobs.checkpoints.missing import missing_checkpoints, revive_checkpoint
from core.jobs.checkpoints.records import CheckpointRow, mark_corrupt
from core.jobs.datasets.rows import find_row, list_pieces
from core.jobs.queue.claim import Claim
from core.lifecycle import Desired
from core.recipe.assignment import AnyAssignment, Resume
from core.recipe.data import DataSpec
from worker import provision
from worker.attempt import Attempt
from worker.datasets.fetch import DatasetDamaged, DatasetFetcher, prepared_version
from worker.datasets.s3_source import copy_s3_source
from worker.datasets.source import SourceGone, SourceRefused, SourceWriter, copy_reference

log = logging.getLogger(__name__)

UPLOAD_AGAIN: Final = "Upload the data again, and submit a new job."
REPLACE_DATASET: Final = "Delete the dataset, upload the data again, and submit a new job."


def build_assignment(attempt: Attempt) -> AnyAssignment:
    """Everything that the runner needs, on this machine's disk and verified."""
    return attempt.kind.build_assignment(AttemptProvider(attempt), attempt.claim.spec)


@dataclass(frozen=True)
class AttemptProvider:
    """The Provider of one attempt, see `worker/kinds`: copies from the store into the folder of the attempt."""

    attempt: Attempt

    @property
    def claim(self) -> Claim:
        return self.attempt.claim

    @property
    def scratch(self) -> Path:
        return self.attempt.folder.out

    def dataset_file(self, data: DataSpec) -> Path:
        folder = self.attempt.context.settings.datasets
        version = prepared_version(data)
        if version is None:
            return provision.dataset_file(data, folder, partial(is_interrupted, self.attempt))
        return self._hold_prepared(version)

    def source_file(self, dataset_id: str) -> int:
        context, heartbeat = self.attempt.context, self.attempt.heartbeat
        check = partial(check_interrupted, self.attempt)
        with context.db.read() as connection:
            row, pieces = find_row(connection, dataset_id), list_pieces(connection, dataset_id)
        if row is None or not row.project:
            raise provision.BadDataset("the dataset was deleted", UPLOAD_AGAIN)
        folder = self.attempt.folder.path
        try:
            if row.source is not None and row.source.get("kind") == "s3":
                source = copy_s3_source(row, context.settings, folder, check)
            elif row.source is not None:
                source = copy_reference(row, context.settings.dataset_roots, folder, check)
            else:
                patience = context.settings.outage_seconds
                retry = partial(heartbeat.retry_store_call, patience=patience)
                source = SourceWriter(context.store, retry, check, folder).write(row, pieces)
        except SourceGone as error:
            raise provision.BadDataset(str(error), UPLOAD_AGAIN) from error
        except SourceRefused as error:
            raise provision.BadUpload(dataset_id, [error.problem]) from error
        self.attempt.held.callback(os.close, source)
        return source

    def _hold_prepared(self, version: str) -> Path:
        """The folder of a prepared dataset, which stays in the cache until the attempt ends."""
        context, check = self.attempt.context, partial(check_interrupted, self.attempt)
        retry = partial(self.attempt.heartbeat.retry_store_call, patience=self._fetch_seconds)
        fetcher = DatasetFetcher(context.store, version, retry, check)
        cached = fetcher.cached(context.settings, context.scratch.user)
        try:
            return self.attempt.held.enter_context(cached)
        except DatasetDamaged as error:
            raise provision.BadDataset(str(error), REPLACE_DATASET) from error

    def weights_file(self, row: CheckpointRow, folder: str, otherwise: str, *remedy: str) -> Path:
        if is_interrupted(self.attempt):
            raise provision.ProvisionInterrupted
        fetch = partial(provision.fetch_weights, self.attempt.context.store, row, self.attempt.folder.path / folder)
        try:
            return self.attempt.heartbeat.retry_store_call(fetch, self._fetch_seconds)
        except provision.BadCheckpoint as error:
            raise provision.CannotResume(f"{otherwise}: {error}", *remedy) from error

    def resume_point(self) -> Resume | None:
        """The newest checkpoint whose files match their recorded digests; a bad one is marked corrupt.

        A checkpoint that was missing at an earlier attempt is tried again; any other bad one is not.
        """
        context, heartbeat, row = self.attempt.context, self.attempt.heartbeat, self.claim.checkpoint
        if (back := self._fetch_revived(row.step if row else 0)) is not None:
            return back
        while row is not None:
            try:
                return heartbeat.retry_store_call(partial(self._fetch_files, row), self._fetch_seconds)
            except provision.BadCheckpoint as error:
                log.warning("job %s: %s", row.job_id, error)
                missing = isinstance(error, provision.MissingCheckpoint)
                row = heartbeat.retry_write(
                    partial(mark_corrupt, context.db, self.attempt.fence, row.id, missing=missing)
                )
        if self.claim.is_fork:
            raise provision.CannotResume(
                "the checkpoint that this fork continues from is damaged, and there is no other"
            )
        return None

    def _fetch_revived(self, after: int) -> Resume | None:
        """The newest checkpoint after step `after` that was missing and is in the store again."""
        context, heartbeat, fence = self.attempt.context, self.attempt.heartbeat, self.attempt.fence
        for row in heartbeat.retry_write(partial(missing_checkpoints, context.db, fence.job_id, after)):
            try:
                resume = heartbeat.retry_store_call(partial(self._fetch_files, row), self._fetch_seconds)
            except provision.BadCheckpoint as error:
                log.info("job %s: a missing checkpoint is still missing: %s", row.job_id, error)
            else:
                heartbeat.retry_write(partial(revive_checkpoint, context.db, fence, row.id))
                return resume
        return None

    @property
    def _fetch_seconds(self) -> float:
        return self.attempt.context.settings.fetch_seconds

    def _fetch_files(self, row: CheckpointRow) -> Resume:
        if is_interrupted(self.attempt):
            raise provision.ProvisionInterrupted
        resume = provision.fetch_checkpoint(self.attempt.context.store, row, self.attempt.folder.resume)
        own = row.job_id == self.claim.job_id
        return resume if own else resume.model_copy(update={"anew": self.claim.anew})


def check_interrupted(attempt: Attempt) -> None:
    """Raise ProvisionInterrupted where `is_interrupted`."""
    if is_interrupted(attempt):
        raise provision.ProvisionInterrupted


def is_interrupted(attempt: Attempt) -> bool:
    """Whether the attempt is to end before its runner starts: cancelled, paused, stopping, fenced or abandoned."""
    heartbeat = attempt.heartbeat
    unwanted = heartbeat.desired is not Desired.RUN or attempt.context.stopping.is_set()
    return unwanted or heartbeat.fenced or heartbeat.given_up
