"""One attempt of one job: claim -> provision -> launch -> watch -> conclude. The pipeline reads from top to bottom."""

import contextlib
import logging
import time
from dataclasses import replace
from typing import Final

from core.db.session import Database, is_transient
from core.jobs.claim import Claim, claim
from core.jobs.fence import Fence, Fenced
from core.jobs.metrics import Chunk
from core.jobs.tally import FENCED_WRITES, tally
from core.lifecycle import Desired, Status
from core.logs import about
from core.machine import is_machine_failure
from core.recipe.assignment import AnalysisAssignment, Assignment
from core.recipe.plan import resolve_plan, smaller
from core.recipe.spec import JobSpec
from core.store.base import StoreRefused, StoreTransient
from worker import lifeline, memory, provision, wire
from worker.assignment import build_assignment
from worker.attempt import Attempt, Shop, Slot
from worker.backlog import Backlog
from worker.conclude import conclude, return_job
from worker.heart import Abandoned, Heart, Unwanted
from worker.launcher import Exit, LaunchFailed, RunnerProcess
from worker.outcome import Asked, Cut, Decision, Finish, GiveBack, Observed, decide, machine_failed
from worker.recorder import Recorder
from worker.watch import Watch

log = logging.getLogger(__name__)

READY_SECONDS: Final = 60.0
READY_TICK: Final = 0.2
EXIT_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 15.0  # of a slot whose own machine failed: time for healthy workers to take the job


def serve_one(shop: Shop, slot: Slot) -> bool:
    """Serve the best queued job from its claim to its end; False when nothing waits or nothing can be claimed now.

    After trouble of this machine's own the job is given back, and the slot rests before anything else is claimed.
    """
    if not _ready(shop) or not _store_answers(shop):
        return False
    claimed_at = time.monotonic()
    taken = _claim(shop, slot)
    if taken is None:
        return False
    with about(job_id=taken.job_id, attempt=taken.attempt):
        _serve_claimed(shop, slot, taken, claimed_at)
    return True


def _serve_claimed(shop: Shop, slot: Slot, taken: Claim, claimed_at: float) -> None:
    heart = Heart(shop.db, Fence(taken.job_id, taken.attempt), shop.settings, shop.stopping, claimed_at)
    heart.start()
    healthy = True
    try:
        healthy = _attempted(shop, slot, taken, heart)
    except (Fenced, Abandoned):
        log.warning("job %s attempt %d is no longer ours", taken.job_id, taken.attempt)
    except Exception:
        # The lease ends by itself, and the reconciler gives the job to somebody else.
        log.exception("job %s attempt %d: its supervisor failed", taken.job_id, taken.attempt)
    finally:
        heart.stop()
        if heart.fenced:
            _count_fenced(shop.db)
    if not healthy:
        shop.stopping.wait(PAUSE_SECONDS)


def _count_fenced(db: Database) -> None:
    """One for each attempt, which stops at the first write that is refused; best effort, after the fact."""
    try:
        with db.write() as connection:
            tally(connection, FENCED_WRITES)
    except Exception as error:  # noqa: BLE001 - nothing depends on this number
        log.warning("a fenced write was not counted: %s", error)


def _attempted(shop: Shop, slot: Slot, taken: Claim, heart: Heart) -> bool:
    """The attempt, to its end; False when this machine could not do its part and the job was given back."""
    try:
        with shop.scratch.folder(taken.job_id, taken.attempt) as folder:
            decision = _serve(Attempt(shop, slot, taken, heart, folder))
            return not (isinstance(decision, GiveBack) and decision.rest)
    except provision.DatasetTrouble:
        # It may be the dataset that is too large for any machine: this counts, unless we were told to stop.
        back = GiveBack("its dataset could not be written", lost=not shop.stopping.is_set())
    except (StoreTransient, StoreRefused) as error:
        # Away is not damaged: marking what cannot be asked for would burn the whole chain of checkpoints.
        log.warning("job %s attempt %d: the store is away: %s", taken.job_id, taken.attempt, error)
        back = GiveBack("the store of its checkpoint was away")
    except OSError as error:
        log.exception("job %s attempt %d: this machine failed; see its disk", taken.job_id, taken.attempt)
        back = machine_failed(error.strerror or str(error))
    return_job(shop, heart, back)
    return False


def _ready(shop: Shop) -> bool:
    """Whether a runner could start now: a job is not claimed before, because another worker may be ready for it."""
    deadline = time.monotonic() + READY_SECONDS
    while not shop.stopping.is_set() and time.monotonic() < deadline:
        if shop.launcher.wait_ready(READY_TICK):
            return True
    return False


def _store_answers(shop: Shop) -> bool:
    """Whether the store works: while it is away nothing is claimed, since its checkpoints cannot be had or stored."""
    try:
        shop.store.ping()
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("no claim: the store is away: %s", error)
        return False
    return True


def _claim(shop: Shop, slot: Slot) -> Claim | None:
    try:
        return claim(
            shop.db,
            worker=shop.name,
            needs=slot.needs,
            plan_for=lambda spec: resolve_plan(spec, slot.kind),
            lease_seconds=shop.settings.lease_seconds,
        )
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("no claim: the database is away: %s", error)
        return None


def _serve(attempt: Attempt) -> Decision:
    """The attempt, to its end, which is written; the decision about it."""
    log.info("job %s attempt %d begins in slot %d", attempt.claim.job_id, attempt.claim.attempt, attempt.slot.index)
    attempt.folder.stderr.touch()  # a disk that is not ours to write must not look like the runner's failure
    seen, chunks = Observed(), tuple[Chunk, ...]()
    try:
        assignment = build_assignment(attempt)
        runner = attempt.shop.launcher.launch(attempt.folder.stderr, attempt.slot.devices)
    except provision.BadDataset as error:
        bad = {"code": "bad_data", "message": str(error), "remedy": "Change the fields of the job's data."}
        decision: Decision = Finish(Status.FAILED, None, bad, {}, {})
    except provision.NoWayOn as error:
        lost = {"code": "engine_error", "message": str(error), "remedy": error.remedy}
        decision = Finish(Status.FAILED, None, lost, {}, {})
    except (provision.Interrupted, Unwanted):
        decision = decide(_unstarted(attempt))
    except LaunchFailed as error:
        log.exception("job %s: no runner", attempt.claim.job_id)
        decision = decide(Observed(cut=Cut.MACHINE if is_machine_failure(error.__cause__) else Cut.UNSTARTED))
    else:
        seen, chunks = _run(attempt, runner, assignment)
        decision = decide(seen)
    conclude(attempt, decision, seen, chunks)
    return decision


def _unstarted(attempt: Attempt) -> Observed:
    """An attempt that somebody ended before it had a runner."""
    heart = attempt.heart
    if heart.fenced or heart.given_up:
        return Observed(cut=Cut.FENCED if heart.fenced else Cut.OUT_OF_TOUCH)
    asked = {Desired.CANCEL: Asked.CANCEL, Desired.PAUSE: Asked.PAUSE}.get(heart.desired, Asked.STOP)
    return Observed(asked=asked)


def _run(
    attempt: Attempt, runner: RunnerProcess, assignment: Assignment | AnalysisAssignment
) -> tuple[Observed, tuple[Chunk, ...]]:
    """Give the order, watch until the runner is gone and everything it said is written."""
    shop, heart, claimed = attempt.shop, attempt.heart, attempt.claim
    backlog = Backlog(attempt.folder.spill)
    recorder = Recorder(heart, shop.store, backlog, assignment.resume, attempt.folder.out)
    recorder.start()
    watch = Watch(runner, heart, backlog, recorder)
    kills = memory.oom_kills()
    try:
        with contextlib.suppress(OSError):  # a runner that is gone already shows in its exit
            runner.sock.sendall(wire.pack("assignment", claimed.job_id, {"assignment": assignment.dump()}))
        seen = watch.until_end()
    finally:
        how = _bury(runner)
        chunks = recorder.close()
    cut = _last_word(seen, heart, recorder)
    seen = replace(
        seen,
        exit=how,
        cut=cut,
        stderr=lifeline.tail(attempt.folder.stderr),
        out_of_memory=memory.oom_kills() > kills,
        has_checkpoint=recorder.has_checkpoint,
        retries_left=claimed.failures < claimed.spec.max_retries,
        smaller=smaller(claimed.spec, claimed.plan) if isinstance(claimed.spec, JobSpec) else None,
    )
    return seen, chunks


def _bury(runner: RunnerProcess) -> Exit:
    """No slot is offered again before its runner is dead: a moment to leave by itself, then SIGKILL for its group."""
    runner.sock.close()
    how = runner.wait(EXIT_SECONDS)
    while how is None:
        runner.kill()
        how = runner.wait(EXIT_SECONDS)
        if how is None:
            log.warning(
                "the runner %s is not gone %.0f s after SIGKILL; its slot waits for it", runner.pid, EXIT_SECONDS
            )
    return how


def _last_word(seen: Observed, heart: Heart, recorder: Recorder) -> Cut:
    """Why the attempt was cut, now that everything is in: a refused write outweighs what the runner said."""
    if heart.fenced:
        return Cut.FENCED
    if heart.given_up:
        return Cut.OUT_OF_TOUCH
    unstored = seen.ended is not None and seen.ended["outcome"] == "succeeded" and bool(recorder.missing)
    if recorder.failure is not None or unstored:
        return Cut.MACHINE if recorder.machine_failed else Cut.UNRECORDED
    return seen.cut
