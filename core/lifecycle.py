"""The states of a job, the one table of allowed transitions, and what each verb wants. Pure."""

from enum import StrEnum


class Status(StrEnum):
    """Where a job is. The database stores exactly these."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Desired(StrEnum):
    """What the owner wants of a job."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Verb(StrEnum):
    """What an owner can tell a job to do."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.PAUSED, Status.QUEUED},
    ),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

_VERBS = {Verb.CANCEL: Desired.CANCEL, Verb.PAUSE: Desired.PAUSE, Verb.RESUME: Desired.RUN}


class IllegalTransition(Exception):  # noqa: N818 - a bug in our own code, named after what it forbids
    """A job was about to change its status in a way the table does not allow."""


def check_transition(old: Status, new: Status) -> None:
    """Raise IllegalTransition unless the table allows old -> new."""
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(f"{old} -> {new}")


def desired_after(status: Status, desired: Desired, verb: Verb) -> Desired | None:
    """What `verb` makes of the owner's wish, or None when it makes no sense any more.

    Saying the same twice is the same; a cancel cannot be taken back; only a cancelled job takes a late cancel.
    """
    if status in TERMINAL:
        return Desired.CANCEL if (status, verb) == (Status.CANCELLED, Verb.CANCEL) else None
    if desired is Desired.CANCEL and verb is not Verb.CANCEL:
        return None
    return _VERBS[verb]


def settled_status(status: Status, desired: Desired) -> Status | None:
    """The status that a wish gives a job that nobody runs, or None when it is where it should be."""
    if status not in {Status.QUEUED, Status.PAUSED}:
        return None
    target = {Desired.RUN: Status.QUEUED, Desired.PAUSE: Status.PAUSED, Desired.CANCEL: Status.CANCELLED}[desired]
    return None if target is status else target


def displayed_status(status: Status, desired: Desired) -> str:
    """The status that users read: a wish that is still being carried out shows as pausing or cancelling."""
    if status in TERMINAL:
        return status.value
    if desired is Desired.CANCEL:
        return "cancelling"
    if desired is Desired.PAUSE and status is not Status.PAUSED:
        return "pausing"
    return status.value
