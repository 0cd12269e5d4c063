"""One attempt of one job: claim -> provision -> launch -> watch -> conclude. The pipeline reads from top to bottom."""

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from core.db.session import Database, is_transient
from core.jobs.analyses import Found, Look
from core.jobs.checkpoints import CheckpointRow, mark_corrupt
from core.jobs.claim import Claim, claim
from core.jobs.fence import Fence, Fenced
from core.jobs.finish import Ending, finish, give_back
from core.jobs.journal import record_events
from core.jobs.metrics import Chunk
from core.jobs.tally import FENCED_WRITES, tally
from core.lifecycle import Desired, Status
from core.logs import about
from core.recipe.assignment import AnalysisAssignment, Assignment, Reading, Resume, Source
from core.recipe.plan import SlotKind, resolve_plan, smaller
from core.recipe.spec import JobSpec
from core.redact import redact
from core.settings import Settings
from core.store.base import Store, StoreTransient
from worker import lifeline, provision, wire
from worker.backlog import Backlog
from worker.heart import Abandoned, Heart, Unwanted
from worker.launcher import Exit, Launcher, LaunchFailed, RunnerProcess
from worker.outcome import Asked, Cut, Decision, Finish, GiveBack, Observed, decide
from worker.recorder import Recorder
from worker.watch import Watch

log = logging.getLogger(__name__)

READY_SECONDS: Final = 60.0
READY_TICK: Final = 0.2
EXIT_SECONDS: Final = 5.0
FETCH_SECONDS: Final = 10.0  # after that a checkpoint that the store does not give counts as damaged
PAUSE_SECONDS: Final = 15.0  # of a slot whose own machine failed: time for healthy workers to take the job


@dataclass(frozen=True)
class Slot:
    """A place for one runner. `devices` is what CUDA may see; None leaves that alone."""

    index: int
    kind: SlotKind
    devices: str | None = None

    @property
    def needs(self) -> Sequence[str]:
        return (self.kind, "any")


@dataclass(frozen=True)
class Shop:
    """What every supervisor of this worker works with."""

    name: str
    settings: Settings
    db: Database
    store: Store
    launcher: Launcher
    scratch: provision.Scratch
    stopping: threading.Event


@dataclass(frozen=True)
class Attempt:
    """The value that goes down the pipeline."""

    shop: Shop
    slot: Slot
    claim: Claim
    heart: Heart
    folder: provision.Folder

    @property
    def fence(self) -> Fence:
        return Fence(self.claim.job_id, self.claim.attempt)


def serve_one(shop: Shop, slot: Slot) -> bool:
    """Serve the best queued job from its claim to its end; False when nothing waits or nothing can be claimed now.

    After trouble of this machine's own the job is given back, and the slot rests before anything else is claimed.
    """
    if not _ready(shop):
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
            _serve(Attempt(shop, slot, taken, heart, folder))
    except provision.DatasetTrouble:
        # It may be the dataset that is too large for any machine: this counts, unless we were told to stop.
        back = GiveBack("its dataset could not be written", lost=not shop.stopping.is_set())
    except StoreTransient as error:
        # Away is not damaged: marking what cannot be asked for would burn the whole chain of checkpoints.
        log.warning("job %s attempt %d: the store is away: %s", taken.job_id, taken.attempt, error)
        back = GiveBack("the store of its checkpoint was away")
    except OSError:
        log.exception("job %s attempt %d: this machine failed; see its disk", taken.job_id, taken.attempt)
        back = GiveBack("the disk of its worker failed")
    else:
        return True
    _return(shop, heart, back)
    return False


def _ready(shop: Shop) -> bool:
    """Whether a runner could start now: a job is not claimed before, because another worker may be ready for it."""
    deadline = time.monotonic() + READY_SECONDS
    while not shop.stopping.is_set() and time.monotonic() < deadline:
        if shop.launcher.wait_ready(READY_TICK):
            return True
    return False


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


def _serve(attempt: Attempt) -> None:
    log.info("job %s attempt %d begins in slot %d", attempt.claim.job_id, attempt.claim.attempt, attempt.slot.index)
    attempt.folder.stderr.touch()  # a disk that is not ours to write must not look like the runner's failure
    try:
        assignment = _provision(attempt)
        runner = attempt.shop.launcher.launch(attempt.folder.stderr, attempt.slot.devices)
    except provision.BadDataset as error:
        bad = {"code": "bad_data", "message": str(error), "remedy": "Change the fields of the job's data."}
        _conclude(attempt, Finish(Status.FAILED, None, bad, {}, {}), Observed(), ())
    except provision.NoWayOn as error:
        lost = {"code": "engine_error", "message": str(error), "remedy": error.remedy}
        _conclude(attempt, Finish(Status.FAILED, None, lost, {}, {}), Observed(), ())
    except (provision.Interrupted, Unwanted):
        seen = _unstarted(attempt)
        _conclude(attempt, decide(seen), seen, ())
    except LaunchFailed:
        log.exception("job %s: no runner", attempt.claim.job_id)
        seen = Observed(cut=Cut.UNSTARTED)
        _conclude(attempt, decide(seen), seen, ())
    else:
        seen, chunks = _run(attempt, runner, assignment)
        _conclude(attempt, decide(seen), seen, chunks)


def _provision(attempt: Attempt) -> Assignment | AnalysisAssignment:
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
    return provision.dataset_file(spec.data, attempt.shop.settings.datasets, partial(_interrupted, attempt))


def _source(attempt: Attempt, number: int, look: Look) -> Source:
    """What an analysis looks at, on this machine's disk."""
    if _interrupted(attempt):
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
    """The newest checkpoint whose files are what was recorded; a bad one is marked, and never tried again."""
    shop, heart, row = attempt.shop, attempt.heart, attempt.claim.checkpoint
    while row is not None:
        try:
            return heart.reach(partial(_fetch, attempt, row), FETCH_SECONDS)
        except provision.BadCheckpoint as error:
            log.warning("job %s: %s", row.job_id, error)
            row = heart.persist(partial(mark_corrupt, shop.db, attempt.fence, row.id))
    if attempt.claim.is_fork:
        raise provision.NoWayOn("the checkpoint that this fork goes on from is damaged, and there is no other")
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
    if _interrupted(attempt):
        raise provision.Interrupted
    resume = provision.fetch_checkpoint(attempt.shop.store, row, attempt.folder.resume)
    own = row.job_id == attempt.claim.job_id
    return resume if own else resume.model_copy(update={"anew": attempt.claim.anew})


def _interrupted(attempt: Attempt) -> bool:
    """Whether to provide for a runner no longer."""
    heart = attempt.heart
    unwanted = heart.desired is not Desired.RUN or attempt.shop.stopping.is_set()
    return unwanted or heart.fenced or heart.given_up


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
    recorder = Recorder(heart, shop.store, backlog, assignment.resume)
    recorder.start()
    watch = Watch(runner, heart, backlog, recorder)
    kills = lifeline.oom_kills()
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
        out_of_memory=lifeline.oom_kills() > kills,
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
    return how


def _last_word(seen: Observed, heart: Heart, recorder: Recorder) -> Cut:
    """Why the attempt was cut, now that everything is in: a refused write outweighs what the runner said."""
    if heart.fenced:
        return Cut.FENCED
    if heart.given_up:
        return Cut.OUT_OF_TOUCH
    unstored = seen.ended is not None and seen.ended["outcome"] == "succeeded" and bool(recorder.missing)
    return Cut.UNRECORDED if recorder.failure is not None or unstored else seen.cut


def _conclude(attempt: Attempt, decision: Decision, seen: Observed, chunks: Sequence[Chunk]) -> None:
    """Exactly one transition, under the fence."""
    shop, fence, persist = attempt.shop, attempt.fence, attempt.heart.persist
    match decision:
        case Finish():
            ending = Ending(
                decision.status,
                decision.stop_reason,
                decision.error,
                decision.results,
                decision.progress,
            )
            persist(lambda: finish(shop.db, fence, ending, chunks))
            log.info("job %s attempt %d: %s", fence.job_id, fence.attempt, decision.status)
            if decision.error:
                log.warning("job %s: %s\n%s", fence.job_id, decision.error["message"], seen.stderr)
        case GiveBack():
            if decision.lost or decision.failed or decision.plan:
                persist(lambda: _note_death(attempt, decision, seen))
            _return(shop, attempt.heart, decision)
        case _:
            log.warning("job %s attempt %d is let go: %s", fence.job_id, fence.attempt, seen.cut)


def _return(shop: Shop, heart: Heart, back: GiveBack) -> None:
    """Give the job back."""
    fence, limit = heart.fence, shop.settings.max_losses
    status = heart.persist(partial(give_back, shop.db, fence, max_losses=limit, **vars(back)))
    log.info("job %s attempt %d: %s, now %s", fence.job_id, fence.attempt, back.cause, status)


def _note_death(attempt: Attempt, decision: GiveBack, seen: Observed) -> None:
    """What killed an attempt stays readable in the job's events."""
    code = "remedy" if decision.plan else "attempt_lost"
    death: dict[str, Any] = {"code": code, "message": decision.cause, "stderr": redact(seen.stderr[-2000:])}
    if seen.exit is not None:
        death |= {"exit_code": seen.exit.code, "signal": seen.exit.signal}
    record_events(attempt.shop.db, attempt.fence, "warning", [death])
