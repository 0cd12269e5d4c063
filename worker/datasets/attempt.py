"""One attempt to prepare a dataset, as its supervisor sees it: how its process starts, and what follows from its end.

A file that is refused is no failure of the job: it has succeeded in finding out, and its dataset says why.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from sqlalchemy import Connection

from core.jobs.attempt.fence import fenced_transaction
from core.jobs.datasets.prepare import claim_version, mark_ready, mark_refused
from core.lifecycle import Status
from core.recipe.data.manifest import DatasetManifest
from core.recipe.prepare import PrepareSpec
from core.store.base import StoreTaken
from worker import provision
from worker.assignment import check_interrupted
from worker.attempt import Attempt
from worker.conclude import decide_interrupted
from worker.datasets.assignment import PrepareAssignment
from worker.datasets.layout import BadShard
from worker.datasets.publish import DatasetPublisher, read_output
from worker.datasets.report import read_problems, read_walls
from worker.heartbeat import JobCancelled
from worker.launcher import RunnerProcess
from worker.outcome import Decision, Finish, GiveBack, KillReason, Observed, StopOrder, decide_outcome, machine_failed
from worker.prepare.launch import PrepareLauncher
from worker.prepare.verdict import Verdict, judge, refusal_document

log = logging.getLogger(__name__)

Further = Callable[[Connection], object]


def dataset_of(attempt: Attempt) -> str:
    """The id of the dataset that an attempt prepares."""
    return cast("PrepareSpec", attempt.claim.spec).dataset


def launch_prepare(attempt: Attempt, assignment: PrepareAssignment) -> RunnerProcess:
    """Start the process that reads the upload. Raises LaunchFailed."""
    context = attempt.context
    launcher = PrepareLauncher(context.settings.prepare_confined, context.scratch.user)
    return launcher.launch(attempt.folder.stderr, assignment.source, attempt.folder.out)


def conclude_prepare(attempt: Attempt, seen: Observed) -> Decision:
    """Decide what follows from the end of a prepare process; what it has prepared is put into the store."""
    if seen.asked is StopOrder.CANCEL and seen.cut in {KillReason.NO, KillReason.OVERTIME}:
        return Finish(Status.CANCELLED, "cancelled", None, {}, seen.progress)
    if seen.cut not in {KillReason.NO, KillReason.OVERTIME} or (seen.unkillable and seen.ended is None):
        return decide_outcome(seen)
    verdict = judge(seen.exit, seen.ended, timed_out=seen.cut is KillReason.OVERTIME)
    log.info("dataset %s: %s", dataset_of(attempt), verdict)
    if verdict is Verdict.READY:
        return _publish(attempt, seen)
    if verdict is Verdict.REFUSED:
        return _refuse(attempt, seen, read_problems(seen.ended))
    # A process that has not touched its file yet shows a fault of its installation, whatever its end looks like.
    if verdict in {Verdict.TOO_LARGE, Verdict.CRASH} and seen.asked is StopOrder.NOTHING and seen.started:
        if verdict is Verdict.CRASH:
            log.error("dataset %s: its parser crashed: %s", dataset_of(attempt), seen.stderr)
        return _refuse(attempt, seen, [refusal_document(verdict)])
    return _decide_retry(seen)


def _decide_retry(seen: Observed) -> GiveBack:
    """The machine is at fault, or the process was ended by order.

    A process that does not begin fails on each try here: a library or a kind of isolation is missing. Other workers get
    the job, within its budget of losses.
    """
    if seen.asked is not StopOrder.NOTHING:
        return GiveBack(str(seen.asked))
    message = ((seen.ended or {}).get("error") or {}).get("message")
    if not seen.started and (seen.exit is None or seen.exit.signal is None):
        last = (seen.stderr.strip().splitlines() or [str(seen.exit)])[-1]
        return GiveBack(f"its parser cannot start on this worker: {message or last[:500]}", lost=True, rest=True)
    if seen.ended is not None:
        return machine_failed(str(message))
    return GiveBack(f"the process that prepares it ended: {seen.exit}", lost=True)


def _refuse(attempt: Attempt, seen: Observed, errors: Sequence[Mapping[str, Any]]) -> Finish:
    dataset, confined = dataset_of(attempt), read_walls(seen.ended)
    return _finish(seen, {}, lambda connection: mark_refused(connection, dataset, errors, confined))


def _publish(attempt: Attempt, seen: Observed) -> Decision:
    """Verify what the process has written, store it, and end with the dataset ready."""
    try:
        manifest = read_output(attempt.folder.out)
        _store_dataset(attempt, manifest)
    except BadShard:
        log.exception("dataset %s: its parser did not write what it said", dataset_of(attempt))
        return _refuse(attempt, seen, [refusal_document(Verdict.CRASH)])
    except (provision.ProvisionInterrupted, JobCancelled):
        return decide_interrupted(attempt)
    except StoreTaken as error:
        remedy = "Ask the operator to see `basin verify`: the store has other bytes than were written to it."
        wrong = {"code": "engine_error", "message": error.message, "remedy": remedy}
        return Finish(Status.FAILED, None, wrong, {}, seen.progress)
    dataset, confined = dataset_of(attempt), read_walls(seen.ended)
    facts = {"version": manifest.version(), "format": manifest.format, "examples": manifest.examples}
    stored = manifest.stored_bytes()
    return _finish(
        seen, facts, lambda connection: mark_ready(connection, dataset, manifest, stored, confined or {"walls": []})
    )


def _store_dataset(attempt: Attempt, manifest: DatasetManifest) -> None:
    """Upload the shards. The version is claimed first, so that garbage collection leaves its objects."""
    heartbeat, context = attempt.heartbeat, attempt.context
    heartbeat.retry_write(partial(_claim, attempt, manifest.version()))
    patience = context.settings.outage_seconds
    publisher = DatasetPublisher(
        context.store, lambda call: heartbeat.retry_store_call(call, patience), lambda: check_interrupted(attempt)
    )
    publisher.publish(attempt.folder.out, manifest)


def _claim(attempt: Attempt, version: str) -> None:
    with fenced_transaction(attempt.context.db, attempt.fence) as connection:
        claim_version(connection, dataset_of(attempt), version)


def _finish(seen: Observed, results: dict[str, Any], further: Further) -> Finish:
    return Finish(Status.SUCCEEDED, "completed", None, results, seen.progress, further)
