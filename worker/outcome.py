"""How an attempt ended -> the next state of its job. One pure table.

A *loss* (a process that was killed, or that ended without output) is not the job's fault: the job is queued again
within the budget of losses without a checkpoint. A *machine* failure (its disk, its descriptors) does not count: the
job returns to the queue, and the slot pauses. The same holds for a GPU that a probe finds broken, or whose memory other
processes use. After out of memory the job is retried with half as many examples at once, as long as that changes no
result. A *failure* (out of memory without a smaller plan, an error in the engine) is the job's own: it is final unless
`max_retries` allows another try. `diverged` and `bad_data` would fail again with the same bits: no retry.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from core.lifecycle import Status
from core.recipe.plan import ExecutionPlan
from worker.devices.report import DeviceReport
from worker.exit_codes import MACHINE_FAILED
from worker.launcher import ProcessExit

if TYPE_CHECKING:
    from sqlalchemy import Connection

RETRYABLE: Final = frozenset({"out_of_memory", "engine_error"})
REMEDIES: Final = {
    "out_of_memory": "Use a smaller batch_size or model, or a machine with more memory.",
    "diverged": "Lower optimizer.lr, add a warm-up, or standardize the data.",
    "engine_error": "The message shows where it happened; report it with the job's spec.",
}

KEPT: Final = "The last finite checkpoint is kept."
NONE_KEPT: Final = "There is no checkpoint to go back to; checkpoints.every says how often one is written."


class StopOrder(StrEnum):
    """What the supervisor has ordered its runner to do."""

    NOTHING = "nothing"
    CANCEL = "cancel"
    PAUSE = "pause"
    STOP = "stop"


class KillReason(StrEnum):
    """Why the supervisor itself killed its runner."""

    NO = "no"
    FENCED = "fenced"
    OUT_OF_TOUCH = "out_of_touch"
    STALLED = "stalled"
    OVERTIME = "overtime"
    UNRECORDED = "unrecorded"
    UNSTARTED = "unstarted"
    MACHINE = "machine"


_CAUSES: Final = {
    KillReason.STALLED: "stalled",
    KillReason.UNRECORDED: "its results could not be recorded",
    KillReason.UNSTARTED: "no runner could be started",
}


@dataclass(frozen=True)
class Observed:
    """Everything the supervisor knows about the end of an attempt."""

    ended: dict[str, Any] | None = None  # the runner's last frame
    started: bool = False  # the process has reported that its work begins
    exit: ProcessExit | None = None
    asked: StopOrder = StopOrder.NOTHING
    cut: KillReason = KillReason.NO
    stderr: str = ""
    out_of_memory: bool = False  # the kernel killed a process of this control group for memory
    retries_left: bool = False
    has_checkpoint: bool = False  # from which an attempt can continue
    unkillable: bool = False  # it did not die of SIGKILL
    device: DeviceReport | None = None  # the probe after an end that may be the device's fault
    smaller: ExecutionPlan | None = None  # the plan for less memory, if there is one
    progress: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finish:
    """The job ends in a terminal status."""

    status: Status
    stop_reason: str | None
    error: dict[str, Any] | None
    results: dict[str, Any]
    progress: dict[str, Any]
    further: "Callable[[Connection], object] | None" = None
    """Writes the rows besides that belong to this end, in the transaction that ends the job."""


@dataclass(frozen=True)
class GiveBack:
    """The job returns to the queue, or takes the status that its user has requested (paused, cancelled).

    `lost` counts against its budget of losses, `failed` as one of its own failures; with neither, nothing is counted.
    `plan` is its execution plan from now on, where a new plan is the remedy. `progress` is the last reported progress.
    `rest`: this machine failed, so its slot takes no job for a while.
    """

    cause: str
    lost: bool = False
    failed: bool = False
    plan: ExecutionPlan | None = None
    progress: dict[str, Any] | None = None
    rest: bool = False


@dataclass(frozen=True)
class WriteNothing:
    """Write nothing: another attempt owns the job, or the database stayed away for too long."""


Decision = Finish | GiveBack | WriteNothing


def decide_outcome(seen: Observed) -> Decision:
    """The table, first match wins: what the supervisor did, what the runner reported, how the process ended."""
    if seen.cut in {KillReason.FENCED, KillReason.OUT_OF_TOUCH}:
        return WriteNothing()
    if seen.unkillable and seen.ended is None:
        return GiveBack("its runner cannot be killed", lost=seen.asked is StopOrder.NOTHING)
    if seen.device is not None and seen.device.is_broken:  # the end of the attempt is not the job's fault
        return GiveBack(f"its GPU failed: {seen.device.detail}")
    if seen.cut is KillReason.MACHINE:
        return machine_failed()
    if seen.cut in _CAUSES:
        return GiveBack(_CAUSES[seen.cut], lost=True)
    return _decide_exit(seen) if seen.ended is None else _decide_reported(seen, seen.ended)


def machine_failed(how: str = "see its log") -> GiveBack:
    """The decision for a failure of this machine, which does not count against the job."""
    return GiveBack(f"the machine of its worker failed: {how}", rest=True)


def suspects_device(seen: Observed) -> bool:
    """Whether the end of an attempt may be its device's fault, so that the device must pass a probe."""
    error = (seen.ended or {}).get("error") or {}
    killed = (
        seen.ended is None and seen.exit is not None and seen.exit.signal is not None and not seen.exit.zygote_killed
    )
    return (
        error.get("code") == "device_failed" or bool(error.get("foreign")) or killed or seen.cut is KillReason.STALLED
    )


def _decide_reported(seen: Observed, ended: dict[str, Any]) -> Decision:
    """What the runner itself reported."""
    progress = ended.get("progress") or seen.progress
    results = ended.get("results") or {}
    match ended["outcome"]:
        case "succeeded":
            return Finish(Status.SUCCEEDED, ended["stop_reason"] or "completed", None, results, progress)
        case "cancelled" if seen.asked is StopOrder.CANCEL:
            return Finish(Status.CANCELLED, "cancelled", None, results, progress)
        case "failed":
            error = ended.get("error") or {}
            return _decide_machine_fault(seen, error) or _decide_failure(
                seen, error, ended["stop_reason"], results, progress
            )
        case "stopped" if seen.asked is StopOrder.CANCEL:
            return Finish(Status.CANCELLED, "cancelled", None, results, progress)
        case _:  # stopped at a checkpoint, or a SIGTERM from outside the worker came first
            return GiveBack(
                "stopped" if seen.asked is StopOrder.NOTHING else str(seen.asked), progress=progress or None
            )


def _decide_machine_fault(seen: Observed, error: dict[str, Any]) -> GiveBack | None:
    """The decision when the runner reports a fault of its machine or device; None: it reports none."""
    message = error.get("message")
    if error.get("code") == "machine_failed":
        return machine_failed(str(message))
    if error.get("code") == "device_failed":
        # The device passes its probe. A job that breaks device after device is stopped by its budget of losses.
        return GiveBack(f"its GPU failed: {message}", lost=seen.asked is StopOrder.NOTHING)
    if error.get("foreign"):
        return GiveBack(f"out of memory, which others use: {message}")
    return None


def _decide_exit(seen: Observed) -> Decision:
    """The process ended without a final frame."""
    if seen.asked is StopOrder.CANCEL:
        return Finish(Status.CANCELLED, "cancelled", None, {}, seen.progress)
    if seen.asked in {StopOrder.PAUSE, StopOrder.STOP}:
        late = (
            "" if seen.exit is None else ": no checkpoint in time, the last one counts"
        )  # None: no runner was started
        return GiveBack(f"{seen.asked}{late}")
    return _decide_death(seen)


def _decide_death(seen: Observed) -> Decision:
    """The process ended without an order to end."""
    how = seen.exit or ProcessExit(signal=signal.SIGKILL)
    if how.zygote_killed:  # this worker killed it together with its zygote: no loss
        return GiveBack("its worker replaced a zygote that did not answer")
    if "bad_alloc" in seen.stderr or (seen.out_of_memory and how.signal == signal.SIGKILL):
        error = {"code": "out_of_memory", "message": "The training needed more memory than this worker has."}
        return _decide_failure(seen, error, None, {}, seen.progress)
    if how.code == MACHINE_FAILED:
        return machine_failed()
    if how.signal is not None:
        return GiveBack(f"the runner was {how}", lost=True)
    if not seen.stderr.strip():
        return GiveBack(f"the runner ended without output, {how}", lost=True)
    said = seen.stderr.strip().splitlines()[-1]  # all of it is in the worker's log
    error = {"code": "engine_error", "message": f"The runner ended with {how}. {said[:500]}"}
    return _decide_failure(seen, error, None, {}, seen.progress)


def _decide_failure(
    seen: Observed,
    error: dict[str, Any],
    stop_reason: str | None,
    results: dict[str, Any],
    progress: dict[str, Any],
) -> Decision:
    code = error.get("code") or "engine_error"
    if code == "out_of_memory" and seen.smaller is not None and error.get("where") != "build":
        size = seen.smaller.micro_batch
        return GiveBack(
            f"out of memory: from now on at most {size} examples at once, batches as before", plan=seen.smaller
        )
    if code in RETRYABLE and seen.retries_left:
        return GiveBack(f"retry after {code}", failed=True)
    remedy = error.get("remedy") or REMEDIES.get(code)
    if code == "diverged":
        remedy = f"{remedy} {KEPT if seen.has_checkpoint else NONE_KEPT}"
    whole = {"code": code, "message": error.get("message") or "The training failed.", "remedy": remedy}
    reason = "non_finite" if code == "diverged" else stop_reason
    return Finish(Status.FAILED, reason, whole, results, progress)
