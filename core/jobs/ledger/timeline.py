"""Whether the status events of a job are a sequence that `core/lifecycle.py` allows. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final

from core.lifecycle import TRANSITIONS, Status

Step = tuple[int, str]  # attempt, the status that readers saw
_REQUESTS: Final = frozenset({"pausing", "cancelling"})


def timeline_problems(steps: Iterable[Step], status: str | None, attempt: int | None) -> Iterator[str]:
    """Every step that cannot follow the one before, and an end that is not the present status of the job.

    The attempt grows by one at each claim and only there. The claim of a job that cannot be read is recorded as its
    failure alone. While a job runs, requests are recorded too: pausing, cancelling, and running again where a pause was
    revoked.
    """
    now: Status | None = None
    number, pausing = 0, False
    for claimed, word in steps:
        if now is Status.RUNNING and claimed == number and (word in _REQUESTS or (word == "running" and pausing)):
            pausing = word == "pausing"
            continue
        if word not in set(Status):
            yield f"{word!r} is no status of a job that is {now} under attempt {number}"
            continue
        target = Status(word)
        if not _may_follow(now, target, claimed - number):
            yield f"{target} under attempt {claimed} cannot follow {now or 'nothing'} under attempt {number}"
        now, number, pausing = target, claimed, False
    if (now, number) != (status, attempt):
        yield f"it ends {now} under attempt {number}, but the job is {status} under attempt {attempt}"


def _may_follow(now: Status | None, target: Status, grown: int) -> bool:
    if now is None:
        return target is Status.QUEUED and grown == 0
    if now is Status.QUEUED and target in {Status.RUNNING, Status.FAILED}:
        return grown == 1
    return target in TRANSITIONS[now] and grown == 0
