"""The end of an attempt in the database: exactly one transition, under its fence."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from core.jobs.finish import Ending, finish, give_back
from core.jobs.journal import record_events
from core.jobs.metrics import Chunk
from core.redact import redact
from worker.attempt import Attempt, Shop
from worker.heart import Heart
from worker.outcome import Decision, Finish, GiveBack, Observed

log = logging.getLogger(__name__)


def conclude(attempt: Attempt, decision: Decision, seen: Observed, chunks: Sequence[Chunk]) -> None:
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
            if decision.error and seen.stderr.strip():
                persist(lambda: _note_words(attempt, seen))
            persist(lambda: finish(shop.db, fence, ending, chunks))
            log.info("job %s attempt %d: %s", fence.job_id, fence.attempt, decision.status)
            if decision.error:
                log.warning("job %s: %s\n%s", fence.job_id, decision.error["message"], seen.stderr)
        case GiveBack():
            if decision.lost or decision.failed or decision.plan:
                persist(lambda: _note_death(attempt, decision, seen))
            if decision.rest:
                log.error("job %s: %s\n%s", fence.job_id, decision.cause, seen.stderr)
            return_job(shop, attempt.heart, decision)
        case _:
            log.warning("job %s attempt %d is let go: %s", fence.job_id, fence.attempt, seen.cut)


def return_job(shop: Shop, heart: Heart, back: GiveBack) -> None:
    """Give the job back."""
    fence, limit = heart.fence, shop.settings.max_losses
    facts = {name: value for name, value in vars(back).items() if name != "rest"}
    status = heart.persist(partial(give_back, shop.db, fence, max_losses=limit, **facts))
    log.info("job %s attempt %d: %s, now %s", fence.job_id, fence.attempt, back.cause, status)


def _note_words(attempt: Attempt, seen: Observed) -> None:
    """What the runner of a job that fails printed last, which its owner cannot read on the worker."""
    words = {"code": "attempt_failed", "message": "what it printed last", "stderr": redact(seen.stderr[-2000:])}
    record_events(attempt.shop.db, attempt.fence, "warning", [words])


def _note_death(attempt: Attempt, decision: GiveBack, seen: Observed) -> None:
    """What killed an attempt stays readable in the job's events."""
    code = "remedy" if decision.plan else "attempt_lost"
    death: dict[str, Any] = {"code": code, "message": decision.cause, "stderr": redact(seen.stderr[-2000:])}
    if seen.exit is not None:
        death |= {"exit_code": seen.exit.code, "signal": seen.exit.signal}
    record_events(attempt.shop.db, attempt.fence, "warning", [death])
