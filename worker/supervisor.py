"""One attempt of one job: claim -> provision -> launch -> watch -> conclude. The pipeline reads from top to bottom."""

import contextlib
import logging
import time
from dataclasses import replace
from typing import Final

from core.db.session import Database, is_transient
from core.jobs.attempt.fence import Fence, Fenced
from core.jobs.health.counters import FENCED_WRITES, add_count
from core.jobs.metrics.chunks import Chunk
from core.jobs.queue.claim import Claim, claim_job
from core.lifecycle import LIGHT
from core.logs import log_context
from core.recipe.assignment import AnyAssignment
from core.recipe.plan import resolve_plan
from core.recipe.plugins import plugin_names
from core.store.base import StoreRefused, StoreTransient
from worker import child_process, kernel_oom, provision, wire
from worker.assignment import build_assignment
from worker.attempt import Attempt, Slot, SlotFailed, WorkerContext
from worker.backlog import Backlog
from worker.conclude import conclude_attempt, conclude_run, decide_trouble, decide_unstarted, return_job
from worker.heartbeat import AttemptAbandoned, Heartbeat, JobCancelled
from worker.kinds import load_function
from worker.launcher import LaunchFailed, ProcessExit, RunnerProcess
from worker.outcome import Decision, GiveBack, KillReason, Observed
from worker.recorder import Recorder
from worker.watch import RunnerWatch

log = logging.getLogger(__name__)

READY_SECONDS: Final = 60.0
READY_TICK: Final = 0.2
EXIT_SECONDS: Final = 5.0


def serve_one(context: WorkerContext, slot: Slot) -> bool:
    """Serve the best queued job from its claim to its end; False when nothing waits or nothing can be claimed now.

    After a failure of this machine the job is given back, and the slot pauses before the next claim.

    Raises:
        SlotFailed: the slot cannot be used; its job, if it had one, is given back.
    """
    # The light lane does not wait for the zygote: its jobs start processes of their own.
    if not (slot.kind == LIGHT or _runner_ready(context)) or not _store_answers(context):
        return False
    _check_device(context, slot)
    claimed_at = time.monotonic()
    taken = _claim_job(context, slot)
    if taken is None:
        return False
    with log_context(job_id=taken.job_id, attempt=taken.attempt):
        _serve_claimed(context, slot, taken, claimed_at)
    return True


def _serve_claimed(context: WorkerContext, slot: Slot, taken: Claim, claimed_at: float) -> None:
    heartbeat = Heartbeat(
        context.db, Fence(taken.job_id, taken.attempt), context.settings, context.stopping, claimed_at
    )
    heartbeat.start()
    healthy = True
    try:
        healthy = _run_attempt(context, slot, taken, heartbeat)
    except (Fenced, AttemptAbandoned):
        log.warning("job %s attempt %d no longer owns the job", taken.job_id, taken.attempt)
    except SlotFailed as failure:
        if failure.__cause__ is not None:
            log.warning("job %s attempt %d was not concluded", taken.job_id, taken.attempt, exc_info=failure.__cause__)
        raise
    except Exception:
        # The lease expires, and the reconciler returns the job to the queue.
        log.exception("job %s attempt %d: its supervisor failed", taken.job_id, taken.attempt)
    finally:
        heartbeat.stop()
        if heartbeat.fenced:
            _count_fenced(context.db)
    if not healthy:
        context.stopping.wait(context.settings.machine_pause_seconds)


def _count_fenced(db: Database) -> None:
    """Count one refused write for the attempt, which stops at its first one; best effort."""
    try:
        with db.write() as connection:
            add_count(connection, FENCED_WRITES)
    except Exception as error:  # noqa: BLE001 - only a statistic
        log.warning("a fenced write was not counted: %s", error)


def _run_attempt(context: WorkerContext, slot: Slot, taken: Claim, heartbeat: Heartbeat) -> bool:
    """Run the attempt to its end; False when this machine failed and the job was given back."""
    try:
        with context.scratch.attempt_folder(taken.job_id, taken.attempt) as folder, contextlib.ExitStack() as held:
            decision = _serve_attempt(Attempt(context, slot, taken, heartbeat, folder, held))
            return not (isinstance(decision, GiveBack) and decision.rest)
    except (provision.DatasetUnavailable, StoreTransient, StoreRefused, OSError) as error:
        return_job(context, heartbeat, decide_trouble(heartbeat.fence, error, stopping=context.stopping.is_set()))
        return False


def _runner_ready(context: WorkerContext) -> bool:
    """Whether a runner could start now: no job is claimed before, because another worker may be ready."""
    deadline = time.monotonic() + READY_SECONDS
    while not context.stopping.is_set() and time.monotonic() < deadline:
        if context.launcher.wait_ready(READY_TICK):
            return True
    return False


def _check_device(context: WorkerContext, slot: Slot) -> None:
    """Raise SlotFailed when other processes use the memory of the GPU: no job is claimed for it."""
    if slot.kind == "gpu" and slot.devices:
        report = context.devices.await_room(slot.devices, context.stopping)
        if report is not None:
            raise SlotFailed(report)


def _store_answers(context: WorkerContext) -> bool:
    """Whether the store works: while it is away nothing is claimed, since checkpoints cannot be read or stored."""
    try:
        context.store.ping()
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("no claim: the store is away: %s", error)
        return False
    return True


def _claim_job(context: WorkerContext, slot: Slot) -> Claim | None:
    try:
        return claim_job(
            context.db,
            worker=context.name,
            needs=slot.needs,
            plan_for=lambda spec: resolve_plan(spec, slot.computes_on),
            lease_seconds=context.settings.lease_seconds,
            kinds=context.job_kinds,
            plugins=plugin_names(),
        )
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("no claim: the database is away: %s", error)
        return None


def _serve_attempt(attempt: Attempt) -> Decision:
    """Run the attempt to its end and write that; the decision about the job."""
    log.info("job %s attempt %d begins in slot %d", attempt.claim.job_id, attempt.claim.attempt, attempt.slot.index)
    attempt.folder.stderr.touch()  # a disk that cannot be written must not count as a failure of the runner
    try:
        assignment = build_assignment(attempt)
        runner = _launch_process(attempt, assignment)
    except (
        provision.BadDataset,
        provision.BadUpload,
        provision.CannotResume,
        provision.ProvisionInterrupted,
        JobCancelled,
        LaunchFailed,
    ) as error:
        decision = decide_unstarted(attempt, error)
        conclude_attempt(attempt, decision, Observed(), ())
        return decision
    seen, chunks = _watch_runner(attempt, runner, assignment)
    return conclude_run(attempt, runner, seen, chunks)


def _launch_process(attempt: Attempt, assignment: AnyAssignment) -> RunnerProcess:
    """Start the runner of an attempt, or the process that its kind has instead. Raises LaunchFailed."""
    own = attempt.kind.own_process
    if own is None:
        return attempt.context.launcher.launch(attempt.folder.stderr, attempt.slot.devices)
    started: RunnerProcess = load_function(own.launch)(attempt, assignment)
    return started


def _watch_runner(
    attempt: Attempt, runner: RunnerProcess, assignment: AnyAssignment
) -> tuple[Observed, tuple[Chunk, ...]]:
    """Send the assignment, and watch until the runner is gone and all its frames are written."""
    context, heartbeat, claimed = attempt.context, attempt.heartbeat, attempt.claim
    backlog = Backlog(attempt.folder.spill)
    recorder = Recorder(heartbeat, context.store, backlog, assignment.resume, attempt.folder.out)
    recorder.start()
    own = attempt.kind.own_process
    limit = None if own is None else own.most_seconds(context.settings)
    watch = RunnerWatch(runner, heartbeat, backlog, recorder, most_seconds=limit)
    kills = kernel_oom.oom_kills()
    try:
        with contextlib.suppress(OSError):  # a runner that is gone already shows in its exit
            runner.sock.sendall(wire.pack_frame("assignment", claimed.job_id, {"assignment": assignment.dump()}))
        seen = watch.watch_until_end()
    finally:
        how = _reap_runner(runner, context.settings.unkillable_seconds)
        chunks = recorder.close()
    cut = _final_flush(seen, heartbeat, recorder)
    seen = replace(
        seen,
        exit=how,
        unkillable=how is None,
        cut=cut,
        stderr=child_process.read_tail(attempt.folder.stderr),
        out_of_memory=kernel_oom.oom_kills() > kills,
        has_checkpoint=recorder.has_checkpoint,
        retries_left=claimed.failures < claimed.spec.max_retries,
        smaller=attempt.kind.smaller_plan(claimed.spec, claimed.plan),
    )
    return seen, chunks


def _reap_runner(runner: RunnerProcess, patience: float) -> ProcessExit | None:
    """Wait until the runner has exited, so that its slot can be offered again; after a moment SIGKILL its group.

    None: it still runs after `patience` seconds, because a driver or a disk blocks it in the kernel.
    """
    runner.sock.close()
    how = runner.wait(min(EXIT_SECONDS, patience))
    deadline = time.monotonic() + patience
    while how is None and time.monotonic() < deadline:
        runner.kill()
        how = runner.wait(min(EXIT_SECONDS, patience))
        if how is None:
            log.warning("the runner %s is not gone after SIGKILL; its slot waits for it", runner.pid)
    return how


def _final_flush(seen: Observed, heartbeat: Heartbeat, recorder: Recorder) -> KillReason:
    """Why the attempt was killed, after the last write: a refused write outweighs what the runner reported."""
    if heartbeat.fenced:
        return KillReason.FENCED
    if heartbeat.given_up:
        return KillReason.OUT_OF_TOUCH
    unstored = seen.ended is not None and seen.ended["outcome"] == "succeeded" and bool(recorder.missing)
    if recorder.failure is not None or unstored:
        return KillReason.MACHINE if recorder.machine_failed else KillReason.UNRECORDED
    return seen.cut
