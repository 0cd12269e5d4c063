"""The end of an attempt: one transition of its job under the fence, and whether its slot stays in service."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.datasets.prepare import mark_refused
from core.jobs.events.log import record_events
from core.jobs.metrics.chunks import Chunk
from core.lifecycle import Desired, Status
from core.machine_failure import is_machine_failure
from core.redact import redact_secrets
from worker import provision
from worker.assignment import is_interrupted
from worker.attempt import Attempt, SlotFailed, WorkerContext
from worker.devices.report import DeviceReport
from worker.heartbeat import Heartbeat
from worker.kinds import load_function
from worker.launcher import LaunchFailed, RunnerProcess
from worker.outcome import (
    Decision,
    Finish,
    GiveBack,
    KillReason,
    Observed,
    StopOrder,
    decide_outcome,
    machine_failed,
    suspects_device,
)

log = logging.getLogger(__name__)

PROBE_TICK: Final = 0.2


def decide_unstarted(attempt: Attempt, error: Exception) -> Decision:
    """The decision for an attempt without a runner: its inputs cannot be provided, no runner starts, or it is ended."""
    match error:
        case provision.BadDataset():
            bad = {"code": "bad_data", "message": str(error), "remedy": error.remedy}
            return Finish(Status.FAILED, None, bad, {}, {})
        case provision.BadUpload():
            dataset, problems = error.dataset_id, error.problems
            return Finish(
                Status.SUCCEEDED, "completed", None, {}, {}, lambda found: mark_refused(found, dataset, problems)
            )
        case provision.CannotResume():
            lost = {"code": "engine_error", "message": str(error), "remedy": error.remedy}
            return Finish(Status.FAILED, None, lost, {}, {})
        case LaunchFailed():
            log.error("job %s: no runner", attempt.claim.job_id, exc_info=error)
            return decide_outcome(
                Observed(cut=KillReason.MACHINE if is_machine_failure(error.__cause__) else KillReason.UNSTARTED)
            )
        case _:
            return decide_interrupted(attempt)


def decide_interrupted(attempt: Attempt) -> Decision:
    """The decision for an attempt that is ended while it has no process."""
    return decide_outcome(_unwanted(attempt))


def decide_trouble(fence: Fence, error: Exception, *, stopping: bool) -> GiveBack:
    """The decision for an attempt whose dataset, store or disk this machine cannot use."""
    match error:
        case provision.DatasetUnavailable():
            # The dataset may be too large for every machine: a loss, unless this worker is stopping.
            return GiveBack("its dataset could not be written", lost=not stopping)
        case OSError():
            log.error(
                "job %s attempt %d: this machine failed; see its disk", fence.job_id, fence.attempt, exc_info=error
            )
            return machine_failed(error.strerror or str(error))
        case _:
            # A store that is away has no damaged files: marking them corrupt would discard every checkpoint of the job.
            log.warning("job %s attempt %d: the store is away: %s", fence.job_id, fence.attempt, error)
            return GiveBack("the store of its checkpoint was away")


def _unwanted(attempt: Attempt) -> Observed:
    """What is known about an attempt that was ended before it had a runner."""
    heartbeat = attempt.heartbeat
    if heartbeat.fenced or heartbeat.given_up:
        return Observed(cut=KillReason.FENCED if heartbeat.fenced else KillReason.OUT_OF_TOUCH)
    asked = {Desired.CANCEL: StopOrder.CANCEL, Desired.PAUSE: StopOrder.PAUSE}.get(heartbeat.desired, StopOrder.STOP)
    return Observed(asked=asked)


def conclude_attempt(attempt: Attempt, decision: Decision, seen: Observed, chunks: Sequence[Chunk]) -> None:
    """Write the decision: exactly one transition, under the fence."""
    context, fence, persist = attempt.context, attempt.fence, attempt.heartbeat.retry_write
    match decision:
        case Finish():
            ending = TerminalState(
                decision.status,
                decision.stop_reason,
                decision.error,
                decision.results,
                decision.progress,
                decision.further,
            )
            if decision.error and seen.stderr.strip():
                persist(lambda: _record_stderr(attempt, seen))
            persist(lambda: finish_job(context.db, fence, ending, chunks))
            log.info("job %s attempt %d: %s", fence.job_id, fence.attempt, decision.status)
            if decision.error:
                log.warning("job %s: %s\n%s", fence.job_id, decision.error["message"], seen.stderr)
        case GiveBack():
            if decision.lost or decision.failed or decision.plan:
                persist(lambda: _record_death(attempt, decision, seen))
            if decision.rest:
                log.error("job %s: %s\n%s", fence.job_id, decision.cause, seen.stderr)
            return_job(context, attempt.heartbeat, decision)
        case _:
            log.warning("job %s attempt %d ends without a transition: %s", fence.job_id, fence.attempt, seen.cut)


def return_job(context: WorkerContext, heartbeat: Heartbeat, back: GiveBack) -> None:
    """Give the job back."""
    fence, limit = heartbeat.fence, context.settings.max_losses
    facts = {name: value for name, value in vars(back).items() if name != "rest"}
    status = heartbeat.retry_write(partial(give_back, context.db, fence, max_losses=limit, **facts))
    log.info("job %s attempt %d: %s, now %s", fence.job_id, fence.attempt, back.cause, status)


def conclude_run(attempt: Attempt, runner: RunnerProcess, seen: Observed, chunks: Sequence[Chunk]) -> Decision:
    """Conclude an attempt that had a runner, and check that its slot can take another job.

    The device is probed first, because the decision depends on it; not if a cancel, pause or stop waits for the end.

    Raises:
        SlotFailed: the slot cannot take another job, whether or not the conclusion was written.
    """
    slot = attempt.slot
    suspect = slot.kind == "gpu" and suspects_device(seen) and not seen.unkillable
    if suspect and seen.asked is StopOrder.NOTHING:
        seen = replace(seen, device=_probed(attempt))
    own = attempt.kind.own_process
    decision = decide_outcome(seen) if own is None else load_function(own.conclude)(attempt, seen)
    try:
        conclude_attempt(attempt, decision, seen, chunks)
    except Exception as error:
        if (failure := _slot_failure(attempt, runner, seen, suspect=suspect)) is not None:
            raise failure from error
        raise
    if (failure := _slot_failure(attempt, runner, seen, suspect=suspect)) is not None:
        raise failure
    return decision


def _slot_failure(attempt: Attempt, runner: RunnerProcess, seen: Observed, *, suspect: bool) -> SlotFailed | None:
    """Why the slot cannot be offered again after an attempt; None: it can, or its worker is stopping."""
    slot, context = attempt.slot, attempt.context
    if seen.unkillable:
        detail = f"the runner {runner.pid} does not die of SIGKILL"
        return SlotFailed(DeviceReport.from_failure(slot.devices or slot.kind, "unkillable", detail), runner)
    if not suspect or (seen.device is None and context.stopping.is_set()):
        return None
    report = seen.device or context.devices.check_device(slot.devices or "")
    failed = (seen.ended or {}).get("outcome") == "failed"
    return SlotFailed(_failed_before(report, seen) if report.ok else report) if failed or not report.ok else None


def _probed(attempt: Attempt) -> DeviceReport | None:
    """Probe the slot's device, which may take minutes; None when a cancel, pause or stop interrupts the wait."""
    context, slot = attempt.context, attempt.slot
    found: list[DeviceReport] = []
    probe = threading.Thread(
        target=lambda: found.append(context.devices.check_device(slot.devices or "")), name="device-probe", daemon=True
    )
    probe.start()
    while probe.is_alive() and not is_interrupted(attempt):
        probe.join(PROBE_TICK)
    return found[0] if found else None


def _failed_before(report: DeviceReport, seen: Observed) -> DeviceReport:
    """The report of a device that failed under this job and passes its probe: its slot still goes out of service."""
    error = (seen.ended or {}).get("error") or {}
    reason = "memory_in_use" if error.get("foreign") else "failed"
    return replace(report, ok=False, reason=reason, detail=str(error.get("message")))


def _record_stderr(attempt: Attempt, seen: Observed) -> None:
    """Record the last output of a failed job's runner: its user cannot read the log of the worker."""
    words = {
        "code": "attempt_failed",
        "message": "the last output of the runner",
        "stderr": redact_secrets(seen.stderr[-2000:]),
    }
    record_events(attempt.context.db, attempt.fence, "warning", [words])


def _record_death(attempt: Attempt, decision: GiveBack, seen: Observed) -> None:
    """Record the cause of a lost attempt in the job's events."""
    code = "remedy" if decision.plan else "attempt_lost"
    death: dict[str, Any] = {"code": code, "message": decision.cause, "stderr": redact_secrets(seen.stderr[-2000:])}
    if seen.exit is not None:
        death |= {"exit_code": seen.exit.code, "signal": seen.exit.signal}
    record_events(attempt.context.db, attempt.fence, "warning", [death])
